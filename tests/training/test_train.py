"""Training over the plan interface, and the command that does it."""

import json

import numpy as np
import pytest
from typer.testing import CliRunner

import twolayer as tl
from twolayer.checking import cases
from twolayer.cli import app
from twolayer.training import loop, optimizers
from twolayer.training.loop import Diverged, Training, train
from twolayer.training.optimizers import gradient_descent

NET = tl.Network("tanh", "squared")


def make_plan(net=NET, variant="numpy"):
    _, net, X, Y, theta = cases.problem(net, tl.Shape(50, 3, 8, 2), "float64")
    return tl.variants.get(variant).plan(net, X, Y, theta, 1)


def same(theta, other):
    return all((a == b).all() for a, b in zip(theta, other, strict=True))


def test_epochs_are_steps_of_gradient_descent(variant):
    plan, by_hand = make_plan(variant=variant.name), make_plan(variant=variant.name)
    history = list(train(plan, gradient_descent(0.05), 7))
    assert [epoch.number for epoch in history] == [*range(1, 8)]
    assert [epoch.loss for epoch in history] == [by_hand.step(0.05) for _ in range(7)]
    assert same(plan.theta, by_hand.theta)
    assert history[-1].loss < history[0].loss


def test_a_caller_may_stop_and_go_on():
    plan, whole = make_plan(), make_plan()
    descent = train(plan, gradient_descent(0.05), 100)
    first = [next(descent) for _ in range(3)]
    descent.close()
    rest = list(train(plan, gradient_descent(0.05), 2))
    losses = [epoch.loss for epoch in (*first, *rest)]
    assert losses == [epoch.loss for epoch in train(whole, gradient_descent(0.05), 5)]
    assert same(plan.theta, whole.theta)


def test_an_epoch_takes_each_row_once_in_a_new_order():
    plan, seen = make_plan(), []
    updates = plan.updates

    def recorded(formula, scalars, rows):
        seen.extend(slice(*run) for run in rows.tolist())
        return updates(formula, scalars, rows)

    plan.updates = recorded
    training = Training(plan, optimizers.sgd(), batch=12, seed=3)
    for _ in range(3):
        training.epoch()
    orders = [seen[i : i + 5] for i in (0, 5, 10)]
    for order in orders:
        taken = np.concatenate([np.arange(50)[rows] for rows in order])
        assert sorted(taken) == [*range(50)]
        assert sorted(len(np.arange(50)[rows]) for rows in order) == [2, 12, 12, 12, 12]
    assert orders[0] != orders[1] != orders[2]


def test_the_loss_of_batches_is_the_mean_over_rows():
    plan, other = make_plan(), make_plan()
    training = Training(plan, optimizers.sgd(1e-12), batch=12)
    assert training.epoch().loss == pytest.approx(other.gradient()[0], rel=1e-9)


@pytest.mark.parametrize("name", optimizers.names())
def test_updates_of_one_call_are_those_of_several(variant, name, monkeypatch):
    """Of an epoch's five, the shorter last batch among them."""

    def trained(together):
        monkeypatch.setattr(loop, "_TOGETHER", together)
        training = Training(make_plan(variant=variant.name), optimizers.get(name)(), 12)
        return [training.epoch().loss for _ in range(3)], training.theta

    (losses, theta), (one_by_one, expected) = trained(3), trained(1)
    assert losses == one_by_one
    assert same(theta, expected)


def validated(patience_after):
    """A validation loss that is lowest after so many epochs."""
    calls = iter(range(1, 1000))
    return lambda theta: abs(next(calls) - patience_after) + 1.0


def test_validation_keeps_the_best_and_stops():
    training = Training(make_plan(), gradient_descent(), validate=validated(4))
    thetas = []
    while not training.stalled(3):
        training.epoch()
        thetas.append(training.plan.theta)
    assert len(training.history) == 7
    assert training.best.epoch == 4
    assert training.best.loss == training.history[3].validation == 1
    assert same(training.theta, thetas[3])


def test_without_validation_the_last_parameters_are_kept():
    training = Training(make_plan(), gradient_descent())
    for _ in range(3):
        training.epoch()
    assert same(training.theta, training.plan.theta)
    assert training.best.epoch == 2
    assert not training.stalled(None)


@pytest.mark.parametrize("batch", [None, 7])
@pytest.mark.parametrize("name", optimizers.names())
def test_a_training_goes_on_from_its_state(name, batch):
    def make():
        return Training(make_plan(), optimizers.get(name)(), batch, 5, validated(2))

    whole, first, second = make(), make(), make()
    for _ in range(6):
        whole.epoch()
    for _ in range(3):
        first.epoch()
        second.validate(None)  # the calls that it would have made
    second.restore(first.state())
    for _ in range(3):
        second.epoch()
    assert second.history == whole.history
    for mine, other in zip(second.state().values(), whole.state().values(), strict=True):
        np.testing.assert_array_equal(mine, other)


@pytest.mark.parametrize("step", [1e2, 1e30, 1e200])
@pytest.mark.parametrize("activation", ["relu", "identity", "softplus"])
def test_divergence_keeps_the_last_finite_parameters(variant, activation, step):
    plan = make_plan(tl.Network(activation, "squared"), variant.name)
    history = []
    expected = r"^training stopped in epoch \d+, where (the loss was (inf|nan)|the parameters were)"
    with pytest.raises(Diverged, match=expected):
        history.extend(train(plan, gradient_descent(step), 10_000))
    assert all(np.isfinite(epoch.loss) for epoch in history)
    assert all(np.isfinite(array).all() for array in plan.theta)
    assert np.isfinite(plan.gradient()[0])


def steps_with(plan, losses, move):
    """Let the plan's steps move θ and return those losses."""
    losses = iter(losses)

    def step(mu):
        move(plan)
        return next(losses)

    plan.step = step


def test_parameters_that_overflow_behind_a_finite_loss_are_noticed():
    plan = make_plan(tl.Network("tanh", "squared"))
    start = plan.theta

    def move(plan):
        plan.weights.theta.V[0, 0] = np.inf  # tanh hides it from the loss

    steps_with(plan, [1.0], move)
    with pytest.raises(Diverged, match="epoch 1, where the parameters were not finite"):
        list(train(plan, gradient_descent(), 5))
    assert same(plan.theta, start)


def test_divergence_gives_back_the_best_parameters():
    plan = make_plan()
    seen = [plan.theta]

    def move(plan):
        plan.theta = tl.Parameters(plan.theta.V + 1, plan.theta.W)
        seen.append(plan.theta)

    steps_with(plan, [3.0, 2.0, 5.0, np.inf], move)
    training = Training(plan, gradient_descent())
    for _ in range(3):
        training.epoch()
    with pytest.raises(Diverged, match=r"epoch 4, where the loss was inf: .*those after epoch 1"):
        training.epoch()
    assert same(plan.theta, seen[1])  # at seen[1] the loss was 2
    assert same(training.theta, seen[1])


@pytest.mark.parametrize(
    ("options", "kind", "message"),
    [
        ({"epochs": 0}, ValueError, "epochs: expected a positive integer, got 0"),
        ({"epochs": 1.5}, TypeError, "epochs: expected a positive integer, got 1.5"),
        ({"batch": 0}, ValueError, "batch: expected a positive integer, got 0"),
    ],
)
def test_wrong_arguments(options, kind, message):
    with pytest.raises(kind, match=f"^{message}"):
        train(make_plan(), gradient_descent(), **{"epochs": 3} | options)


@pytest.mark.parametrize(
    ("loss", "F", "Y", "expected"),
    [
        ("squared", [[1.0], [2], [3]], [[1], [2], [3]], ("R²", 1.0)),
        ("squared", [[2.0], [2], [2]], [1, 2, 3], ("R²", 0.0)),
        ("squared", [[1.0, 0], [2, 0]], [[1, 1], [3, -1]], ("R²", 0.25)),
        ("squared", [[1.0], [1]], [1, 1], ("R²", 1.0)),
        ("squared", [[1.0], [2]], [1, 1], ("R²", 0.0)),
        ("squared_logistic", [[0.5], [0.5]], [0, 1], ("R²", 0.0)),
        ("softmax", [[0.2, 0.8], [0.9, 0.1], [0.6, 0.4]], [1, 0, 1], ("accuracy", 2 / 3)),
        ("softmax", [[0.2, 0.8], [0.9, 0.1]], [[0, 1], [0, 1]], ("accuracy", 0.5)),
        ("logistic", [[0.7], [0.2], [0.6], [0.1]], [1, -1, -1, -1], ("accuracy", 0.75)),
    ],
)
def test_scores(loss, F, Y, expected):
    assert tl.Network(loss=loss).objective.score(F, Y) == (expected[0], pytest.approx(expected[1]))


# The command


def twolayer(*arguments):
    return CliRunner().invoke(app, ["train", *map(str, arguments)])


@pytest.fixture
def data(tmp_path):
    """An .npz, a .csv and a pair of .npy files of one problem with three classes."""
    random = np.random.default_rng(0)
    labels = random.integers(0, 3, 90)
    X = np.eye(3)[labels] + 0.1 * random.standard_normal((90, 3))
    np.savez(tmp_path / "a.npz", X=X, Y=labels)
    np.savetxt(tmp_path / "a.csv", np.column_stack([X, labels]), delimiter=",", fmt="%.17g")
    np.save(tmp_path / "X.npy", X)
    np.save(tmp_path / "Y.npy", labels)
    return tmp_path


@pytest.mark.parametrize(
    ("name", "kind", "least"),
    [
        ("digits", "accuracy", 0.8),
        ("breast_cancer", "accuracy", 0.9),
        ("diabetes", "R²", 0.3),
        ("linnerud", "R²", 0.05),
    ],
)
def test_data_sets(name, kind, least, tmp_path):
    pytest.importorskip("sklearn")
    path = tmp_path / "figures.json"
    result = twolayer(name, "--json", path, "--epochs", 150, "--step", 0.05)
    assert result.exit_code == 0, result.output
    report = json.loads(path.read_text())
    assert report["score"][kind] > least
    assert f"{kind} {report['score'][kind]:.4f}" in result.stdout
    assert f"loss {report['final_loss']:.6g} after 150 epochs" in result.stdout
    assert len(report["history"]) == report["epochs"] == 150
    assert report["final_loss"] < report["history"][-1] < report["history"][0]
    assert report["stopped"] is None


def test_files_of_ones_own(data):
    options = ["--loss", "softmax", "--epochs", 60, "--step", 0.5, "--M", 8]
    outputs = [
        twolayer(*source, *options)
        for source in (
            ["--X", data / "X.npy", "--Y", data / "Y.npy"],
            [data / "a.csv"],
            [data / "a.npz"],
        )
    ]
    assert [result.exit_code for result in outputs] == [0, 0, 0], outputs[0].output
    assert outputs[0].stdout == outputs[1].stdout == outputs[2].stdout
    assert "n=90 d=3 M=8 K=3" in outputs[0].stdout
    assert "accuracy 1.0000" in outputs[0].stdout


@pytest.mark.parametrize("variant", ["numpy", "numba-loops"])
def test_what_is_saved_is_what_was_trained(data, variant):
    options = ["--variant", variant, "--dtype", "float64", "--loss", "softmax", "--epochs", 20]
    saved, figures = data / "net.npz", data / "figures.json"
    result = twolayer(data / "a.npz", *options, "--save", saved, "--json", figures)
    assert result.exit_code == 0, result.output
    with np.load(saved) as archive:
        net = tl.Network(str(archive["activation"]), str(archive["loss"]))
        theta = tl.Parameters(archive["V"], archive["W"])
    with np.load(data / "a.npz") as archive:
        X, Y = archive["X"], archive["Y"]
    loss = tl.loss_and_gradient(net, theta, X, Y)[0]
    assert loss == pytest.approx(json.loads(figures.read_text())["final_loss"], rel=1e-12)
    assert sorted(path.name for path in data.iterdir() if path.name.startswith(".")) == []


def test_divergence_is_said_and_what_was_finite_is_kept(data):
    saved, figures = data / "net.npz", data / "figures.json"
    options = ["--activation", "relu", "--step", 1e4, "--save", saved, "--json", figures]
    result = twolayer(data / "a.npz", *options)
    assert result.exit_code == 1
    assert "training stopped in epoch" in result.stderr
    report = json.loads(figures.read_text())
    assert report["stopped"] == "diverged"
    assert np.isfinite(report["final_loss"])
    with np.load(saved) as archive:
        assert np.isfinite(archive["V"]).all()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "data: expected either a data set or file, or both --X and --Y"),
        (["digits", "--X", "X.npy", "--Y", "Y.npy"], "data: expected either"),
        (["--X", "X.npy"], "data: expected either"),
        (["iris"], "data set: expected one of diabetes"),
        (["no.csv"], "no.csv: expected a file, got nothing of that name"),
        (["a.npz", "--variant", "fortran"], "variant: expected one of python-loops"),
        (["a.npz", "--loss", "hinge"], "loss: expected one of squared"),
        (["a.npz", "--loss", "logistic"], "Y: expected labels of +1 or -1, got "),
        (["a.npz", "--dtype", "int8"], "dtype: expected dtype float32 or float64, got int8"),
        (["a.npz", "--M", "0"], "M: expected a positive integer, got 0"),
        (["a.npz", "--step", "nan"], "step: expected a positive number, got nan"),
        (["a.npz", "--step", "1e300"], "mu: expected a finite number that float32 can hold"),
        (["a.npz", "--optimizer", "lion"], "optimizer: expected one of gd, nesterov"),
        (["a.npz", "--rule", "1/n"], "rule: expected one of constant, 1/k"),
        (["a.npz", "--batch", "0"], "batch: expected a positive integer, got 0"),
        (["a.npz", "--patience", "3"], "patience: expected --validation beside it, got none"),
        (["a.npz", "--resume"], "resume: expected --checkpoint beside it, got none"),
        (["a.npz", "--validation", "1"], "validation: expected a file, or a share of the 90 rows"),
        (["a.npz", "--validation", "no.npz"], "no.npz: expected a file, got nothing of that name"),
        (
            ["a.npz", "--checkpoint", "c.txt"],
            "checkpoint: expected a file ending in .npz, got 'c.t",
        ),
        (["a.npz", "--plot", "p.pdf"], "plot: expected a file ending in .svg or .png, got 'p.pdf"),
        (
            ["a.npz", "--save", "c.npz", "--checkpoint", "c.npz"],
            "checkpoint: expected a file of its own, got",
        ),
        (["a.npz", "--epochs", "0"], "epochs: expected a positive integer, got 0"),
        (["a.npz", "--threads", "0"], "threads: expected a positive integer, got 0"),
        (["a.csv", "--target", "4"], "a.csv: expected columns of inputs and 4 of targets, got 4"),
        (["a.npz", "--save", "net.txt"], "save: expected a file ending in .npz, got 'net.txt'"),
        (["a.npz", "--json", "no/f.json"], "json: expected a file in an existing folder"),
    ],
)
def test_refusals_are_one_sentence(data, monkeypatch, arguments, message):
    monkeypatch.chdir(data)
    result = twolayer(*arguments)
    assert result.exit_code == 2
    assert result.stdout == ""
    assert result.stderr.startswith(message)
    assert result.stderr.count("\n") == 1


def test_ctrl_c_shows_the_network_so_far(data, monkeypatch):
    step, calls = tl.Plan.step, []

    def interrupted(plan, mu):
        calls.append(mu)
        if len(calls) == 5:
            raise KeyboardInterrupt
        return step(plan, mu)

    monkeypatch.setattr(tl.Plan, "step", interrupted)
    result = twolayer(data / "a.npz", "--loss", "softmax")
    assert result.exit_code == 130
    assert "after 4 epochs" in result.stdout
    assert "interrupted" in result.stderr

"""Training over the plan interface, and the command that does it."""

import json

import numpy as np
import pytest
from typer.testing import CliRunner

import twolayer as tl
from twolayer import cases
from twolayer.cli import app
from twolayer.train import Diverged, Epoch, gradient_descent, score, train

NET = tl.Network("tanh", "squared")


def make_plan(net=NET, variant="numpy"):
    _, net, X, Y, theta = cases.problem(net, tl.Shape(50, 3, 8, 2), "float64")
    return tl.variants.get(variant).plan(net, X, Y, theta, 1)


def same(theta, other):
    return all((a == b).all() for a, b in zip(theta, other, strict=True))


def test_epochs_are_steps_of_gradient_descent(variant):
    plan, by_hand = make_plan(variant=variant.name), make_plan(variant=variant.name)
    history = list(gradient_descent(plan, 0.05, 7))
    assert history == [Epoch(number, by_hand.step(0.05)) for number in range(1, 8)]
    assert same(plan.theta, by_hand.theta)
    assert history[-1].loss < history[0].loss


def test_a_caller_may_stop_and_go_on():
    plan, whole = make_plan(), make_plan()
    descent = gradient_descent(plan, 0.05, 100)
    first = [next(descent) for _ in range(3)]
    descent.close()
    rest = list(gradient_descent(plan, 0.05, 2))
    losses = [epoch.loss for epoch in (*first, *rest)]
    assert losses == [epoch.loss for epoch in gradient_descent(whole, 0.05, 5)]
    assert same(plan.theta, whole.theta)


def test_another_optimizer_can_be_put_in():
    """Momentum, as a function that makes one epoch."""
    plan = make_plan()
    velocity = [np.zeros_like(array) for array in plan.theta]

    def advance():
        loss, gradient = plan.gradient()
        velocity[:] = [0.9 * v - 0.01 * g for v, g in zip(velocity, gradient, strict=True)]
        moved = (w + v for w, v in zip(plan.theta, velocity, strict=True))
        plan.theta = tl.Parameters(*moved)
        return loss

    history = list(train(plan, advance, 60))
    *_, plain = gradient_descent(make_plan(), 0.01, 60)
    assert history[-1].loss < plain.loss


@pytest.mark.parametrize("step", [1e2, 1e30, 1e200])
@pytest.mark.parametrize("activation", ["relu", "identity", "softplus"])
def test_divergence_keeps_the_last_finite_parameters(variant, activation, step):
    plan = make_plan(tl.Network(activation, "squared"), variant.name)
    history = []
    expected = r"^training stopped in epoch \d+, where (the loss was (inf|nan)|the parameters were)"
    with pytest.raises(Diverged, match=expected):
        history.extend(gradient_descent(plan, step, 10_000))
    assert all(np.isfinite(epoch.loss) for epoch in history)
    assert all(np.isfinite(array).all() for array in plan.theta)
    assert np.isfinite(plan.gradient()[0])


def test_parameters_that_overflow_behind_a_finite_loss_are_noticed():
    plan = make_plan(tl.Network("tanh", "squared"))
    start = plan.theta

    def advance():
        plan.V[0, 0] = np.inf  # tanh hides it from the loss
        return 1.0

    with pytest.raises(Diverged, match="epoch 1, where the parameters were not finite"):
        list(train(plan, advance, 5))
    assert same(plan.theta, start)


def test_an_infinite_loss_gives_back_the_parameters_before_it():
    plan = make_plan()
    start = plan.theta
    losses = iter([3.0, 2.0, np.inf])
    seen = [start]

    def advance():
        plan.theta = tl.Parameters(plan.theta.V + 1, plan.theta.W)
        seen.append(plan.theta)
        return next(losses)

    with pytest.raises(Diverged, match="epoch 3, where the loss was inf"):
        list(train(plan, advance, 5))
    assert same(plan.theta, seen[1])  # at seen[1] the loss was 2


@pytest.mark.parametrize(
    ("step", "epochs", "kind", "message"),
    [
        (np.nan, 3, ValueError, "mu: expected a finite number"),
        (0.1, 0, ValueError, "epochs: expected a positive integer, got 0"),
        (0.1, 1.5, TypeError, "epochs: expected a positive integer, got 1.5"),
    ],
)
def test_wrong_arguments(step, epochs, kind, message):
    with pytest.raises(kind, match=f"^{message}"):
        list(gradient_descent(make_plan(), step, epochs))


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
    assert score(tl.Network(loss=loss), F, Y) == (expected[0], pytest.approx(expected[1]))


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
        (["a.npz", "--step", "nan"], "mu: expected a finite number"),
        (["a.npz", "--epochs", "0"], "epochs: expected a positive integer, got 0"),
        (["a.npz", "--threads", "0"], "threads: expected a positive integer, got 0"),
        (["a.csv", "--target", "4"], "a.csv: expected columns of inputs and 4 of targets, got 4"),
        (["a.npz", "--save", "net.txt"], "save: expected a file named .npz, got 'net.txt'"),
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

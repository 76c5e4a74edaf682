"""Choosing with models that nobody measured: no test here looks at a clock."""

import dataclasses
import json

import numpy as np
import pytest
from made_up import make_up_models
from typer.testing import CliRunner

import twolayer as tl
from twolayer import choosing
from twolayer.checking import cases
from twolayer.choosing import calibrate, decide, known
from twolayer.choosing.choice import Candidate, Choice, break_even
from twolayer.choosing.model import Model, Question
from twolayer.cli import app
from twolayer.machine import hardware
from twolayer.machine.store import Store
from twolayer.measuring import startup
from twolayer.measuring.timing import Quartiles

NET = tl.Network("tanh", "squared")
SMALL, LARGE = {"n": 5, "d": 3, "M": 4, "K": 2}, {"n": 3000, "d": 3, "M": 4, "K": 2}


@pytest.fixture
def store(tmp_path, monkeypatch):
    """A store of made-up models for one test, which TWOLAYER_STORE names."""
    path = tmp_path / "store.sqlite"
    monkeypatch.setenv("TWOLAYER_STORE", str(path))
    with Store(path) as made:
        make_up_models(made)
        yield made


@pytest.fixture
def no_measurement(monkeypatch):
    def refuse(*arguments):
        raise AssertionError("nothing was to be measured")

    monkeypatch.setattr(calibrate, "_time", refuse)
    monkeypatch.setattr(decide, "_race", refuse)
    monkeypatch.setattr(startup, "start", refuse)


def candidate(name, seconds, before):
    return Candidate(name, seconds, (seconds, seconds), False, 0, before, {})


@pytest.mark.parametrize(
    ("lines", "expected"),
    [
        ([("a", 1.0, 0.0)], [(1, "a")]),
        ([("a", 1.0, 0.0), ("b", 0.5, 2.0)], [(1, "a"), (5, "b")]),
        ([("a", 1.0, 0.0), ("b", 0.5, 9.0), ("c", 0.25, 3.0)], [(1, "a"), (5, "c")]),
        ([("a", 4.0, 0.0), ("b", 2.0, 4.0), ("c", 1.0, 14.0)], [(1, "a"), (3, "b"), (11, "c")]),
        ([("a", 1.0, 1.0), ("b", 0.5, 0.0)], [(1, "b")]),
    ],
)
def test_break_even(lines, expected):
    made = [candidate(*line) for line in lines]
    found = break_even(made)
    assert [*found] == expected
    for epochs, name in found:
        assert min(made, key=lambda c: c.total(epochs)).variant == name
        if epochs > 1:
            assert min(made, key=lambda c: c.total(epochs - 1)).variant != name


@pytest.mark.usefixtures("store", "no_measurement")
def test_the_least_prediction_is_chosen():
    few, many = tl.choose(NET, **SMALL), tl.choose(NET, **LARGE)
    assert (few.variant, many.variant) == ("numba-loops", "numba-fused")
    assert few.seconds_per_epoch == pytest.approx(6e-6)
    assert few.interval[0] <= few.seconds_per_epoch <= few.interval[1]
    assert few.reason.startswith("numba-loops is predicted to take the least time for an epoch")
    assert many.runners_up[0].variant == "numpy"
    assert {"torch", "jax", "auto"}.isdisjoint(c.variant for c in few.runners_up)
    assert few.memory > sum(few.chosen.terms.values()) > 0


@pytest.mark.usefixtures("store")
def test_the_second_answer_comes_from_the_store(monkeypatch):
    first_answer = tl.choose(NET, **LARGE)
    monkeypatch.setattr(decide, "choose", None)
    assert tl.choose(NET, **LARGE) == first_answer
    choosing._answers.clear()  # as in another process
    again = tl.choose(NET, **LARGE)
    assert again == first_answer
    assert Choice.from_json(json.loads(json.dumps(again.to_json()))) == again


@pytest.mark.usefixtures("no_measurement")
def test_a_variant_that_failed_in_the_calibration_is_never_chosen(store):
    make_up_models(store, {"numba-fused": "disagrees with the oracle: dL/dV"})
    choice = tl.choose(NET, **LARGE)
    assert choice.variant == "numpy"
    assert dict(choice.ruled_out)["numba-fused"] == "disagrees with the oracle: dL/dV"


@pytest.mark.usefixtures("store", "no_measurement")
def test_a_variant_that_disagrees_on_this_network_is_never_chosen(monkeypatch):
    fused = tl.variants.get("numba-fused")

    class Wrong(fused.make):
        def update(self, X, Y, weights, update, scalars):
            return super().update(X, Y, weights, update, [1.001 * mu for mu in scalars])

    wrong = tl.Variant("numba-fused", "cpu", "", Wrong, fused.workspace)
    monkeypatch.setitem(tl.variants.REGISTRY._entries, "numba-fused", wrong)
    monkeypatch.setattr(calibrate, "source", lambda variant: "")
    choice = tl.choose(NET, **LARGE)
    assert choice.variant == "numpy"
    assert dict(choice.ruled_out)["numba-fused"].startswith("disagrees with the oracle: ")


@pytest.mark.usefixtures("store", "no_measurement")
def test_memory_rules_out():
    shape = {"n": 100_000, "d": 3, "M": 400, "K": 2}
    assert "numpy" in [c.variant for c in tl.choose(NET, **shape).runners_up]
    limited = tl.choose(NET, **shape, max_memory=64 << 20)
    assert limited.memory < 64 << 20
    assert dict(limited.ruled_out)["numpy"] == "needs 308 MiB of memory, 64 MiB are allowed"
    with pytest.raises(MemoryError, match="numpy needs 308 MiB of memory, 1 MiB are allowed"):
        tl.choose(NET, **shape, max_memory=1 << 20)


@pytest.mark.usefixtures("store", "no_measurement")
def test_what_free_memory_ruled_out_is_asked_again(monkeypatch):
    shape = {"n": 100_000, "d": 3, "M": 400, "K": 2}
    with monkeypatch.context() as patch:
        patch.setattr(decide, "available_memory", lambda: 64 << 20)
        assert "numpy" in dict(tl.choose(NET, **shape).ruled_out)
    assert "numpy" not in dict(tl.choose(NET, **shape).ruled_out)


@pytest.mark.usefixtures("store", "no_measurement")
def test_named_variants_are_the_only_candidates():
    choice = tl.choose(NET, **LARGE, variants=["numpy", "numba-loops"])
    assert choice.variant == "numpy"
    assert [c.variant for c in choice.runners_up] == ["numba-loops"]
    with pytest.raises(RuntimeError, match=r"no variant is left .* numpy runs on cpu"):
        tl.choose(NET, **LARGE, variants=["numpy"], device="cuda")


@pytest.mark.usefixtures("no_measurement")
def test_a_variant_that_runs_elsewhere_too_is_looked_at_there(store, monkeypatch):
    numpy = tl.variants.get("numpy")
    other = dataclasses.replace(numpy, device="cuda")
    both = dataclasses.replace(numpy, elsewhere=(other,))
    monkeypatch.setitem(tl.variants.REGISTRY._entries, "numpy", both)
    entry = {
        "source": "", "failure": "", "samples": 36, "coefficients": {"overhead": 3e-4},
        "spread": 0.0, "setup": [0, 0],
    }  # fmt: skip
    about = {"variant": "numpy", "device": "cuda", "dtype": "float32"}
    for threads in range(1, hardware.cpu_count() + 1):
        known.keep(store, known.MODEL, entry, threads=threads, **about)
    there = tl.choose(NET, **SMALL, device="cuda", variants=["numpy", "numba-loops"])
    assert (there.variant, there.seconds_per_epoch) == ("numpy", 3e-4)
    assert dict(there.ruled_out)["numba-loops"] == "runs on cpu"
    here = tl.choose(NET, **SMALL, variants=["numpy"])
    assert here.seconds_per_epoch != there.seconds_per_epoch


@pytest.mark.usefixtures("store", "no_measurement")
def test_only_what_is_reproducible_is_deterministic(monkeypatch):
    fused = tl.variants.get("numba-fused")
    loose = tl.Variant("numba-fused", "cpu", "", fused.make, fused.workspace, reproducible=False)
    monkeypatch.setitem(tl.variants.REGISTRY._entries, "numba-fused", loose)
    assert tl.choose(NET, **LARGE).variant == "numba-fused"
    choice = tl.choose(NET, **LARGE, deterministic=True)
    assert choice.variant == "numpy"
    assert dict(choice.ruled_out)["numba-fused"] == "does not return the same bits each time"


@pytest.mark.usefixtures("no_measurement")
def test_few_epochs_reverse_the_answer(store):
    known.keep(store, known.START, {"cold": 0.0, "cached": 0.0}, variant="numpy", device="cpu")
    many = {"n": 100_000, "d": 3, "M": 4, "K": 2}  # 0.01 s with numba-fused, 0.05 s with numpy
    few = tl.choose(NET, **many, epochs=2)
    assert few.variant == "numpy"
    assert few.break_even[0] == (1, "numpy")
    ((turn, variant),) = few.break_even[1:]
    assert variant == "numba-fused"
    assert tl.choose(NET, **many, epochs=turn).variant == "numba-fused"
    assert tl.choose(NET, **many, epochs=turn - 1).variant == "numpy"
    assert tl.choose(NET, **many, epochs=turn, cold=True).variant == "numpy"
    assert few.total_seconds == pytest.approx(few.chosen.before + 2 * few.seconds_per_epoch)


@pytest.mark.parametrize(("first_time", "expected"), [(1.0, "numpy"), (3.0, "numba-fused")])
def test_a_measurement_decides_where_the_models_cannot(store, monkeypatch, first_time, expected):
    for name, overhead in (("numba-fused", 1.0), ("numpy", 1.1)):
        entry = {
            "source": "", "failure": "", "samples": 36, "coefficients": {"overhead": overhead},
            "spread": 0.2, "setup": [0, 0],
        }  # fmt: skip
        about = {"variant": name, "device": "cpu", "dtype": "float32", "threads": 1}
        known.keep(store, known.MODEL, entry, **about)
    asked = []

    def race(net, q, field):
        asked.append((q, [variant.name for variant in field]))
        times = {"numpy": first_time, "numba-fused": 2.0}
        return {variant.name: Quartiles(*[times[variant.name]] * 3) for variant in field}

    monkeypatch.setattr(decide, "_race", race)
    choice = tl.choose(NET, **LARGE, threads=1, variants=["numba-fused", "numpy"])
    ((q, field),) = asked
    assert field == ["numba-fused", "numpy"]
    assert q.n == int(3000 * decide._LONGEST)  # an epoch is predicted to take 1 s
    assert choice.variant == expected
    assert choice.chosen.measured
    low, high = choice.interval
    assert low < choice.seconds_per_epoch < high


@pytest.mark.usefixtures("store")
def test_a_prediction_is_not_chosen_over_a_measurement_that_took_longer(monkeypatch):
    """The shortlist may turn out slower than the first that is not on it."""
    monkeypatch.setattr(decide, "_CONTENDERS", 2)
    times = {"numba-fused": 9.0, "numpy": 8.0, "numba-loops": 5.0}
    q = Question("tanh", "squared", 3000, 3, 4, 2, "float32", 1)
    models = {}
    for name, seconds in (("numba-fused", 1.0), ("numpy", 1.1), ("numba-loops", 1.2)):
        model = Model(name, "float32", 1, {"overhead": seconds}, 0.5, (0.0, 0.0), 36)
        models[name] = (tl.variants.get(name), model)
    rounds = []

    def race(net, part, field):
        rounds.append([variant.name for variant in field])
        return {variant.name: Quartiles(*[times[variant.name]] * 3) for variant in field}

    monkeypatch.setattr(decide, "_race", race)
    candidates = [
        Candidate(name, m.seconds(q), (0.6 * m.seconds(q), 1.7 * m.seconds(q)), False, 0, 0.0, {})
        for name, (_, m) in models.items()
    ]
    found = decide._measure(NET, q, models, candidates, {})
    assert rounds == [["numba-fused", "numpy"], ["numba-loops"]]
    assert min(found, key=lambda c: c.seconds).variant == "numba-loops"
    assert all(c.measured for c in found)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"n": 0}, "n: expected a positive integer, got 0"),
        ({"K": 1.5}, "K: expected a positive integer, got 1.5"),
        ({"dtype": "float16"}, "dtype: expected dtype float32 or float64, got float16"),
        ({"device": "tpu"}, "device: expected one of cpu, cuda, cluster, got 'tpu'"),
        ({"epochs": 0}, "epochs: expected a positive integer, got 0"),
        ({"max_memory": -1}, "max_memory: expected a positive integer, got -1"),
        ({"threads": 0}, "threads: expected a positive integer, got 0"),
        ({"variants": ["numpyy"]}, "variant: expected one of python-loops, .*, got 'numpyy'"),
    ],
)
@pytest.mark.usefixtures("store", "no_measurement")
def test_bad_arguments(change, message):
    with pytest.raises((ValueError, TypeError), match=f"^{message}$"):
        tl.choose(NET, **{**LARGE, **change})


def test_a_loss_with_one_output_is_held_to_it(store):
    with pytest.raises(ValueError, match="K: the logistic loss has one output"):
        tl.choose(tl.Network("tanh", "logistic"), **LARGE)


def plan_of_auto(n, dtype="float32"):
    case = cases.problem(NET, tl.Shape(n, 3, 4, 2), dtype)
    return case, tl.variants.get("auto").plan(*case[1:])


@pytest.mark.usefixtures("store", "no_measurement")
def test_auto_is_the_chosen_variant_and_says_which():
    for n, name in ((5, "numba-loops"), (3000, "numba-fused")):
        case, plan = plan_of_auto(n)
        assert plan.variant == name
        own = tl.variants.get(name).plan(*case[1:])
        assert type(plan) is type(own)
        assert plan.step(0.1) == own.step(0.1)
        assert np.array_equal(plan.theta.V, own.theta.V)
    assert "auto" not in [c.variant for c in tl.choose(NET, **SMALL).runners_up]


@pytest.mark.usefixtures("store", "no_measurement")
@pytest.mark.parametrize("streamed", [False, True])
def test_training_with_auto_is_training_with_the_chosen_variant(tmp_path, streamed):
    case = cases.problem(NET, tl.Shape(3000, 3, 4, 2), "float32")
    files = []
    for name, array in (("X", case[2]), ("Y", case[3])):
        np.save(tmp_path / f"{name}.npy", array)
        files += [f"--{name}", str(tmp_path / f"{name}.npy")]
    sizes = ["--M", "4", "--dtype", "float32", "--epochs", "3", *(["--stream"] if streamed else [])]
    said = [
        CliRunner().invoke(app, ["train", *files, *sizes, "--variant", variant])
        for variant in ("auto", "numba-fused")
    ]
    assert said[0].exit_code == 0, said[0].output
    assert said[0].stdout == said[1].stdout
    assert said[0].stdout.startswith("numba-fused on n=3000 ")


# The command


def run(*arguments):
    return CliRunner().invoke(app, ["choose", *map(str, arguments)])


SIZES = ("--n", 3000, "--d", 3, "--M", 4, "--K", 2)


@pytest.mark.usefixtures("store", "no_measurement")
def test_the_command_says_which_and_why(tmp_path):
    path = tmp_path / "choice.json"
    result = run(*SIZES, "--epochs", 10, "--explain", "--json", path)
    assert result.exit_code == 0, result.output
    lines = result.output.splitlines()
    report = json.loads(path.read_text())
    assert lines[0] == report["variant"]
    assert "10 epochs take" in result.output
    assert "ruled out: " in result.output
    assert "term of the model" in result.output
    assert len(report["runners_up"]) + len(report["ruled_out"]) >= 6
    assert report["epochs"] == 10


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--activation", "tanhh"), "activation: expected one of identity, "),
        (("--max-memory", "much"), "max-memory: expected bytes, as in 500M or 2G, got 'much'"),
        (("--threads", 0), "threads: expected a positive integer, got 0"),
        (("--device", "tpu"), "device: expected one of cpu, cuda, cluster, got 'tpu'"),
        (("--json", "/no/such/folder/x"), "json: expected a file in an existing folder"),
    ],
)
@pytest.mark.usefixtures("store", "no_measurement")
def test_bad_options_are_one_sentence(arguments, message):
    result = run(*SIZES, *arguments)
    assert result.exit_code == 2
    assert result.stderr.startswith(message)
    assert "Traceback" not in result.output


@pytest.mark.usefixtures("store")
def test_an_answer_from_the_store_imports_no_compiler(run_python, store):
    assert run(*SIZES).exit_code == 0
    code = (
        "import sys\n"
        "from twolayer.cli import app\n"
        f"app({['choose', *map(str, SIZES)]!r}, standalone_mode=False)\n"
        "heavy = 'numpy numba scipy torch jax dask matplotlib'.split()\n"
        "print(*[name for name in heavy if name in sys.modules], file=sys.stderr)\n"
        "assert not any(name in sys.modules for name in heavy)\n"
    )
    assert run_python(code).startswith("numba-fused\n")

"""The calibration of the cost models, with made-up times: no test here looks at a clock."""

import logging
import math
import random

import numpy as np
import pytest
from made_up import make_up_models
from typer.testing import CliRunner

import twolayer as tl
from twolayer.checking.answers import Answers
from twolayer.choosing import calibrate, decide, known
from twolayer.choosing.model import Sample, fit, terms
from twolayer.cli import app
from twolayer.kernels.formulas.activations import ACTIVATIONS
from twolayer.machine.store import Store
from twolayer.measuring import startup

NET = tl.Network("tanh", "squared")
SMALL, LARGE = {"n": 5, "d": 3, "M": 4, "K": 2}, {"n": 3000, "d": 3, "M": 4, "K": 2}


def sample(q, coefficients, plan=1e-3):
    return Sample(q, plan, sum(c * terms(q).get(name, 0.0) for name, c in coefficients.items()))


def made_up_samples(coefficients):
    """As calibrate makes them: nine σ on one shape, and many shapes."""
    sigmas = [
        calibrate._asked(i, tl.Shape(500, 4, 64, 1), "float32", 1) for i in range(len(ACTIVATIONS))
    ]
    shapes = calibrate.questions("float32", 1)
    return [sample(q, coefficients) for q in sigmas], [sample(q, coefficients) for q in shapes]


def test_a_sum_of_terms_is_found_again():
    coefficients = {f"σ {name}": 1e-9 * (2 + i) for i, name in enumerate(ACTIVATIONS)}
    coefficients |= {"overhead": 1e-6, "products over d": 1e-11, "parameters": 2e-9}
    model = fit("made-up", "float32", 1, *made_up_samples(coefficients))
    assert model.spread < 0.01
    for q in calibrate.questions("float32", 1):
        expected = sample(q, coefficients).epoch
        assert model.seconds(q) == pytest.approx(expected, rel=0.01)
        assert sum(model.parts(q).values()) == pytest.approx(model.seconds(q))
    assert min(model.coefficients.values()) >= 0


def test_the_spread_is_that_of_shapes_held_out():
    """What the terms cannot express makes the interval wide, though the fit may look good."""
    sigmas, shapes = made_up_samples({"overhead": 1e-6, "products over d": 1e-11})
    noise = random.Random(1)
    shapes = [s._replace(epoch=s.epoch * noise.choice([0.5, 2])) for s in shapes]
    assert fit("noisy", "float32", 1, sigmas, shapes).spread > math.log(2)


def test_questions_cover_all_networks_and_sizes():
    asked = calibrate.questions("float64", 2)
    assert len(asked) == calibrate.SHAPES
    assert {q.activation for q in asked} == set(ACTIVATIONS)
    assert {q.loss for q in asked} == {"squared", "squared_logistic", "logistic", "softmax"}
    assert len({(q.activation, q.loss) for q in asked}) == len(ACTIVATIONS)
    for axis, high in (("n", 1e6), ("d", 4096), ("M", 4096)):
        sizes = sorted(getattr(q, axis) for q in asked)
        assert sizes[0] < high**0.25
        assert sizes[-1] > high**0.75


@pytest.fixture
def made_up_times(monkeypatch):
    """Seconds by formula, and a list of what was asked for."""
    asked = []

    def time(task, q):
        asked.append((task.variant.name, q))
        return Sample(q, 1e-3, 1e-6 + 1e-9 * q.n * q.M + 1e-10 * q.flops)

    monkeypatch.setattr(calibrate, "_time", time)
    return asked


@pytest.fixture
def empty(tmp_path, monkeypatch):
    monkeypatch.setenv("TWOLAYER_STORE", str(tmp_path / "empty.sqlite"))
    with Store() as made:
        yield made


def wanted(*names, threads=1):
    return calibrate.tasks([tl.variants.get(name) for name in names], ["float32"], [threads])


def test_an_interrupted_calibration_goes_on(empty, made_up_times, monkeypatch):
    both = wanted("numpy", "numba-loops")
    good = calibrate._time

    def interrupted(task, q):
        if task.variant.name == "numba-loops" and len(made_up_times) > 60:
            raise KeyboardInterrupt
        return good(task, q)

    monkeypatch.setattr(calibrate, "_time", interrupted)
    with pytest.raises(KeyboardInterrupt):
        calibrate.calibrate(empty, both)
    monkeypatch.setattr(calibrate, "_time", good)
    assert [task.variant.name for task in calibrate.missing(empty, both)] == ["numba-loops"]
    made_up_times.clear()
    units = []
    calibrate.calibrate(empty, both, lambda name, done: units.append(done))
    assert {name for name, _ in made_up_times} == {"numba-loops"}
    assert sum(units) == 2 * calibrate.UNITS
    assert calibrate.missing(empty, both) == []


def test_another_machine_or_version_is_calibrated_anew(empty, made_up_times, monkeypatch):
    task = wanted("numpy")
    calibrate.calibrate(empty, task)
    changed = tl.machine.hardware.signature() | {"cpu": "another"}
    monkeypatch.setattr("twolayer.machine.hardware.signature", lambda: changed)
    assert calibrate.missing(empty, task) == task


class Bad:
    """An engine of NumPy's that fails in one of its methods, as long as `error` is not None."""

    error = None

    def fail(self):
        if self.error is not None:
            raise self.error


def bad(monkeypatch, where, error):
    """NumPy's variant, failing there."""
    numpy = tl.variants.get("numpy")
    method = getattr(numpy.make, where)

    def failing(self, *arguments):
        self.fail()
        return method(self, *arguments)

    engine = type("Bad", (Bad, numpy.make), {where: failing, "error": error})
    engine.__module__ = numpy.make.__module__  # as if it were ours
    variant = tl.Variant("bad", "cpu", "fails", engine, numpy.workspace)
    monkeypatch.setitem(tl.variants.REGISTRY._entries, "bad", variant)
    return variant


PASSING = [
    MemoryError("another job ran"),
    ZeroDivisionError("by zero"),
    RuntimeError("threads: process 2 was forked from process 1"),
    ValueError("threads: expected 1 to 1, the CPUs available here, got 2"),
    OSError(28, "No space left on device"),
]


@pytest.mark.parametrize("where", ["__init__", "backpropagate", "forward", "update"])
@pytest.mark.parametrize("error", PASSING)
def test_a_failure_that_may_pass_is_told_and_tried_again(
    empty, made_up_times, monkeypatch, caplog, where, error
):
    variant = bad(monkeypatch, where, error)
    made_up = calibrate._time
    shape = tl.Shape(5, 3, 4, 2)

    def time(task, q):
        answers = Answers.drawn(NET, shape, "float32")
        answers.hold(task.variant.plan(*answers.problem))
        return made_up(task, q)

    monkeypatch.setattr(calibrate, "_time", time)
    monkeypatch.setattr(decide, "_race", lambda net, q, field: {})
    for _ in range(2):
        caplog.clear()
        choice = tl.choose(NET, **SMALL, variants=["bad", "numpy"])
        assert choice.variant == "numpy"
        assert str(error).split("]")[-1].strip() in dict(choice.ruled_out)["bad"]
        assert "bad is left out this time: " in caplog.text
    assert (
        known.calibrated(empty, "bad", "cpu", "float32", tl.interface.check_threads(None)) is None
    )
    assert known.find(empty, known.ANSWER) == []
    variant.make.error = None
    choice = tl.choose(NET, **SMALL, variants=["bad", "numpy"])
    assert choice.ruled_out == ()
    assert len(known.find(empty, known.ANSWER)) == 1


@pytest.mark.usefixtures("made_up_times")
@pytest.mark.parametrize("error", PASSING)
def test_a_failure_in_the_race_may_pass_too(empty, monkeypatch, error):
    bad(monkeypatch, "backpropagate", error)
    monkeypatch.setattr(
        decide, "side_by_side",
        lambda running, *rest: [entry.blocks.append(1e-3) for entry, _ in running],
    )  # fmt: skip
    assert tl.choose(NET, **SMALL, variants=["bad", "numpy"]).variant == "numpy"
    assert known.find(empty, known.ANSWER) == []
    assert len(known.find(empty, known.MODEL)) == 2


def test_a_disagreement_is_kept_with_its_reason(empty, monkeypatch):
    wrong = bad(monkeypatch, "update", None)
    monkeypatch.setattr(wrong.make, "update", lambda self, X, Y, weights, update, scalars: 1.0)
    task = calibrate.Task(wrong, "float32", 1)
    assert calibrate.calibrate(empty, [task]) == {}
    found = task.entry(empty)
    assert found.failure.startswith("disagrees with the oracle: L returned by step of all")
    assert found.model is None
    assert calibrate.missing(empty, [task]) == []
    assert calibrate.missing(empty, [task], fresh=True) == [task]


@pytest.mark.usefixtures("made_up_times")
def test_fresh_measures_anew(empty, made_up_times, monkeypatch):
    monkeypatch.setattr(decide, "_race", lambda net, q, field: {})
    asked = {"variants": ["numpy", "numba-loops"]}
    tl.choose(NET, **SMALL, **asked)
    made_up_times.clear()
    tl.choose(NET, **SMALL, **asked)
    assert made_up_times == []
    tl.choose(NET, **SMALL, **asked, fresh=True)
    assert {name for name, _ in made_up_times} == {"numpy", "numba-loops"}
    make_up_models(empty, {"numba-loops": "disagrees with the oracle: once"})
    tl.choose(NET, **LARGE, **asked)
    choice = tl.choose(NET, **LARGE, **asked, fresh=True)
    assert choice.ruled_out == ()


@pytest.mark.usefixtures("made_up_times")
def test_a_variant_that_does_not_start_is_no_candidate_this_time(empty, monkeypatch):
    monkeypatch.setattr(decide, "_race", lambda net, q, field: {})

    def start(variant, *rest, **more):
        failed = variant.name == "numpy"
        return startup.Start(None, None, "took more than 300 s") if failed else startup.Start(2, 1)

    monkeypatch.setattr(startup, "start", start)
    choice = tl.choose(NET, **SMALL, epochs=3, variants=["numpy", "numba-loops"])
    assert choice.variant == "numba-loops"
    assert dict(choice.ruled_out)["numpy"].endswith("in a new process: took more than 300 s")
    assert known.find(empty, known.ANSWER) == []
    assert len(known.find(empty, known.START)) == 1


def test_large_shapes_run_on_few_rows(empty, made_up_times):
    calibrate.calibrate(empty, wanted("numpy"))
    times = [1e-10 * q.flops for _, q in made_up_times]
    assert len(times) > calibrate.SHAPES
    assert max(times) < 0.05
    assert known.calibrated(empty, "numpy", "cpu", "float32", 1).model.spread < 0.1


@pytest.mark.usefixtures("made_up_times", "empty")
def test_a_choice_says_what_it_measures_to_whoever_listens(capfd, caplog, monkeypatch):
    monkeypatch.setattr(decide, "_race", lambda net, q, field: {})
    caplog.set_level("INFO", logger="twolayer")
    seen = []
    asked = {"variants": ["numpy", "numba-loops"]}
    tl.choose(NET, **SMALL, **asked, progress=lambda *what: seen.append(what))
    assert "calibrating 2 variants, once for this machine" in caplog.text
    assert seen[-1] == (seen[-1][0], 2 * calibrate.UNITS, 2 * calibrate.UNITS)
    caplog.clear()
    tl.choose(NET, **LARGE, **asked)
    assert caplog.text == ""
    assert capfd.readouterr() == ("", "")


@pytest.mark.usefixtures("made_up_times", "empty")
def test_auto_prints_nothing(capfd, monkeypatch):
    monkeypatch.setattr(decide, "_race", lambda net, q, field: {})
    known_here = {name: tl.variants.get(name) for name in ("auto", "numpy")}
    monkeypatch.setattr(tl.variants.REGISTRY, "_entries", known_here)
    n, d, M, K = SMALL.values()
    X, Y = np.ones((n, d)), np.ones((n, K))
    plan = tl.variants.get("auto").plan(NET, X, Y, NET.init(d, M, K, "float64"), 1)
    assert plan.variant == "numpy"
    assert capfd.readouterr() == ("", "")


@pytest.mark.usefixtures("made_up_times", "empty")
def test_the_command_line_shows_it(monkeypatch):
    monkeypatch.setattr(decide, "_race", lambda net, q, field: {})
    sizes = [f"--{name}={size}" for name, size in SMALL.items()]
    arguments = ["choose", *sizes, "--variants", "numpy,numba-loops"]
    for more, said in (([], 1), ([], 0), (["--fresh"], 1)):
        done = CliRunner().invoke(app, [*arguments, *more])
        assert done.exit_code == 0
        assert done.stderr.count("twolayer: calibrating 2 variants, once for this") == said
    assert logging.getLogger("twolayer").handlers == []


SURROUNDINGS = """
import random
import numpy as np
import twolayer as tl

def state():
    return random.getstate(), repr(np.random.get_state(legacy=False)), np.geterr()

before = state()
from twolayer.choosing import calibrate
calibrate.SHAPES = 2
choice = tl.choose(tl.Network(), n=40, d=3, M=4, K=2, threads=1, variants=["numpy"])
print(choice.variant, [one == other for one, other in zip(before, state())])
"""


def test_a_calibration_leaves_random_states_and_error_state_alone(run_python, tmp_path):
    """In a process where nothing was imported before: an import may draw random numbers, too."""
    store = tmp_path / "store.sqlite"
    assert run_python(SURROUNDINGS, TWOLAYER_STORE=str(store)) == "numpy [True, True, True]\n"

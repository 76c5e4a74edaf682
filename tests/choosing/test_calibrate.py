"""The calibration of the cost models, with made-up times: no test here looks at a clock."""

import math
import random

import pytest

import twolayer as tl
from twolayer.choosing import calibrate, decide, known
from twolayer.choosing.model import Sample, fit, terms
from twolayer.kernels.formulas.activations import ACTIVATIONS
from twolayer.machine.store import Store

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


def test_a_variant_that_fails_is_kept_with_its_reason(empty):
    class Failing(tl.variants.get("numpy").make):
        def __init__(self, problem):
            raise ZeroDivisionError("by zero")

    broken = tl.Variant("broken", "cpu", "fails", Failing)
    calibrate.calibrate(empty, [calibrate.Task(broken, "float32", 1)])
    found = known.calibrated(empty, "broken", "cpu", "float32", 1)
    assert found.failure == "ZeroDivisionError: by zero"
    assert found.model is None


def test_large_shapes_run_on_few_rows(empty, made_up_times):
    calibrate.calibrate(empty, wanted("numpy"))
    times = [1e-10 * q.flops for _, q in made_up_times]
    assert len(times) > calibrate.SHAPES
    assert max(times) < 0.05
    assert known.calibrated(empty, "numpy", "cpu", "float32", 1).model.spread < 0.1


@pytest.mark.usefixtures("made_up_times")
def test_the_first_choice_calibrates_and_says_so(empty, capfd, monkeypatch):
    monkeypatch.setattr(decide, "_race", lambda net, q, field: {})
    tl.choose(NET, **SMALL, variants=["numpy", "numba-loops"])
    assert "twolayer: calibrating 2 variants, once for this machine" in capfd.readouterr().err
    tl.choose(NET, **LARGE, variants=["numpy", "numba-loops"])
    assert capfd.readouterr().err == ""


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

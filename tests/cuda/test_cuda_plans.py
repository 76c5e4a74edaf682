"""What a plan on a GPU keeps, where it runs, and which engine it takes; in the simulator."""

from types import SimpleNamespace

import numpy as np
import pytest

import twolayer as tl
from twolayer.checking import cases
from twolayer.engines import planes
from twolayer.interface import Problem
from twolayer.kernels.formulas.activations import ACTIVATIONS
from twolayer.variants import cuda_tensor

NAMES = [name for name in tl.variants.names() if name.startswith("cuda-")]


@pytest.mark.parametrize("name", NAMES)
def test_what_is_kept_stays_however_many_slices_follow(name, monkeypatch):
    monkeypatch.setattr("twolayer.engines.cuda.MOST_KEPT", 2)
    monkeypatch.setattr("twolayer.engines.cuda_memory.MOST_KEPT", 2)
    case = cases.problem(tl.Network("tanh", "squared"), tl.Shape(9, 3, 5, 2), "float32")
    plan = tl.variants.get(name).plan(*case[1:])
    for kept in (plan.engine._kept, plan.X._slices, plan.Y._slices):
        kept.clear()
    runs = [slice(start, start + 4) for start in range(4)]
    first = [plan.loss(rows) for rows in runs]
    kept = dict(plan.engine._kept)
    assert len(kept) == 2
    assert [plan.loss(rows) for rows in runs] == first
    assert plan.engine._kept == kept
    plan.loss()
    assert len(plan.engine._kept) == 3  # the whole is always one of them
    for start in (0, 1, 2, 3, 4) * 2:  # of another size: what is kept comes no more
        plan.loss(slice(start, start + 5))
    assert {len(arrays[0]) for _, arrays in plan.engine._kept.values()} == {5}


@pytest.mark.parametrize("name", NAMES)
def test_another_device_than_the_plans_is_refused(name, monkeypatch):
    case = cases.problem(tl.Network("tanh", "squared"), tl.Shape(9, 3, 5, 2), "float32")
    plan = tl.variants.get(name).plan(*case[1:])
    monkeypatch.setattr("twolayer.engines.cuda.device_number", lambda: 1)
    for call in (plan.gradient, plan.loss, lambda: plan.step(0.1), lambda: plan.predict(case.X)):
        with pytest.raises(
            RuntimeError, match=r"^device: expected GPU 0, on which .* got 1: numba"
        ):
            call()


@pytest.mark.parametrize("name", NAMES)
def test_an_older_device_is_the_reason(name, monkeypatch):
    monkeypatch.setattr("twolayer.engines.cuda.in_simulator", lambda: False)
    for found, reason in (
        ((7, 5), "needs compute capability 8.0, this GPU has 7.5"),
        ((8, 0), None),
        ((12, 0), None),
    ):
        monkeypatch.setattr("twolayer.engines.cuda.capability", lambda found=found: found)
        assert tl.variants.get(name).unavailable() == reason

    def fail():
        raise OSError("it is taken")

    monkeypatch.setattr("twolayer.engines.cuda.capability", fail)
    reason = tl.variants.get(name).unavailable()
    assert reason == "no NVIDIA GPU that can be used: it is taken"


def test_packing_is_for_formulas_whose_slope_is_known(monkeypatch):
    """From its largest value follow the scales of G."""
    for engine in ("PlanesEngine", "ThreePasses"):
        monkeypatch.setattr(cuda_tensor, engine, lambda problem, engine=engine: engine)
    for name, sigma, engine in (
        ("tanh", ACTIVATIONS["tanh"], "PlanesEngine"),
        ("steep", object(), "ThreePasses"),
        ("tanh", object(), "ThreePasses"),
    ):
        net = SimpleNamespace(activation=name, sigma=sigma)
        problem = Problem(net, tl.Shape(2000, 64, 64, 3), np.dtype("float32"), 1)
        assert cuda_tensor.three_passes(problem) == engine


def test_corners_lie_where_packing_begins(monkeypatch):
    monkeypatch.setattr("twolayer.kernels.cuda.driver.simulated.in_simulator", lambda: False)
    found = [*cuda_tensor._corners(4, 1)]
    assert [planes.pays(shape, np.dtype("float32")) for shape in found] == [False, True] * 3
    assert not [*cuda_tensor._corners(8, 1)]

"""The kernels for Hopper's wgmma in the simulator, and faults of their kind that it finds."""

import importlib.util
from pathlib import Path

import numpy as np
import pytest

from twolayer.checking.cuda.blocks import BarrierError
from twolayer.kernels.cuda.tensorcores import hopper, ring, wgmma

WIDE, LONG, DEEP = (130, 70, 150, 2), (300, 130, 30, 3), (70, 400, 150, 1)
FLAT = (70, 130, 150, 1)


@pytest.fixture
def tries(monkeypatch):
    """tools/gpu/try_wgmma.py, its launches run in the simulator."""
    path = Path(__file__).parents[2] / "tools/gpu/try_wgmma.py"
    spec = importlib.util.spec_from_file_location("try_wgmma", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)

    def launch(kernel, signature, grid, threads, arguments, repeats):
        kernel[grid, threads, 0, wgmma.SHARED](*arguments)
        return 0, None

    monkeypatch.setattr(module, "launch", launch)
    return module


def check(found, bound):
    assert found["padding is 0"]
    assert found.get("rows wrong", 0) == found.get("elements wrong", 0) == 0
    assert max(error for name, error in found.items() if "2^-22" in name) < bound


@pytest.mark.parametrize(
    ("shape", "pairs", "grid"),
    [(WIDE, 1, 1), (WIDE, 2, 2), (LONG, 1, 5), (LONG, 2, 1), (DEEP, 1, 2), (DEEP, 2, 1)],
)
def test_hidden(tries, shape, pairs, grid):
    found = tries.hidden(shape, pairs, 0, grid, "sigmoid")  # σ(0) is not 0
    check(found, 4)
    assert found["error of U"] < 1e-5


@pytest.mark.parametrize(
    ("shape", "parts", "promote"),
    [(WIDE, 1, False), (LONG, 2, False), (LONG, 4, False), (LONG, 2, True), (FLAT, 1, True)],
)
def test_sums(tries, shape, parts, promote):
    check(tries.sums(shape, parts, 0, promote), 4)


def test_planes_hold_a_matrix(tries):
    P = np.random.default_rng(0).normal(size=(200, 100)).astype(np.float32)
    planes, padded = tries.pack(P, 200)
    assert planes.size == 2 * 2 * ring.BLOCK
    along, across = (
        np.block([
            [
                sum(factor(planes, (2 * i + j) * ring.BLOCK, layout, plane) for plane in range(2))
                for j in range(2)
            ]
            for i in range(2)
        ])
        for layout, factor in ((ring.ALONG, rows), (ring.ACROSS, columns))
    )  # fmt: skip
    np.testing.assert_allclose(along, padded, atol=2**-20)
    np.testing.assert_array_equal(along, across)


def rows(planes, at, layout, plane):
    from twolayer.kernels.cuda.tensorcores.emulated import factor

    return factor(planes, at, 128, plane, layout)


def columns(planes, at, layout, plane):
    from twolayer.kernels.cuda.tensorcores.emulated import factor

    halves = [factor(planes, at + h * ring.HALF, 64, plane, layout).T for h in range(2)]
    return np.concatenate(halves)


def test_other_strides_give_other_sums(tries):
    assert tries.sums((128, 64, 128, 1), 1, 0)["elements wrong"] == 0
    assert tries.sums((128, 64, 128, 1), 1, 0, leading=1024, stride=8192)["elements wrong"]


@pytest.fixture
def fresh():
    """Kernels made anew, from the operations as they are now."""
    factories = wgmma.hidden, wgmma.sums, ring.ring
    for factory in factories:
        factory.cache_clear()
    yield
    for factory in factories:
        factory.cache_clear()


def test_a_stage_given_back_too_early_shows(tries, fresh, monkeypatch):
    left = hopper.products_left
    monkeypatch.setattr(hopper, "products_left", lambda count: left(2 * count))
    assert tries.hidden((64, 500, 64, 1), 1, 0, 1)["rows wrong"]


def test_a_stage_that_nobody_waits_for_shows(tries, fresh, monkeypatch):
    wait = hopper.wait

    def waits_for_some(barriers, i, parity):
        if i >= ring.STAGES:
            wait(barriers, i, parity)

    monkeypatch.setattr(hopper, "wait", waits_for_some)
    with pytest.raises((BarrierError, RuntimeError)):
        tries.hidden((64, 500, 64, 1), 1, 0, 1)
    assert tries.hidden((64, 100, 64, 1), 1, 0, 1)["rows wrong"]


def test_a_stage_never_given_back_is_an_error(tries, fresh, monkeypatch):
    monkeypatch.setattr(hopper, "arrive", lambda barriers, i: None)
    with pytest.raises(BarrierError, match="until"):
        tries.hidden((64, 500, 64, 1), 1, 0, 1)


def test_turns_are_kept(tries, fresh, monkeypatch):
    """Without them the pair whose turn it is not would take stages of the other's tile."""
    wait = hopper.wait

    def waits_for_some(barriers, i, parity):
        if i < 2 * ring.STAGES:
            wait(barriers, i, parity)

    monkeypatch.setattr(hopper, "wait", waits_for_some)
    with pytest.raises((BarrierError, RuntimeError, AssertionError)):
        check(tries.hidden((64, 400, 500, 1), 2, 0, 1), 4)

"""Straight lines through logarithms, and who takes the least time in all."""

import random

import pytest

from twolayer.report import fits


@pytest.mark.parametrize("exponent", [0.5, 1.0, 2.0])
def test_the_exponent_of_a_power_is_found(exponent):
    sizes = (3, 10, 30, 100)
    fit = fits.straight(sizes, [1e-6 * size**exponent for size in sizes])
    assert fit.exponent == pytest.approx(exponent)
    assert fit.error == pytest.approx(0, abs=1e-6)
    assert (fit.first, fit.last, fit.points) == (3, 100, 4)
    assert fit.spread == pytest.approx(1)


def test_sizes_that_a_call_costs_more_than_are_left_out():
    sizes = [10**k for k in range(8)]
    fit = fits.straight(sizes, [1e-3 + 1e-6 * size for size in sizes])
    assert fit.first >= 1000
    assert fit.last == sizes[-1]
    assert 0.9 < fit.exponent < 1.0
    assert 1 < fit.spread <= fits.STRAIGHT


def test_what_is_nowhere_straight_has_no_exponent():
    assert fits.straight((1, 10, 100), (1.0, 9.0, 1.0)) is None
    assert fits.straight((1, 10), (1.0, 10.0)) is None


@pytest.mark.parametrize("seed", range(20))
def test_reigns_are_those_of_counting_epoch_by_epoch(seed):
    draw = random.Random(seed)
    costs = {name: (draw.uniform(0, 50), draw.choice([0.5, 1, 1.5, 3])) for name in "abcd"}
    found = fits.reigns(costs)
    reign = iter([*found, fits.Reign("", 10**9)])
    now, then = next(reign), next(reign)
    for epochs in range(1, 150):
        if epochs == then.epochs:
            now, then = then, next(reign)
        totals = {name: first + (epochs - 1) * more for name, (first, more) in costs.items()}
        assert totals[now.variant] == pytest.approx(min(totals.values()))
    assert found[0].epochs == 1


@pytest.mark.parametrize(
    ("one", "other", "epochs"),
    [
        ((5.0, 1.0), (1.0, 2.0), 6),  # equal after 5 epochs
        ((5.0, 1.0), (1.5, 2.0), 5),
        ((1.0, 1.0), (2.0, 2.0), 1),
        ((2.0, 2.0), (1.0, 1.0), None),
        ((2.0, 1.0), (1.0, 1.0), None),
        ((1.0, 2.0), (2.0, 1.0), None),  # ahead at first, but not from there on
    ],
)
def test_overtaking_is_strict(one, other, epochs):
    assert fits.overtakes(one, other) == epochs

"""Exponents of growth, and from how many epochs on a slow start pays off."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from ..measuring.race import Result

STRAIGHT = 1.15  # times above or below the line that a point may lie
_LEAST = 3  # points: two are always on a line


class Fit(NamedTuple):
    """seconds ≈ c · sizeᵃ, by least squares in logarithms.

    exponent: a; error: its standard error; first, last: the sizes between which it holds; points:
    how many; spread: the largest ratio between a point and the line.
    """

    exponent: float
    error: float
    first: int
    last: int
    points: int
    spread: float


class Reign(NamedTuple):
    """A variant that takes the least time in all from so many epochs on."""

    variant: str
    epochs: int


def straight(sizes: Sequence[int], seconds: Sequence[float]) -> Fit | None:
    """The fit over as many of the largest sizes as lie on a line; None for fewer than three.

    Small sizes are left out one by one until no point is more than `STRAIGHT` times off.
    Arguments: sizes, ascending; seconds, of each.
    """
    from scipy.stats import linregress

    for begin in range(len(sizes) - _LEAST + 1):
        x = [math.log(size) for size in sizes[begin:]]
        y = [math.log(value) for value in seconds[begin:]]
        line = linregress(x, y)
        off = [abs(b - line.intercept - line.slope * a) for a, b in zip(x, y, strict=True)]
        if max(off) <= math.log(STRAIGHT):
            return Fit(
                float(line.slope), float(line.stderr), sizes[begin], sizes[-1], len(x),
                float(math.exp(max(off))),
            )  # fmt: skip
    return None


def fits(axis: str, results: Sequence[Result]) -> dict[str, Fit]:
    """The fit of each variant over the swept axis, "n", "d", "M" or "K"."""
    ordered = sorted(results, key=lambda result: getattr(result.workload.shape, axis))
    points: dict[str, list[tuple[int, float]]] = {}
    for result in ordered:
        for entry in result.ranking:
            point = getattr(result.workload.shape, axis), entry.seconds.median
            points.setdefault(entry.variant.name, []).append(point)
    found = {name: straight(*zip(*pairs, strict=True)) for name, pairs in points.items()}
    return {name: fit for name, fit in found.items() if fit}


def reigns(costs: Mapping[str, tuple[float, float]]) -> list[Reign]:
    """Who takes the least time in all, from one epoch on to any number of them.

    Arguments: costs, by variant, seconds until the first epoch is done and seconds of each further
    one. Total after E epochs: first + (E − 1) · further.
    """
    found: list[Reign] = []
    now = 1
    while True:
        best = min(
            costs, key=lambda name: (costs[name][0] + (now - 1) * costs[name][1], costs[name][1])
        )
        found.append(Reign(best, now))
        later = {
            name: epochs
            for name in costs
            if costs[name][1] < costs[best][1]
            and (epochs := overtakes(costs[name], costs[best])) is not None
        }
        if not later:
            return found
        now = max(min(later.values()), now + 1)


def overtakes(one: tuple[float, float], other: tuple[float, float]) -> int | None:
    """The number of epochs from which on `one` takes less time than `other`; None for never."""
    behind, gain = one[0] - other[0], other[1] - one[1]
    if behind < 0 and gain >= 0:
        return 1
    return 2 + math.floor(behind / gain) if gain > 0 else None

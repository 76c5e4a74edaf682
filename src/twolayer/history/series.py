"""The levels of one problem on one machine, a commit after the other, and the steps in them."""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import NamedTuple

from ..machine.revision import CHANGED, Logged
from .levels import Level, Machine, Problem

LEAST = 0.02  # of the seconds that a step is at least
ERRORS = 4  # standard errors that it is at least
FEWEST, MOST = 3, 5  # measurements that are looked at on each side of it


@dataclass(frozen=True)
class Step:
    """From a level on an epoch took `ratio` times as long. also: libraries that changed there."""

    level: Level
    ratio: float
    before: float
    after: float
    also: tuple[str, ...]


@dataclass(frozen=True)
class Series:
    """levels: in the order of the commits. steps: where they change."""

    problem: Problem
    machine: Machine
    levels: Sequence[Level]
    steps: Sequence[Step]

    @property
    def last(self) -> float:
        """When it was measured last."""
        return max(level.times[-1] for level in self.levels)


def series(levels: Iterable[Level], log: Mapping[str, Logged]) -> list[Series]:
    """Of each problem and machine, the one that was measured last first."""
    groups = ordered(levels, log)
    found = [Series(*about, members, steps(members)) for about, members in groups.items()]
    return sorted(found, key=lambda one: (-one.last, one.problem))


def ordered(
    levels: Iterable[Level], log: Mapping[str, Logged]
) -> dict[tuple[Problem, Machine], list[Level]]:
    """The levels of each problem and machine in the order of the commits.

    log: of the commits that git knows; the others come when they were measured first.
    """
    groups: dict[tuple[Problem, Machine], list[Level]] = {}
    for level in levels:
        groups.setdefault((level.problem, level.machine), []).append(level)

    for members in groups.values():
        begun: dict[str, float] = {}
        for level in members:
            begun[level.commit] = min(begun.get(level.commit, math.inf), level.times[0])

        def order(level: Level, begun: Mapping[str, float] = begun) -> tuple[float, ...]:
            first = begun[level.commit] if level.commit else level.times[0]
            known = log.get(level.commit, Logged(first, 0, ""))
            return known.time, known.place, first, level.tree == CHANGED, level.times[0]

        members.sort(key=order)
    return groups


class _Change(NamedTuple):
    """A difference of logarithms at a level by its number; spread: how much both sides scatter."""

    number: int
    difference: float
    spread: float


def scatter(values: Sequence[float]) -> float:
    """The standard deviation of one of the values, from its neighbours: steps do not count."""
    differences = [abs(b - a) for a, b in pairwise(values)]
    return 1.4826 / math.sqrt(2) * statistics.median(differences) if differences else 0.0


def steps(levels: Sequence[Level]) -> list[Step]:
    """Where the logarithm of the seconds changes for good.

    On each side of a change of sources or libraries the next three to five measurements count. It
    is a step where their medians differ by 2% and by four standard errors of such a difference at
    least; of two commits next to it that do so in one direction, the one whose sides scatter least.
    """
    logs = [math.log(value) for level in levels for value in level.seconds]
    error = scatter(logs)
    found: list[_Change] = []
    place = 0
    for number, level in enumerate(levels):
        before = logs[max(0, place - MOST) : place]
        after = logs[place : place + MOST]
        place += len(level.seconds)
        if min(len(before), len(after)) < FEWEST:
            continue
        left, right = statistics.median(before), statistics.median(after)
        # 1.2533: the error of a median over that of a mean.
        needed = ERRORS * 1.2533 * error * math.sqrt(1 / len(before) + 1 / len(after))
        if abs(right - left) > max(needed, math.log1p(LEAST)):
            spread = sum(abs(v - left) for v in before) + sum(abs(v - right) for v in after)
            found.append(_Change(number, right - left, spread))
    return [
        _step(levels, one.number, one.difference)
        for one in found
        if not any(
            0 < abs(other.number - one.number) < FEWEST
            and other.difference * one.difference > 0
            and (other.spread, other.number) < (one.spread, one.number)
            for other in found
        )
    ]


def _step(levels: Sequence[Level], number: int, difference: float) -> Step:
    after = [v for level in levels[number:] for v in level.seconds][:MOST]
    seconds = math.exp(statistics.median(map(math.log, after)))
    ratio = math.exp(difference)
    here, last = levels[number], levels[number - 1]
    return Step(here, ratio, seconds / ratio, seconds, changed(last.libraries, here.libraries))


def changed(old: Sequence[str], new: Sequence[str]) -> tuple[str, ...]:
    """What differs between two lists of libraries, as "numpy 2.3 → 2.4"."""
    was, now = (dict(text.split(" ", 1) for text in one if " " in text) for one in (old, new))
    return tuple(
        f"{name} {was.get(name, 'none')} → {now.get(name, 'none')}"
        for name in dict.fromkeys((*was, *now))
        if was.get(name) != now.get(name)
    )

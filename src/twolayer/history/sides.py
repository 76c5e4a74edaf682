"""Two commits, machines or files side by side, and what cannot be compared, and why."""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Container, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from ..machine import revision
from . import files
from .levels import Level, Machine, Problem, named
from .series import changed, ordered, scatter

ASSUMED = 0.02  # by which runs differ, where nobody knows by how much they do
KNOWN = 4  # measurements from which on the scatter of a series is known
COMMIT, MACHINE, FILE = "commit", "machine", "file"


@dataclass(frozen=True)
class Side:
    """A commit, a machine or a file: its levels, and why others are left out."""

    label: str
    kind: str
    levels: Sequence[Level]
    skipped: dict[Problem, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Pair:
    """One problem on both sides. ratio: B's seconds over A's, with its interval of 95%.

    assumed: whether the scatter of the runs is `ASSUMED`. also: what else differs.
    """

    a: Level
    b: Level
    ratio: float
    low: float
    high: float
    assumed: bool
    also: tuple[str, ...]

    @property
    def verdict(self) -> str:
        """Of B."""
        return "slower" if self.low > 1 else "faster" if self.high < 1 else "unclear"


@dataclass(frozen=True)
class Comparison:
    """pairs: what both sides have. lacking: what cannot be compared, and why."""

    a: Side
    b: Side
    pairs: list[Pair]
    lacking: list[tuple[Problem, str]]


def side(argument: str, text: str, levels: Sequence[Level]) -> Side:
    """The side of that name: a file of `bench --json`, or of the levels a commit or a machine.

    A commit with a plus means changed sources on it. Raises ValueError where it is none of them.
    """
    path = Path(text)
    if path.suffix == ".json" or path.is_file():
        found = files.load(path)
        return Side(text, FILE, found.levels, found.skipped)
    plus = "+" * text.endswith("+")
    commit = revision.resolve(text.removesuffix("+")) or text.removesuffix("+").lower()
    clean = [level for level in levels if level.state.endswith("+") == bool(plus)]
    mine = [one for one in clean if len(commit) >= 4 and one.commit.startswith(commit)]
    ids = {level.commit for level in mine}
    if len(ids) > 1:
        raise ValueError(f"{argument}: expected more of a commit's id, got {text!r}, which fits "
                         f"{', '.join(sorted(one[:12] for one in ids))}")  # fmt: skip
    if mine:
        return Side(_label(text, mine[0]), COMMIT, mine)
    known = {level.machine for level in levels}
    try:
        machine = named(text, known)
    except ValueError:
        raise ValueError(f"{argument}: {_unknown(text, commit, levels, known)}") from None
    return Side(machine.name, MACHINE, [one for one in levels if one.machine == machine])


def _label(text: str, level: Level) -> str:
    return level.state if level.commit.startswith(text.rstrip("+")) else f"{text} ({level.state})"


def _unknown(text: str, commit: str, levels: Sequence[Level], known: Iterable[Machine]) -> str:
    there = list(dict.fromkeys(level.state for level in sorted(levels, key=lambda o: -o.times[-1])))
    other = [one for one in levels if len(commit) >= 4 and one.commit.startswith(commit)]
    if other:
        return (
            f"expected a commit that was measured, got {text!r}, of which only {other[0].state} was"
        )
    shown = ", ".join(there[:8]) + (", …" if len(there) > 8 else "")
    names = "; ".join(f"{key} ({name})" for key, name in sorted(known))
    return (
        "expected a file of `bench --json`, or of what was measured a commit "
        f"({shown or 'none'}) or a machine ({names or 'none'}), got {text!r}"
    )


def compare(a: Side, b: Side, levels: Sequence[Level]) -> Comparison:
    """What both sides have, in the order of A, and what only one of them has.

    levels: all that is known, from which the scatter of the runs is. Two commits are compared on
    one machine, two machines at one state of the sources.
    """
    alike: Callable[[Level, Level], bool] = lambda one, other: True  # noqa: E731
    why = ""
    if a.kind == b.kind == COMMIT:
        alike, why = (lambda one, other: one.machine == other.machine), "no machine measured both"
    elif a.kind == b.kind == MACHINE:
        alike, why = (lambda one, other: one.sources == other.sources), "never on the same sources"
    of_a, of_b = _by_problem(a), _by_problem(b)
    pairs, lacking = [], []
    known = _known(levels, of_a.keys() & of_b.keys())
    for problem, mine in of_a.items():
        fit = [(x, y) for x in mine for y in of_b.get(problem, ()) if alike(x, y)]
        for machine in dict.fromkeys(x.machine for x, _ in fit):
            best = max((p for p in fit if p[0].machine == machine), key=_preference)
            pairs.append(pair(*best, known))
        if not fit:
            lacking.append((problem, why if problem in of_b else _reason(problem, b, of_b, "B")))
    lacking += [(p, _reason(p, a, of_a, "A")) for p in of_b if p not in of_a]
    return Comparison(a, b, pairs, lacking)


def _by_problem(side: Side) -> dict[Problem, list[Level]]:
    found: dict[Problem, list[Level]] = {}
    for level in side.levels:
        found.setdefault(level.problem, []).append(level)
    return found


def _preference(both: tuple[Level, Level]) -> tuple[bool, bool, bool, float]:
    """Those are set side by side that have most in common, the newest of them."""
    a, b = both
    return (
        a.machine == b.machine, a.sources == b.sources, a.libraries == b.libraries,
        min(a.times[-1], b.times[-1]),
    )  # fmt: skip


def _reason(problem: Problem, other: Side, levels: Iterable[Problem], name: str) -> str:
    """Why a problem is not on the other side: the least that would have to be different."""
    if problem in other.skipped:
        return f"{name} left it out: {other.skipped[problem]}"
    nearest: tuple[str, ...] = ()
    found = None
    for one in levels:
        if one.variant != problem.variant:
            continue
        parts = zip(Problem._fields, problem, one, strict=True)
        differing = tuple(field for field, x, y in parts if x != y)
        if not nearest or len(differing) < len(nearest):
            nearest, found = differing, one
    if found is None:
        return f"{name} has no figures of {problem.variant}"
    if len(nearest) > 1:
        return f"{name} was not measured on it"
    (only,) = nearest
    return f"{name} has it with {only}={getattr(found, only)}"


def pair(a: Level, b: Level, known: dict[tuple[Problem, Machine], list[float]]) -> Pair:
    """Both levels, and the ratio of their times.

    log ratio = mean of log(a run's median), B's less A's; error² = Σ max(s², w²) / runs over both
    sides, where s is the scatter from run to run, in the series of that machine where it has four
    measurements, else `ASSUMED`, and w = 0.93 log(q3 / q1) / √m is the standard error of the median
    of a run's m blocks with quartiles q1, q3; the mean of w² is over the last runs. The interval is
    Student's with as many degrees of freedom as the shorter series has measurements, less one.
    """
    from scipy import special

    error, freedom, assumed = 0.0, math.inf, False
    means = []
    for level in (a, b):
        logs = [math.log(value) for value in level.seconds]
        means.append(statistics.fmean(logs))
        measured = known.get((level.problem, level.machine), [])
        if len(measured) >= KNOWN:
            runs = scatter(measured)
            freedom = min(freedom, len(measured) - 1)
        else:
            runs, assumed = ASSUMED, True
        within = [_within(blocks) ** 2 for blocks in level.runs]
        error += max(runs**2, statistics.fmean(within or [0.0])) / len(logs)
    log = means[1] - means[0]
    quantile = 1.96 if freedom == math.inf else float(special.stdtrit(freedom, 0.975))
    half = quantile * math.sqrt(error)
    also = [*changed(a.libraries, b.libraries)]
    if a.sources != b.sources and a.commit == b.commit and a.state == b.state:
        also.append("other changes of the sources")
    return Pair(
        a, b, math.exp(log), math.exp(log - half), math.exp(log + half), assumed, tuple(also)
    )


def _within(blocks: Sequence[float]) -> float:
    """The standard error of the logarithm of a run's median."""
    if len(blocks) < 2:
        return 0.0
    low, _, high = statistics.quantiles(blocks, n=4, method="inclusive")
    return 0.93 * math.log(high / low) / math.sqrt(len(blocks))


def _known(
    levels: Sequence[Level], problems: Container[Problem]
) -> dict[tuple[Problem, Machine], list[float]]:
    """The logarithms of all that is known of the problems, in the order of the commits."""
    mine = [level for level in levels if level.problem in problems]
    log = revision.log({level.commit for level in mine} - {""})
    return {
        about: [math.log(value) for level in members for value in level.seconds]
        for about, members in ordered(mine, log).items()
    }

"""What a run's figures say: effects with intervals, verdicts, and the smallest visible change.

A process gives one figure for a benchmark: the logarithm of head / base, by low quantiles of its
blocks, which is what another program on the machine disturbs least. Figures of different processes
are independent; blocks of one process are not, and only tell how much its figure weighs. The
benchmarks of a variant are judged together as well, since most changes slow all shapes. An alarm
needs a p-value that stays significant beside those of all others and all looks at the figures, an
effect above two floors, and the same sign in most processes.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from scipy import optimize, special

ALARMS = 0.01  # of the runs without any change may raise an alarm
LOOKS = (4, 7, 10, 13)  # processes after which the figures are looked at
WANTED = 0.01  # a change of a variant that a run tries to be able to see
WANTED_SHAPE = 0.02  # the same for one shape of several
FLOOR = 0.004  # of the base's time; what is less is nobody's concern
FLOOR_SECONDS = 20e-9  # an epoch; the clock and the call of a block of few steps are not better
AGREEMENT = 0.75  # of the processes have the sign of the effect
POWER = 0.95  # with which the smallest visible change would be seen
BETWEEN = 0.0015  # what processes differ by, however many blocks they have
_QUANTILES = (0.05, 0.15, 0.25)  # of the blocks' times
_PARTS = 4  # of a process's blocks, whose effects tell how far its own may be off
_FARTHEST = 20.0  # of a logarithm that is reported; beyond it nothing was measured
_MOST_PRIOR = 8.0  # degrees of freedom that the other benchmarks' scatter may lend


@dataclass(frozen=True)
class Decision:
    """The figures of a benchmark, or of a variant on all shapes, and what follows.

    base, head: seconds an epoch, None for a variant. ratio: head / base with its interval.
    verdict: "slower", "faster", "same" (a change of `WANTED` would have been seen) or "unclear".
    visible: the smallest change that would have been seen, as a share of the base's time. decided:
    more processes would not change it.
    """

    name: str
    variant: str
    processes: int
    base: float | None
    head: float | None
    ratio: float
    low: float
    high: float
    p: float
    agreement: float
    visible: float
    verdict: str
    decided: bool


class Figure(NamedTuple):
    """log(head / base) in one process, and its variance as its own blocks have it."""

    log: float
    variance: float

    @property
    def weight(self) -> float:
        """Beside those of other processes."""
        return 1 / (BETWEEN**2 + self.variance)


@dataclass(frozen=True)
class _Sample:
    """What is tested: the figures of a benchmark or a variant, by process."""

    name: str
    variant: str
    figures: Mapping[int, Figure]
    wanted: float
    base: float | None = None
    head: float | None = None


def level(blocks: Sequence[float] | np.ndarray) -> float:
    """The logarithm of a step's seconds: the mean of a few low quantiles of the blocks."""
    return float(np.mean(np.quantile(np.log(blocks), _QUANTILES)))


def effect(record: Mapping[str, Any]) -> Figure:
    """The figure of a process from its blocks, a round of the order ABBA after the other."""
    base, head = (np.asarray(record[side]) for side in ("base", "head"))
    rounds = np.arange(len(base)) // 2
    parts = [
        level(head[rounds % _PARTS == part]) - level(base[rounds % _PARTS == part])
        for part in range(min(_PARTS, len(base) // 2))
    ]
    variance = float(np.var(parts, ddof=1)) / len(parts) if len(parts) > 1 else 0.0
    return Figure(level(head) - level(base), variance)


def decide(
    timings: Mapping[str, Sequence[Mapping[str, Any]]], variant_of: Mapping[str, str]
) -> list[Decision]:
    """The decisions on all variants and benchmarks; what fewer than two processes have is left out.

    Arguments: timings, the records by benchmark; variant_of, the variants by benchmark.
    """
    shapes = [_shape(name, variant_of[name], records) for name, records in timings.items()]
    samples = [s for s in [*_variants(shapes), *shapes] if len(s.figures) >= 2]
    if not samples:
        return []
    fits = [_fit(list(sample.figures.values())) for sample in samples]
    means, scatter, counts = (np.array(column) for column in zip(*fits, strict=True))
    prior, degrees = _prior(scatter, counts - 1)
    # A scatter that is small by chance is raised to what all benchmarks make likely, never lowered.
    likely = (degrees * prior + (counts - 1) * scatter) / (degrees + counts - 1)
    errors = np.sqrt(np.maximum(scatter, likely) / counts)
    freedom = counts - 1 + degrees
    p = 2 * special.stdtr(freedom, -abs(means) / errors)
    adjusted = _holm(p)
    return [
        _decision(sample, means[i], errors[i], counts[i], freedom[i], adjusted[i], len(samples))
        for i, sample in enumerate(samples)
    ]


def decided(decisions: Sequence[Decision]) -> set[str]:
    """The benchmarks of which enough is known, and of their variant on all shapes as well."""
    whole = {d.variant: d for d in decisions if d.base is None}
    alarms = {name for name, d in whole.items() if d.verdict in ("slower", "faster")}
    open_ = {name for name, d in whole.items() if not d.decided}
    shapes = (d for d in decisions if d.base is not None)
    return {d.name for d in shapes if d.variant in alarms or (d.decided and d.variant not in open_)}


def _shape(name: str, variant: str, records: Sequence[Mapping[str, Any]]) -> _Sample:
    figures = {record["process"]: effect(record) for record in records}
    base, head = (
        math.exp(np.mean([level(record[side]) for record in records])) if records else None
        for side in ("base", "head")
    )
    return _Sample(name, variant, figures, WANTED_SHAPE, base, head)


def _variants(shapes: list[_Sample]) -> list[_Sample]:
    """The variants with several shapes, from the processes that measured all of them."""
    found = []
    for variant in dict.fromkeys(sample.variant for sample in shapes):
        mine = [s.figures for s in shapes if s.variant == variant and s.figures]
        if len(mine) > 1:
            figures = {
                process: _together([figures[process] for figures in mine])
                for process in mine[0]
                if all(process in figures for figures in mine)
            }
            found.append(_Sample(f"{variant} on all shapes", variant, figures, WANTED))
    return found


def _together(figures: Sequence[Figure]) -> Figure:
    """The mean of a process's figures, the steadier ones counting more."""
    weights = np.array([figure.weight for figure in figures])
    mean = float(weights @ [figure.log for figure in figures] / weights.sum())
    return Figure(mean, 1 / float(weights.sum()))


def _fit(figures: Sequence[Figure]) -> tuple[float, float, float]:
    """The weighted mean, the variance of one figure of common weight, and how many these are."""
    weights = np.array([figure.weight for figure in figures])
    weights /= weights.sum()
    logs = np.array([figure.log for figure in figures])
    mean = float(weights @ logs)
    count = max(1 / float(weights @ weights), 1.5)  # as many of equal weight say as much
    among = float(weights**2 @ (logs - mean) ** 2) * count / (count - 1)
    within = 1 / sum(figure.weight for figure in figures)
    return mean, max(among, within) * count, count


def _decision(
    sample: _Sample,
    mean: float,
    error: float,
    count: float,
    freedom: float,
    p: float,
    tests: int,
) -> Decision:
    figures = sample.figures.values()
    agreement = float(np.mean([np.sign(figure.log) == np.sign(mean) for figure in figures]))
    threshold = ALARMS / len(LOOKS)
    # Nothing is known of a variant's seconds, and its share alone counts.
    seconds = sample.base or math.inf
    large = abs(math.expm1(mean)) >= FLOOR and abs(mean) * seconds >= FLOOR_SECONDS
    enough = len(figures) >= LOOKS[0]
    alarm = bool(p <= threshold and large and agreement >= AGREEMENT and enough)
    # Seen alone among all: the first step of Holm's procedure.
    critical = -float(special.stdtrit(freedom, threshold / tests / 2))
    # The error may come out larger, by the benchmark's own scatter: Johnson and Welch's
    # approximation of the noncentral t distribution.
    spread = math.sqrt(1 + critical**2 / (2 * (count - 1)))
    room = critical + float(special.ndtri(POWER)) * spread
    visible = max(math.expm1(min(room * error, _FARTHEST)), FLOOR, FLOOR_SECONDS / seconds)
    width = min(error * float(special.stdtrit(freedom, 0.975)), _FARTHEST)
    calm = visible <= sample.wanted and abs(mean) + width < sample.wanted
    changed = "slower" if mean > 0 else "faster"
    verdict = changed if alarm else "same" if calm else "unclear"
    return Decision(
        sample.name, sample.variant, len(figures), sample.base, sample.head, math.exp(mean),
        math.exp(mean - width), math.exp(mean + width), float(p), agreement, visible, verdict,
        alarm or calm,
    )  # fmt: skip


def _holm(p: np.ndarray) -> np.ndarray:
    """The p-values (tests,), adjusted so that any false alarm is rare, whatever else is found.

    To control the share of false ones among all alarms, as Benjamini and Hochberg do, would let
    real changes make false alarms beside them more likely. Source: Holm, A simple sequentially
    rejective multiple test procedure (1979).
    """
    order = np.argsort(p)
    adjusted = np.empty_like(p)
    adjusted[order] = np.maximum.accumulate(p[order] * np.arange(len(p), 0, -1))
    return np.minimum(adjusted, 1)


def _prior(scatter: np.ndarray, freedom: np.ndarray) -> tuple[float, float]:
    """What variance the benchmarks have in common, and how many degrees of freedom it is worth.

    Source: Smyth, Linear models and empirical Bayes methods (2004), section 6.2.
    """
    if len(scatter) < 3:
        return float(scatter.mean()), 0.0
    half = freedom / 2
    e = np.log(scatter) - special.digamma(half) + np.log(half)
    excess = float(np.var(e, ddof=1) - np.mean(special.polygamma(1, half)))
    degrees = 2 * _inverse_trigamma(excess) if excess > 0 else _MOST_PRIOR
    degrees = min(degrees, _MOST_PRIOR)
    return math.exp(float(e.mean()) + special.digamma(degrees / 2) - math.log(degrees / 2)), degrees


def _inverse_trigamma(value: float) -> float:
    """x with ψ′(x) = value; ψ′(x) > 1/x and ψ′(x + ½) < 1/x say where it lies."""
    found = optimize.brentq(
        lambda x: float(special.polygamma(1, x)) - value, 1 / value, 1 / value + 0.5
    )
    return float(found)

"""What a run's figures say: effects with intervals, verdicts, and the smallest visible change.

A process gives one figure: the logarithm of head / base, by a low quantile of its blocks, which is
what another program on the machine disturbs least. Figures of different processes are independent;
blocks of one process are not, and only keep the standard error from being too small. An alarm needs
a p-value that stays significant beside those of all benchmarks and all looks at the figures, an
effect above two floors, and the same sign in most processes.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy import special, stats

ALARMS = 0.01  # of the runs without any change may raise an alarm
LOOKS = (4, 6, 8, 10, 12, 14)  # processes after which the figures are looked at
WANTED = 0.01  # a change that a run tries to be able to see
FLOOR = 0.004  # of the base's time; what is less is nobody's concern
FLOOR_SECONDS = 20e-9  # an epoch; the clock and the call of a block of few steps are not better
AGREEMENT = 0.75  # of the processes have the sign of the effect
POWER = 0.95  # with which the smallest visible change would be seen
_QUANTILES = (0.1, 0.2, 0.3, 0.4)  # of the blocks' times
_FARTHEST = 20.0  # of a logarithm that is reported; beyond it nothing was measured
_MOST_PRIOR = 8.0  # degrees of freedom that the other benchmarks' scatter may lend


@dataclass(frozen=True)
class Decision:
    """One benchmark's figures: ratio head / base with its interval, and what follows.

    verdict: "slower", "faster", "same" (a change of WANTED would have been seen) or "unclear".
    visible: the smallest change that would have been seen, as a share of the base's time. decided:
    more processes would not change it.
    """

    name: str
    processes: int
    base: float  # seconds an epoch
    head: float
    ratio: float
    low: float
    high: float
    p: float
    agreement: float
    visible: float
    verdict: str
    decided: bool


def level(blocks: Sequence[float]) -> float:
    """The logarithm of a step's seconds: the mean of a few low quantiles of the blocks."""
    return float(np.mean(np.quantile(np.log(blocks), _QUANTILES)))


def effect(record: Mapping[str, Any]) -> tuple[float, float]:
    """log(head / base) in one process, and by how much its two halves differ."""
    base, head = record["base"], record["head"]
    halves = [
        level(head[i::4] + head[i + 1 :: 4]) - level(base[i::4] + base[i + 1 :: 4]) for i in (0, 2)
    ]  # every other round of the order ABBA
    return level(head) - level(base), halves[1] - halves[0]


def decide(timings: Mapping[str, Sequence[Mapping[str, Any]]]) -> list[Decision]:
    """The decisions on all benchmarks from their records, those with fewer than two left out."""
    names = [name for name, records in timings.items() if len(records) >= 2]
    if not names:
        return []
    pairs = [np.array([effect(record) for record in timings[name]]) for name in names]
    counts = np.array([len(pair) for pair in pairs])
    means = np.array([pair[:, 0].mean() for pair in pairs])
    scatter = np.array([pair[:, 0].var(ddof=1) for pair in pairs])
    within = np.array([np.mean(pair[:, 1] ** 2) / 4 for pair in pairs])
    scatter = np.maximum(np.maximum(scatter, within), 1e-12)
    prior, degrees = _prior(scatter, counts - 1)
    # A scatter that is small by chance is raised to what all benchmarks make likely, never lowered.
    likely = (degrees * prior + (counts - 1) * scatter) / (degrees + counts - 1)
    errors = np.sqrt(np.maximum(scatter, likely) / counts)
    freedom = counts - 1 + degrees
    p = 2 * stats.t.sf(abs(means) / errors, freedom)
    adjusted = stats.false_discovery_control(p)  # Benjamini-Hochberg
    return [
        _decision(name, timings[name], pairs[i][:, 0], errors[i], freedom[i], adjusted[i], names)
        for i, name in enumerate(names)
    ]


def _decision(
    name: str,
    records: Sequence[Mapping[str, Any]],
    figures: np.ndarray,
    error: float,
    freedom: float,
    p: float,
    names: Sequence[str],
) -> Decision:
    mean = float(figures.mean())
    base, head = (
        math.exp(np.mean([level(record[side]) for record in records])) for side in ("base", "head")
    )
    agreement = float(np.mean(np.sign(figures) == np.sign(mean)))
    threshold = ALARMS / len(LOOKS)
    large = abs(math.expm1(mean)) >= FLOOR and abs(mean) * base >= FLOOR_SECONDS
    alarm = bool(p <= threshold and large and agreement >= AGREEMENT and len(records) >= LOOKS[0])
    # Seen alone among all: the first step of Benjamini and Hochberg's procedure.
    critical = float(stats.t.isf(threshold / len(names) / 2, freedom))
    # The error may come out larger, by the benchmark's own scatter: Johnson and Welch's
    # approximation of the noncentral t distribution.
    spread = math.sqrt(1 + critical**2 / (2 * (len(records) - 1)))
    room = critical + float(stats.norm.ppf(POWER)) * spread
    visible = max(math.expm1(min(room * error, _FARTHEST)), FLOOR, FLOOR_SECONDS / base)
    width = min(error * float(stats.t.ppf(0.975, freedom)), _FARTHEST)
    calm = visible <= WANTED and abs(mean) + width < WANTED
    changed = "slower" if mean > 0 else "faster"
    verdict = changed if alarm else "same" if calm else "unclear"
    return Decision(
        name, len(records), base, head, math.exp(mean), math.exp(mean - width),
        math.exp(mean + width), float(p), agreement, visible, verdict, alarm or calm,
    )  # fmt: skip


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
    """x with ψ′(x) = value, by Newton's method on 1/ψ′, which is nearly linear."""
    x = 0.5 + 1 / value
    for _ in range(50):
        slope = float(special.polygamma(1, x))
        change = slope * (1 - slope / value) / float(special.polygamma(2, x))
        x += change
        if abs(change) < 1e-8 * x:
            break
    return x

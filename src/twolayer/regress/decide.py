"""What a run's figures say: effects with intervals, verdicts, and the smallest visible change.

A process gives one figure for a benchmark: the logarithm of head / base, by what neighbouring turns
differ by, which another program on the machine disturbs least; another by high quantiles of all
blocks of steps, for what only some of them pay. Pairs of processes give figures of the first call
and of memory. Figures of different processes are independent; turns of one process are not, and
only tell how much its figure weighs. The benchmarks of a variant are judged together as well, since
most changes slow all shapes. An alarm needs a p-value that stays significant beside those of all
others and all looks at the figures, an effect above two floors, and one sign in most processes.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from scipy import optimize, special

from ..deferred import html
from .turns import middle

ALARMS = 0.01  # of the runs without any change may raise an alarm
LOOKS = (4, 7, 10, 13)  # processes after which the figures are looked at
WANTED = 0.01  # a change of a variant that a run tries to be able to see
WANTED_SHAPE = 0.02  # the same for one shape of several
AGREEMENT = 0.75  # of the processes have the sign of the effect
POWER = 0.95  # with which the smallest visible change would be seen
BETWEEN = 0.0015  # what processes differ by, however many turns they have
SLOWEST = ", slowest steps"  # of a name, after that of what the usual steps are tested by
_QUANTILES = (0.05, 0.15, 0.25)  # of the turns' times, for the seconds that are shown
_PARTS = 4  # of a process's pairs of plans, whose effects tell how far its own may be off
_FARTHEST = 20.0  # of a logarithm that is reported; beyond it nothing was measured
_MOST_PRIOR = 8.0  # degrees of freedom that the other benchmarks' scatter may lend


class Kind(NamedTuple):
    """What is tested. share, least: floors of an effect, of the base's figure and in `unit`."""

    unit: str
    share: float
    least: float
    between: float  # what processes differ by at least, as a share


KINDS = {
    # What is less is nobody's concern, nor is the clock better than 20 ns.
    "time": Kind("s", 0.004, 20e-9, BETWEEN),
    "tail": Kind("s", 0.05, 1e-6, 0.01),
    "load": Kind("s", 0.2, 0.02, 0.03),
    # Resident memory comes in pages, and what malloc keeps differs from process to process.
    "memory": Kind("bytes", 0.1, 512 << 10, 0.01),
}


@dataclass(frozen=True)
class Decision:
    """The figures of a benchmark, or of a variant on all shapes, and what follows.

    kind: of `KINDS`. base, in its unit, and head, by the ratio; None for a variant. ratio: head /
    base with its interval of 95%. p, agreement, verdict and visible: of what is news. verdict:
    "slower", "faster", "same" (a change of `WANTED` would have been seen) or "unclear"; of memory
    "more" and "less". visible: the smallest change that would have been seen, as a share of the
    base's figure. decided: more processes would not change it. excuse: why an alarm is none:
    "within tolerance", "accepted" or nothing.
    """

    _repr_html_ = html

    name: str
    variant: str
    kind: str
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
    excuse: str = ""

    @property
    def regression(self) -> bool:
        """Whether it raises the alarm of a run."""
        return self.verdict in ("slower", "more") and not self.excuse

    @property
    def changed(self) -> bool:
        """Whether either side is better."""
        return self.verdict not in ("same", "unclear")


class Figure(NamedTuple):
    """log(head / base) in one process, and its variance as its own turns have it."""

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
    kind: str
    figures: Mapping[int, Figure]
    wanted: float
    base: float | None = None
    head: float | None = None


def effect(record: Mapping[str, Any]) -> Figure:
    """The figure of a process from its turns, a list for each pair of plans, in the order ABBA."""
    pairs = [
        np.log(head) - np.log(base)
        for base, head in zip(record["base"], record["head"], strict=True)
    ]
    count = min(_PARTS, len(pairs))
    parts = [middle(np.concatenate(pairs[part::count])) for part in range(count)]
    variance = float(np.var(parts, ddof=1)) / count if count > 1 else 0.0
    return Figure(middle(np.concatenate(pairs)), variance)


def tail(record: Mapping[str, Any]) -> Figure:
    """The same of the slowest blocks."""
    seconds = record["slow"]
    return Figure(math.log(seconds["head"] / seconds["base"]), KINDS["tail"].between ** 2)


def usually(record: Mapping[str, Any]) -> float:
    """The logarithm of the seconds of a process's steps in the base: the mean of low quantiles."""
    return float(np.mean(np.quantile(np.log(np.concatenate(record["base"])), _QUANTILES)))


def slow(record: Mapping[str, Any]) -> float:
    """The logarithm of the seconds of the base's slowest steps."""
    return math.log(record["slow"]["base"])


def decide(
    timings: Mapping[str, Sequence[Mapping[str, Any]]],
    variant_of: Mapping[str, str],
    starts: Sequence[Mapping[str, Any]] = (),
    tolerance: float = 0.0,
) -> list[Decision]:
    """The decisions on all variants and benchmarks; what fewer than two processes have is left out.

    Arguments: timings, the records by benchmark; variant_of, the variants by benchmark; starts, the
    records of first calls; tolerance, the share by which a step may be slower.
    """
    groups = [_timed(kind, timings, variant_of) for kind in ("time", "tail")]
    groups += [_starts(kind, starts) for kind in ("load", "memory")]
    tests: list[tuple[Any, ...]] = []
    for samples in groups:
        tests += _tests([s for s in samples if len(s.figures) >= 2])
    if not tests:
        return []
    usual = {sample.name: mean for sample, mean, *_ in tests if sample.kind == "time"}
    shares = _shares([test[0].base is None and test[0].kind == "time" for test in tests])
    columns = []
    for share in (0.0, tolerance):
        news = [_news(test, usual, share) for test in tests]
        p = [_p(one, test[2], test[4]) for one, test in zip(news, tests, strict=True)]
        columns.append((news, _holm(np.array(p), shares).tolist()))
    (news, p), (_, beyond) = columns
    return [_decision(*row) for row in zip(tests, news, p, beyond, shares.tolist(), strict=True)]


def _tests(samples: Sequence[_Sample]) -> list[tuple[_Sample, float, float, float, float]]:
    """Each sample of one kind with its mean, its error, its count and its degrees of freedom."""
    if not samples:
        return []
    fits = [_fit(list(sample.figures.values())) for sample in samples]
    means, scatter, counts = (np.array(column) for column in zip(*fits, strict=True))
    single = [sample.base is not None for sample in samples]  # a variant repeats what these say
    prior, degrees = _prior(scatter[single], counts[single] - 1)
    # A scatter that is small by chance is raised to what all benchmarks make likely, never lowered.
    likely = (degrees * prior + (counts - 1) * scatter) / (degrees + counts - 1)
    errors = np.sqrt(np.maximum(scatter, likely) / counts)
    columns = (column.tolist() for column in (means, errors, counts, counts - 1 + degrees))
    return [*zip(samples, *columns, strict=True)]


def _news(test: tuple[Any, ...], usual: Mapping[str, float], tolerance: float) -> float:
    """What of a mean is beyond the tolerance, which is one of times that got longer.

    Of the slowest steps only what lies outside the span from no change to the usual ones' counts.
    """
    sample, mean = test[:2]
    if sample.kind not in ("time", "tail"):
        return float(mean)
    follow = usual.get(sample.name.removesuffix(SLOWEST), 0.0) if sample.kind == "tail" else 0.0
    return float(mean - np.clip(mean, min(follow, 0.0), max(follow, math.log1p(tolerance))))


def _p(effect: float, error: float, freedom: float) -> float:
    return float(2 * special.stdtr(freedom, -abs(effect) / error))


def decided(decisions: Sequence[Decision]) -> set[str]:
    """The benchmarks of which enough is known, and of their variant on all shapes as well."""
    times = [d for d in decisions if d.kind == "time"]
    whole = {d.variant: d for d in times if d.base is None}
    alarms = {name for name, d in whole.items() if d.changed}
    open_ = {name for name, d in whole.items() if not d.decided}
    shapes = (d for d in times if d.base is not None)
    return {d.name for d in shapes if d.variant in alarms or (d.decided and d.variant not in open_)}


def _timed(kind: str, timings: Mapping[str, Any], variant_of: Mapping[str, str]) -> list[_Sample]:
    """Times, or those of the slowest steps: of each variant, and of each shape."""
    usual = kind == "time"
    figure, log = (effect, usually) if usual else (tail, slow)
    after, wanted = ("", WANTED_SHAPE) if usual else (SLOWEST, 2 * KINDS[kind].share)
    shapes = []
    for name, every in timings.items():
        records = {record["process"]: record for record in every if usual or "slow" in record}
        figures = {process: figure(record) for process, record in records.items()}
        base = {process: log(record) for process, record in records.items()}
        head = {process: base[process] + figures[process].log for process in records}
        ends = _ends(figures, {"base": base, "head": head})
        shapes.append(_Sample(name + after, variant_of[name], kind, figures, wanted, *ends))
    return [*_variants(shapes, f"on all shapes{after}", WANTED if usual else wanted), *shapes]


def _ends(
    figures: Mapping[int, Figure], logs: Mapping[str, Mapping[int, float]], slack: float = 0.0
) -> list[float | None]:
    """Both sides' figures, by the weights of the ratio, which is that of what is shown."""
    if not figures:
        return [None, None]
    weights = [figure.weight for figure in figures.values()]
    means = [np.average([side[n] for n in figures], weights=weights) for side in logs.values()]
    return [max(math.exp(mean) - slack, 0.0) for mean in means]


def _starts(kind: str, records: Sequence[Mapping[str, Any]]) -> list[_Sample]:
    """The variants' first calls or memory: a figure a pair of processes."""
    about = KINDS[kind]
    pairs: dict[str, dict[int, dict[str, float]]] = {}
    for record in records:
        if record[kind] is not None:
            one = pairs.setdefault(record["variant"], {}).setdefault(record["pair"], {})
            one[record["side"]] = record[kind]
    slack = _slack(kind)
    found = []
    for variant, every in pairs.items():
        both = {number: pair for number, pair in every.items() if len(pair) == 2}
        logs = {
            side: {number: math.log(pair[side] + slack) for number, pair in both.items()}
            for side in ("base", "head")
        }
        figures = {
            number: Figure(logs["head"][number] - logs["base"][number], about.between**2)
            for number in both
        }
        base, head = _ends(figures, logs, slack)
        name, wanted = f"{variant}, {'first step' if kind == 'load' else kind}", 2 * about.share
        found.append(_Sample(name, variant, kind, figures, wanted, base, head))
    return found


def _slack(kind: str) -> float:
    """What is added to both sides: 0 bytes have no logarithm, and so few do not count."""
    return KINDS[kind].least if kind == "memory" else 0.0


def _variants(shapes: list[_Sample], title: str, wanted: float) -> list[_Sample]:
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
            kind = shapes[0].kind
            found.append(_Sample(f"{variant} {title}", variant, kind, figures, wanted))
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
    test: tuple[Any, ...], news: float, p: float, beyond: float, share: float
) -> Decision:
    """What follows from p, and from p beyond the tolerance, of one test with such a share."""
    sample, mean, error, count, freedom = test
    kind, figures = KINDS[sample.kind], sample.figures.values()
    agreement = float(
        np.mean([np.sign(figure.log - mean + news) == np.sign(news) for figure in figures])
    )
    threshold = ALARMS / len(LOOKS)
    # Nothing is known of a variant's seconds, and its share alone counts.
    size = math.inf if sample.base is None else sample.base + _slack(sample.kind)
    change = abs(math.expm1(news))
    large = change >= kind.share and change * size >= kind.least
    enough = len(figures) >= LOOKS[0]
    alarm = p <= threshold and large and agreement >= AGREEMENT and enough
    # Seen alone among all: the first step of Holm's procedure.
    critical = -float(special.stdtrit(freedom, threshold * share / 2))
    # The error may come out larger, by the benchmark's own scatter: Johnson and Welch's
    # approximation of the noncentral t distribution.
    spread = math.sqrt(1 + critical**2 / (2 * (count - 1)))
    room = critical + float(special.ndtri(POWER)) * spread
    visible = max(math.expm1(min(room * error, _FARTHEST)), kind.share, kind.least / size)
    width = min(error * float(special.stdtrit(freedom, 0.975)), _FARTHEST)
    calm = visible <= sample.wanted and abs(news) + width < sample.wanted
    words = ("more", "less") if sample.kind == "memory" else ("slower", "faster")
    verdict = words[news < 0] if alarm else "same" if calm else "unclear"
    tolerable = sample.kind in ("time", "tail") and news > 0 and beyond > threshold
    excuse = "within tolerance" if alarm and tolerable else ""
    return Decision(
        sample.name, sample.variant, sample.kind, len(figures), sample.base, sample.head,
        math.exp(mean), math.exp(mean - width), math.exp(mean + width),
        p, agreement, visible, verdict, bool(alarm or calm), excuse,
    )  # fmt: skip


def _shares(whole: Sequence[bool]) -> np.ndarray:
    """What part of all false alarms each test may raise; whole: whether of a variant's usual steps.

    Half of it is left to these, which are few: most changes slow all shapes and all steps.
    """
    of = np.array(whole)
    if of.all() or not of.any():
        return np.full(len(of), 1 / len(of))
    return np.where(of, 0.5 / of.sum(), 0.5 / (~of).sum())


def _holm(p: np.ndarray, shares: np.ndarray) -> np.ndarray:
    """The p-values (tests,), adjusted so that any false alarm is rare, whatever else is found.

    To control the share of false ones among all alarms, as Benjamini and Hochberg do, would let
    real changes make false alarms beside them more likely. Source: Holm, A simple sequentially
    rejective multiple test procedure (1979).
    """
    each = p / shares
    order = np.argsort(each)
    left = np.cumsum(shares[order][::-1])[::-1]  # of this one and those of larger p-values
    adjusted = np.empty_like(p)
    adjusted[order] = np.maximum.accumulate(each[order] * left)
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
    degrees = min(degrees, _MOST_PRIOR, len(scatter) - 1)  # that few are alike may be chance
    return math.exp(float(e.mean()) + special.digamma(degrees / 2) - math.log(degrees / 2)), degrees


def _inverse_trigamma(value: float) -> float:
    """x with ψ′(x) = value; ψ′(x) > 1/x and ψ′(x + ½) < 1/x say where it lies."""
    found = optimize.brentq(
        lambda x: float(special.polygamma(1, x)) - value, 1 / value, 1 / value + 0.5
    )
    return float(found)

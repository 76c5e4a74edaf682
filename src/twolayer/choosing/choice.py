"""The question "which variant?" and its answer, and how that goes to the store and back.

Everything here is plain Python, so that who only asks needs neither NumPy nor a compiler.
"""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, NamedTuple

from ..deferred import html


class Question(NamedTuple):
    """What is asked: a network, its sizes, the dtype, how many threads, and rows an update.

    batch: 0 where an epoch is one step of gradient descent, over all rows.
    """

    activation: str
    loss: str
    n: int
    d: int
    M: int
    K: int
    dtype: str
    threads: int
    batch: int = 0

    @property
    def itemsize(self) -> int:
        """Bytes of a number."""
        return 4 if self.dtype == "float32" else 8

    @property
    def data_bytes(self) -> int:
        """Bytes of X and Y."""
        return self.n * (self.d + self.K) * self.itemsize

    @property
    def flops(self) -> int:
        """Floating-point operations of an epoch's products, 4ndM + 6nMK."""
        return self.n * self.M * (4 * self.d + 6 * self.K)


class Span(NamedTuple):
    """A figure with what it was at least and at most."""

    low: float
    median: float
    high: float

    @classmethod
    def of(cls, figures: Sequence[float]) -> Span:
        """The median of at least one figure, from the least to the greatest."""
        return cls(min(figures), statistics.median(figures), max(figures))


@dataclass(frozen=True)
class Candidate:
    """A variant that could have been chosen, with what is known of it.

    seconds: an epoch, within which another measurement is expected nine times of ten; blocks: how
    many it was timed in, 0 where it is an estimate from few rows; ratio: to the chosen one's time,
    over rounds in which both were timed; memory: bytes of X, Y, θ, ∇L and all buffers; plan:
    seconds to make a plan once its code is loaded, with the first step; start: seconds of a new
    process until its first step on small data, None where nobody asked.
    """

    variant: str
    seconds: Span
    blocks: int
    memory: int
    plan: float
    ratio: Span | None = None
    start: Span | None = None

    @property
    def before(self) -> float:
        """Seconds of a new process until its first epoch begins."""
        return self.plan + (self.start.median if self.start else 0.0)

    def total(self, epochs: int) -> float:
        """Seconds of a process that runs so many epochs."""
        return self.before + epochs * self.seconds.median


class Turn(NamedTuple):
    """From `epochs` on, or from any number between `low` and `high`, a variant is the best."""

    variant: str
    low: int
    epochs: int
    high: int


@dataclass(frozen=True)
class Choice:
    """The variant to take, and why.

    chosen: what is known of it. runners_up: the others, best first. ruled_out: variants and
    reasons. rows: of n, on which epochs were timed. break_even: for rising numbers of epochs, who
    is the best from there on in a new process; only where epochs were asked for. calm: what
    disturbed the measurement, or nothing.
    """

    _repr_html_ = html

    variant: str
    reason: str
    chosen: Candidate
    runners_up: tuple[Candidate, ...]
    ruled_out: tuple[tuple[str, str], ...]
    rows: int
    epochs: int | None = None
    break_even: tuple[Turn, ...] = ()
    calm: str = ""

    @property
    def seconds_per_epoch(self) -> float:
        """Of the chosen one."""
        return self.chosen.seconds.median

    @property
    def interval(self) -> tuple[float, float]:
        """In which another measurement of the chosen one is expected nine times of ten."""
        return self.chosen.seconds.low, self.chosen.seconds.high

    @property
    def memory(self) -> int:
        """Bytes that the chosen one needs."""
        return self.chosen.memory

    @property
    def total_seconds(self) -> float | None:
        """Of a new process, where epochs were asked for."""
        return None if self.epochs is None else self.chosen.total(self.epochs)

    def to_json(self) -> dict[str, Any]:
        """The choice as JSON values."""
        said = {
            "seconds_per_epoch": self.seconds_per_epoch, "interval": list(self.interval),
            "memory": self.memory, "total_seconds": self.total_seconds,
        }  # fmt: skip
        return asdict(self) | said

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> Choice:
        """The choice that `to_json` wrote. Raises KeyError or TypeError for anything else."""
        return cls(
            values["variant"], values["reason"], _candidate(values["chosen"]),
            tuple(map(_candidate, values["runners_up"])),
            tuple((name, why) for name, why in values["ruled_out"]), values["rows"],
            values["epochs"], tuple(Turn(*turn) for turn in values["break_even"]), values["calm"],
        )  # fmt: skip


def _candidate(values: Mapping[str, Any]) -> Candidate:
    spans = {
        name: None if values[name] is None else Span(*values[name])
        for name in ("seconds", "ratio", "start")
    }
    return Candidate(**{**values, **spans})


def break_even(candidates: Iterable[Candidate]) -> tuple[Turn, ...]:
    """Who is the best for rising numbers of epochs, in new processes; the first is from 1 on.

    The lower envelope of the lines before + epochs · seconds; where two cross for the least and for
    the most that either start took is how far the crossing may be off.
    """
    left = list(candidates)
    epochs, low, high, found = 1, 1, 1, []
    while True:
        best = min(left, key=lambda c: (c.total(epochs), c.seconds.median))
        found.append(Turn(best.variant, low, epochs, high))
        left = [c for c in left if c.seconds.median < best.seconds.median]
        if not left:
            return tuple(found)
        nearest = min(left, key=lambda c: _crossing(best, c, c.before - best.before))
        epochs = max(epochs + 1, _crossing(best, nearest, nearest.before - best.before))
        mine, other = (c.start or Span(0.0, 0.0, 0.0) for c in (best, nearest))
        shift = nearest.plan - best.plan
        low = min(epochs, max(1, _crossing(best, nearest, shift + other.low - mine.high)))
        high = max(epochs, _crossing(best, nearest, shift + other.high - mine.low))


def _crossing(slow: Candidate, fast: Candidate, later: float) -> int:
    """After how many epochs the faster one, which begins so much later, is ahead."""
    return int(later / (slow.seconds.median - fast.seconds.median)) + 1

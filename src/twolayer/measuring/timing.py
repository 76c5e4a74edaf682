"""What a call costs: warmed-up blocks of calls, the first call, and peak memory.

A side-by-side figure is a median over blocks of several rounds. Right after another library's
threads ran, the first calls take up to some ten times as long as the rest, so every block is warmed
up.
"""

from __future__ import annotations

import contextlib
import ctypes
import gc
import math
import random
import statistics
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

T = TypeVar("T")

WARM_UP = 0.15  # seconds, longer than another thread pool's idle threads keep spinning
_STEADY = 1.1  # times the fastest call
_PATIENCE = 4  # times as long to wait for that
BLOCK = 0.05  # seconds
WAKE_UP = 1.0  # seconds of all threads: a virtual machine's idle CPUs come back slowly
_DROWSY = 10.0  # times as long a call may take before that
_FIRST_ROWS = 8  # even plain Python takes well under a second for so few
_ALPHA = 0.05  # of the intervals of a ratio
_STATUS = Path("/proc/self/status")
_CLEAR = Path("/proc/self/clear_refs")
_RESET_PEAK = "5"  # proc(5): set VmHWM to the present VmRSS


class Quartiles(NamedTuple):
    """The quartiles of a figure over its blocks; `high - low` is its spread."""

    low: float
    median: float
    high: float


def warm_up(call: Callable[[], object], seconds: float = WARM_UP, calls: int = 1) -> float:
    """Call for so many seconds and at least so many times; return what the fastest call took.

    While the last call took far longer than the fastest, it goes on, for four times `seconds` at
    most.
    """
    fastest = float("inf")
    with _no_collection():
        begin = time.perf_counter()
        while True:
            start = time.perf_counter()
            call()
            now = time.perf_counter()
            fastest = min(fastest, now - start)
            calls -= 1
            steady = now - start <= _STEADY * fastest or now - begin >= _PATIENCE * seconds
            if calls <= 0 and now - begin >= seconds and steady:
                return fastest


def block(call: Callable[[], object], seconds: float = BLOCK) -> float:
    """Seconds a call, over one warmed-up block of as many calls as fill `seconds`, at least one."""
    return each(call, max(1, round(seconds / max(warm_up(call), 1e-9))))


def each(call: Callable[[], object], calls: int) -> float:
    """Seconds a call, over so many."""
    with _no_collection():
        start = time.perf_counter()
        for _ in range(calls):
            call()
        return (time.perf_counter() - start) / calls


def estimate(
    make: Callable[[int], Callable[[], object]], n: int, limit: float, wake_up: float = 0.0,
    first: int = 0,
) -> float:  # fmt: skip
    """Seconds of a call over n rows, from few; from more where what every call costs may mislead.

    Arguments: make(rows), what is called, over so many rows, after its first call; n; limit,
    seconds that matter; wake_up, seconds of calls before it is believed that they are exceeded;
    first, rows to begin with at least.
    """
    rows = min(n, max(first, _FIRST_ROWS))
    while True:
        call = make(rows)
        seconds = warm_up(call, seconds=0, calls=2)
        if limit < seconds * n / rows < _DROWSY * limit:
            seconds = min(seconds, warm_up(call, seconds=wake_up, calls=2))
        found = seconds * n / rows
        if rows == n or found <= limit or seconds > limit / 5:
            return found
        rows = min(n, 4 * rows)


def rounds(members: Sequence[T], count: int, seed: str = "") -> Iterator[Sequence[T]]:
    """The members, a round after the other in an order that is drawn, and then in its reverse.

    So nobody has the same neighbour in all rounds, and each comes before each other as often as
    after it. The same seed draws the same orders.
    """
    draw = random.Random(seed)
    order: Sequence[T] = ()
    for number in range(count):
        order = order[::-1] if number % 2 else draw.sample(members, len(members))
        yield order


def once(call: Callable[[], T]) -> tuple[float, T]:
    """Seconds of one call, and what it returned."""
    start = time.perf_counter()
    result = call()
    return time.perf_counter() - start, result


def quartiles(seconds: Iterable[float]) -> Quartiles:
    """The quartiles of at least one figure."""
    figures = sorted(seconds)
    if len(figures) == 1:
        return Quartiles(*figures * 3)
    return Quartiles(*statistics.quantiles(figures, n=4, method="inclusive"))


class Ratio(NamedTuple):
    """How many times as long one takes as another, and an interval that holds it with 95%."""

    low: float
    value: float
    high: float

    @property
    def tie(self) -> bool:
        """Whether it is not shown that one of them is faster."""
        return self.low <= 1 <= self.high

    def report(self) -> dict[str, Any]:
        """As JSON values; no interval where the rounds are too few."""
        known = math.isfinite(self.high)
        interval = [self.low, self.high] if known else None
        return {"ratio": self.value, "ratio_interval": interval, "tie": self.tie}


def ratio(blocks: Sequence[float], others: Sequence[float]) -> Ratio:
    """The ratio of the medians of two that took part in the same rounds, one block in each.

    Its interval is that of the median of the rounds' own ratios, by their order alone: what
    disturbed single blocks moves it little. Fewer than six rounds give none.
    """
    value = statistics.median(blocks) / statistics.median(others)
    found = sorted(a / b for a, b in zip(blocks, others, strict=False))
    count = len(found)
    # The probability that so many of the rounds, or fewer, lie on one side of the median.
    below, left_out = 1 / 2**count, 0
    if 2 * below > _ALPHA:
        return Ratio(0.0, value, math.inf)
    while 2 * (below := below + math.comb(count, left_out + 1) / 2**count) <= _ALPHA:
        left_out += 1
    return Ratio(min(found[left_out], value), value, max(found[-1 - left_out], value))


def peak_memory(call: Callable[[], T]) -> tuple[int | None, T]:
    """Bytes by which the process grew at most during one call, and what the call returned.

    None where the system cannot say: only Linux can, and not in every container.
    """
    gc.collect()
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).malloc_trim(0)  # memory that is kept for later would hide what is needed
    before = _reset_peak()
    result = call()
    if before is None:
        return None, result
    peak = _status("VmHWM")
    return None if peak is None else max(peak - before, 0), result


def _reset_peak() -> int | None:
    """Make the present resident memory the peak and return it in bytes; None where that fails."""
    try:
        _CLEAR.write_text(_RESET_PEAK)
    except OSError:
        return None
    resident, peak = _status("VmRSS"), _status("VmHWM")
    if resident is None or peak is None or peak > resident + (1 << 20):
        return None  # the reset was ignored
    return resident


def _status(name: str) -> int | None:
    """A line of the process's status in bytes."""
    with contextlib.suppress(OSError, ValueError):
        for line in _STATUS.read_text().splitlines():
            if line.startswith(f"{name}:"):
                return int(line.split()[1]) << 10
    return None


@contextlib.contextmanager
def _no_collection() -> Iterator[None]:
    """Keep the garbage collector from falling into a block, as the module `timeit` does."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()

"""What a call costs: warmed-up blocks of calls, the first call, and peak memory.

A side-by-side figure is a median over blocks of several rounds. Right after another library's
threads ran, the first calls take up to some ten times as long as the rest, so every block is warmed
up.
"""

from __future__ import annotations

import contextlib
import ctypes
import gc
import statistics
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple, TypeVar

T = TypeVar("T")

WARM_UP = 0.15  # seconds, longer than another thread pool's idle threads keep spinning
LEAST_CALLS = 3
_STEADY = 1.1  # times the fastest call
_PATIENCE = 4  # times as long to wait for that
BLOCK = 0.05  # seconds
WAKE_UP = 1.0  # seconds of all threads: a virtual machine's idle CPUs come back slowly
_DROWSY = 10.0  # times as long a call may take before that
_FIRST_ROWS = 8  # even plain Python takes well under a second for so few
_LEAST_ROUNDS = 2  # one in either order
_STATUS = Path("/proc/self/status")
_CLEAR = Path("/proc/self/clear_refs")
_RESET_PEAK = "5"  # proc(5): set VmHWM to the present VmRSS


class Quartiles(NamedTuple):
    """The quartiles of a figure over its blocks; `high - low` is its spread."""

    low: float
    median: float
    high: float


def warm_up(
    call: Callable[[], object], seconds: float = WARM_UP, calls: int = LEAST_CALLS
) -> float:
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
    make: Callable[[int], Callable[[], object]], n: int, limit: float, wake_up: float = 0.0
) -> float:
    """Seconds of a call over n rows, from few; from more where what every call costs may mislead.

    Arguments: make(rows), what is called, over so many rows, after its first call; n; limit,
    seconds that matter; wake_up, seconds of calls before it is believed that they are exceeded.
    """
    rows = min(n, _FIRST_ROWS)
    while True:
        call = make(rows)
        seconds = warm_up(call, seconds=0, calls=2)
        if limit < seconds * n / rows < _DROWSY * limit:
            seconds = min(seconds, warm_up(call, seconds=wake_up, calls=2))
        found = seconds * n / rows
        if rows == n or found <= limit or seconds > limit / 5:
            return found
        rows = min(n, 4 * rows)


def rounds(
    members: Sequence[T], count: int, seconds: float = float("inf")
) -> Iterator[Sequence[T]]:
    """The members, a round after the other in an order that alternates.

    After so many seconds no round begins but the first two.
    """
    end = time.perf_counter() + seconds
    for number in range(count):
        if number >= _LEAST_ROUNDS and time.perf_counter() > end:
            return
        yield members[:: -1 if number % 2 else 1]


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

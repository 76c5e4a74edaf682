"""Two plans that take turns in one process, step by step.

A side has a name, and step(benchmark), a plan's step after its first.
"""

from __future__ import annotations

import contextlib
import ctypes
import gc
import random
import time
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from ..measuring import timing

WARM_UP = 0.02  # seconds until threads that were idle are back at full speed
STAY = 0.0005  # seconds of the blocks of a turn, at least one
# Before shorter blocks, an untimed one ends what the other side left in the caches.
SHORT = 0.001  # seconds of a block
BLOCK = 0.00001  # seconds of calls that are timed together, at least one call
LIVE = 0.08  # seconds of turns of the same two plans
ROUNDS = 2  # in the order ABBA of the same two plans at least
ENOUGH = 4  # pairs of plans, though they take longer than was asked for
LONGER = 4  # times as long as was asked for at most, if only there are
FEWEST = 3  # pairs of plans
TAIL = (0.88, 0.92, 0.96)  # quantiles of all blocks


def measured(
    sides: Sequence[Any], benchmark: dict[str, Any], seconds: float, number: int
) -> dict[str, Any]:
    """Seconds a step in turns of both sides, in the order ABBA, and of each side's slowest blocks.

    What else runs on the machine changes a step's time by tens of percent within a tenth of a
    second, for both sides alike if only their turns are short. Where its buffers lie makes a step
    some percent faster or slower, so both plans are made anew, elsewhere, again and again.
    """
    fastest = min(timing.warm_up(side.step(benchmark), WARM_UP, 2) for side in sides)
    calls = max(1, round(BLOCK / fastest))
    stay = max(1, round(STAY / (calls * fastest)))
    idle = calls if calls * fastest < SHORT else 0
    turns: tuple[list[list[float]], list[list[float]]] = ([], [])
    blocks: tuple[list[float], list[float]] = ([], [])
    places = random.Random(number)
    gc.collect()
    gc.freeze()  # or the next benchmark's collection would search all that was loaded for this one
    gc.disable()
    try:
        start = time.perf_counter()
        while not over(len(turns[0]), (time.perf_counter() - start) / seconds):
            steps, pads = {}, []
            for which in (0, 1) if len(turns[0]) % 2 == 0 else (1, 0):
                pads.append(bytearray(64 * places.randrange(1, 1024)))
                steps[which] = sides[which].step(benchmark)
            for step in steps.values():
                timing.warm_up(step, min(STAY, fastest))
            for side in turns:
                side.append([])
            rounds, end = 0, time.perf_counter() + LIVE
            while rounds < ROUNDS or time.perf_counter() < end:
                for which in (0, 1, 1, 0):
                    found = turn(steps[which], calls, stay, idle)
                    turns[which][-1].append(float(f"{min(found):.5g}"))
                    blocks[which].extend(found)
                rounds += 1
            steps.clear()
            del step, pads
    finally:
        gc.enable()
    names = [side.name for side in sides]
    slow = dict(zip(names, map(slowest, blocks), strict=True))
    return {**dict(zip(names, turns, strict=True)), "slow": slow}


def turn(step: Callable[[], Any], calls: int, blocks: int, idle: int) -> list[float]:
    """Seconds a step in so many blocks of calls, after some that are not timed.

    As many for either side: the least of more blocks is less.
    """
    for _ in range(idle):
        step()
    clock, found = time.perf_counter, []
    now = clock()
    for _ in range(blocks):
        start = now
        for _ in range(calls):
            step()
        now = clock()
        found.append((now - start) / calls)
    return found


def slowest(blocks: Sequence[float]) -> float:
    """Seconds a step in the slowest blocks but the very slowest, which are another program's."""
    return float(np.exp(np.mean(np.quantile(np.log(blocks), TAIL))))


def middle(values: np.ndarray) -> float:
    """The mean of the middle half: what lies far off is no matter, however far."""
    values = np.sort(values)
    cut = len(values) // 4
    return float(values[cut : len(values) - cut].mean())


def over(pairs: int, share: float) -> bool:
    """Whether so many pairs of plans are enough after that share of the time that was asked for."""
    return (share >= 1 and pairs >= ENOUGH) or (share >= LONGER and pairs >= FEWEST)


def keep_memory() -> None:
    """Let malloc keep what is freed: fresh pages would cost the first steps of each plan."""
    with contextlib.suppress(OSError, AttributeError):
        mallopt = ctypes.CDLL(None).mallopt
        mallopt(-4, 0)  # M_MMAP_MAX: nothing in a mapping of its own
        mallopt(-1, 1 << 30)  # M_TRIM_THRESHOLD

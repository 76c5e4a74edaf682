"""Two plans that take turns in one process: blocks of steps, and single ones.

A side has a name, and step(benchmark), a plan's step after its first.
"""

from __future__ import annotations

import contextlib
import ctypes
import gc
import random
import time
from collections.abc import Sequence
from typing import Any

from ..measuring import timing

WARM_UP = 0.05  # seconds until threads that were idle are back at full speed
STAY = 0.003  # seconds between two changes of side, at least one block
BLOCK = 0.0001  # seconds of calls that are timed together, at least one call
ENOUGH = 8  # rounds in the order ABBA, though they take longer than was asked for
LONGER = 4  # times as long as was asked for at most, if only there are
FEWEST = 3  # rounds
TURN = 40  # single steps in a turn of those whose tail is compared, of at most so many seconds
TURN_SECONDS = 0.03


def blocks(
    sides: Sequence[Any], benchmark: dict[str, Any], seconds: float, number: int
) -> dict[str, Any]:
    """Seconds a step, a figure a block, in the order ABBA; as many calls on either side.

    Where its buffers lie makes a step some percent faster or slower, so that two plans kept side by
    side differ by as much. Each block makes its plan anew, where that of the last block lay; a pad
    moves all plans of a round.
    """
    fastest = min(timing.warm_up(side.step(benchmark), WARM_UP, 2) for side in sides)
    calls = max(1, round(BLOCK / fastest))
    stay = max(1, round(STAY / (calls * fastest)))
    found: tuple[list[float], list[float]] = ([], [])
    pads = random.Random(number)
    gc.collect()
    gc.disable()
    try:
        start = time.perf_counter()
        while not over(len(found[0]) // 2, (time.perf_counter() - start) / seconds):
            pad = bytearray(64 * pads.randrange(1, 1024))
            for which in (0, 1, 1, 0):
                step = sides[which].step(benchmark)
                timing.warm_up(step, min(STAY, fastest) / 4, 2)
                found[which].append(min(timing.each(step, calls) for _ in range(stay)))
                del step
            del pad
    finally:
        gc.enable()
    return {
        side.name: [float(f"{x:.5g}") for x in values]
        for side, values in zip(sides, found, strict=True)
    } | {"calls": calls}


def tails(sides: Sequence[Any], benchmark: dict[str, Any]) -> dict[str, Any]:
    """Seconds of single steps of one plan, a list a turn: what only some of the steps pay for."""
    found: dict[str, Any] = {side.name: [] for side in sides}
    gc.collect()
    gc.disable()
    try:
        for which in (0, 1, 1, 0):
            step = sides[which].step(benchmark)
            seconds = timing.warm_up(step, STAY, 2)
            count = max(5, min(TURN, round(TURN_SECONDS / seconds)))
            turn = [float(f"{timing.each(step, 1):.4g}") for _ in range(count)]
            found[sides[which].name].append(turn)
            del step
    finally:
        gc.enable()
    return found


def over(rounds: int, share: float) -> bool:
    """Whether so many rounds are enough after that share of the time that was asked for."""
    return (share >= 1 and rounds >= ENOUGH) or (share >= LONGER and rounds >= FEWEST)


def keep_memory() -> None:
    """Let malloc keep what is freed, so that the next plan gets the same addresses."""
    with contextlib.suppress(OSError, AttributeError):
        mallopt = ctypes.CDLL(None).mallopt
        mallopt(-4, 0)  # M_MMAP_MAX: nothing in a mapping of its own
        mallopt(-1, 1 << 30)  # M_TRIM_THRESHOLD

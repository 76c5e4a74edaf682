"""A race for a choice: promising variants first, and whoever is left behind is dropped early."""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Sequence
from itertools import count

import numpy as np

from ..checking.answers import Answers
from ..interface import Plan, Variant
from ..kernels.formulas.updates import UPDATES
from ..machine.hardware import available_memory
from ..measuring import timing
from ..measuring.race import (
    STEP_SIZE,
    TOO_SLOW,
    Entry,
    Result,
    Workload,
    epoch,
    side_by_side,
    start,
)
from ..measuring.roofline import Roofline
from ..network import Network, Shape
from ..training.loop import updates_a_call, whole_batches
from .choice import Question

# Of each round, how many times the fastest a variant may have taken so far and still take part.
FAR = (math.inf, 2.0, 1.25, 1.1, 1.1)
_BEHIND = 3.0  # times the best estimate, beyond which a variant does not take part at all
_WORK = 1e9  # operations of an epoch for each thread: one with more runs on fewer rows
_ELEMENT = 20  # operations that a number of A or U is worth
_BATCHES = 32  # that are timed in turn
_WAKE_UP = 0.1  # seconds of steps before it is believed that a variant is left behind
_ROUSE = 0.5  # the same before blocks
_CALL = 5e-6  # seconds that a call costs, which updates share
_A_LOOK = 0.02  # seconds of steps for an estimate
_AWAKE = 0.3  # the same of the first plan, for threads of CPUs that were idle
# Seconds of an operation at least, of what would take minutes to find out about.
_INTERPRETED = {"python-loops": 1e-8}


def contest(
    net: Network, q: Question, field: Sequence[Variant], progress: Callable[[str, int], None]
) -> tuple[list[Entry], int]:
    """An entry for each variant, and the rows of n that it was timed on.

    Seconds are those of a step over these rows, or of an update over a batch of them. Who is left
    behind has an estimate alone. Raises MemoryError for data that cannot fit.

    Arguments: field, the promising ones first; progress(name, units), as for `race`, with at most
    len(FAR) + 1 units a variant.
    """
    rows = rows_of(q)
    shape = Shape(rows, q.d, q.M, q.K)
    answers = Answers.drawn(net, shape, q.dtype)
    result = Result(Workload(net, shape, q.dtype), q.threads, Roofline(math.inf, math.inf))
    each = updates_a_call(shape, q.batch) if q.batch else 1
    call = batches(q.batch, shape) if q.batch else epoch
    taken = min(q.batch or rows, rows)  # rows of what is timed
    running: list[tuple[Entry, Plan]] = []
    alone = _CALL if each > 1 else 0.0  # which `start` times a step with
    best = math.inf
    for variant in field:
        entry = Entry(variant)
        result.entries.append(entry)
        progress(variant.name, 0)
        least = _INTERPRETED.get(variant.name, 0.0) * q.flops / q.n * taken
        plan = None
        if least > _BEHIND * best:
            entry.estimate, entry.skipped = least, TOO_SLOW
        else:
            limit = _BEHIND * (best + alone)
            plan = start(entry, result, answers, limit, taken, wake_up=_WAKE_UP)
        if plan is not None:
            asleep = variant.parallel and q.threads > 1 and not running
            entry.estimate = timing.warm_up(call(plan), _AWAKE if asleep else _A_LOOK, 2) / each
            best = min(best, entry.estimate)
            running.append((entry, plan))
        progress(variant.name, 1)
    running = [(entry, plan) for entry, plan in running if (entry.estimate or 0) <= _BEHIND * best]
    side_by_side(running, answers, q.threads, FAR, progress=progress, call=call,
                 seed=str(result.workload), each=each, wake_up=_ROUSE)  # fmt: skip
    entries = {entry.variant.name: entry for entry in result.entries}
    again = _misjudged(result.entries)
    if 0 < len(again) < len(field):
        entries |= {entry.variant.name: entry for entry in contest(net, q, again, progress)[0]}
    return [*entries.values()], rows


def _misjudged(entries: Sequence[Entry]) -> list[Variant]:
    """Those left behind by one that turned out wrong, or slower than they seem; it is among them.

    A single look may come at a moment that another program disturbs, or at one that it leaves.
    """
    left = [entry for entry in entries if usable(entry) and not entry.blocks]
    first = min(
        (entry for entry in entries if entry.blocks),
        key=lambda entry: statistics.median(entry.blocks), default=None,
    )  # fmt: skip
    if first is None:
        return [entry.variant for entry in left]
    least = statistics.median(first.blocks)
    faster = [entry.variant for entry in left if (entry.estimate or math.inf) < least]
    return [first.variant, *faster] if faster else []


def usable(entry: Entry) -> bool:
    """Whether it can be chosen: timed, or left behind with an estimate alone."""
    return not entry.skipped or entry.skipped.startswith(TOO_SLOW)


def rows_of(q: Question) -> int:
    """As many of n as an epoch has time for, or as batches are taken from, and memory for both."""
    a_row = q.flops / q.n + _ELEMENT * (q.M + q.K)
    rows = q.batch * _BATCHES if q.batch else int(_WORK * q.threads / a_row)
    room = int(available_memory() / 4 / (q.data_bytes / q.n))
    return max(1, min(q.n, rows, room))


def batches(size: int, shape: Shape) -> Callable[[Plan], Callable[[], object]]:
    """What makes a plan's updates over batches of so many rows, `updates_a_call` at a time."""
    together = updates_a_call(shape, size)
    rows = whole_batches(shape.n, size)
    scalars = np.full((together, 1), STEP_SIZE)

    def call(plan: Plan) -> Callable[[], object]:
        every = count()

        def several() -> object:
            of_call = rows[(next(every) * together + np.arange(together)) % len(rows)]
            return plan.updates(UPDATES["descend"], scalars, of_call)

        return several

    return call

"""Fit a model to every variant: a few dozen epochs of shapes that stand for all."""

from __future__ import annotations

import hashlib
import os
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np

from ..checking.answers import Answers, Disagreement
from ..interface import Variant
from ..kernels.formulas.activations import ACTIVATIONS
from ..kernels.formulas.losses import LOSSES
from ..machine.store import Store
from ..measuring import timing
from ..measuring.race import STEP_SIZE, cause
from ..network import DTYPES, Network, Shape
from . import known
from .model import Model, Question, Sample, fit, to_json

Progress = Callable[[str, int], None]

SHAPES = 36  # of all sizes
UNITS = len(ACTIVATIONS) + SHAPES  # of work, for a task
_SIGMA = Shape(4000, 4, 64, 1)  # where σ is a large part of an epoch
_LONGEST = 0.01  # seconds an epoch: what takes longer runs on fewer rows
_LEAST = 2  # rows
_LARGEST = 1 << 26  # bytes of X, Y and what a variant needs
_TIME, _CALLS = 0.01, 2  # seconds and epochs at least, of which the fastest counts
_BUDGET = 1.5  # seconds for the shapes of a variant, a dtype and a number of threads
_BUDGET_ON_GPU = 20.0  # of which compiling takes nearly all: each shape can need its own kernels


class Task(NamedTuple):
    """A variant to be calibrated at a dtype and a number of threads."""

    variant: Variant
    dtype: str
    threads: int

    def entry(self, store: Store) -> known.Calibrated | None:
        """What the store knows of it."""
        variant = self.variant
        return known.calibrated(store, variant.name, variant.device, self.dtype, self.threads)


def thread_count(variant: Variant, threads: int) -> int:
    """The number of threads of a variant's model: 1 where it never uses more."""
    return threads if variant.parallel else 1


def tasks(
    variants: Sequence[Variant], dtypes: Sequence[str] = DTYPES, threads: Sequence[int] = (1,)
) -> list[Task]:
    """Each variant at each dtype and number of threads, once."""
    return list(
        dict.fromkeys(
            Task(variant, dtype, thread_count(variant, count))
            for dtype in dtypes
            for count in threads
            for variant in variants
        )
    )


def missing(store: Store, wanted: Sequence[Task], fresh: bool = False) -> list[Task]:
    """The tasks whose result is not known, or is that of another file's variant; all if fresh."""
    return [
        task for task in wanted
        if fresh or (had := task.entry(store)) is None or had.source != source(task.variant)
    ]  # fmt: skip


def calibrate(
    store: Store, wanted: Sequence[Task], progress: Progress = lambda name, done: None,
    fresh: bool = False,
) -> dict[Task, str]:  # fmt: skip
    """Measure what is missing of the tasks, keeping each as it is done; fresh: all of them.

    Arguments: progress(name, units), called with the units of work done, `UNITS` for a task. An
    interrupted calibration goes on where it ended. Returns the tasks that failed, and why, by
    something else than a disagreement: nothing is kept of them, and the next one tries again.
    """
    failed = {}
    for task in wanted:
        name = f"{task.variant.name}, {task.dtype}, threads={task.threads}"
        progress(name, 0)
        if not missing(store, [task], fresh):  # another process was faster
            progress(name, UNITS)
            continue
        entry = {"source": source(task.variant), "failure": ""}
        try:
            entry |= to_json(_measure(task, partial(progress, name)))
        except Disagreement as error:
            entry["failure"] = str(error)
        except Exception as error:  # whatever a variant raises is its own affair
            failed[task] = cause(error)
            continue
        known.keep(
            store, known.MODEL, entry, variant=task.variant.name, device=task.variant.device,
            dtype=task.dtype, threads=task.threads,
        )  # fmt: skip
    return failed


def questions(dtype: str, threads: int) -> list[Question]:
    """Shapes that fill the ranges of n, d, M and K evenly in their logarithms, small ones first."""
    from scipy.stats.qmc import Halton

    ranges = ((10, 1e6), (1, 4096), (1, 4096), (1, 1000))
    points = Halton(len(ranges), scramble=False).random(SHAPES + 1)[1:]
    found = []
    for number, point in enumerate(points.tolist(), 1):
        sizes = [
            round(low * (high / low) ** at) for (low, high), at in zip(ranges, point, strict=True)
        ]
        found.append(_asked(number, Shape(*sizes), dtype, threads))
    return sorted(found, key=lambda q: q.flops / q.n)


def _asked(number: int, shape: Shape, dtype: str, threads: int) -> Question:
    """A question with one of nine networks, in which all σ and all ℓ come up.

    More would be compiled for nothing else: some variants have machine code for each pair.
    """
    activation = [*ACTIVATIONS][number % len(ACTIVATIONS)]
    loss = [*LOSSES][number % len(ACTIVATIONS) % len(LOSSES)]
    shape = Network(activation, loss).with_outputs(shape)
    return Question(activation, loss, *shape, dtype, threads)


def _measure(task: Task, progress: Callable[[int], None]) -> Model:
    """Time each σ and each shape, on as many rows as an epoch can take in `_LONGEST`."""
    on_gpu = task.variant.device == "cuda"
    sigmas: list[Sample] = []
    for number in range(len(ACTIVATIONS)):
        if on_gpu and sigmas:
            progress(1)
            continue
        q = _compiled(task, _asked(number, _SIGMA, task.dtype, task.threads))
        # All on as many rows: their differences are what σ costs.
        if sigmas:
            rows = sigmas[0].question.n
        else:
            q = q._replace(n=10)
            per_row = _time(task, q).epoch / q.n
            rows = max(10, min(_SIGMA.n, int(_LONGEST / 4 / per_row)))
        sigmas.append(_time(task, q._replace(n=rows)))
        progress(1)
    shapes: list[Sample] = []
    per_flop = statistics.median(s.epoch / s.question.flops for s in sigmas)
    end = time.perf_counter() + (_BUDGET_ON_GPU if on_gpu else _BUDGET)
    for q in questions(task.dtype, task.threads):
        q = _compiled(task, q)
        fitting = _fitting(task, q, per_flop) if time.perf_counter() < end else None
        if fitting is not None:
            shapes.append(_time(task, fitting))
            per_flop = shapes[-1].epoch / fitting.flops
        progress(1)
    return fit(task.variant.name, task.dtype, task.threads, sigmas, shapes)


def _compiled(task: Task, q: Question) -> Question:
    """The question; on a GPU with one network for all, or each shape would compile its own kernels.

    What σ and ℓ cost hardly shows there, and the measurement before a choice sees it.
    """
    return q._replace(activation="tanh", loss="squared") if task.variant.device == "cuda" else q


def _fitting(task: Task, q: Question, per_flop: float) -> Question | None:
    """The question with as many rows as time and memory allow; None where that is hardly one."""
    rows = q.n
    if per_flop:
        rows = min(rows, int(_LONGEST / per_flop / (q.flops / q.n)))
    a_row = (
        q.data_bytes / q.n
        + task.variant.workspace(Shape(q.n, q.d, q.M, q.K), q.itemsize, task.threads) / q.n
    )
    rows = min(rows, int(_LARGEST / a_row))
    shape = Shape(max(rows, 1), q.d, q.M, q.K)
    if rows < min(_LEAST, q.n) or task.variant.refuses(shape, np.dtype(task.dtype)):
        return None
    return q._replace(n=rows)


def _time(task: Task, q: Question) -> Sample:
    """Time a plan whose code is loaded, and an epoch. Raises Disagreement for a wrong one."""
    net = Network(q.activation, q.loss)
    answers = Answers.drawn(net, Shape(q.n, q.d, q.M, q.K), q.dtype)
    make = partial(task.variant.plan, *answers.problem, task.threads)
    make()
    seconds, plan = timing.once(make)
    answers.hold(plan)
    step = partial(plan.step, STEP_SIZE)
    # The fastest of several, for what disturbs an epoch on a shared machine only makes it longer.
    return Sample(q, seconds, timing.warm_up(step, _TIME, _CALLS))


def by_default(variant: Variant) -> bool:
    """Whether a variant is a candidate without being named: all but those of other libraries."""
    return not variant.requires or bool(source(variant))


def source(variant: Variant) -> str:
    """The digest of the file that a variant of somebody else's comes from; of ours, nothing."""
    package = (__package__ or "").partition(".")[0]
    module = sys.modules.get(variant.make.__module__)
    path = getattr(module, "__file__", None)
    if variant.make.__module__.partition(".")[0] == package:
        return ""
    if path is None:  # of an interactive session: known to this process only
        return f"process {os.getpid()}"
    return hashlib.sha256(Path(path).read_bytes()).hexdigest()[:16]

"""Updates over mini-batches side by side: the variants' own, and those of other libraries' loops.

Every loop starts from one θ and takes the same batches. Each is held to θ after three updates in
float64 before it is timed.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field
from functools import partial
from inspect import signature

import numpy as np

from .. import variants
from ..checking.answers import DISAGREES, Answers
from ..interface import Variant
from ..machine.calm import Calm, Watch
from ..measuring import timing
from ..measuring.peers import Loop, Peer, Task
from ..measuring.race import REFERENCE, ROUNDS, Workload, cause
from ..network import Parameters
from . import optimizers
from .loop import updates_a_call, whole_batches

BATCHES = (1, 32, 256, 2048)
OPTIMIZERS = ("sgd", "adam")
SHAPES = ((20_000, 64, 64, 10), (60_000, 784, 128, 10), (5_000, 8, 16, 1))
STEP = 1e-4
HELD = 3  # updates before θ is compared
# Of the way that θ went. A weight whose slope rounds to another sign goes another way under Adam,
# and PyTorch counts Adam's updates in float32.
TOLERANCE = {"float32": 1e-2, "float64": 1e-4}


@dataclass
class Entry:
    """A loop's seconds an update, one figure a block, or why there are none."""

    name: str
    peer: bool
    skipped: str = ""
    blocks: list[float] = field(default_factory=list)

    @property
    def seconds(self) -> timing.Quartiles:
        """Quartiles of the seconds an update. Raises ValueError before the first block."""
        return timing.quartiles(self.blocks)

    @property
    def wrong(self) -> bool:
        """Whether it was skipped because its θ is wrong."""
        return self.skipped.startswith(DISAGREES)


@dataclass
class Result:
    """The loops on one workload, with one batch and one optimizer. calm: what was met meanwhile."""

    workload: Workload
    batch: int
    optimizer: str
    entries: list[Entry] = field(default_factory=list)
    calm: Calm = field(default_factory=Calm)

    @property
    def best_peer(self) -> Entry | None:
        """The fastest loop of another library; None where none was timed."""
        timed = [entry for entry in self.entries if entry.peer and entry.blocks]
        return min(timed, key=lambda entry: entry.seconds.median, default=None)

    @property
    def winner(self) -> Entry | None:
        """The fastest loop; None where another one is a tie with it."""
        timed = [entry for entry in self.entries if entry.blocks]
        first = min(timed, key=lambda entry: entry.seconds.median, default=None)
        others = [entry for entry in timed if entry is not first]
        ties = first and any(timing.ratio(e.blocks, first.blocks).tie for e in others)
        return None if ties else first

    @property
    def lead(self) -> timing.Ratio | None:
        """Seconds of the best peer over those of `REFERENCE`; None unless both were timed."""
        own = next((e for e in self.entries if e.name == REFERENCE and e.blocks), None)
        best = self.best_peer
        return timing.ratio(best.blocks, own.blocks) if best and own else None


def task(answers: Answers, batch: int, optimizer: str, threads: int) -> Task:
    """Updates of a problem over batches of so many rows, or all, by the optimizer's defaults.

    Its step is small, so that parameters stay finite through any number of updates.
    """
    parameters = signature(optimizers.get(optimizer).make).parameters
    settings = {name: p.default for name, p in parameters.items() if name != "rule"}
    settings["step"] = STEP
    return Task(*answers.problem, min(batch, len(answers.X)), optimizer, settings, threads)


def own_loop(variant: Variant, task: Task) -> Loop:
    """The updates of a variant's plan. Raises ValueError for what the variant refuses."""
    algorithm = optimizers.get(task.optimizer)(**task.settings)
    plan = variant.plan(task.net, task.X, task.Y, task.theta, task.threads)
    plan.slots = algorithm.init(task.theta).slots
    rows, k = whole_batches(len(task.X), task.batch), 0

    def run(updates: int) -> None:
        nonlocal k
        of_call = rows[np.arange(k, k + updates) % len(rows)]
        optimizers.advance_over(algorithm, plan, k + 1, of_call)
        k += updates

    return Loop(run, lambda: plan.theta, nullcontext)


def right(task: Task) -> Parameters:
    """θ after `HELD` updates in float64, by the optimizer's own formula over NumPy's gradient."""
    algorithm = optimizers.get(task.optimizer)(**task.settings)
    theta = Parameters(*(weights.astype(np.float64) for weights in task.theta))
    X, Y = (array[: HELD * task.batch].astype(np.float64) for array in (task.X, task.Y))
    plan = variants.get("numpy").plan(task.net, X, Y, theta, task.threads)
    state = algorithm.init(theta)
    for _, rows in zip(range(HELD), task.batches(), strict=False):
        _, gradient = plan.gradient(rows)
        theta, state = algorithm.update(gradient, state, theta)
        plan.theta = theta
    return theta


def hold(loop: Loop, task: Task, expected: Parameters) -> None:
    """Make `HELD` updates of a loop. Raises ValueError where θ is not the expected one then."""
    with loop.settings():
        loop.run(HELD)
        found = loop.theta()
    tolerance = TOLERANCE[task.X.dtype.name]
    for name, begun, there, here in zip("VW", task.theta, expected, found, strict=True):
        way = float(np.linalg.norm(there - begun)) or 1.0  # a slope may be 0
        off = float(np.linalg.norm(here - there)) / way
        if not off <= tolerance:
            raise ValueError(
                f"{DISAGREES}: after {HELD} updates {name} is off by {off:.2g} of its way, "
                f"at most {tolerance:g} is allowed"
            )


def race(
    result: Result,
    answers: Answers,
    field_of: Sequence[Variant],
    peers: Sequence[Peer],
    threads: int,
    rounds: int = ROUNDS,
    progress: Callable[[str, int], None] = lambda name, units: None,
) -> None:
    """Fill `result` with an entry for each variant and peer.

    Arguments: result, new; answers, of its workload; threads of each loop; rounds, blocks for each;
    progress(name, units), called before anything is done for a loop with the units of work done
    since the last call, `rounds + 1` for each loop.
    """
    watch = Watch()
    work = task(answers, result.batch, result.optimizer, threads)
    expected = right(work)
    makers: list[tuple[Entry, Variant, Callable[[Task], Loop]]] = [
        *((Entry(v.name, False), v, partial(own_loop, v)) for v in field_of),
        *((Entry(p.name, True), variants.get(p.variant), p.make) for p in peers),
    ]
    shape, dtype = result.workload.shape, work.X.dtype
    of_call = updates_a_call(shape, work.batch)
    result.entries[:] = [entry for entry, _, _ in makers]
    running: list[tuple[Entry, Loop]] = []
    for entry, variant, make in makers:
        progress(entry.name, 0)
        try:
            reason = variant.unavailable() or variant.refusal(work.net, shape, dtype)
            entry.skipped = reason or ""
            if not entry.skipped:
                with warnings.catch_warnings():  # what a library's compiler says is its own affair
                    warnings.simplefilter("ignore")
                    loop = make(work)
                    hold(loop, work, expected)
                running.append((entry, loop))
        except Exception as error:
            entry.skipped = cause(error)
        progress(entry.name, rounds + 1 if entry.skipped else 1)
    if running and threads > 1:
        _, loop = running[0]
        with loop.settings():
            timing.warm_up(partial(loop.run, of_call), seconds=timing.WAKE_UP)
    try:
        for order in timing.rounds(running, rounds, str(result.workload)):
            for entry, loop in order:
                progress(entry.name, 0)
                with loop.settings():
                    entry.blocks.append(timing.block(partial(loop.run, of_call)) / of_call)
                progress(entry.name, 1)
    finally:
        result.calm = watch.calm()
    for entry, loop in running:
        with loop.settings():
            finite = all(math.isfinite(float(weights.sum())) for weights in loop.theta())
        if not finite:  # NaN and infinity take another time
            entry.blocks.clear()
            entry.skipped = "θ is not finite after its updates"

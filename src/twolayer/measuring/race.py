"""Variants side by side in one process: checked, then timed in blocks whose order alternates."""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

from ..checking.answers import DISAGREES, Answers, Disagreement
from ..data import datasets
from ..interface import Plan, Variant
from ..interface.checks import check_targets
from ..machine.store import Measurement, Store
from ..network import Network, Shape
from ..texts import sentence
from . import timing
from .roofline import Roofline

STEP_SIZE = 1e-6  # small, so that parameters stay finite through any number of epochs
ROUNDS = 5
LIMIT = 0.1  # seconds an epoch; a slower variant is skipped
TIME = 3.0  # seconds for the blocks of a group on one workload; the first two rounds are done
TOO_SLOW = "would take"  # how the reason of a variant that is too slow begins
TOO_LITTLE = "found too little memory"  # how that of one without memory begins
REFERENCE = "numba-fused"  # what others are set against


@dataclass(frozen=True)
class Workload:
    """A network to train on data of one shape and dtype: a bundled set, or synthetic data."""

    net: Network
    shape: Shape
    dtype: str = "float32"
    dataset: str = ""

    @classmethod
    def bundled(
        cls, dataset: str, M: int, activation: str = "tanh", dtype: str = "float32"
    ) -> Workload:
        """A network with M hidden units and the loss that fits a set of `datasets.BUNDLED`."""
        data = datasets.load(dataset, dtype)
        n, d = data.X.shape
        return cls(Network(activation, data.loss), Shape(n, d, M, data.K), dtype, dataset)

    def load(self) -> Answers:
        """X (n, d), Y (n, K), θ and the answers. Raises MemoryError for a shape that cannot fit."""
        if not self.dataset:
            return Answers.drawn(self.net, self.shape, self.dtype)
        data = datasets.load(self.dataset, self.dtype)
        Y = check_targets(self.net, data.Y, self.shape, data.X.dtype)
        return Answers(self.net, data.X, Y, self.net.init(*self.shape[1:], dtype=self.dtype))

    def __str__(self) -> str:
        return f"{self.dataset} {self.shape}".strip()


@dataclass
class Entry:
    """What is known of one variant on one workload: its figures, or why there are none.

    blocks: seconds an epoch, one figure a block. first_call: seconds of plan and first step,
    compiling or loading included. peak_memory: bytes that a plan and a step need, None if unknown.
    passing: whether there may be some another time.
    """

    variant: Variant
    skipped: str = ""
    blocks: list[float] = field(default_factory=list)
    first_call: float | None = None
    peak_memory: int | None = None
    passing: bool = False

    def fail(self, error: Exception) -> None:
        """Leave the variant out for what was raised; only a disagreement is its property."""
        self.blocks.clear()
        self.skipped, self.passing = cause(error), not isinstance(error, Disagreement)

    @property
    def wrong(self) -> bool:
        """Whether it was skipped because its results are wrong."""
        return self.skipped.startswith(DISAGREES)

    @property
    def seconds(self) -> timing.Quartiles:
        """Quartiles of the seconds an epoch. Raises ValueError before the first block."""
        return timing.quartiles(self.blocks)


@dataclass
class Result:
    """The entries of one race, filled in while it runs."""

    workload: Workload
    threads: int
    roof: Roofline
    entries: list[Entry] = field(default_factory=list)

    @property
    def ranking(self) -> list[Entry]:
        """The entries that were timed, fastest first."""
        return sorted((e for e in self.entries if e.blocks), key=lambda e: e.seconds.median)

    def of(self, name: str) -> Entry | None:
        """The entry of a variant by name; None unless it was timed."""
        return next((e for e in self.entries if e.blocks and e.variant.name == name), None)

    def on(self, device: str) -> Result:
        """The result with the entries of what runs on a device only."""
        there = [entry for entry in self.entries if entry.variant.device == device]
        return replace(self, entries=there)

    @property
    def lead(self) -> float | None:
        """Seconds of the fastest other variant over `REFERENCE`'s; None unless both were timed."""
        reference = self.of(REFERENCE)
        others = [entry.seconds.median for entry in self.ranking if entry is not reference]
        return others[0] / reference.seconds.median if reference and others else None

    @property
    def least_seconds(self) -> float:
        """What the roofline allows for one epoch on the CPU."""
        shape = self.workload.shape
        return self.roof.seconds(shape.flops(), shape.bytes(self.workload.dtype))

    def figures(self, entry: Entry) -> dict[str, Any]:
        """All that is reported of an entry that was timed, in seconds, bytes and GFLOP/s.

        ratio: to the fastest. roofline: the roofline's time over the measured one, CPU only.
        """
        low, median, high = entry.seconds
        return {
            "seconds": median,
            "low": low,
            "high": high,
            "blocks": entry.blocks,
            "ratio": median / self.ranking[0].seconds.median,
            "gflops": self.workload.shape.flops() / median / 1e9,
            "roofline": self.least_seconds / median if entry.variant.device == "cpu" else None,
            "first_call": entry.first_call,
            "peak_memory": entry.peak_memory,
        }


def distinct(groups: Mapping[str, Sequence[Result]]) -> list[Result]:
    """Each result once, though it may stand in several groups."""
    return list({id(result): result for results in groups.values() for result in results}.values())


def race(
    result: Result,
    field_of: Sequence[Variant],
    *,
    rounds: int = ROUNDS,
    limit: float = LIMIT,
    seconds: float | None = None,
    store: Store | None = None,
    progress: Callable[[str, int], None] = lambda name, units: None,
) -> None:
    """Fill `result` with an entry for each variant, and keep each that was timed in the store.

    Arguments: result, new; field_of, the variants; rounds, blocks for each; limit, seconds an epoch
    beyond which a variant is skipped; seconds, after which blocks end early but for the first two
    rounds, `TIME` by default; progress(name, units), called before anything is done for a
    variant with the units of work done since the last call, at most `rounds + 1` for each variant.
    What was measured when an exception (KeyboardInterrupt) ends the race is in `result` and store.
    """
    result.entries[:] = [Entry(variant) for variant in field_of]
    running: list[tuple[Entry, Plan]] = []
    try:
        answers = result.workload.load()
    except MemoryError as error:
        for entry in result.entries:
            entry.fail(error)
        progress("", len(field_of) * (rounds + 1))
        return
    for entry in result.entries:
        progress(entry.variant.name, 0)
        plan = _start(entry, result, answers, limit)
        if plan is not None:
            running.append((entry, plan))
        progress(entry.variant.name, 1 if plan is not None else rounds + 1)
    try:
        far, most = [math.inf] * rounds, TIME if seconds is None else seconds
        side_by_side(running, answers, result.threads, far, most, progress)
    finally:
        for entry, _ in running:
            if entry.blocks and store is not None:
                store.add(_measurement(result, entry))


def side_by_side(
    running: Sequence[tuple[Entry, Plan]],
    answers: Answers,
    threads: int,
    far: Sequence[float],
    seconds: float = math.inf,
    progress: Callable[[str, int], None] = lambda name, units: None,
) -> None:
    """Add blocks to the entries, a block a round; a plan that ends up wrong loses its own.

    Arguments: running, plans that were held to the answers; threads of each; far, for each round
    how many times the fastest one's time a plan may have taken so far and still take part; seconds
    and progress as for `race`.
    """
    # A virtual machine's idle CPUs can take a second to come back at full speed, so variants
    # that use all of them and variants that use one do not alternate.
    for parallel in (True, False):
        group = [pair for pair in running if pair[0].variant.parallel is parallel]
        if group and parallel and threads > 1:
            timing.warm_up(partial(group[0][1].step, STEP_SIZE), seconds=timing.WAKE_UP)
        for times, order in zip(far, timing.rounds(group, len(far), seconds), strict=False):
            for entry, plan in order:
                # What disturbs a block only makes it longer, so the fastest one is believed.
                fastest = min((min(e.blocks) for e, _ in running if e.blocks), default=math.inf)
                if entry.blocks and min(entry.blocks) > times * fastest:
                    continue
                progress(entry.variant.name, 0)
                entry.blocks.append(timing.block(partial(plan.step, STEP_SIZE)))
                progress(entry.variant.name, 1)
    for entry, plan in running:
        try:
            answers.hold(plan)  # again: some go wrong only after many steps
        except Exception as error:
            entry.fail(error)


def held(variant: Variant, answers: Answers, threads: int | None = None) -> Callable[[], float]:
    """An epoch, again and again, of a plan that was held to the answers."""
    plan = variant.plan(*answers.problem, threads)
    answers.hold(plan)
    return partial(plan.step, STEP_SIZE)


def cause(error: Exception) -> str:
    """Why a variant that raised this is left out."""
    text = sentence(error, MemoryError, ValueError, TypeError, RuntimeError)
    return f"{TOO_LITTLE}: {text}" if isinstance(error, MemoryError) else text


def _start(entry: Entry, result: Result, answers: Answers, limit: float) -> Plan | None:
    """The plan of a variant that runs here, fast enough and rightly; None once it is skipped."""
    variant, X, Y = entry.variant, answers.X, answers.Y

    def begin(rows: int) -> Plan:
        plan = variant.plan(answers.net, X[:rows], Y[:rows], answers.theta, result.threads)
        plan.step(STEP_SIZE)
        return plan

    def start(rows: int) -> Plan:
        seconds, plan = timing.once(partial(begin, rows))
        # Few rows may not compile or load all.
        entry.first_call = max(entry.first_call or 0.0, seconds)
        return plan

    try:
        shape = result.workload.shape
        if reason := variant.unavailable() or variant.refusal(answers.net, shape, X.dtype):
            entry.skipped = reason
            return None
        estimate = timing.estimate(
            lambda rows: partial(start(rows).step, STEP_SIZE), len(X), limit, timing.WAKE_UP
        )
        if estimate > limit:
            entry.skipped = f"{TOO_SLOW} {estimate:.2g} s an epoch, the limit is {limit:g} s"
            return None
        entry.peak_memory, plan = timing.peak_memory(partial(start, len(X)))
        answers.hold(plan)
        return plan
    except Exception as error:  # whatever a variant raises is its own affair
        entry.fail(error)
        return None


def _measurement(result: Result, entry: Entry) -> Measurement:
    workload, variant = result.workload, entry.variant
    metrics = {
        "seconds": statistics.median(entry.blocks),
        "blocks": entry.blocks,
        "first_call": entry.first_call,
        "peak_memory": entry.peak_memory,
        "data": workload.dataset or "synthetic",
        **result.roof._asdict(),
    }
    return Measurement(
        kind="epoch",
        metrics=metrics,
        variant=variant.name,
        device=variant.device,
        activation=workload.net.activation,
        loss=workload.net.loss,
        dtype=workload.dtype,
        threads=result.threads,
        **workload.shape._asdict(),
    )

"""Variants side by side in one process: checked, then timed in blocks in drawn orders."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from typing import Any

from .. import texts
from ..checking.answers import DISAGREES, Answers, Disagreement
from ..data import datasets
from ..deferred import html
from ..interface import Plan, Variant
from ..interface.checks import check_targets
from ..machine.calm import Calm, Watch
from ..machine.store import Measurement, Store
from ..network import Network, Shape
from . import timing
from .roofline import Roofline

_ALONE = 3  # blocks of who has left all others behind
STEP_SIZE = 1e-6  # small, so that parameters stay finite through any number of epochs
ROUNDS = 6  # the fewest that give a ratio an interval
LIMIT = 0.1  # seconds an epoch; a slower variant is skipped
TOO_SLOW = "would take"  # how the reason of a variant that is too slow begins
_LITTLE = 1e7  # operations that take little time whatever does them
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
    passing: whether there may be some another time. estimate: of an epoch, from few steps; plan:
    seconds of plan and first step once the code is there.
    """

    variant: Variant
    skipped: str = ""
    blocks: list[float] = field(default_factory=list)
    first_call: float | None = None
    peak_memory: int | None = None
    passing: bool = False
    estimate: float | None = None
    plan: float | None = None

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
    """The entries of one race, filled in while it runs. calm: what was met meanwhile."""

    _repr_html_ = html

    workload: Workload
    threads: int
    roof: Roofline
    entries: list[Entry] = field(default_factory=list)
    calm: Calm = field(default_factory=Calm)

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

    def ratio(self, entry: Entry) -> timing.Ratio:
        """Seconds of an entry over the fastest's; 1 for that one."""
        first = self.ranking[0]
        if entry is first:
            return timing.Ratio(1.0, 1.0, 1.0)
        return timing.ratio(entry.blocks, first.blocks)

    @property
    def margin(self) -> timing.Ratio | None:
        """Seconds of the second over the fastest's; None unless two were timed."""
        return self.ratio(self.ranking[1]) if len(self.ranking) > 1 else None

    @property
    def winner(self) -> Entry | None:
        """The fastest; None where another one is a tie with it."""
        ties = any(self.ratio(entry).tie for entry in self.ranking[1:])
        return self.ranking[0] if self.ranking and not ties else None

    @property
    def lead(self) -> timing.Ratio | None:
        """Seconds of the fastest other variant over `REFERENCE`'s; None unless both were timed."""
        reference = self.of(REFERENCE)
        others = [entry for entry in self.ranking if entry is not reference]
        return timing.ratio(others[0].blocks, reference.blocks) if reference and others else None

    @property
    def least_seconds(self) -> float:
        """What the roofline allows for one epoch on the CPU."""
        shape = self.workload.shape
        return self.roof.seconds(shape.flops(), shape.bytes(self.workload.dtype))

    def figures(self, entry: Entry) -> dict[str, Any]:
        """All that is reported of an entry that was timed, in seconds, bytes and GFLOP/s.

        ratio: to the fastest, with its interval. roofline: the roofline's time over the measured
        one, CPU only.
        """
        low, median, high = entry.seconds
        return {
            "seconds": median,
            "low": low,
            "high": high,
            "blocks": entry.blocks,
            **self.ratio(entry).report(),
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
    store: Store | None = None,
    progress: Callable[[str, int], None] = lambda name, units: None,
) -> None:
    """Fill `result` with an entry for each variant, and keep each that was timed in the store.

    Arguments: result, new; field_of, the variants; rounds, blocks for each; limit, seconds an epoch
    beyond which a variant is skipped; progress(name, units), called before anything is done for a
    variant with the units of work done since the last call, at most `rounds + 1` for each variant.
    What was measured when an exception (KeyboardInterrupt) ends the race is in `result` and store.
    """
    result.entries[:] = [Entry(variant) for variant in field_of]
    running: list[tuple[Entry, Plan]] = []
    watch = Watch()
    try:
        answers = result.workload.load()
    except MemoryError as error:
        for entry in result.entries:
            entry.fail(error)
        progress("", len(field_of) * (rounds + 1))
        return
    for entry in result.entries:
        progress(entry.variant.name, 0)
        plan = start(entry, result, answers, limit, wake_up=timing.WAKE_UP)
        if plan is not None:
            running.append((entry, plan))
        progress(entry.variant.name, 1 if plan is not None else rounds + 1)
    try:
        far, seed = [math.inf] * rounds, str(result.workload)
        side_by_side(running, answers, result.threads, far, progress, seed=seed,
                     wake_up=timing.WAKE_UP)  # fmt: skip
    finally:
        result.calm = watch.calm()
        for entry, _ in running:
            if entry.blocks and store is not None:
                store.add(_measurement(result, entry))


def epoch(plan: Plan) -> Callable[[], float]:
    """An epoch of gradient descent by a plan, again and again."""
    return partial(plan.step, STEP_SIZE)


def side_by_side(
    running: Sequence[tuple[Entry, Plan]],
    answers: Answers,
    threads: int,
    far: Sequence[float],
    progress: Callable[[str, int], None] = lambda name, units: None,
    call: Callable[[Plan], Callable[[], object]] = epoch,
    seed: str = "",
    *,
    each: int = 1,
    wake_up: float,
) -> None:
    """Add blocks to the entries, a block a round; a plan that ends up wrong loses its own.

    Arguments: running, plans that were held to the answers; threads of each; far, for each round
    how many times the fastest one's time a plan may have taken so far and still take part;
    progress as for `race`; call(plan), what is timed; seed of the orders; each, the epochs or
    updates of a call; wake_up, seconds of steps before the first block. Who alone is left has three
    blocks at most.
    """
    # A virtual machine's idle CPUs can take a second to come back at full speed, so variants
    # that use all of them and variants that use one do not alternate.
    for parallel in (True, False):
        group = [pair for pair in running if pair[0].variant.parallel is parallel]
        if group and parallel and threads > 1:
            timing.warm_up(call(group[0][1]), seconds=wake_up)
        for times, order in zip(far, timing.rounds(group, len(far), seed), strict=True):
            for entry, plan in order:
                # What disturbs a block only makes it longer, so the fastest one is believed.
                fastest = min((min(e.blocks) for e, _ in running if e.blocks), default=math.inf)
                behind = [bool(e.blocks) and min(e.blocks) > times * fastest for e, _ in running]
                alone = math.isfinite(times) and behind.count(False) == 1
                if entry.blocks and min(entry.blocks) > times * fastest:
                    continue
                if alone and len(entry.blocks) >= _ALONE:
                    continue
                progress(entry.variant.name, 0)
                entry.blocks.append(timing.block(call(plan)) / each)
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
    return epoch(plan)


def cause(error: Exception) -> str:
    """Why a variant that raised this is left out."""
    return texts.cause(error, ValueError, TypeError, RuntimeError)


def start(
    entry: Entry, result: Result, answers: Answers, limit: float, rows: int | None = None,
    *, wake_up: float,
) -> Plan | None:  # fmt: skip
    """The plan of a variant that runs here, fast enough and rightly; None once it is skipped.

    Arguments: entry, to be filled in; limit, seconds a step over so many rows, all by default;
    wake_up, seconds of steps before it is believed that they are exceeded.
    """
    variant, X, Y = entry.variant, answers.X, answers.Y

    def begin(rows: int) -> Plan:
        plan = variant.plan(answers.net, X[:rows], Y[:rows], answers.theta, result.threads)
        plan.step(STEP_SIZE)
        return plan

    def made(rows: int) -> Plan:
        entry.plan, plan = timing.once(partial(begin, rows))
        # Few rows may not compile or load all.
        entry.first_call = max(entry.first_call or 0.0, entry.plan)
        return plan

    try:
        shape = result.workload.shape
        if reason := variant.unavailable() or variant.refusal(answers.net, shape, X.dtype):
            entry.skipped = reason
            return None
        count = min(rows or len(X), len(X))
        # Over few rows it may run other code, which takes seconds to compile and is of no use here.
        first = int(_LITTLE * shape.n / shape.flops()) if variant.parallel else 0
        seconds = timing.estimate(lambda few: epoch(made(few)), count, limit, wake_up, first)
        entry.estimate = seconds
        if seconds > limit:
            entry.skipped = f"{TOO_SLOW} {seconds:.2g} s an epoch, the limit is {limit:g} s"
            return None
        entry.peak_memory, plan = timing.peak_memory(partial(made, len(X)))
        answers.hold(plan)
        return plan
    except Exception as error:  # whatever a variant raises is its own affair
        entry.fail(error)
        return None


def _measurement(result: Result, entry: Entry) -> Measurement:
    workload, variant = result.workload, entry.variant
    low, median, high = timing.quartiles(entry.blocks)
    metrics = {
        "blocks": entry.blocks,
        "first_call": entry.first_call,
        "peak_memory": entry.peak_memory,
        "calm": asdict(result.calm),
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
        data=workload.dataset or "synthetic",
        seconds=median,
        low=low,
        high=high,
        **workload.shape._asdict(),
    )

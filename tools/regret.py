"""How wrong `twolayer choose` is: the chosen variant against the fastest right one.

Random shapes are asked for, every fourth with batches; then every variant is timed on each, in
warmed-up blocks in alternating order, and the chosen one's time is divided by the least. Results go
to a file as they come, so that the same command goes on after an interruption. Choices are kept in
a store beside that file: those of earlier runs would say nothing of a choice. Each choice and each
measurement waits until the CPUs work together as fast as they did at best.

    python tools/regret.py --write docs/lab/choosing.md
"""

from __future__ import annotations

import argparse
import math
import os
import statistics
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

import twolayer as tl
from twolayer import variants
from twolayer.choosing.contest import batches
from twolayer.interface import Variant, check_threads
from twolayer.kernels.formulas.activations import ACTIVATIONS
from twolayer.kernels.formulas.losses import LOSSES
from twolayer.machine import lines
from twolayer.measuring import timing
from twolayer.measuring.race import Entry, Result, Workload, held, race, side_by_side
from twolayer.measuring.roofline import Roofline
from twolayer.showing import tables
from twolayer.showing.output import complain
from twolayer.showing.units import duration
from twolayer.training.loop import updates_a_call

MARKER = "regret"
LIMIT = 2.0  # seconds an epoch
MEMORY = 2 << 30  # bytes of X, Y, θ and what the variants need
ROUNDS = 5
_SEED = 20261125
_SLOW = 4.0  # times what the chosen one takes: who is estimated to take longer is not timed again
_TIMED_SLOW = 1.5  # the same for who was timed for the choice
_BATCHES = (1, 32, 256, 2048)
_OPERATIONS = 2e11  # of an epoch that can end within LIMIT on a large machine
_CALM = 1.2  # times the probe's least time
_PATIENCE = 60.0  # seconds to wait for that
_TRIES = 3  # of a measurement during which it was lost


def workloads(shapes: int) -> Iterator[tuple[Workload, int]]:
    """Shapes log-uniform in n, d, M and K, and batches; σ, ℓ and dtype in turn.

    A batch of 0 is all rows.
    """
    random = np.random.default_rng(_SEED)
    losses, activations = [*LOSSES], [*ACTIVATIONS]
    made = 0
    while made < shapes:
        sizes = [
            round(math.exp(random.uniform(0, math.log(high / low))) * low)
            for low, high in ((1, 1e6), (1, 4096), (1, 4096), (1, 1000))
        ]
        net = tl.Network(activations[made % 9], losses[made // 2 % 4])
        shape = net.with_outputs(tl.Shape(*sizes))
        dtype = ("float32", "float64")[made % 2]
        size = np.dtype(dtype).itemsize
        if (
            shape.flops() > _OPERATIONS
            or shape.n * (shape.d + 3 * shape.M + 3 * shape.K) * size > MEMORY
        ):
            continue
        batch = _BATCHES[made // 4 % 4] if made % 4 == 3 else 0
        yield Workload(net, shape, dtype), batch if batch < shape.n else 0
        made += 1


class Calm:
    """A probe of how fast the CPUs work together, which on a virtual machine changes in seconds.

    It is an epoch on all threads, which write and read each other's W. On an AMD EPYC with two CPUs
    that took 0.23 ms or 0.55 ms for seconds at a time, and on one thread 0.30 to 0.37 ms.
    """

    def __init__(self, threads: int) -> None:
        workload = Workload(tl.Network("sigmoid", "squared"), tl.Shape(141, 1, 64, 227), "float64")
        self._step = held(variants.get("numba-fused"), workload.load(), threads)
        self._least = min(timing.block(self._step) for _ in range(20))

    def holds(self) -> bool:
        """Whether a block takes hardly more than the least one so far."""
        seconds = timing.block(self._step)
        self._least = min(self._least, seconds)
        return seconds < _CALM * self._least

    def wait(self) -> None:
        """Return once it holds, or after a minute."""
        end = time.monotonic() + _PATIENCE
        while not self.holds() and time.monotonic() < end:
            pass


def measure(workload: Workload, batch: int, threads: int, calm: Calm) -> dict[str, Any] | None:
    """What was chosen and what each variant took; None where an epoch takes too long."""
    calm.wait()
    start = time.perf_counter()
    choice = tl.choose(
        workload.net, **workload.shape._asdict(), dtype=workload.dtype, threads=threads,
        batch=batch or None,
    )  # fmt: skip
    took = time.perf_counter() - start
    if choice.interval[0] > LIMIT:
        return None
    field = [
        variants.get(c.variant)
        for c in (choice.chosen, *choice.runners_up)
        if c.seconds.median < (_TIMED_SLOW if c.blocks else _SLOW) * choice.seconds_per_epoch
    ]
    for _ in range(_TRIES):
        calm.wait()
        times = timed(workload, batch, field, threads)
        if calm.holds():
            break
    if choice.variant not in times:
        raise RuntimeError(f"{choice.variant} was chosen for {workload} and not timed")
    return {
        "workload": key(workload, batch), "chosen": choice.variant,
        "seconds": choice.seconds_per_epoch, "interval": choice.interval, "took": took,
        "times": times,
    }  # fmt: skip


def timed(
    workload: Workload, batch: int, field: Sequence[Variant], threads: int
) -> dict[str, float]:
    """Seconds an epoch of each variant, of all rows: those of an update times their number."""
    shape = workload.shape
    if not batch:
        result = Result(workload, threads, Roofline(math.inf, math.inf))
        race(result, field, rounds=ROUNDS, limit=4 * LIMIT)
        return {entry.variant.name: entry.seconds.median for entry in result.ranking}
    answers = workload.load()
    running = []
    for variant in field:
        plan = variant.plan(*answers.problem, threads)
        answers.hold(plan)
        running.append((Entry(variant), plan))
    far = [math.inf] * ROUNDS
    side_by_side(running, answers, threads, far, call=batches(batch, shape),
                 each=updates_a_call(shape, batch), wake_up=timing.WAKE_UP)  # fmt: skip
    updates = shape.n / batch
    return {entry.variant.name: updates * entry.seconds.median for entry, _ in running}


def key(workload: Workload, batch: int) -> list[Any]:
    """What tells one row of the results from another."""
    net = workload.net
    return [*workload.shape, batch, net.activation, net.loss, workload.dtype]


def regret(record: dict[str, Any]) -> float:
    """Time of the chosen variant / least time."""
    return record["times"][record["chosen"]] / min(record["times"].values())


def covered(record: dict[str, Any]) -> bool:
    """Whether the time lay in the interval that was told before."""
    low, high = record["interval"]
    return low <= record["times"][record["chosen"]] <= high


def table(records: Sequence[dict[str, Any]], threads: int) -> str:
    """Quantiles, and a row for each shape."""
    found = sorted(map(regret, records))
    inside = sum(map(covered, records))
    high = found[min(len(found) - 1, math.ceil(0.95 * len(found)) - 1)]
    always = sorted(
        record["times"]["numba-fused"] / min(record["times"].values())
        for record in records if "numba-fused" in record["times"]
    )  # fmt: skip
    said = (
        f"{len(records)} shapes: regret median {statistics.median(found):.3f}, 95th percentile "
        f"{high:.3f}, worst {found[-1]:.3f}. The interval held the time of "
        f"{100 * inside / len(records):.0f}%. A choice took "
        f"{statistics.median(record['took'] for record in records):.1f} s in the median the first "
        f"time. Always `numba-fused` would have had a regret of "
        f"{statistics.mean(always):.3f} in the mean and {always[-1]:.2f} at worst."
    )
    rows = []
    for record in sorted(records, key=regret, reverse=True):
        *shape, batch, activation, loss, dtype = record["workload"]
        times = record["times"]
        low, high = map(duration, record["interval"])
        fastest = min(times, key=times.__getitem__)
        rows.append([
            f"{activation}, {loss}", *map(str, shape), str(batch or "all"), dtype,
            record["chosen"],
            duration(times[record["chosen"]]), f"{low} to {high}", fastest, f"{regret(record):.3f}",
        ])  # fmt: skip
    heads = [
        "σ, ℓ", *tl.Shape._fields, "batch", "dtype", "chosen", "an epoch", "told before", "fastest",
        "regret",
    ]  # fmt: skip
    origin = tables.origin(
        tables.describe_machine(threads, "both dtypes"),
        "python tools/regret.py --write docs/lab/choosing.md",
    )
    return "\n\n".join([said, tables.markdown_table(heads, rows), origin])


def main() -> None:
    """Go on with the shapes that are not in the file of results, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--shapes", type=int, default=80)
    parser.add_argument("--threads", type=int, default=None)
    parser.add_argument("--seconds", type=float, default=math.inf, help="end after so many")
    parser.add_argument("--results", type=Path, default=Path("regret.jsonl"))
    parser.add_argument("--write", type=Path, help="put the table between the markers in this file")
    asked = parser.parse_args()
    threads = check_threads(asked.threads)
    os.environ["TWOLAYER_STORE"] = str(asked.results.with_suffix(".sqlite").resolve())
    records = lines.read(asked.results, complain)
    done = {tuple(record["workload"]) for record in records}
    end = time.monotonic() + asked.seconds
    calm = Calm(threads)
    for workload, batch in workloads(asked.shapes):
        about = key(workload, batch)
        if tuple(about) in done:
            continue
        if time.monotonic() > end:
            break
        record = measure(workload, batch, threads, calm)
        record = record or {"workload": about, "left out": f"more than {LIMIT:g} s an epoch"}
        lines.append(asked.results, record)
        records.append(record)
        print(
            workload,
            f"batch={batch}",
            workload.dtype,
            record.get("chosen", "left out"),
            f"{regret(record):.3f}" if "times" in record else "",
            flush=True,
        )
    timed = [record for record in records if "times" in record]
    if not timed:
        raise SystemExit("nothing was measured")
    text = table(timed, threads)
    print(text)
    if asked.write is not None:
        tables.write_between(asked.write, text, MARKER)


if __name__ == "__main__":
    main()

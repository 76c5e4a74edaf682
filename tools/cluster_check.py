"""What the dask variant costs, and what becomes of a run when something dies.

    python tools/cluster_check.py            prints the table
    python tools/cluster_check.py --write    puts it between the markers of docs/cluster.md

Worker processes of one thread each, on this machine. The blocks of one worker and of two alternate.
"""

from __future__ import annotations

import argparse
import os
import random
import signal
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

import distributed
import numpy as np

from twolayer import variants
from twolayer.checking import cases
from twolayer.checking.verify import agreement
from twolayer.composed import cluster
from twolayer.measuring import timing
from twolayer.measuring.race import Workload, held
from twolayer.network import Network, Shape
from twolayer.showing import tables

PAGE = Path(__file__).parents[1] / "docs" / "cluster.md"
VARIANT = variants.get("dask")
NET = Network("tanh", "softmax")
LARGE = Shape(2_000_000, 64, 64, 10)
SMALL = Shape(100_000, 64, 64, 10)
ROUNDS = 5
KILLS, EPOCHS = 20, 50

Row = tuple[str, str]


def speed() -> list[Row]:
    """Seconds an epoch on one worker and on two."""
    answers = Workload(NET, LARGE).load()
    runs = {workers: held(VARIANT, answers, workers) for workers in (1, 2)}
    blocks: dict[int, list[float]] = {workers: [] for workers in runs}
    for order in timing.rounds([*runs], ROUNDS):
        for workers in order:
            blocks[workers].append(timing.block(runs[workers], seconds=2.0))
    one, two = (statistics.median(blocks[workers]) for workers in (1, 2))
    return [
        (f"an epoch on {LARGE}, 1 worker", f"{one * 1e3:.0f} ms"),
        (f"an epoch on {LARGE}, 2 workers", f"{two * 1e3:.0f} ms"),
        ("1 worker / 2 workers", f"{one / two:.2f}"),
    ]


def overhead() -> list[Row]:
    """Seconds of an epoch in which there is nothing to compute."""
    run = held(VARIANT, Workload(NET, LARGE._replace(n=1)).load(), threads=2)
    seconds = statistics.median(timing.block(run, seconds=1.0) for _ in range(ROUNDS))
    return [("an epoch of 1 sample, 2 workers", f"{seconds * 1e3:.1f} ms")]


def correctness() -> list[Row]:
    """The largest error, in units of the bound on it."""
    found = agreement(VARIANT, cases.problem(NET, SMALL, "float32"), threads=2)
    numpy = agreement(variants.get("numpy"), cases.problem(NET, SMALL, "float32"), threads=2)
    return [
        (f"largest error on {SMALL}, in bounds", f"{found.ratio:.3f}"),
        ("the same of numpy", f"{numpy.ratio:.3f}"),
    ]


def killed() -> list[Row]:
    """Runs of which a worker is killed, at a random moment of the time that a whole run takes."""
    chance = random.Random(0)
    problem = Workload(NET, SMALL).load().problem
    client = cluster.client(2)

    def run() -> list[float]:
        plan = VARIANT.plan(*problem, threads=2)
        return [plan.step(0.1) for _ in range(EPOCHS)]

    run()
    seconds, expected = timing.once(run)
    same, worst = 0, 0.0
    for _ in range(KILLS):
        _all_workers(client)
        victim = chance.choice(sorted(client.run(os.getpid).values()))
        timer = threading.Timer(chance.uniform(0, seconds), os.kill, (victim, signal.SIGKILL))
        timer.start()
        losses = run()
        timer.join()
        same += losses == expected
        worst = max(worst, float(np.max(np.abs(np.subtract(losses, expected)) / expected)))
    return [
        (f"runs of {EPOCHS} epochs with a worker killed that finished", f"{KILLS} of {KILLS}"),
        ("of which with the same bits of every loss", f"{same} of {KILLS}"),
        ("largest relative difference of a loss", f"{worst:.1g}"),
    ]


def _all_workers(client: distributed.Client) -> None:
    """Wait until both are there; one that died while it started comes back with the next plan."""
    while True:
        try:
            return client.wait_for_workers(2, timeout=20)
        except TimeoutError:
            cluster.client(2)


def lost() -> list[Row]:
    """Seconds from the death of the scheduler to the error."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "scheduler.json"
        programs = (
            ["dask_scheduler", "--port", "0"],
            ["dask_worker", "--nthreads", "1", "--no-nanny"],
        )
        running = [
            subprocess.Popen(
                [
                    sys.executable, "-m", f"distributed.cli.{name}", *options,
                    "--host", "127.0.0.1", "--no-dashboard", "--scheduler-file", str(file),
                ],
                stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, cwd=folder,
            )
            for name, *options in programs
        ]  # fmt: skip
        try:
            with distributed.Client(scheduler_file=str(file)):
                plan = VARIANT.plan(*Workload(NET, SMALL).load().problem)
                threading.Timer(1.0, running[0].kill).start()
                end = time.monotonic() + 1
                try:
                    while True:
                        plan.step(0.1)
                except cluster.ClusterLost:
                    seconds = time.monotonic() - end
        finally:
            for process in running:
                process.kill()
                process.wait()
    return [("scheduler killed: time to ClusterLost", f"{seconds:.1f} s")]


PARTS = {part.__name__: part for part in (speed, overhead, correctness, killed, lost)}


def main() -> None:
    """Measure, print, and write if asked."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--write", action="store_true", help="write the table into docs/cluster.md")
    parser.add_argument("parts", nargs="*", metavar=" | ".join(PARTS), help="by default all")
    arguments = parser.parse_args()
    names = arguments.parts or list(PARTS)
    if unknown := set(names) - set(PARTS):
        parser.error(f"parts: expected {', '.join(PARTS)}, got {', '.join(sorted(unknown))}")
    if arguments.write and set(names) != set(PARTS):
        parser.error("--write: expected no parts beside it, since the table is written whole")
    rows = []
    for name in names:
        found = PARTS[name]()
        rows += found
        print(*(f"{what}: {figure}" for what, figure in found), sep="\n", flush=True)
    origin = tables.origin(
        f"{tables.describe_machine(2, 'float32')}, dask {distributed.__version__}",
        "python tools/cluster_check.py --write",
    )
    text = f"{tables.markdown_table(['what', 'figure'], rows)}\n\n{origin}"
    if arguments.write:
        tables.write_between(PAGE, text, "cluster")


if __name__ == "__main__":
    main()

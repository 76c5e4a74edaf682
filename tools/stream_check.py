"""An epoch over data larger than memory beside the disk alone and the arithmetic alone.

    python tools/stream_check.py FOLDER            prints the table
    python tools/stream_check.py FOLDER --write    puts it between the markers of docs/training.md

FOLDER lies on the disk to be measured; a file of 8 GB is made there, once. Before each pass the
file's pages are dropped from the system's cache (posix_fadvise). Each row is a process of its own,
in which each is measured twice, in the order ABCCBA, and the faster one counts.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import resource
import shutil
import sys
import time
from collections import deque
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from twolayer import variants
from twolayer.composed import stream
from twolayer.measuring import timing
from twolayer.network import Network, Shape
from twolayer.showing import tables

PAGE = Path(__file__).parents[1] / "docs" / "training.md"
_D = 64
_NETWORKS = (("squared", 16, 1), ("softmax", 64, 10), ("softmax", 256, 10))  # loss, M, K


def make(folder: Path, nbytes: int) -> tuple[Path, Path]:
    """X and labels on the disk."""
    n = nbytes // (4 * _D)
    X_path, Y_path = folder / f"X{n}.npy", folder / f"Y{n}.npy"
    if not (X_path.exists() and Y_path.exists()):
        if shutil.disk_usage(folder).free < 1.5 * nbytes:
            raise OSError(f"{folder}: expected {1.5 * nbytes / 1e9:.0f} GB of free disk")
        random = np.random.default_rng(0)
        block = random.standard_normal((1 << 18, _D), np.float32)
        unfinished = folder / "unfinished.npy"
        with unfinished.open("wb") as file:
            header = {"descr": "<f4", "fortran_order": False, "shape": (n, _D)}
            np.lib.format.write_array_header_1_0(file, header)
            for start in range(0, n, len(block)):
                file.write(block[: n - start].data)
            os.fsync(file.fileno())
        unfinished.replace(X_path)
        np.save(Y_path, random.integers(0, 10, n).astype(np.uint8))
    return X_path, Y_path


def drop(*paths: Path) -> None:
    """Drop the files' pages from the system's cache."""
    for path in paths:
        with path.open("rb") as file:
            os.fsync(file.fileno())
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def measure(paths: tuple[Path, Path], loss: str, M: int, K: int) -> dict[str, float]:
    """Seconds of the disk alone, of the arithmetic alone and of an epoch, and the peak memory."""
    net = Network("tanh", loss)
    theta = net.init(_D, M, K)
    plan = stream.plan(variants.get("numba-fused"), net, *paths, theta)
    engine, n = plan.engine, plan.shape.n
    assert isinstance(engine, stream.Stream)
    inner, reader, weights = engine.inner, engine.reader, plan.weights
    plan.gradient(slice(0, 4 * reader.rows))  # warms up

    def read_all() -> float:
        drop(*paths)
        return timing.once(lambda: deque(reader.blocks(0, n), maxlen=0))[0]

    def compute_all() -> float:
        _, X, Y = next(reader.blocks(0, reader.rows))
        begun = time.perf_counter()
        for _ in range(0, n, reader.rows):
            inner.backpropagate(*inner.hold(X, Y), weights.theta, weights.gradient)
        return time.perf_counter() - begun

    def epoch() -> float:
        drop(*paths)
        return timing.once(lambda: plan.step(0.01))[0]

    parts = {"disk": read_all, "arithmetic": compute_all, "epoch": epoch}
    seconds: dict[str, list[float]] = {name: [] for name in parts}
    for order in timing.rounds([*parts], 2):  # what lies below the file system may keep some of it
        for name in order:
            seconds[name].append(parts[name]())
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    return {name: min(found) for name, found in seconds.items()} | {"peak": peak, "n": n}


def alone(function: Callable[..., Any], *arguments: Any) -> Any:
    """What a call returns in a process of its own, whose parent's peak memory it would inherit."""
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        return pool.apply(function, arguments)


def row(paths: tuple[Path, Path], loss: str, M: int, K: int) -> list[str]:
    """The cells of one network."""
    found = alone(measure, paths, loss, M, K)
    print(loss, M, K, found, file=sys.stderr)
    bound = max(found["disk"], found["arithmetic"])
    return [
        *map(str, Shape(int(found["n"]), _D, M, K)),
        *(f"{found[name]:.1f} s" for name in ("disk", "arithmetic", "epoch")),
        f"{bound / found['epoch']:.0%}",
        f"{found['peak'] / 1e6:.0f} MB",
    ]


def main() -> None:
    """Measure, print, and write if asked."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path, help="on the disk to be measured")
    parser.add_argument("--bytes", type=float, default=8e9, help="of X")
    parser.add_argument("--write", action="store_true", help="write the table into the page")
    arguments = parser.parse_args()
    paths = alone(make, arguments.folder, int(arguments.bytes))
    rows = [row(paths, *network) for network in _NETWORKS]
    header = [*Shape._fields, "disk alone", "arithmetic alone", "epoch", "of the slower", "peak"]
    machine = tables.describe_machine(len(os.sched_getaffinity(0)), "float32")
    origin = tables.origin(machine, "python tools/stream_check.py FOLDER --write")
    text = (
        f"{tables.markdown_table(header, rows)}\n\n{arguments.bytes / 1e9:g} GB of X, numba-fused; "
        f"peak is the largest resident memory of the process, imports included.\n{origin}"
    )
    print(text)
    if arguments.write:
        tables.write_between(PAGE, text, "stream")


if __name__ == "__main__":
    sys.exit(main())

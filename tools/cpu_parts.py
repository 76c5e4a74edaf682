"""Where an epoch of numba-fused goes: its operations at the peak, σ and σ′, and the rest.

    python tools/cpu_parts.py            prints the table
    python tools/cpu_parts.py --write    puts it between the markers of docs/lab/cpu.md

One thread, so that every part is a plain sum. The pass over σ and σ′ is timed by itself, on a block
in the cache; the peak is probed before and after each shape.
"""

from __future__ import annotations

import argparse
import statistics
from functools import partial
from pathlib import Path

import numpy as np
from numba import njit

from twolayer import variants
from twolayer.kernels.cpu import blocks
from twolayer.measuring import roofline, timing, workloads
from twolayer.measuring.race import Workload, held
from twolayer.network import Network
from twolayer.showing import tables

PAGE = Path(__file__).parents[1] / "docs" / "lab" / "cpu.md"
_BLOCK = (128, 64)


@njit
def _repeat(address: int, A: np.ndarray, S: np.ndarray, count: int) -> None:
    for _ in range(count):
        blocks.apply(address, A[0, 0], A.ctypes.data, S.ctypes.data, A.size)


def activation_seconds(net: Network, dtype: str) -> float:
    """Seconds of σ and σ′ for a number, in a block that stays in the cache."""
    address = blocks.features(net.sigma, np.dtype(dtype))
    A = np.random.default_rng(0).standard_normal(_BLOCK).astype(dtype)
    S = np.empty_like(A)
    run = partial(_repeat, address, A, S, 100)
    return timing.block(run, seconds=0.2) / (100 * A.size)


def epoch_seconds(workload: Workload) -> float:
    """Median seconds of an epoch on one thread."""
    run = held(variants.get("numba-fused"), workload.load(), threads=1)
    return statistics.median(timing.block(run) for _ in range(3))


def row(workload: Workload) -> list[str]:
    """The cells of one workload."""
    net, shape, dtype = workload.net, workload.shape, workload.dtype
    before = roofline.probe(dtype, 1, seconds=0.1)
    epoch = epoch_seconds(workload)
    roof = roofline.Roofline(*map(max, before, roofline.probe(dtype, 1, seconds=0.1)))
    products = shape.flops() / roof.flops
    sigma = activation_seconds(net, dtype) * shape.n * shape.M
    reading = shape.bytes(dtype) / roof.bandwidth
    shares = [f"{part / epoch:.0%}" for part in (products, sigma, epoch - products - sigma)]
    return [*map(str, shape), net.activation, *shares, f"{reading / epoch:.0%}"]


def main() -> None:
    """Measure, print, and write if asked."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--write", action="store_true", help="write the table into docs/lab/cpu.md")
    write = parser.parse_args().write
    header = ["n", "d", "M", "K", "σ", "products at the peak", "σ and σ′", "the rest", "X and Y"]
    lines = []
    for dtype in ("float32", "float64"):
        listed = workloads.peers(dtype, quick=False).values()
        rows = [row(workload) for group in listed for workload in group]
        lines.append(f"{dtype}:\n\n{tables.markdown_table(header, rows)}")
    machine = tables.describe_machine(1, "both dtypes")
    text = "\n\n".join([*lines, tables.origin(machine, "python tools/cpu_parts.py --write")])
    print(text)
    if write:
        tables.write_between(PAGE, text, "parts")


if __name__ == "__main__":
    main()

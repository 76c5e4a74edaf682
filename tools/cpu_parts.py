"""Where an epoch of numba-fused goes: its operations at the peak, σ and σ′, and the rest.

    python tools/cpu_parts.py            prints the table
    python tools/cpu_parts.py --write    puts it between the markers of docs/lab/cpu.md

One thread, so that every part is a plain sum. The pass over σ and σ′ is timed by itself, on a block
in the cache; its multiplications are counted in its machine code, and take as long as multiply-adds
do at the peak. The peak is probed before and after each shape.
"""

from __future__ import annotations

import argparse
import math
import re
import statistics
from functools import partial
from pathlib import Path

import numpy as np
from numba import from_dtype, njit, types

from twolayer import variants
from twolayer.kernels.compiler.jit import SUMS
from twolayer.kernels.cpu import blocks
from twolayer.measuring import roofline, timing, workloads
from twolayer.measuring.race import Workload, held
from twolayer.network import Network, Shape
from twolayer.showing import tables

PAGE = Path(__file__).parents[1] / "docs" / "lab" / "cpu.md"
_BLOCK = (128, 64)
_STORE = re.compile(r"\n\tv?mov(?:[ua]p[sd]|dq[ua](?:64|32)?)\t%[xyz]mm\d+, [^%\n]*\(%(?!rsp|rbp)")
# Beside those that libraries meet on: few samples, few hidden units, many inputs, many outputs.
_MORE = {
    "tanh": (
        (1, 64, 64, 10), (30, 2522, 1871, 9), (459, 9, 2, 354), (3780, 70, 1, 3),
        (500_000, 3, 8, 2), (20_000, 64, 64, 10), (20_000, 4096, 96, 10), (8000, 300, 300, 300),
        (20_000, 16, 64, 1000),
    ),
    "gelu": ((10_000, 200, 2000, 5),),
}  # fmt: skip


@njit
def _repeat(address: int, A: np.ndarray, Z: np.ndarray, S: np.ndarray, count: int) -> None:
    for _ in range(count):
        Z[:] = A  # σ of σ of A is soon a number that no epoch has
        if address != 0:
            blocks.apply(address, A[0, 0], Z.ctypes.data, S.ctypes.data, A.size)


def activation_seconds(net: Network, dtype: str) -> float:
    """Seconds of σ and σ′ for a number, in a block that stays in the cache."""
    address = blocks.features(net.sigma, np.dtype(dtype))
    A = np.random.default_rng(0).standard_normal(_BLOCK).astype(dtype)
    Z, S = np.empty_like(A), np.empty_like(A)
    both, copy = (
        timing.block(partial(_repeat, code, A, Z, S, 100), seconds=0.2) for code in (address, 0)
    )
    return (both - copy) / (100 * A.size)


def multiplications(net: Network, dtype: str) -> float:
    """Vector multiplications and multiply-adds of σ and σ′ for a vector, on x86; NaN elsewhere."""
    formula = blocks._features(net.sigma).py_func  # code from disk cannot be read
    compiled = njit(formula, error_model="numpy", fastmath=set(SUMS))
    compiled.compile((from_dtype(np.dtype(dtype)), types.int64, types.int64, types.int64))
    (text,) = compiled.inspect_asm().values()
    loops = re.finditer(r"(\.LBB\w+):((?:(?!\.LBB\w+:).)*?)\n\tj\w+\t\1\n", text, re.DOTALL)
    found = []
    for loop in loops:
        stores = re.findall(_STORE, loop[2])
        products = re.findall(r"\n\tv?(?:mul|fn?m(?:add|sub)\d+)p[sd]\t", loop[2])
        if len(stores) >= 2 and products:
            found.append((len(stores), 2 * len(products) / len(stores)))  # Z and σ′ are stored
    return max(found)[1] if found else math.nan


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
    # A multiply-add of a vector is two operations a number.
    least = 2 * multiplications(net, dtype) * shape.n * shape.M / roof.flops
    theta = shape.M * (shape.d + shape.K) * np.dtype(dtype).itemsize
    # θ is read for f and for its update, which writes it.
    moved = (shape.bytes(dtype) + 3 * theta) / roof.bandwidth
    parts = products, sigma, least, epoch - products - sigma, moved
    shares = ["–" if math.isnan(part) else f"{part / epoch:.0%}" for part in parts]
    return [*map(str, shape), net.activation, *shares]


def main() -> None:
    """Measure, print, and write if asked."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--write", action="store_true", help="write the table into docs/lab/cpu.md")
    write = parser.parse_args().write
    header = [
        "n", "d", "M", "K", "σ", "products at the peak", "σ and σ′", "their multiplications",
        "the rest", "X, Y, θ",
    ]  # fmt: skip
    lines = []
    for dtype in ("float32", "float64"):
        listed = [one for group in workloads.peers(dtype, quick=False).values() for one in group]
        listed += [
            Workload(Network(activation, "softmax"), Shape(*shape), dtype)
            for activation, shapes in _MORE.items() for shape in shapes
        ]  # fmt: skip
        rows = [row(workload) for workload in listed]
        lines.append(f"{dtype}:\n\n{tables.markdown_table(header, rows)}")
    machine = tables.describe_machine(1, "both dtypes")
    text = "\n\n".join([*lines, tables.origin(machine, "python tools/cpu_parts.py --write")])
    print(text)
    if write:
        tables.write_between(PAGE, text, "parts")


if __name__ == "__main__":
    main()

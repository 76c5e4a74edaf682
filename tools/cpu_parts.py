"""Where an epoch of numba-fused goes: its operations at the peak, σ and σ′, and the rest.

    python tools/cpu_parts.py            prints the table
    python tools/cpu_parts.py --write    puts it between the markers of docs/cpu.md

One thread, so that every part is a plain sum. The pass over σ and σ′ is timed by itself, on a block
in the cache; the peak is probed before and after each shape.
"""

from __future__ import annotations

import argparse
import datetime
import statistics
from functools import partial
from pathlib import Path

import numpy as np
from numba import njit

from twolayer import datasets, roofline, timing, variants
from twolayer.checks import check_targets
from twolayer.cli import tables
from twolayer.kernels import blocks
from twolayer.network import Network, Shape

PAGE = Path(__file__).parents[1] / "docs" / "cpu.md"
PROBLEMS = (
    (Shape(60_000, 784, 128, 10), "tanh", "softmax"),
    (Shape(1_000_000, 8, 32, 1), "tanh", "squared"),
    (Shape(100_000, 64, 64, 10), "tanh", "softmax"),
    (Shape(10_000, 784, 1024, 10), "tanh", "softmax"),
    (Shape(200_000, 32, 256, 1), "tanh", "squared"),
    (Shape(1_000, 16, 16, 1), "tanh", "squared"),
    (Shape(1_797, 64, 32, 10), "relu", "softmax"),
    (Shape(4_096, 2048, 2048, 10), "tanh", "softmax"),
)
_BLOCK = (128, 64)


@njit
def _repeat(address: int, A: np.ndarray, S: np.ndarray, count: int) -> None:
    for _ in range(count):
        blocks.apply(address, A[0, 0], A.ctypes.data, S.ctypes.data, A.size)


def activation_seconds(net: Network, dtype: str) -> float:
    """Seconds of σ and σ′ for a number, in a block that stays in the cache."""
    address = blocks.formulas(net.sigma, net.objective, np.dtype(dtype))[0]
    A = np.random.default_rng(0).standard_normal(_BLOCK).astype(dtype)
    S = np.empty_like(A)
    run = partial(_repeat, address, A, S, 100)
    return timing.block(run, seconds=0.2) / (100 * A.size)


def epoch_seconds(net: Network, shape: Shape, dtype: str) -> float:
    """Median seconds of an epoch on one thread."""
    data = datasets.synthetic(shape, net.loss, dtype)
    Y = check_targets(net, data.Y, shape, data.X.dtype)
    theta = net.init(*shape[1:], dtype=dtype)
    plan = variants.get("numba-fused").plan(net, data.X, Y, theta, threads=1)
    plan.step(1e-6)
    return statistics.median(timing.block(partial(plan.step, 1e-6)) for _ in range(3))


def row(shape: Shape, activation: str, loss: str, dtype: str) -> list[str]:
    """The cells of one problem."""
    net = Network(activation, loss)
    before = roofline.probe(dtype, 1, seconds=0.1)
    epoch = epoch_seconds(net, shape, dtype)
    roof = roofline.Roofline(*map(max, before, roofline.probe(dtype, 1, seconds=0.1)))
    products = shape.flops() / roof.flops
    sigma = activation_seconds(net, dtype) * shape.n * shape.M
    reading = shape.bytes(dtype) / roof.bandwidth
    shares = [f"{part / epoch:.0%}" for part in (products, sigma, epoch - products - sigma)]
    return [*map(str, shape), activation, *shares, f"{reading / epoch:.0%}"]


def main() -> None:
    """Measure, print, and write if asked."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--write", action="store_true", help="write the table into docs/cpu.md")
    write = parser.parse_args().write
    header = ["n", "d", "M", "K", "σ", "products at the peak", "σ and σ′", "the rest", "X and Y"]
    lines = []
    for dtype in ("float32", "float64"):
        rows = [row(*problem, dtype) for problem in PROBLEMS]
        machine = tables.describe_machine(1, dtype)
        lines.append(f"{machine}:\n\n{tables.markdown_table(header, rows)}")
    date = datetime.date.today().isoformat()
    text = "\n\n".join(lines) + f"\n\nWritten on {date} by `python tools/cpu_parts.py --write`."
    print(text)
    if write:
        page = PAGE.read_text(encoding="utf-8")
        PAGE.write_text(tables.between_markers(PAGE, page, text, "parts"), encoding="utf-8")


if __name__ == "__main__":
    main()

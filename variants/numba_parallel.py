"""Per-sample loops on several threads: each chunk of samples adds into a gradient of its own."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np

from ..interface import Engine, Problem, Variant, Weights
from ..interface.corners import both_sides
from ..interface.weights import FlatWeights
from ..kernels.cpu import loops
from ..kernels.cpu.records import records
from ..machine.buffers import together
from ..machine.threads import numba_threads
from ..network import Shape


class Decisions(NamedTuple):
    """What an epoch does for some shapes only."""

    chunks: bool  # several, on several threads


class NumbaParallel(Engine):
    """One chunk a thread; the sums of the chunks are added in the order of their numbers."""

    def __init__(self, problem: Problem) -> None:
        super().__init__(problem)
        chunks = loops.chunk_count(self.shape.n, self.threads)
        self.decisions = Decisions(chunks > 1)
        rows = loops.gradient_rows(self.net.sigma, self.net.objective, self.dtype)
        numbers = {"M": self.shape.M, "gradient_rows": rows}
        self._buffers = together(loops.buffers(self.shape, chunks), self.dtype)
        self._records = records(loops.CHUNK, chunks, numbers, self._buffers)

    def weights(self) -> Weights:
        return FlatWeights(self.shape, self.dtype)

    def _call(self, kernel: Any, rows: int, *arguments: Any) -> Any:
        """Call a kernel in as many chunks as so many rows are worth."""
        chunks = loops.chunk_count(rows, len(self._records))
        with numba_threads(min(self.threads, chunks)):
            return kernel(self._records, *arguments, chunks)

    def backpropagate(self, X: np.ndarray, Y: np.ndarray, theta: Any, gradient: Any) -> float:
        return self._call(loops.gradient(), len(X), X, Y, *theta, *gradient)

    def forward(self, X: np.ndarray, theta: Any, F: np.ndarray) -> None:
        rows = loops.predict_rows(self.net.sigma, self.net.objective, self.dtype)
        self._records["predict_rows"] = rows
        self._call(loops.predict(parallel=True), len(X), X, F, *theta)


def _workspace(shape, itemsize, threads):
    return itemsize * threads * (shape.M * (shape.d + shape.K + 3) + shape.K)


def _corners(itemsize: int, threads: int) -> Iterator[Shape]:
    yield from both_sides(
        lambda shape: loops.chunk_count(shape.n, threads) > 1, range(1, 1 << 20), 3, 5, 2
    )


VARIANT = Variant(
    "numba-parallel",
    "cpu",
    "per-sample loops under prange, a gradient buffer a chunk",
    NumbaParallel,
    _workspace,
    corners=_corners,
)

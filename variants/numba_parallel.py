"""Per-sample loops on several threads: each chunk of samples adds into a gradient of its own."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from ..interface import Engine, Problem, Variant
from ..interface.corners import both_sides
from ..kernels.cpu import loops
from ..machine.buffers import per_chunk
from ..machine.threads import numba_threads
from ..network import Parameters, Shape


class Decisions(NamedTuple):
    """What an epoch does for some shapes only."""

    chunks: bool  # several, on several threads


class NumbaParallel(Engine):
    """One chunk a thread; the sums of the chunks are added in the order of their numbers."""

    def __init__(self, problem: Problem) -> None:
        super().__init__(problem)
        _, d, M, K = self.shape
        self._rows = loops.gradient_rows(self.net.sigma, self.net.objective, self.dtype)
        self._kernel = loops.gradient()
        self._predict = loops.predict(parallel=True)
        chunks = loops.chunk_count(self.shape.n, self.threads)
        self.decisions = Decisions(chunks > 1)
        self._work = per_chunk(chunks, 3 * M + K, self.dtype)
        self._gV = per_chunk(chunks, M * d, self.dtype)
        self._gW = per_chunk(chunks, K * M, self.dtype)
        self._losses = np.empty(chunks)

    def backpropagate(
        self, X: np.ndarray, Y: np.ndarray, theta: Parameters, gradient: Parameters
    ) -> float:
        bounds = loops.chunk_bounds(len(X), len(self._work))
        with numba_threads(min(self.threads, len(bounds) - 1)):
            return self._kernel(
                self._rows, X, Y, *theta, bounds, self._work, self._gV, self._gW,
                self._losses, *gradient,
            )  # fmt: skip

    def forward(self, X: np.ndarray, theta: Parameters, F: np.ndarray) -> None:
        rows = loops.predict_rows(self.net.sigma, self.net.objective, self.dtype)
        bounds = loops.chunk_bounds(len(X), len(self._work))
        with numba_threads(min(self.threads, len(bounds) - 1)):
            self._predict(rows, X, *theta, bounds, self._work, F)


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

"""Cache-sized blocks of samples on several threads: BLAS for the products, the rest fused."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from ..interface import Engine, Problem, Variant
from ..interface.corners import both_sides
from ..kernels.cpu import blas, blocks, loops
from ..machine.buffers import per_chunk
from ..machine.hardware import cache_sizes
from ..machine.threads import blas_threads, numba_threads
from ..network import Parameters, Shape


def block_rows(shape: Shape, itemsize: int) -> int:
    """Rows of a block, 16 to 512: its X, Z, S, G, U and Y take half of the second-level cache."""
    row = itemsize * (shape.d + 3 * shape.M + 2 * shape.K)
    return min(shape.n, max(16, min(512, cache_sizes()[2] // 2 // row)))


class Blocking(NamedTuple):
    """How an epoch is cut."""

    chunks: int  # of the samples; more than one are shared among threads
    block: int  # rows of a block


def blocking(shape: Shape, itemsize: int, threads: int) -> Blocking:
    """The sizes for a problem."""
    return Blocking(loops.chunk_count(shape.n, threads), block_rows(shape, itemsize))


class Decisions(NamedTuple):
    """What an epoch does for some shapes only."""

    chunks: bool  # several, on several threads
    blocks: bool  # a second one in a chunk, shorter than the first


def decisions(shape: Shape, cut: Blocking) -> Decisions:
    """What is decided for a shape that is cut so."""
    return Decisions(cut.chunks > 1, -(-shape.n // cut.chunks) > cut.block)


class NumbaBlas(Engine):
    """One chunk of blocks a thread; no array grows with n."""

    def __init__(self, problem: Problem) -> None:
        super().__init__(problem)
        _, d, M, K = self.shape
        self._kernel = blas.gradient()
        self._predict = blas.predict()
        self._formulas = (
            blocks.features(self.net.sigma, self.dtype),
            blocks.losses(self.net.objective, self.dtype),
        )
        self._gemm = blas.gemm_address(self.dtype)
        cut = blocking(self.shape, self.dtype.itemsize, self.threads)
        chunks, self._block = cut
        self.decisions = decisions(self.shape, cut)
        self._work = per_chunk(chunks, blas.workspace_size(self._block, M, K), self.dtype)
        self._gV = per_chunk(chunks, M * d, self.dtype)
        self._gW = per_chunk(chunks, K * M, self.dtype)
        self._losses = np.empty(chunks)

    def backpropagate(
        self, X: np.ndarray, Y: np.ndarray, theta: Parameters, gradient: Parameters
    ) -> float:
        bounds = loops.chunk_bounds(len(X), len(self._work))
        with blas_threads(1), numba_threads(min(self.threads, len(bounds) - 1)):
            return self._kernel(
                self._gemm, self._formulas, X, Y, *theta, bounds, self._block, self._work,
                self._gV, self._gW, self._losses, *gradient,
            )  # fmt: skip

    def forward(self, X: np.ndarray, theta: Parameters, F: np.ndarray) -> None:
        formulas = (
            blocks.values(self.net.sigma, self.dtype),
            blocks.links(self.net.objective, self.dtype),
        )
        bounds = loops.chunk_bounds(len(X), len(self._work))
        with blas_threads(1), numba_threads(min(self.threads, len(bounds) - 1)):
            self._predict(
                self._gemm, formulas, X, *theta, bounds, self._block, self._work, F,
            )  # fmt: skip


def _workspace(shape, itemsize, threads):
    chunks, rows = blocking(shape, itemsize, threads)
    theta = shape.M * (shape.d + shape.K)
    return itemsize * chunks * (blas.workspace_size(rows, shape.M, shape.K) + theta)


def _corners(itemsize: int, threads: int) -> Iterator[Shape]:
    def decide(shape: Shape) -> Decisions:
        return decisions(shape, blocking(shape, itemsize, threads))

    many = range(1, 1 << 20)
    yield from both_sides(lambda shape: decide(shape).chunks, many, 3, 5, 2)
    yield from both_sides(lambda shape: decide(shape).blocks, many, 3, 5, 2)


VARIANT = Variant(
    "numba-blas",
    "cpu",
    "cache-sized blocks of samples under prange, BLAS for the products, everything else fused",
    NumbaBlas,
    _workspace,
    corners=_corners,
)

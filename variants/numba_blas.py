"""Cache-sized blocks of samples on several threads: BLAS for the products, the rest fused."""

from __future__ import annotations

import numpy as np

from ..buffers import per_chunk
from ..interface import Plan, Problem, Variant
from ..kernels import blas, blocks, loops
from ..machine import cache_sizes
from ..network import Parameters, Shape
from ..threads import blas_threads, numba_threads


def block_rows(shape: Shape, itemsize: int) -> int:
    """Rows of a block, 16 to 512: its X, Z, S, G, U and Y take half of the second-level cache."""
    row = itemsize * (shape.d + 3 * shape.M + 2 * shape.K)
    return min(shape.n, max(16, min(512, cache_sizes()[2] // 2 // row)))


class NumbaBlas(Plan):
    """One chunk of blocks a thread; no array grows with n."""

    def __init__(self, problem: Problem) -> None:
        super().__init__(problem)
        M, K = self.shape.M, self.shape.K
        self._kernel = blas.gradient()
        self._predict = blas.predict()
        self._formulas = blocks.gradient_formulas(self.net.sigma, self.net.objective, self.dtype)
        self._gemm = blas.gemm_address(self.dtype)
        self._block = block_rows(self.shape, self.dtype.itemsize)
        chunks = len(loops.chunk_bounds(self.shape.n, self.threads)) - 1
        self._work = per_chunk(chunks, blas.workspace_size(self._block, M, K), self.dtype)
        self._gV = per_chunk(chunks, self.V.size, self.dtype)
        self._gW = per_chunk(chunks, self.W.size, self.dtype)
        self._losses = np.empty(chunks)

    def _backpropagate(self, X: np.ndarray, Y: np.ndarray, gradient: Parameters) -> float:
        bounds = loops.chunk_bounds(len(X), len(self._work))
        with blas_threads(1), numba_threads(len(bounds) - 1):
            return self._kernel(
                self._gemm, self._formulas, X, Y, self.V, self.W, bounds, self._block, self._work,
                self._gV, self._gW, self._losses, *gradient,
            )  # fmt: skip

    def _forward(self, X: np.ndarray, F: np.ndarray) -> None:
        formulas = blocks.predict_formulas(self.net.sigma, self.net.objective, self.dtype)
        bounds = loops.chunk_bounds(len(X), len(self._work))
        with blas_threads(1), numba_threads(len(bounds) - 1):
            self._predict(
                self._gemm, formulas, X, self.V, self.W, bounds, self._block, self._work, F,
            )  # fmt: skip


def _workspace(shape, itemsize, threads):
    rows = block_rows(shape, itemsize)
    theta = shape.M * (shape.d + shape.K)
    return itemsize * threads * (blas.workspace_size(rows, shape.M, shape.K) + theta)


VARIANT = Variant(
    "numba-blas",
    "cpu",
    "cache-sized blocks of samples under prange, BLAS for the products, everything else fused",
    NumbaBlas,
    _workspace,
)

"""Cache-sized blocks of samples on register-tiled SIMD products; X is read once an epoch.

V and W are kept in the form that the products read, from step to step.
"""

from __future__ import annotations

import contextlib
from contextlib import AbstractContextManager

import numpy as np

from ..buffers import per_chunk
from ..interface import Plan, Problem, Variant
from ..kernels import blocks, fused, loops, simd
from ..machine import cache_sizes
from ..network import Parameters, Shape
from ..threads import numba_threads

_SMALL = 2e6  # operations of an epoch that is over before a second thread would have begun
_ROWS = 12  # rows of a tile


def block_rows(shape: Shape, itemsize: int) -> int:
    """Rows of a block: its X, Z and S take half of the second-level cache; 96 to 480 rows."""
    row = itemsize * (shape.d + 2 * shape.M + 3 * shape.K)
    rows = cache_sizes()[2] // 2 // row
    return max(96, min(480, rows)) // _ROWS * _ROWS


def lane_count(itemsize: int) -> int:
    """Lanes of a panel: two vectors."""
    return 2 * simd.VECTOR_BYTES // itemsize


class NumbaFused(Plan):
    """One compiled call an epoch; nothing is allocated in it."""

    def __init__(self, problem: Problem) -> None:
        super().__init__(problem)
        n, d, M, K = self.shape
        itemsize = self.dtype.itemsize
        self._lanes = lanes = lane_count(itemsize)
        self._block = min(block_rows(self.shape, itemsize), n)
        self._serial = self.threads == 1 or self.shape.flops() < _SMALL
        self._bounds = self._chunks(n)
        chunks = len(self._bounds) - 1

        def empty(size: int) -> np.ndarray:
            return per_chunk(1, size, self.dtype)[0, :size]

        self._Vp = empty(fused.panel_size(d, M, lanes))
        self._Wp = empty(fused.panel_size(K, M, lanes))
        self._Wt = empty(fused.panel_size(M, K, lanes))
        self._gVp = per_chunk(chunks, len(self._Vp), self.dtype)
        self._gWp = per_chunk(chunks, len(self._Wp), self.dtype)
        work = fused.workspace_size(self._block, M, K, lanes)
        self._work = per_chunk(chunks, work, self.dtype)
        self._losses = np.empty(chunks)
        self._epoch = fused.epoch(not self._serial)
        self._predict = fused.predict(not self._serial)
        self._formulas = blocks.formulas(self.net.sigma, self.net.objective, self.dtype)
        self._simd = simd.addresses()(self.dtype.type(0))
        self._pack, self._unpack, self._transpose = fused.packers()
        self._set_theta(problem.theta)

    def _chunks(self, n: int) -> np.ndarray:
        return loops.chunk_bounds(n, 1 if self._serial else self.threads)

    def _team(self, chunks: int) -> AbstractContextManager[None]:
        return contextlib.nullcontext() if self._serial else numba_threads(chunks)

    def _run(
        self, X: np.ndarray, Y: np.ndarray, bounds: np.ndarray, mu: float, update: bool
    ) -> float:
        with self._team(len(bounds) - 1):
            return self._epoch(
                self._simd, self._formulas, X, Y, self._Vp, self._Wp, self._Wt, bounds,
                self._work, self._gVp, self._gWp, self._losses, mu, update,
                self.shape.M, self._block, self._lanes,
            )  # fmt: skip

    def _step(self, mu: float) -> float:
        return self._run(self.X, self.Y, self._bounds, mu, True)

    def _backpropagate(self, X: np.ndarray, Y: np.ndarray, gradient: Parameters) -> float:
        loss = self._run(X, Y, self._chunks(len(X)), 0.0, False)
        self._unpack(self._gVp[0], gradient.V.T, self._lanes)
        self._unpack(self._gWp[0], gradient.W, self._lanes)
        return loss

    def _forward(self, X: np.ndarray, F: np.ndarray) -> None:
        bounds = loops.chunk_bounds(len(X), len(self._work))
        with self._team(len(bounds) - 1):
            self._predict(
                self._simd, self._formulas, X, self._Vp, self._Wp, self._Wt, bounds, self._work, F,
                self.shape.M, self._block, self._lanes,
            )  # fmt: skip

    def _get_theta(self) -> Parameters:
        theta = Parameters(np.empty_like(self.V), np.empty_like(self.W))
        self._unpack(self._Vp, theta.V.T, self._lanes)
        self._unpack(self._Wp, theta.W, self._lanes)
        return theta

    def _set_theta(self, theta: Parameters) -> None:
        self._pack(theta.V.T, self._Vp, self._lanes)
        self._pack(theta.W, self._Wp, self._lanes)
        self._transpose(self._Wp, self._Wt, self.shape.M, self.shape.K, self._lanes)


def _workspace(shape: Shape, itemsize: int, threads: int) -> int:
    lanes = lane_count(itemsize)
    rows = block_rows(shape, itemsize)
    theta = fused.panel_size(shape.d + shape.K, shape.M, lanes)
    work = fused.workspace_size(rows, shape.M, shape.K, lanes)
    return itemsize * (theta * (threads + 1) + threads * work)


VARIANT = Variant(
    "numba-fused",
    "cpu",
    "cache-sized blocks, register-tiled SIMD products, activation and loss fused, X read once",
    NumbaFused,
    _workspace,
)

"""Cache-sized blocks of samples on register-tiled SIMD products; X is read once an epoch.

V and W are kept in the form that the products read, from step to step.
"""

from __future__ import annotations

import contextlib
from typing import Any

import numpy as np

from ..buffers import per_chunk
from ..interface import Plan, Problem, Variant
from ..kernels import blocks, fused, loops, simd
from ..kernels.target import TARGET
from ..machine import cache_sizes
from ..network import Parameters, Shape
from ..threads import numba_threads

_SMALL = 5e5  # operations of an epoch that is over before a second thread would have begun
_PANELS = 128  # columns of Z and S that are in use at a time
_FORMULA = 40  # operations that σ and σ′ of a number are worth


def block_rows(shape: Shape, itemsize: int) -> int:
    """Rows of a block, 96 to 480: what the products go through again and again stays in L2.

    That is as much of X as they take at a time, a few panels of Z and S, and the outputs: three
    quarters of the cache. More rows only spread what is read of V over more samples.
    """
    columns = product_depth(shape.d, itemsize) + min(2 * shape.M, _PANELS) + 3 * shape.K
    rows = cache_sizes()[2] * 3 // 4 // (itemsize * columns)
    return max(96, min(480, rows)) // TARGET.height * TARGET.height


def product_depth(d: int, itemsize: int) -> int:
    """Inputs that a product runs over at a time: so many rows of a panel of V take half of L1.

    All parts of d are about as long, for a short one would cost as many stores; a multiple of a
    tile's height.
    """
    most = cache_sizes()[1] // 2 // (itemsize * lane_count(itemsize))
    parts = -(-d // most)
    return -(-d // (parts * TARGET.height)) * TARGET.height


def spread_step(shape: Shape, rows: int, itemsize: int) -> int:
    """Elements from one group of a block's inputs to the next; 0 where X is read as it lies.

    Spreading pays where many products read a row, and where rows are so many bytes apart that they
    compete for few sets of a cache. The step is an odd number of cache lines for the same reason.
    """
    if shape.d < 16 or (shape.M < 32 and shape.d * itemsize % 512):
        return 0
    line = 64 // itemsize
    lines = -(-rows * TARGET.height // line)
    return (lines + 1 - lines % 2) * line


def lane_count(itemsize: int) -> int:
    """Lanes of a panel: two vectors."""
    return 2 * TARGET.lanes(itemsize)


class NumbaFused(Plan):
    """One compiled call an epoch; nothing is allocated in it."""

    def __init__(self, problem: Problem) -> None:
        super().__init__(problem)
        n, d, M, K = self.shape
        itemsize = self.dtype.itemsize
        self._lanes = lanes = lane_count(itemsize)
        self._block = min(block_rows(self.shape, itemsize), n)
        self._depth = product_depth(d, itemsize)
        self._spread = spread_step(self.shape, self._block, itemsize)
        small = self.shape.flops() + _FORMULA * n * M < _SMALL
        shared = len(loops.chunk_bounds(n, self.threads)) > 2  # among threads
        self._serial = small or not shared
        chunks = len(self._chunks(n)) - 1

        def empty(size: int) -> np.ndarray:
            return per_chunk(1, size, self.dtype)[0, :size]

        self._Vp = empty(fused.panel_size(d, M, lanes))
        self._Wp = empty(fused.panel_size(K, M, lanes))
        self._Wt = empty(fused.panel_size(M, K, lanes))
        self._gVp = per_chunk(chunks, len(self._Vp), self.dtype)
        self._gWp = per_chunk(chunks, len(self._Wp), self.dtype)
        work = fused.workspace_size(self._block, d, M, K, lanes, self._spread)
        self._work = per_chunk(chunks, work, self.dtype)
        self._losses = np.empty(chunks)
        self._epoch = fused.epoch(not self._serial)
        self._predict = fused.predict(not self._serial)
        self._formulas = blocks.gradient_formulas(self.net.sigma, self.net.objective, self.dtype)
        self._simd = simd.addresses()(self.dtype.type(0))
        self._pack, self._unpack, self._transpose = fused.packers()
        self._arguments = self._bind(self.X, self.Y)
        self._set_theta(problem.theta)

    def _chunks(self, n: int) -> np.ndarray:
        return loops.chunk_bounds(n, 1 if self._serial else self.threads)

    def _bind(self, X: np.ndarray, Y: np.ndarray) -> tuple[Any, ...]:
        """All arguments of an epoch over X and Y but μ and whether to update."""
        return (
            self._simd, self._formulas, X, Y, self._chunks(len(X)), self._Vp, self._Wp, self._Wt,
            self._work, self._gVp, self._gWp, self._losses, self.shape.M, self._block, self._lanes,
            self._depth, self._spread,
        )  # fmt: skip

    def _run(self, arguments: tuple[Any, ...], mu: float, update: bool) -> float:
        if self._serial:
            return self._epoch(*arguments, mu, update)
        with numba_threads(self.threads):
            return self._epoch(*arguments, mu, update)

    def _step(self, mu: float) -> float:
        return self._run(self._arguments, mu, True)

    def _backpropagate(self, X: np.ndarray, Y: np.ndarray, gradient: Parameters) -> float:
        loss = self._run(self._bind(X, Y), 0.0, False)
        self._unpack(self._gVp[0], gradient.V.T, self._lanes)
        self._unpack(self._gWp[0], gradient.W, self._lanes)
        return loss

    def _forward(self, X: np.ndarray, F: np.ndarray) -> None:
        formulas = blocks.predict_formulas(self.net.sigma, self.net.objective, self.dtype)
        bounds = loops.chunk_bounds(len(X), len(self._work))
        with contextlib.nullcontext() if self._serial else numba_threads(self.threads):
            self._predict(
                self._simd, formulas, X, self._Vp, self._Wp, self._Wt, bounds, self._work, F,
                self.shape.M, self._block, self._lanes, self._depth, self._spread,
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
    turned = fused.panel_size(shape.M, shape.K, lanes)
    work = fused.workspace_size(
        rows, shape.d, shape.M, shape.K, lanes, spread_step(shape, rows, itemsize)
    )
    return itemsize * (theta * (threads + 1) + turned + threads * work)


VARIANT = Variant(
    "numba-fused",
    "cpu",
    "cache-sized blocks, register-tiled SIMD products, activation and loss fused, X read once",
    NumbaFused,
    _workspace,
)

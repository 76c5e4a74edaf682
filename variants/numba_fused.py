"""Cache-sized blocks of samples on register-tiled SIMD products; X is read once an epoch.

V and W are kept in the form that the products read, from step to step.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np

from ..interface import Engine, ForeignWeights, Problem, Variant, Weights
from ..interface.corners import both_sides
from ..kernels.compiler.target import TARGET
from ..kernels.cpu import blocks, fused, loops, simd
from ..kernels.formulas.updates import UPDATES, Update
from ..machine.buffers import per_chunk
from ..machine.hardware import cache_sizes
from ..machine.threads import numba_threads
from ..network import Parameters, Shape

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


class Blocking(NamedTuple):
    """How an epoch is cut."""

    chunks: int  # of the samples; more than one are shared among threads
    block: int  # rows of a block
    lanes: int  # of a panel
    depth: int  # inputs of a part of d
    spread: int  # see `spread_step`


def blocking(shape: Shape, itemsize: int, threads: int) -> Blocking:
    """The sizes for a problem: all that is decided about it is decided here."""
    small = shape.flops() + _FORMULA * shape.n * shape.M < _SMALL
    chunks = 1 if small else loops.chunk_count(shape.n, threads)
    block = min(block_rows(shape, itemsize), shape.n)
    return Blocking(
        chunks,
        block,
        lane_count(itemsize),
        product_depth(shape.d, itemsize),
        spread_step(shape, block, itemsize),
    )


class Decisions(NamedTuple):
    """What an epoch does for some shapes only."""

    chunks: bool  # several, on several threads
    blocks: bool  # a second one in a chunk, of X as it lies
    spread: bool
    spread_blocks: bool  # a second one, to where the first was spread
    parts: bool  # of d
    panels: bool  # of hidden units
    one_vector: bool  # as the last of these panels
    dots: bool
    dots_one_vector: bool
    output_panels: bool  # of U by tiles
    output_one_vector: bool
    large_update: bool  # on several threads


def decisions(shape: Shape, cut: Blocking) -> Decisions:
    """What is decided for a shape that is cut so."""
    n, d, M, K = shape
    lanes = cut.lanes
    blocks = -(-n // cut.chunks) > cut.block
    dots = fused.by_dots(M, K, lanes)
    one_vector = fused.last_lanes(M, lanes) < lanes
    return Decisions(
        chunks=cut.chunks > 1,
        blocks=blocks and not cut.spread,
        spread=cut.spread > 0,
        spread_blocks=blocks and cut.spread > 0,
        parts=d > cut.depth,
        panels=fused.panel_count(M, lanes) > 1,
        one_vector=one_vector,
        dots=dots,
        dots_one_vector=dots and one_vector,
        output_panels=not dots and fused.panel_count(K, lanes) > 1,
        output_one_vector=not dots and fused.last_lanes(K, lanes) < lanes,
        large_update=not fused.by_one_thread(fused.panel_size(d, M, lanes)),
    )


class Packed(NamedTuple):
    """A layer's weights each in panels, with Wᵀ beside W where they are θ."""

    V: np.ndarray
    W: np.ndarray
    Wt: np.ndarray


class PackedWeights(ForeignWeights):
    """θ, ∇L and slots in panels; ∇L is the first of the chunks' gradients."""

    def __init__(self, shape: Shape, dtype: np.dtype, gradient: Packed, lanes: int) -> None:
        self._lanes = lanes
        self._pack, self._unpack, self._transpose = fused.packers()
        super().__init__(shape, dtype)
        self.gradient = gradient

    def room(self) -> Packed:
        _, d, M, K = self.shape
        sizes = ((d, M), (K, M), (M, K))
        return Packed(*(_empty(fused.panel_size(*size, self._lanes), self.dtype) for size in sizes))

    def put(self, values: Parameters, arrays: Packed) -> None:
        self._pack(values.V.T, arrays.V, self._lanes)
        self._pack(values.W, arrays.W, self._lanes)
        self._transpose(arrays.W, arrays.Wt, self.shape.M, self.shape.K, self._lanes)

    def get(self, arrays: Packed) -> Parameters:
        values = super().room()
        self._unpack(arrays.V, values.V.T, self._lanes)
        self._unpack(arrays.W, values.W, self._lanes)
        return values


def _empty(size: int, dtype: np.dtype) -> np.ndarray:
    return per_chunk(1, size, dtype)[0, :size]


class NumbaFused(Engine):
    """One compiled call an epoch; nothing is allocated in it."""

    def __init__(self, problem: Problem) -> None:
        super().__init__(problem)
        _, d, M, K = self.shape
        self._cut = cut = blocking(self.shape, self.dtype.itemsize, self.threads)
        self._serial = cut.chunks == 1
        self.decisions = decisions(self.shape, cut)
        chunks, block, lanes, _, spread = cut
        self._gVp = per_chunk(chunks, fused.panel_size(d, M, lanes), self.dtype)
        self._gWp = per_chunk(chunks, fused.panel_size(K, M, lanes), self.dtype)
        work = fused.workspace_size(block, d, M, K, lanes, spread)
        self._work = per_chunk(chunks, work, self.dtype)
        self._losses = np.empty(chunks)
        self._epoch = fused.epoch(not self._serial)
        self._predict = fused.predict(not self._serial)
        self._formulas = blocks.gradient_formulas(self.net.sigma, self.net.objective, self.dtype)
        self._simd = simd.addresses()(self.dtype.type(0))

    def weights(self) -> PackedWeights:
        gradient = Packed(self._gVp[0], self._gWp[0], self._gWp[0])
        return PackedWeights(self.shape, self.dtype, gradient, self._cut.lanes)

    def _run(self, X: Any, Y: Any, theta: Packed, mu: float, update: bool) -> float:
        chunks, *sizes = self._cut
        with contextlib.nullcontext() if self._serial else numba_threads(self.threads):
            return self._epoch(
                self._simd, self._formulas, X, Y, loops.chunk_bounds(len(X), chunks), *theta,
                self._work, self._gVp, self._gWp, self._losses, self.shape.M, *sizes, mu, update,
            )  # fmt: skip

    def update(self, X, Y, weights: Weights, update: Update, scalars) -> float:
        if update is not UPDATES["descend"]:
            return super().update(X, Y, weights, update, scalars)
        return self._run(X, Y, weights.theta, scalars[0], True)

    def backpropagate(self, X: np.ndarray, Y: np.ndarray, theta: Packed, gradient: Packed) -> float:
        return self._run(X, Y, theta, 0.0, False)

    def forward(self, X: np.ndarray, theta: Packed, F: np.ndarray) -> None:
        formulas = blocks.predict_formulas(self.net.sigma, self.net.objective, self.dtype)
        chunks, *sizes = self._cut
        bounds = loops.chunk_bounds(len(X), chunks)
        with contextlib.nullcontext() if self._serial else numba_threads(self.threads):
            self._predict(
                self._simd, formulas, X, *theta, bounds, self._work, F, self.shape.M, *sizes
            )


def _workspace(shape: Shape, itemsize: int, threads: int) -> int:
    _, d, M, K = shape
    chunks, block, lanes, _, spread = blocking(shape, itemsize, threads)
    theta = fused.panel_size(d + K, M, lanes)
    turned = fused.panel_size(M, K, lanes)
    work = fused.workspace_size(block, d, M, K, lanes, spread)
    return itemsize * (theta * (chunks + 1) + turned + chunks * work)


def _corners(itemsize: int, threads: int) -> Iterator[Shape]:
    lanes = blocking(Shape(1, 1, 1, 1), itemsize, threads).lanes

    def sides(name: str, *sizes: int | range, ends: bool = False) -> tuple[Shape, ...]:
        def decide(shape: Shape) -> bool:
            cut = blocking(shape, itemsize, threads)
            return getattr(decisions(shape, cut), name) is not ends

        return both_sides(decide, *sizes)

    many, few = range(1, 1 << 20), 16  # too few for two chunks; a power of two keeps means exact
    panels = max(2 * lanes, 32) + 1  # hidden units for which X may be spread
    yield from sides("chunks", many, 3, 40, 1)
    yield from sides("blocks", many, 1, 1, 1)
    yield from sides("spread", few, many, panels, 3)
    yield from sides("spread_blocks", many, 17, panels, 3)
    yield from sides("parts", few, many, panels, 3)
    yield from sides("panels", few, 3, many, 3)
    yield from sides("dots", few, 3, 6 * lanes, range(1, lanes // 2 + 1), ends=True)
    yield from sides("dots_one_vector", few, 3, range(6 * lanes, 6 * lanes + 2), 1)
    yield from sides("output_panels", few, 3, panels, many)
    yield from sides("large_update", 2 * few, many, 256, 1)


VARIANT = Variant(
    "numba-fused",
    "cpu",
    "cache-sized blocks, register-tiled SIMD products, activation and loss fused, X read once",
    NumbaFused,
    _workspace,
    corners=_corners,
)

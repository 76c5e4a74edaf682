"""Cache-sized blocks of samples on register-tiled SIMD products; X is read once an epoch.

θ is kept in the form that the products read, from update to update.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from ..engines.blocking import Blocking, blocking, decisions
from ..engines.chunked import BlockEngine
from ..engines.packed import FlatWeights, PackedWeights
from ..interface import Problem, Variant
from ..interface.corners import both_sides
from ..kernels.cpu import chunks, few_samples, few_units, fused
from ..kernels.cpu.vectors import simd
from ..network import Shape


class NumbaFused(BlockEngine):
    """One compiled call an epoch; nothing is allocated in it."""

    def __init__(self, problem: Problem, by_dots: bool | None = None) -> None:
        super().__init__(problem)
        cut = blocking(self.shape, self.dtype.itemsize, self.threads)
        self._cut = cut = cut if by_dots is None else cut._replace(by_dots=by_dots)
        self._larger: NumbaFused | None = None  # made for more rows, which it predicts
        self.decisions = decisions(self.shape, cut)
        self.kernels = few_units.KERNELS if cut.plain else fused.KERNELS
        self.record = few_units.CHUNK if cut.plain else chunks.CHUNK
        numbers = cut._asdict() | simd.addresses(self.dtype)._asdict()
        self._allocate(cut.chunks, _buffers(self.shape, cut), numbers)
        self._only: tuple[Any, int, int] | None = None  # the way of all rows, where there is one
        if self.shape.n < cut.few and (cut.plain or self.shape.n <= cut.most):
            self._only = self._way(self.shape.n)

    def _need_halves(self) -> None:
        """Have the records tell what updates over few samples call."""
        if "forward" not in self._numbers:
            for name, address in few_samples.halves(self.dtype).items():
                self._set(name, address)

    def chunks_of(self, rows: int) -> int:
        return self._cut.chunks_of(rows)

    def weights(self) -> FlatWeights:
        if self._cut.plain:
            return super().weights()
        return PackedWeights(self.shape, self.dtype, self._cut, self._records)

    def _way(self, rows: int) -> tuple[Any, int, int]:
        if self._only is not None:
            return self._only
        parts = self._cut.parts_of(rows if rows > 1 or self._tried else self.shape.n)
        if parts == 0:
            return super()._way(rows)
        self._need_halves()
        threads = min(parts, self.threads) if parts > 1 else 0
        return few_samples.update(threads > 0), parts, threads

    def _epoch(self, X: np.ndarray, Y: np.ndarray, theta: Any, gradient: Any, update: int) -> float:
        if self._only is not None:  # at once: the smallest epochs take little longer than calls
            return self._only[0](self._records, X, Y, theta, gradient, update, 1)
        return super()._epoch(X, Y, theta, gradient, update)

    def forward(self, X: np.ndarray, theta: Any, F: np.ndarray) -> None:
        if len(X) <= self.shape.n or self._cut.chunks == self.threads:
            super().forward(X, theta, F)
            return
        if self._larger is None or len(X) > self._larger.shape.n:
            shape = self.shape._replace(n=1 << (len(X) - 1).bit_length())
            problem = Problem(self.net, shape, self.dtype, self.threads)
            self._larger = NumbaFused(problem, self._cut.by_dots)
        BlockEngine.forward(self._larger, X, theta, F)


def _buffers(shape: Shape, cut: Blocking) -> dict[str, tuple[int, int]]:
    if cut.plain:
        return few_units.buffers(shape, cut.chunks, cut.rows)
    return chunks.buffers(shape, cut)


def _workspace(shape: Shape, itemsize: int, threads: int) -> int:
    cut = blocking(shape, itemsize, threads)
    of_chunks = sum(count * size for count, size in _buffers(shape, cut).values())
    of_panels = 0 if cut.plain else chunks.weights_size(shape, cut)
    return itemsize * (of_chunks + 2 * of_panels)


def _corners(itemsize: int, threads: int) -> Iterator[Shape]:
    lanes = blocking(Shape(1, 1, 1, 1), itemsize, threads).lanes

    def sides(name: str, *sizes: int | range, ends: bool = False) -> tuple[Shape, ...]:
        def decide(shape: Shape) -> bool:
            cut = blocking(shape, itemsize, threads)
            return getattr(decisions(shape, cut), name) is not ends

        return both_sides(decide, *sizes)

    many, few = range(1, 1 << 20), 16  # too few for two chunks; a power of two keeps means exact
    several = 1000  # more than the rows of any two blocks
    panels = 2 * lanes + 1  # hidden units that never lie plain; five times as many have X spread
    yield from sides("few_units", few, 3, range(1, lanes), 3, ends=True)
    yield from sides("few_units_blocks", many, 1, 1, 1)
    yield from sides("few_units_lanes", few, many, 1, 3)
    yield from sides("chunks", many, 40, 120, 1)
    yield from sides("blocks", many, 100, panels, 1)
    yield from sides("spread", few, many, 5 * panels, 3)
    yield from sides("spread_blocks", many, 17, 5 * panels, 3)
    yield from sides("parts", several, many, 6 * panels, 3)
    yield from sides("few_parts", few // 4, range(1, 2200), max(lanes, 32), 3)
    yield from sides("panels", few, 3, many, 3)
    outputs = range(1, lanes // 2 + 1)
    yield from sides("dots_one_vector", few, 3, 6 * lanes + 1, outputs, ends=True)
    yield from sides("output_panels", few, 3, panels, many)
    yield from sides("large_update", several, many, 256, 1)


VARIANT = Variant(
    "numba-fused",
    "cpu",
    "cache-sized blocks, register-tiled SIMD products, activation and loss fused, X read once",
    NumbaFused,
    _workspace,
    corners=_corners,
)

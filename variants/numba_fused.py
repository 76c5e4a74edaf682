"""Cache-sized blocks of samples on register-tiled SIMD products; X is read once an epoch.

θ is kept in the form that the products read, from update to update.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import numpy as np

from ..engines.blocking import Blocking, blocking, decisions
from ..interface import Plan, Problem, Variant
from ..interface.corners import both_sides
from ..kernels.cpu import blocks, chunks, fused, simd
from ..kernels.cpu.panels import packers, panel_size
from ..kernels.formulas import updates
from ..kernels.formulas.updates import Update
from ..machine.buffers import per_chunk
from ..machine.threads import numba_threads
from ..network import Parameters, Shape


class PackedWeights:
    """θ, ∇L and slots in panels: V by inputs, W, and of θ Wᵀ, one after another in a flat array.

    What an optimizer's formula makes of the padding is put back to 0.
    """

    def __init__(self, theta: Parameters, cut: Blocking, records: np.ndarray) -> None:
        (M, d), K = theta.V.shape, len(theta.W)
        self._cut, self._records = cut, records
        self._dtype = theta.V.dtype
        self._shape = Shape(1, d, M, K)
        self._of_V = panel_size(d, M, cut.lanes)
        self._size = panel_size(d + K, M, cut.lanes)
        self._pack, self._unpack = packers()
        self._restore = fused.restore()
        self.theta, self.gradient = self.room(), self.room()
        self.slots: tuple[np.ndarray, ...] = ()
        self.put(theta, self.theta)

    def room(self) -> np.ndarray:
        """A flat array for θ."""
        size = chunks.weights_size(self._shape, self._cut)
        return per_chunk(1, size, self._dtype)[0, :size]

    def put(self, values: Parameters, packed: np.ndarray) -> None:
        """Pack V and W."""
        self._pack(values.V.T, packed[: self._of_V], self._cut.lanes)
        self._pack(values.W, packed[self._of_V : self._size], self._cut.lanes)
        self._restore(self._records, packed)

    def get(self, packed: np.ndarray) -> Parameters:
        """V and W."""
        _, d, M, K = self._shape
        values = Parameters(np.empty((M, d), self._dtype), np.empty((K, M), self._dtype))
        self._unpack(packed[: self._of_V], values.V.T, self._cut.lanes)
        self._unpack(packed[self._of_V : self._size], values.W, self._cut.lanes)
        return values

    def apply(self, update: Update, scalars: tuple[float, ...]) -> None:
        """The formula, for each number of V and W and of the padding."""
        arrays = (self.theta, self.gradient, *self.slots)
        updates.loop(update)(*(array[: self._size] for array in arrays), scalars)
        self._restore(self._records, self.theta)


class NumbaFused(Plan):
    """One compiled call an epoch; nothing is allocated in it."""

    def __init__(self, problem: Problem) -> None:
        super().__init__(problem)
        itemsize = self.dtype.itemsize
        self._cut = cut = blocking(self.shape, itemsize, self.threads)
        self.decisions = decisions(self.shape, cut)
        self._buffers = {
            name: per_chunk(*size, self.dtype)
            for name, size in chunks.buffers(self.shape, cut).items()
        }
        self._code = {
            **simd.addresses(self.dtype)._asdict(),
            "features": blocks.features(self.net.sigma, self.dtype),
            "losses": blocks.losses(self.net.objective, self.dtype),
        }
        self._bind()
        self._weights = PackedWeights(problem.theta, cut, self._records)

    def _bind(self) -> None:
        """The records of the chunks, for the buffers and the code there are."""
        self._records = chunks.records(self.shape, self._cut, self._code, self._buffers)

    def _also(self, **addresses: int) -> None:
        for name, address in addresses.items():
            self._records[name] = self._code[name] = address

    def _call(self, kernel: Any, rows: int, *arguments: Any) -> Any:
        """Call the kernel for so many chunks as the rows are worth, on as many threads."""
        parts = self._cut.chunks_of(rows)
        if parts == 1:
            return kernel(False)(self._records, *arguments)
        with numba_threads(parts):
            return kernel(True)(self._records, *arguments)

    def _epoch(self, X: np.ndarray, Y: np.ndarray, theta, gradient, mu: float, update: bool):
        parts = self._cut.chunks_of(len(X))
        arguments = self._records, X, Y, theta, gradient, parts, mu, update
        if parts == 1:
            return fused.epoch(False)(*arguments)
        with numba_threads(parts):
            return fused.epoch(True)(*arguments)

    def _step(self, mu: float) -> float:
        weights = self._weights
        return self._epoch(self.X, self.Y, weights.theta, weights.gradient, mu, True)

    def _backpropagate(self, X: np.ndarray, Y: np.ndarray, gradient: Parameters) -> float:
        weights = self._weights
        loss = self._epoch(X, Y, weights.theta, weights.gradient, 0.0, False)
        for out, found in zip(gradient, weights.get(weights.gradient), strict=True):
            out[...] = found
        return loss

    def _update(self, update: Update, scalars: tuple[float, ...], rows: slice) -> float:
        weights = self._weights
        X, Y = self.X[rows], self.Y[rows]
        if update.name == "descend":
            return self._epoch(X, Y, weights.theta, weights.gradient, scalars[0], True)
        loss = self._epoch(X, Y, weights.theta, weights.gradient, 0.0, False)
        weights.apply(update, scalars)
        return loss

    def _get_slots(self) -> tuple[Parameters, ...]:
        return tuple(self._weights.get(slot) for slot in self._weights.slots)

    def _set_slots(self, slots: tuple[Parameters, ...]) -> None:
        self._slots = slots
        rooms = tuple(self._weights.room() for _ in slots)
        for values, room in zip(slots, rooms, strict=True):
            self._weights.put(values, room)
        self._weights.slots = rooms

    def _forward(self, X: np.ndarray, F: np.ndarray) -> None:
        self._also(
            values=blocks.values(self.net.sigma, self.dtype),
            links=blocks.links(self.net.objective, self.dtype),
        )
        parts = self._cut.chunks_of(len(X))
        with contextlib.nullcontext() if parts == 1 else numba_threads(parts):
            fused.predict(parts > 1)(self._records, X, F, self._weights.theta, parts)

    def _loss(self, X: np.ndarray, Y: np.ndarray) -> float:
        self._also(values=blocks.values(self.net.sigma, self.dtype))
        parts = self._cut.chunks_of(len(X))
        with contextlib.nullcontext() if parts == 1 else numba_threads(parts):
            return fused.loss(parts > 1)(self._records, X, Y, self._weights.theta, parts)

    def _get_theta(self) -> Parameters:
        return self._weights.get(self._weights.theta)

    def _set_theta(self, theta: Parameters) -> None:
        self._weights.put(theta, self._weights.theta)


def _workspace(shape: Shape, itemsize: int, threads: int) -> int:
    cut = blocking(shape, itemsize, threads)
    of_chunks = sum(count * size for count, size in chunks.buffers(shape, cut).values())
    return itemsize * (of_chunks + 2 * chunks.weights_size(shape, cut))


def _corners(itemsize: int, threads: int) -> Iterator[Shape]:
    lanes = blocking(Shape(1, 1, 1, 1), itemsize, threads).lanes

    def sides(name: str, *sizes: int | range, ends: bool = False) -> tuple[Shape, ...]:
        def decide(shape: Shape) -> bool:
            cut = blocking(shape, itemsize, threads)
            return getattr(decisions(shape, cut), name) is not ends

        return both_sides(decide, *sizes)

    many, few = range(1, 1 << 20), 16  # too few for two chunks; a power of two keeps means exact
    panels = max(2 * lanes, 32) + 1  # hidden units for which X may be spread
    yield from sides("chunks", many, 3, 120, 1)
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

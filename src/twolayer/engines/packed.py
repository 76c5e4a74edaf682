"""θ, ∇L and slots as the fused kernels read and write them: flat, plain or in panels."""

from __future__ import annotations

import numpy as np

from ..interface.weights import Weights
from ..kernels.cpu import chunks, fused
from ..kernels.cpu.epochs import Rule
from ..kernels.cpu.vectors.panels import pack, panel_size, unpack
from ..kernels.formulas import updates
from ..kernels.formulas.updates import Update
from ..machine.buffers import per_chunk
from ..network import Parameters, Shape
from .blocking import Blocking

_LINEAR = ("descend", "descend_with_momentum", "accelerate")  # others may divide 0 by 0


class FlatWeights(Weights):
    """Flat arrays: V (M, d), then W (K, M).

    A subclass may have another layout: `size`, the elements that an update changes, with more
    behind them, `all` in all.
    """

    def __init__(self, shape: Shape, dtype: np.dtype, size: int = 0, all: int = 0) -> None:
        self.size = size or shape.M * (shape.d + shape.K)
        self.all = all or self.size
        self._scalars = self._slots_at = np.empty(0)  # the second, the addresses of the slots
        self._values: tuple[float, ...] = ()  # of the scalars
        self._update: Update | None = None  # what the rule was made for
        self._found: tuple[np.ndarray, ...] | None = None
        self._rule = Rule(0, 0, 0, 0)
        super().__init__(shape, dtype)

    def room(self) -> np.ndarray:
        return per_chunk(1, self.all, self.dtype)[0, : self.all]

    def put(self, values: Parameters, arrays: np.ndarray) -> None:
        arrays[: self.size] = np.concatenate([value.ravel() for value in values])

    def get(self, arrays: np.ndarray) -> Parameters:
        _, d, M, K = self.shape
        V, W = np.split(arrays[: self.size].copy(), [M * d])
        return Parameters(V.reshape(M, d), W.reshape(K, M))

    def rule(self, update: Update, scalars: tuple[float, ...]) -> Rule:
        """How compiled code changes θ and the slots; it holds until the next one is asked for."""
        if self._update is not update or self._found is not self.slots:
            self._update, self._found = update, self.slots
            self._scalars, self._values = np.empty(len(scalars)), ()
            self._slots_at = np.array([slot.ctypes.data for slot in self.slots], np.int64)
            run = updates.part(update, self.dtype)
            linear = any(update is updates.UPDATES[name] for name in _LINEAR)
            self._rule = Rule(
                run, self._slots_at.ctypes.data, self._scalars.ctypes.data, keeps_0=linear
            )
        if scalars != self._values:
            self._values = scalars
            for i, value in enumerate(scalars):
                self._scalars[i] = value
        return self._rule

    def forget(self) -> None:
        """Have the next `rule` write its scalars, whatever was written before."""
        self._update = None

    def apply(self, update: Update, scalars: tuple[float, ...]) -> None:
        arrays = (self.theta, self.gradient, *self.slots)
        updates.loop(update)(*(array[: self.size] for array in arrays), scalars)


class PackedWeights(FlatWeights):
    """V by inputs and W in panels, then Wᵀ where the products read that too.

    Panels are padded with 0; what an optimizer's formula makes of the padding is put back to it.
    """

    def __init__(self, shape: Shape, dtype: np.dtype, cut: Blocking, records: np.ndarray) -> None:
        self._cut, self._records = cut, records
        self._of_V = panel_size(shape.d, shape.M, cut.lanes)
        super().__init__(shape, dtype, cut.size, chunks.weights_size(shape, cut))

    def put(self, values: Parameters, arrays: np.ndarray) -> None:
        (V, W), lanes = values, self._cut.lanes
        pack(V.T, arrays[: self._of_V], lanes)
        pack(W, arrays[self._of_V : self.size], lanes)
        if self.all > self.size:
            pack(W.T, arrays[self.size :], lanes)

    def get(self, arrays: np.ndarray) -> Parameters:
        (_, d, M, K), lanes = self.shape, self._cut.lanes
        V = unpack(arrays[: self._of_V], d, M, lanes)
        W = unpack(arrays[self._of_V : self.size], K, M, lanes)
        return Parameters(np.ascontiguousarray(V.T), W)

    def apply(self, update: Update, scalars: tuple[float, ...]) -> None:
        super().apply(update, scalars)
        fused.restore()(self._records, self.theta)

"""θ, ∇L and slots in the panels that the fused kernels read and write."""

from __future__ import annotations

import numpy as np

from ..interface.weights import Weights
from ..kernels.cpu import chunks, fused
from ..kernels.cpu.chunks import Rule
from ..kernels.cpu.panels import packers, panel_size
from ..kernels.formulas import updates
from ..kernels.formulas.updates import Update
from ..machine.buffers import per_chunk
from ..network import Parameters, Shape
from .blocking import Blocking

_MOST_SCALARS = 32  # that an update takes


class PackedWeights(Weights):
    """Flat arrays: V by inputs and W in panels, then Wᵀ where the products read that too.

    Panels are padded with 0; what an optimizer's formula makes of the padding is put back to it.
    """

    def __init__(self, shape: Shape, dtype: np.dtype, cut: Blocking, records: np.ndarray) -> None:
        self._lanes, self._records = cut.lanes, records
        self._of_V = panel_size(shape.d, shape.M, cut.lanes)
        self._size = panel_size(shape.d + shape.K, shape.M, cut.lanes)
        self._all = chunks.weights_size(shape, cut)
        self._pack, self._unpack = packers()
        self._restore = fused.restore()
        self._scalars = np.empty(_MOST_SCALARS)
        self._slots_at = np.empty(0, np.int64)  # the addresses of the slots
        self._found: tuple[np.ndarray, ...] | None = None  # whose addresses these are
        super().__init__(shape, dtype)

    def room(self) -> np.ndarray:
        return per_chunk(1, self._all, self.dtype)[0, : self._all]

    def put(self, values: Parameters, arrays: np.ndarray) -> None:
        self._pack(values.V.T, arrays[: self._of_V], self._lanes)
        self._pack(values.W, arrays[self._of_V : self._size], self._lanes)
        self._restore(self._records, arrays)

    def get(self, arrays: np.ndarray) -> Parameters:
        values = super().room()
        self._unpack(arrays[: self._of_V], values.V.T, self._lanes)
        self._unpack(arrays[self._of_V : self._size], values.W, self._lanes)
        return values

    def rule(self, update: Update, scalars: tuple[float, ...]) -> Rule:
        """How compiled code changes θ and the slots; it holds until the next one is asked for."""
        if self._found is not self.slots:
            self._found = self.slots
            self._slots_at = np.array([slot.ctypes.data for slot in self.slots], np.int64)
        self._scalars[: len(scalars)] = scalars
        run = updates.part(update, self.dtype)
        return Rule(run, self._slots_at.ctypes.data, self._scalars.ctypes.data)

    def apply(self, update: Update, scalars: tuple[float, ...]) -> None:
        arrays = (self.theta, self.gradient, *self.slots)
        updates.loop(update)(*(array[: self._size] for array in arrays), scalars)
        self._restore(self._records, self.theta)

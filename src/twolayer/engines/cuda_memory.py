"""What lies on a CUDA device: rows of X and Y, θ, ∇L and slots."""

from __future__ import annotations

from typing import Any

import numpy as np

from ..interface import ForeignWeights
from ..kernels.cuda.driver.launch import bound
from ..kernels.cuda.memory.copies import padded
from ..kernels.formulas.updates import Update
from ..network import Parameters, Shape
from .cuda_facts import enough_memory, free_memory

MOST_KEPT = 512  # slices of the same rows, and graphs of launches bound to them
_STAGING = 1 << 26  # bytes of a block of rows on its way to the device


class Rows:
    """Rows of a matrix on the device; a slice is made once, and what is bound to it can stay."""

    def __init__(self, array: Any) -> None:
        self.array = array
        self._slices: dict[tuple[int, int], Rows] = {}
        self._missed = 0  # of them in a row that were not kept

    def __len__(self) -> int:
        return len(self.array)

    def __getitem__(self, rows: slice) -> Rows:
        start, stop, _ = rows.indices(len(self))
        if stop - start == len(self):
            return self
        found = self._slices.get((start, stop))
        if found is None:
            found = self._some(self.array[start:stop])
            if self._missed > MOST_KEPT:  # what is kept does not come any more
                self._slices.clear()
            if len(self._slices) < MOST_KEPT:
                self._slices[start, stop] = found
                self._missed = 0
            else:
                self._missed += 1
        else:
            self._missed = 0
        return found

    def _some(self, array: Any) -> Rows:
        return Rows(array)


class DeviceWeights(ForeignWeights):
    """V (M, ld) and W (K, ld) on the device, their rows filled up with zeros."""

    def __init__(self, shape: Shape, dtype: np.dtype) -> None:
        _, *self._columns, K = shape  # d and M
        widths = (padded(size, dtype) for size in self._columns)
        sizes = zip((shape.M, K), widths, strict=True)
        self._host = Parameters(*(np.zeros(size, dtype) for size in sizes))
        super().__init__(shape, dtype)

    def room(self) -> Parameters:
        """Arrays as θ's. Raises MemoryError where the device has no more."""
        from numba import cuda

        enough_memory(self.shape, sum(host.nbytes for host in self._host), free_memory())
        return Parameters(*(cuda.device_array(host.shape, self.dtype) for host in self._host))

    def put(self, values: Parameters, arrays: Any) -> None:
        """Copy values of the host to arrays of the device, rows filled up with zeros."""
        for value, host, array in zip(values, self._host, arrays, strict=True):
            host[:, : value.shape[1]] = value
            array.copy_to_device(host)

    def get(self, arrays: Any) -> Parameters:
        pairs = zip(arrays, self._columns, strict=True)
        return Parameters(*(array.copy_to_host()[:, :width].copy() for array, width in pairs))

    def apply(self, update: Update, scalars: tuple[float, ...]) -> None:
        """The formula on the device, in place."""
        from ..kernels.cuda import updates

        if update.slots > updates.MOST_SLOTS:
            return super().apply(update, scalars)
        kernel = updates.elementwise(update)
        arrays = zip(self.theta, self.gradient, *self.slots, strict=True)
        for (W, *others), width in zip(arrays, self._columns, strict=True):
            blocks = -(-W.size // updates.THREADS)
            bound(kernel, blocks, updates.THREADS, (W, *others, width, scalars))()


def to_device(X: np.ndarray) -> Any:
    """X (n, d) on the device, its rows filled up with zeros."""
    from numba import cuda

    columns = padded(X.shape[1], X.dtype)
    if columns == X.shape[1]:
        return cuda.to_device(X)
    device = cuda.device_array((len(X), columns), X.dtype)
    rows = min(len(X), max(1, _STAGING // (columns * X.dtype.itemsize)))
    block = np.zeros((rows, columns), X.dtype)
    for start in range(0, len(X), rows):
        part = X[start : start + rows]
        block[: len(part), : X.shape[1]] = part
        device[start : start + len(part)].copy_to_device(block[: len(part)])
    return device

"""Buffers of which each thread writes its own part."""

from __future__ import annotations

import numpy as np

_APART = 128  # bytes: a line of the cache, and the neighbour that is fetched along with it


def per_chunk(chunks: int, size: int, dtype: np.dtype) -> np.ndarray:
    """An empty array (chunks, at least size) whose rows share no line of the cache.

    Two threads that write to one line take it from each other at every write. The rows begin at
    multiples of 128 bytes, so that no vector of theirs crosses a line either.
    """
    items = _APART // dtype.itemsize
    columns = -(-size // items) * items
    memory = np.empty(chunks * columns * dtype.itemsize + _APART, np.uint8)
    start = -memory.ctypes.data % _APART
    return memory[start : memory.size - _APART + start].view(dtype).reshape(chunks, columns)

"""Buffers of which each thread writes its own part."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import accumulate

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


def together(sizes: Mapping[str, tuple[int, int]], dtype: np.dtype) -> dict[str, np.ndarray]:
    """Empty arrays (chunks, size) for these sizes; what all chunks have lies together by chunk.

    Otherwise the end of an array of one thread would be followed by the next thread's, and much of
    that be fetched ahead, and so taken from it, at every pass over the array.
    """
    chunks = max(count for count, _ in sizes.values())
    items = _APART // dtype.itemsize
    of_all = {name: size for name, (count, size) in sizes.items() if count == chunks}
    ends = list(accumulate(-(-size // items) * items for size in of_all.values()))
    memory = per_chunk(chunks, ends[-1], dtype)
    arrays = {
        name: memory[:, start : start + size]
        for (name, size), start in zip(of_all.items(), (0, *ends), strict=False)
    }
    rest = {name: per_chunk(*size, dtype) for name, size in sizes.items() if name not in of_all}
    return arrays | rest

"""A record for each chunk of the samples: sizes, addresses of code and of buffers, and Σ ℓ.

A call takes the records of its chunks as one array, for to take each array apart costs a tenth of a
microsecond. Compiled code reads a record once a chunk, into tuples with names.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

from ..compiler.jit import jitable


def record_type(names: Iterable[str]) -> np.dtype:
    """A record with a number of each name, and the chunk's loss."""
    # Two copies of the package in one process must not have equal types: Numba finds a type by its
    # object at once, but compares an equal one with all its fields, a microsecond in each call.
    of_this_copy = (__name__, np.int64)
    return np.dtype([*((name, np.int64) for name in names), ("loss", np.float64), of_this_copy])


def records(
    kind: np.dtype, chunks: int, numbers: Mapping[str, Any], arrays: Mapping[str, np.ndarray]
) -> np.ndarray:
    """The records (chunks,), with those of the numbers that they have.

    arrays (chunks, elements) are the buffers; one that has fewer rows begins with the second chunk.
    """
    made = np.zeros(chunks, kind)
    for name in numbers.keys() & set(kind.names or ()):
        made[name] = numbers[name]
    for name, array in arrays.items():
        first = int(len(array) < chunks)
        of_chunks = made[name][first : first + len(array)]
        of_chunks[:] = array.ctypes.data + array.strides[0] * np.arange(len(array))
    return made


@jitable
def add(total, part):
    """total += part, for flat arrays."""
    for i in range(len(total)):
        total[i] += part[i]


@jitable
def multiply(total, factor):
    """total *= factor, for a flat array."""
    for i in range(len(total)):
        total[i] *= factor


@jitable
def mean_loss(records, chunks, n):
    """L from the sums of the chunks, in the order of their numbers."""
    total = 0.0
    for c in range(chunks):
        total += records[c]["loss"]
    return total / n

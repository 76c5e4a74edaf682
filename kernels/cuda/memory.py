"""Copies of 128 and 64 bits between arrays, in any of a GPU's memories.

Matrices on the device are C-contiguous with rows of a multiple of 16 bytes, filled up with zeros,
and are addressed by the flat index row * columns + column.
"""

import numpy as np
from llvmlite import ir
from numba import types
from numba.extending import intrinsic, overload

BYTES = 16


def vector(dtype) -> int:
    """Elements in 128 bits."""
    return BYTES // np.dtype(dtype).itemsize


def padded(columns: int, dtype) -> int:
    """The number of columns, filled up to a multiple of 128 bits."""
    return -(-columns // vector(dtype)) * vector(dtype)


def copy(target, at, source, start):
    """target[at:at + w] = source[start:start + w], flat, w elements in 128 bits, aligned."""
    _copied(target, at, source, start, BYTES)


def copy_short(target, at, source, start):
    """As `copy`, w elements in 64 bits."""
    _copied(target, at, source, start, BYTES // 2)


def _copied(target, at, source, start, size):
    width = size // np.dtype(source.dtype).itemsize
    if at % width or start % width:
        raise ValueError(f"{8 * size}-bit copy from {start} to {at}: not aligned")
    if start + width > source.size or at + width > target.size:
        raise IndexError(f"{8 * size}-bit copy from {start} to {at}: out of bounds")
    target.reshape(-1)[at : at + width] = source.reshape(-1)[start : start + width]


@overload(copy)
def _overload_copy(target, at, source, start):
    return lambda target, at, source, start: _copy(target, at, source, start)


@overload(copy_short)
def _overload_copy_short(target, at, source, start):
    return lambda target, at, source, start: _copy_short(target, at, source, start)


def _copy_of(size):
    """The intrinsic that copies so many bytes."""

    def _copy(typingctx, target, at, source, start):
        kind = source.dtype
        signature = types.void(target, at, source, start)

        def codegen(context, builder, signature, args):
            width = size * 8 // kind.bitwidth
            real = context.get_value_type(kind)
            pointers = []
            for array, index, kinds in ((0, 1, signature.args[:2]), (2, 3, signature.args[2:])):
                data = context.make_array(kinds[0])(context, builder, args[array]).data
                wide = context.cast(builder, args[index], kinds[1], types.uint64)
                place = builder.gep(data, [wide])
                pointers.append(builder.bitcast(place, ir.VectorType(real, width).as_pointer()))
            value = builder.load(pointers[1])
            value.align = size
            builder.store(value, pointers[0]).align = size
            return context.get_dummy_value()

        return signature, codegen

    return intrinsic(_copy)


_copy = _copy_of(BYTES)
_copy_short = _copy_of(BYTES // 2)

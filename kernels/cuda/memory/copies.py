"""128-bit copies between arrays, in any of a GPU's memories.

Matrices on the device are C-contiguous with rows of a multiple of 16 bytes, filled up with zeros,
and are addressed by the flat index row * columns + column.
"""

import numpy as np
from llvmlite import ir
from numba import types

from ...compiler.lowering import lowers_to

BYTES = 16


def vector(dtype) -> int:
    """Elements in 128 bits."""
    return BYTES // np.dtype(dtype).itemsize


def padded(columns: int, dtype) -> int:
    """The number of columns, filled up to a multiple of 128 bits."""
    return -(-columns // vector(dtype)) * vector(dtype)


def _copy(target, at, source, start):
    kind = source.dtype
    signature = types.void(target, at, source, start)

    def codegen(context, builder, signature, args):
        width = BYTES * 8 // kind.bitwidth
        real = context.get_value_type(kind)
        pointers = []
        for array, index, kinds in ((0, 1, signature.args[:2]), (2, 3, signature.args[2:])):
            data = context.make_array(kinds[0])(context, builder, args[array]).data
            wide = context.cast(builder, args[index], kinds[1], types.uint64)
            place = builder.gep(data, [wide])
            pointers.append(builder.bitcast(place, ir.VectorType(real, width).as_pointer()))
        value = builder.load(pointers[1])
        value.align = BYTES
        builder.store(value, pointers[0]).align = BYTES

    return signature, codegen


@lowers_to(_copy)
def copy(target, at, source, start):
    """target[at:at + w] = source[start:start + w], flat, w elements in 128 bits, aligned."""
    width = vector(source.dtype)
    if at % width or start % width:
        raise ValueError(f"128-bit copy from {start} to {at}: not aligned")
    if start + width > source.size or at + width > target.size:
        raise IndexError(f"128-bit copy from {start} to {at}: out of bounds")
    target.reshape(-1)[at : at + width] = source.reshape(-1)[start : start + width]


def _element(source, at):
    def codegen(context, builder, signature, args):
        data = context.make_array(source)(context, builder, args[0]).data
        return builder.load(builder.gep(data, [context.cast(builder, args[1], at, types.uint64)]))

    return source.dtype(source, at), codegen


@lowers_to(_element)
def element(source, at):
    """The element with a flat index."""
    return source.reshape(-1)[at]


def _prefetch(source, at):
    text = "prefetch.global.L1 [$0];"

    def codegen(context, builder, signature, args):
        data = context.make_array(source)(context, builder, args[0]).data
        place = builder.gep(data, [context.cast(builder, args[1], at, types.uint64)])
        kind = ir.FunctionType(ir.VoidType(), [place.type])
        builder.call(ir.InlineAsm(kind, text, "l", side_effect=True), [place])

    return types.void(source, at), codegen


@lowers_to(_prefetch)
def prefetch(source, at):
    """Bring the element with a flat index into the first-level cache for a read to come."""
    element(source, at)

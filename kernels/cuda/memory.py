"""128-bit copies between arrays, in any of a GPU's memories, and 64-bit pairs of numbers.

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
    width = vector(source.dtype)
    if at % width or start % width:
        raise ValueError(f"128-bit copy from {start} to {at}: not aligned")
    if start + width > source.size or at + width > target.size:
        raise IndexError(f"128-bit copy from {start} to {at}: out of bounds")
    target.reshape(-1)[at : at + width] = source.reshape(-1)[start : start + width]


@overload(copy)
def _overload_copy(target, at, source, start):
    return lambda target, at, source, start: _copy(target, at, source, start)


@intrinsic
def _copy(typingctx, target, at, source, start):
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
        return context.get_dummy_value()

    return signature, codegen


def get_pair(source, at):
    """source[at], source[at + 1], flat, in one access; at is even."""
    if at % 2:
        raise ValueError(f"a pair at {at}: not aligned")
    return tuple(source.reshape(-1)[at : at + 2])


@overload(get_pair)
def _overload_get_pair(source, at):
    return lambda source, at: _get_pair(source, at)


def _pair(context, builder, kinds, args):
    real = context.get_value_type(kinds[0].dtype)
    data = context.make_array(kinds[0])(context, builder, args[0]).data
    place = builder.gep(data, [context.cast(builder, args[1], kinds[1], types.uint64)])
    kind = ir.VectorType(real, 2)
    return builder.bitcast(place, kind.as_pointer()), kind


@intrinsic
def _get_pair(typingctx, source, at):
    signature = types.UniTuple(source.dtype, 2)(source, at)

    def codegen(context, builder, signature, args):
        place, _ = _pair(context, builder, signature.args, args)
        value = builder.load(place)
        value.align = source.dtype.bitwidth // 4
        parts = [builder.extract_element(value, ir.IntType(32)(i)) for i in range(2)]
        return context.make_tuple(builder, signature.return_type, parts)

    return signature, codegen


def put_pair(target, at, x, y):
    """target[at], target[at + 1] = x, y, flat, in one access; at is even."""
    if at % 2:
        raise ValueError(f"a pair at {at}: not aligned")
    target.reshape(-1)[at : at + 2] = x, y


@overload(put_pair)
def _overload_put_pair(target, at, x, y):
    return lambda target, at, x, y: _put_pair(target, at, x, y)


@intrinsic
def _put_pair(typingctx, target, at, x, y):
    signature = types.void(target, at, target.dtype, target.dtype)

    def codegen(context, builder, signature, args):
        place, kind = _pair(context, builder, signature.args, args)
        value = kind(ir.Undefined)
        for i in range(2):
            value = builder.insert_element(value, args[2 + i], ir.IntType(32)(i))
        builder.store(value, place).align = target.dtype.bitwidth // 4
        return context.get_dummy_value()

    return signature, codegen

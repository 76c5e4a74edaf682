"""Two neighbouring numbers of a C-contiguous array in one access of global memory."""

from llvmlite import ir
from numba import types

from ...compiler.lowering import lowers_to


def _pair(context, builder, kinds, args):
    real = context.get_value_type(kinds[0].dtype)
    data = context.make_array(kinds[0])(context, builder, args[0]).data
    place = builder.gep(data, [context.cast(builder, args[1], kinds[1], types.uint64)])
    kind = ir.VectorType(real, 2)
    return builder.bitcast(place, kind.as_pointer()), kind


def _get_pair(source, at):
    signature = types.UniTuple(source.dtype, 2)(source, at)

    def codegen(context, builder, signature, args):
        place, _ = _pair(context, builder, signature.args, args)
        value = builder.load(place)
        value.align = source.dtype.bitwidth // 4
        parts = [builder.extract_element(value, ir.IntType(32)(i)) for i in range(2)]
        return context.make_tuple(builder, signature.return_type, parts)

    return signature, codegen


@lowers_to(_get_pair)
def get_pair(source, at):
    """source[at], source[at + 1], flat, in one access; at is even."""
    if at % 2:
        raise ValueError(f"a pair at {at}: not aligned")
    return tuple(source.reshape(-1)[at : at + 2])


def _put_pair(target, at, x, y):
    signature = types.void(target, at, target.dtype, target.dtype)

    def codegen(context, builder, signature, args):
        place, kind = _pair(context, builder, signature.args, args)
        value = kind(ir.Undefined)
        for i in range(2):
            value = builder.insert_element(value, args[2 + i], ir.IntType(32)(i))
        builder.store(value, place).align = target.dtype.bitwidth // 4

    return signature, codegen


@lowers_to(_put_pair)
def put_pair(target, at, x, y):
    """target[at], target[at + 1] = x, y, flat, in one access; at is even."""
    if at % 2:
        raise ValueError(f"a pair at {at}: not aligned")
    target.reshape(-1)[at : at + 2] = x, y

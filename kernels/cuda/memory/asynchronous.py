"""Copies from global to shared memory that run beside the computation (cp.async, sm_80 and later).

A thread's copies since its last `commit` are a group. `wait` returns when all but so many of its
groups have landed; the other threads see them after a barrier. Not before may a target be read.
"""

from typing import Any

import numpy as np
from llvmlite import ir
from numba import types

from ...compiler.lowering import lowers_to
from .copies import BYTES

_SHARED = 3  # the address space


def _groups() -> list[list]:
    """The calling thread's copies that have not landed, the open group last."""
    import greenlet

    thread: Any = greenlet.getcurrent()
    if not hasattr(thread, "groups"):
        thread.groups = [[]]
    return thread.groups


def _copy_async(target, at, source, start, there=None):
    there_too = [] if there is None else [there]
    signature = types.void(target, at, source, start, *there_too)
    size = source.dtype.bitwidth // 8

    def codegen(context, builder, signature, args):
        kinds, bits = signature.args, ir.IntType(32)
        shared = context.make_array(kinds[0])(context, builder, args[0]).data
        shared = builder.addrspacecast(shared, ir.PointerType(shared.type.pointee, _SHARED))
        index = context.cast(builder, args[1], kinds[1], types.uint32)
        place = builder.add(builder.ptrtoint(shared, bits), builder.mul(index, bits(size)))
        data = context.make_array(kinds[2])(context, builder, args[2]).data
        values = builder.gep(data, [context.cast(builder, args[3], kinds[3], types.uint64)])
        operands = [place, builder.ptrtoint(values, ir.IntType(64))]
        if there is None:
            text, constraints = f"cp.async.cg.shared.global [$0], [$1], {BYTES};", "r,l,~{memory}"
        else:
            text = f"cp.async.cg.shared.global [$0], [$1], {BYTES}, $2;"
            constraints = "r,l,r,~{memory}"
            inside = context.cast(builder, args[4], kinds[4], types.boolean)
            operands.append(builder.select(inside, bits(BYTES), bits(0)))
        kind = ir.FunctionType(ir.VoidType(), [operand.type for operand in operands])
        builder.call(ir.InlineAsm(kind, text, constraints, side_effect=True), operands)

    return signature, codegen


@lowers_to(_copy_async)
def copy_async(target, at, source, start):
    """Begin target[at:at + w] = source[start:start + w], flat, w elements in 128 bits, aligned."""
    width = BYTES // source.dtype.itemsize
    if at % width or start % width:
        raise ValueError(f"128-bit copy from {start} to {at}: not aligned")
    if start + width > source.size or at + width > target.size:
        raise IndexError(f"128-bit copy from {start} to {at}: out of bounds")
    place = target.reshape(-1)[at : at + width]
    place.view(np.uint8).fill(0xFF)  # as memory that was never written, until it lands
    _groups()[-1].append((place, source.reshape(-1)[start : start + width]))


@lowers_to(_copy_async)
def copy_async_or_zero(target, at, source, start, there):
    """copy_async if `there`, else zeros, which land likewise; `start` may then be anywhere."""
    if there:
        copy_async(target, at, source, start)
    else:
        copy_async(target, at, np.zeros(BYTES // source.dtype.itemsize, source.dtype), 0)


def _plain(builder, text):
    kind = ir.FunctionType(ir.VoidType(), [])
    builder.call(ir.InlineAsm(kind, text, "~{memory}", side_effect=True), [])


def _commit():
    def codegen(context, builder, signature, args):
        _plain(builder, "cp.async.commit_group;")

    return types.void(), codegen


@lowers_to(_commit)
def commit():
    """Close the thread's group of copies; it may be empty."""
    _groups().append([])


def _wait(pending):
    if not isinstance(pending, types.IntegerLiteral):
        return None

    def codegen(context, builder, signature, args):
        _plain(builder, f"cp.async.wait_group {pending.literal_value};")

    return types.void(pending), codegen


@lowers_to(_wait, prefer_literal=True)
def wait(pending):
    """Wait until at most `pending`, a constant, of the thread's closed groups are on their way."""
    groups = _groups()
    while len(groups) - 1 > pending:
        for place, values in groups.pop(0):
            place[...] = values

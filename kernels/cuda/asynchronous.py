"""Copies from global to shared memory that go on while a thread computes.

Copies of a thread are numbered in groups, which `commit` ends, and `wait` is for the older ones.
What has landed shows to other threads behind a barrier.
"""

from typing import Any

import numpy as np
from llvmlite import ir
from numba import types
from numba.extending import intrinsic, overload

from .memory import BYTES, copy, vector

_SHARED = 3  # the address space


def copy_async(target, at, source, start):
    """target[at:at + w] = source[start:start + w], flat, w elements in 128 bits, some time."""
    spare = np.empty(vector(source.dtype), source.dtype)
    copy(spare, 0, source, start)  # refuses what a copy refuses
    spare.view(np.uint8).fill(0xFF)
    copy(target, at, spare, 0)  # until it lands, nobody may use it
    _copies()[-1].append((target, at, source, start))


def copy_async_or_zero(target, at, source, start, there):
    """copy_async if `there`, else zeros, which land likewise; `start` may then be anywhere."""
    if there:
        copy_async(target, at, source, start)
    else:
        copy_async(target, at, np.zeros(vector(source.dtype), source.dtype), 0)


def commit():
    """End a group of the thread's copies."""
    _copies().append([])


def wait(pending):
    """Wait until no more than the last `pending` groups, a constant, are on their way."""
    groups = _copies()
    while len(groups) - 1 > pending:
        for one in groups.pop(0):
            copy(*one)


def _copies() -> list:
    """The thread's groups of copies on their way, the last one not yet ended."""
    import greenlet

    thread: Any = greenlet.getcurrent()
    if not hasattr(thread, "copies"):
        thread.copies = [[]]
    return thread.copies


@overload(copy_async)
def _overload_copy_async(target, at, source, start):
    return lambda target, at, source, start: _copy_async(target, at, source, start, True)


@overload(copy_async_or_zero)
def _overload_copy_async_or_zero(target, at, source, start, there):
    return lambda target, at, source, start, there: _copy_async(target, at, source, start, there)


@overload(commit)
def _overload_commit():
    return lambda: _commit()


@overload(wait, prefer_literal=True)
def _overload_wait(pending):
    return lambda pending: _wait(pending)


@intrinsic
def _copy_async(typingctx, target, at, source, start, there):
    def codegen(context, builder, signature, args):
        places = []
        for array, index, kinds in ((0, 1, signature.args[:2]), (2, 3, signature.args[2:])):
            data = context.make_array(kinds[0])(context, builder, args[array]).data
            wide = context.cast(builder, args[index], kinds[1], types.uint64)
            places.append(builder.gep(data, [wide]))
        element, bits = context.get_value_type(target.dtype), ir.IntType(32)
        shared = builder.addrspacecast(places[0], ir.PointerType(element, _SHARED))
        inside = context.cast(builder, args[4], signature.args[4], types.boolean)
        size = builder.select(inside, bits(BYTES), bits(0))
        _assembly(
            builder,
            f"cp.async.cg.shared.global [$0], [$1], {BYTES}, $2;",
            "r,l,r",
            [builder.ptrtoint(shared, bits), builder.ptrtoint(places[1], ir.IntType(64)), size],
        )
        return context.get_dummy_value()

    return types.void(target, at, source, start, there), codegen


@intrinsic
def _commit(typingctx):
    def codegen(context, builder, signature, args):
        _assembly(builder, "cp.async.commit_group;", "", [])
        return context.get_dummy_value()

    return types.void(), codegen


@intrinsic(prefer_literal=True)
def _wait(typingctx, pending):
    if not isinstance(pending, types.IntegerLiteral):
        return None
    groups = pending.literal_value

    def codegen(context, builder, signature, args):
        _assembly(builder, f"cp.async.wait_group {groups};", "", [])
        return context.get_dummy_value()

    return types.void(pending), codegen


def _assembly(builder, text: str, constraints: str, arguments: list) -> None:
    kind = ir.FunctionType(ir.VoidType(), [argument.type for argument in arguments])
    clobbers = ",".join(filter(None, [constraints, "~{memory}"]))
    builder.call(ir.InlineAsm(kind, text, clobbers, side_effect=True), arguments)

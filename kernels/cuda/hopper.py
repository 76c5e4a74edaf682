"""What only Hopper's multiprocessors do: bulk copies, barriers in memory, products of a warpgroup.

Each operation has a Python form for the simulator and one of inline PTX. A barrier is an element of
a uint64 array in shared memory. Its phase ends when `arrivals` have arrived and all bytes that were
announced have landed; `wait` for a parity returns once the phase of that parity has ended.

A warpgroup, 128 threads, multiplies 64 × 16 by 16 × 128 at a time (PTX ISA, wgmma.m64n128k16 with
.f16), both factors from shared memory by descriptors (CUTLASS, mma_traits_sm90_gmma.hpp): rows of
128 bytes, the 16-byte chunks of row r exchanged by XOR with r mod 8. Of warp w of a warpgroup and a
thread with g = lane / 4 and q = lane mod 4, results 4 i .. 4 i + 3 are, in rows 16 w + g and
16 w + g + 8, the columns 8 i + 2 q and 8 i + 2 q + 1.
"""

from functools import cache
from typing import NamedTuple

import numpy as np
from llvmlite import ir
from numba import types
from numba.extending import intrinsic, overload

from . import emulated

ATOM = 1024  # bytes: 8 rows of 128 bytes, what the chunks' exchange is aligned to
WARPGROUP = 128
RESULTS = 64  # of a thread, of 64 × 128
_I32, _I64 = ir.IntType(32), ir.IntType(64)


def _assembly(builder, text, constraints, args, result=None):
    kind = ir.FunctionType(result or ir.VoidType(), [argument.type for argument in args])
    return builder.call(ir.InlineAsm(kind, text, constraints, side_effect=True), args)


def _pointer(context, builder, kinds, args, array=0, index=None):
    """The place of an element of an array."""
    data = context.make_array(kinds[array])(context, builder, args[array]).data
    if index is None:
        return data
    return builder.gep(data, [context.cast(builder, args[index], kinds[index], types.uint64)])


def _shared(builder, pointer):
    """A place in shared memory as 32 bits."""
    space = ir.PointerType(pointer.type.pointee, 3) if hasattr(pointer.type, "pointee") else None
    space = space or ir.PointerType(addrspace=3)
    return builder.ptrtoint(builder.addrspacecast(pointer, space), _I32)


def _number(context, builder, kinds, args, at):
    return context.cast(builder, args[at], kinds[at], types.uint32)


def to_atom(shared):
    """Elements of the uint32 array `shared` before its first multiple of 1024 bytes."""
    return np.uint32(0)


@overload(to_atom)
def _overload_to_atom(shared):
    return lambda shared: _to_atom(shared)


@intrinsic
def _to_atom(typingctx, shared):
    def codegen(context, builder, signature, args):
        place = _shared(builder, _pointer(context, builder, signature.args, args))
        bytes_ = builder.and_(builder.neg(place), _I32(ATOM - 1))
        return builder.lshr(bytes_, _I32(2))

    return types.uint32(shared), codegen


def start(barriers, i, arrivals):
    """Begin the first phase of barrier i."""
    emulated.start(barriers, i, arrivals)


@overload(start)
def _overload_start(barriers, i, arrivals):
    return lambda barriers, i, arrivals: _start(barriers, i, arrivals)


@intrinsic
def _start(typingctx, barriers, i, arrivals):
    def codegen(context, builder, signature, args):
        place = _shared(builder, _pointer(context, builder, signature.args, args, 0, 1))
        number = _number(context, builder, signature.args, args, 2)
        text = "mbarrier.init.shared::cta.b64 [$0], $1;"
        _assembly(builder, text, "r,r,~{memory}", [place, number])
        return context.get_dummy_value()

    return types.void(barriers, i, arrivals), codegen


def started():
    """Show the barriers that this thread began to bulk copies; a syncthreads follows."""


@overload(started)
def _overload_started():
    return lambda: _started()


@intrinsic
def _started(typingctx):
    def codegen(context, builder, signature, args):
        text = "fence.mbarrier_init.release.cluster; fence.proxy.async.shared::cta;"
        _assembly(builder, text, "~{memory}", [])
        return context.get_dummy_value()

    return types.void(), codegen


def expect(barriers, i, size):
    """Arrive at barrier i and announce `size` bytes."""
    emulated.arrive(barriers, i, size)


@overload(expect)
def _overload_expect(barriers, i, size):
    return lambda barriers, i, size: _expect(barriers, i, size)


@intrinsic
def _expect(typingctx, barriers, i, size):
    def codegen(context, builder, signature, args):
        place = _shared(builder, _pointer(context, builder, signature.args, args, 0, 1))
        number = _number(context, builder, signature.args, args, 2)
        text = "mbarrier.arrive.expect_tx.shared::cta.b64 _, [$0], $1;"
        _assembly(builder, text, "r,r,~{memory}", [place, number])
        return context.get_dummy_value()

    return types.void(barriers, i, size), codegen


def arrive(barriers, i):
    """Arrive at barrier i."""
    emulated.arrive(barriers, i, 0)


@overload(arrive)
def _overload_arrive(barriers, i):
    return lambda barriers, i: _arrive(barriers, i)


@intrinsic
def _arrive(typingctx, barriers, i):
    def codegen(context, builder, signature, args):
        place = _shared(builder, _pointer(context, builder, signature.args, args, 0, 1))
        text = "mbarrier.arrive.shared::cta.b64 _, [$0];"
        _assembly(builder, text, "r,~{memory}", [place])
        return context.get_dummy_value()

    return types.void(barriers, i), codegen


def wait(barriers, i, parity):
    """Wait until the phase of that parity of barrier i has ended; before the first, 1 has."""
    emulated.wait(barriers, i, parity)


@overload(wait)
def _overload_wait(barriers, i, parity):
    return lambda barriers, i, parity: _wait(barriers, i, parity)


@intrinsic
def _wait(typingctx, barriers, i, parity):
    def codegen(context, builder, signature, args):
        place = _shared(builder, _pointer(context, builder, signature.args, args, 0, 1))
        number = _number(context, builder, signature.args, args, 2)
        text = (
            "{\n.reg .pred ended;\nagain:\n"
            "mbarrier.try_wait.parity.shared::cta.b64 ended, [$0], $1;\n"
            "@!ended bra again;\n}"
        )
        _assembly(builder, text, "r,r,~{memory}", [place, number])
        return context.get_dummy_value()

    return types.void(barriers, i, parity), codegen


def fetch(shared, at, source, begin, count, barriers, i):
    """shared[at:at + count] = source[begin:begin + count] by a bulk copy that barrier i awaits.

    uint32 arrays; all three numbers are multiples of 4.
    """
    emulated.fetch(shared, at, source, begin, count, barriers, i)


@overload(fetch)
def _overload_fetch(shared, at, source, begin, count, barriers, i):
    return lambda shared, at, source, begin, count, barriers, i: _fetch(
        shared, at, source, begin, count, barriers, i
    )


@intrinsic
def _fetch(typingctx, shared, at, source, begin, count, barriers, i):
    def codegen(context, builder, signature, args):
        kinds = signature.args
        target = _shared(builder, _pointer(context, builder, kinds, args, 0, 1))
        place = builder.ptrtoint(_pointer(context, builder, kinds, args, 2, 3), _I64)
        size = builder.shl(_number(context, builder, kinds, args, 4), _I32(2))
        barrier = _shared(builder, _pointer(context, builder, kinds, args, 5, 6))
        text = (
            "cp.async.bulk.shared::cluster.global.mbarrier::complete_tx::bytes "
            "[$0], [$1], $2, [$3];"
        )
        _assembly(builder, text, "r,l,r,r,~{memory}", [target, place, size, barrier])
        return context.get_dummy_value()

    return types.void(shared, at, source, begin, count, barriers, i), codegen


@cache
def registers(count: int, more: bool):
    """f(): give the warpgroup `count` registers a thread, `more` than before or fewer."""

    def change():
        pass

    @overload(change)
    def _overload_change():
        return lambda: _change()

    @intrinsic
    def _change(typingctx):
        def codegen(context, builder, signature, args):
            way = "inc" if more else "dec"
            _assembly(builder, f"setmaxnreg.{way}.sync.aligned.u32 {count};", "", [])
            return context.get_dummy_value()

        return types.void(), codegen

    return change


class Layout(NamedTuple):
    """How a factor's planes lie in shared memory, and how a product walks through them. Bytes."""

    across: bool  # whether the sum runs over the rows of 128 bytes
    step: int  # from 16 k to the next
    leading: int  # between 64 rows or columns of the product, where the sum runs over rows
    stride: int  # between 8 rows of 128 bytes
    low: int  # from the plane of the leading halves to that of the rest


@cache
def multiplier(layout: Layout):
    """f(sums, shared, a, b): begin sums += A B, 64 × 128, over 64 k in three passes, lo hi first.

    a and b are the elements of the uint32 array `shared` where the factors begin.
    """

    def multiply(sums, shared, a, b):
        emulated.multiply(sums, shared, int(a), int(b), layout)

    @overload(multiply)
    def _overload_multiply(sums, shared, a, b):
        return lambda sums, shared, a, b: _multiply(sums, shared, a, b)

    @intrinsic
    def _multiply(typingctx, sums, shared, a, b):
        def codegen(context, builder, signature, args):
            kinds = signature.args
            data = _pointer(context, builder, kinds, args)
            places = [builder.gep(data, [_I64(e)]) for e in range(RESULTS)]
            factors = [
                _descriptor(builder, _shared(builder, _pointer(context, builder, kinds, args, 1, i)))
                for i in (2, 3)
            ]
            constraints = ",".join(
                ["=f"] * RESULTS + [str(e) for e in range(RESULTS)] + ["l", "l", "~{memory}"]
            )
            result = ir.LiteralStructType([ir.FloatType()] * RESULTS)
            given = [builder.load(place) for place in places]
            found = _assembly(builder, text, constraints, [*given, *factors], result)
            for e, place in enumerate(places):
                builder.store(builder.extract_value(found, e), place)
            return context.get_dummy_value()

        return types.void(sums, shared, a, b), codegen

    def _descriptor(builder, place):
        units = builder.zext(builder.lshr(place, _I32(4)), _I64)
        fixed = layout.leading // 16 << 16 | layout.stride // 16 << 32 | 1 << 62
        return builder.or_(units, _I64(fixed))

    text = _passes(layout)
    return multiply


def _passes(layout):
    accumulators = "{" + ",".join(f"${e}" for e in range(RESULTS)) + "}"
    a, b = f"${2 * RESULTS}", f"${2 * RESULTS + 1}"
    across = int(layout.across)
    lines = ["{", ".reg .b64 a, b;", ".reg .pred add;", "setp.eq.b32 add, 0, 0;"]
    lines.append("wgmma.fence.sync.aligned;")
    for k in range(4):
        for low_a, low_b in ((True, False), (False, True), (False, False)):
            for name, base, low in (("a", a, low_a), ("b", b, low_b)):
                offset = (k * layout.step + low * layout.low) // 16
                lines.append(f"add.s64 {name}, {base}, {offset};")
            lines.append(
                "wgmma.mma_async.sync.aligned.m64n128k16.f32.f16.f16 "
                f"{accumulators}, a, b, add, 1, 1, {across}, {across};"
            )
    return "\n".join([*lines, "wgmma.commit_group.sync.aligned;", "}"])


@cache
def products_left(count: int):
    """f(): wait until at most `count` products of `multiplier` that this warp began go on."""

    def left():
        emulated.products_left(count)

    @overload(left)
    def _overload_left():
        return lambda: _left()

    @intrinsic
    def _left(typingctx):
        def codegen(context, builder, signature, args):
            _assembly(builder, f"wgmma.wait_group.sync.aligned {count};", "~{memory}", [])
            return context.get_dummy_value()

        return types.void(), codegen

    return left

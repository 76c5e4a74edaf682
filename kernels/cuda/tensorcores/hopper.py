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

from collections.abc import Callable
from functools import cache
from typing import NamedTuple

import numpy as np
from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic, overload

from . import emulated

ATOM = 1024  # bytes: 8 rows of 128 bytes, what the chunks' exchange is aligned to
WARPGROUP = 128
RESULTS = 64  # of a thread, of 64 × 128
_I32, _I64 = ir.IntType(32), ir.IntType(64)


class _Emit:
    """What an operation's form for the compiler is written with."""

    def __init__(self, context, builder, kinds, args):
        self.context, self.builder, self.kinds, self.args = context, builder, kinds, args

    def pointer(self, array, index=None):
        """The place of an array's element, both by the numbers of the arguments."""
        kind = self.kinds[array]
        data = self.context.make_array(kind)(self.context, self.builder, self.args[array]).data
        return data if index is None else self.builder.gep(data, [self.number(index, types.uint64)])

    def shared(self, array, index=None):
        """The same place in shared memory, as 32 bits."""
        pointer = self.pointer(array, index)
        space = ir.PointerType(pointer.type.pointee, 3)
        return self.builder.ptrtoint(self.builder.addrspacecast(pointer, space), _I32)

    def number(self, at, kind=types.uint32):
        """An argument as an unsigned integer."""
        return self.context.cast(self.builder, self.args[at], self.kinds[at], kind)

    def assembly(self, text, constraints, args, result=None):
        """Inline PTX that is neither moved nor left out."""
        kind = ir.FunctionType(result or ir.VoidType(), [argument.type for argument in args])
        return self.builder.call(ir.InlineAsm(kind, text, constraints, side_effect=True), args)


def _compiled(emit: Callable, result=types.void):
    """Give a Python function its form for the compiler: what `emit` returns or leaves behind."""

    def add(function):
        @intrinsic
        def lowered(typingctx, given):  # an intrinsic cannot have any number of arguments
            def codegen(context, builder, signature, args):
                values = cgutils.unpack_tuple(builder, args[0])
                found = emit(_Emit(context, builder, tuple(given), values))
                return context.get_dummy_value() if found is None else found

            return result(given), codegen

        overload(function)(lambda *args: lambda *args: lowered(args))
        return function

    return add


def _emit_to_atom(e):
    beyond = e.builder.and_(e.builder.neg(e.shared(0)), _I32(ATOM - 1))
    return e.builder.lshr(beyond, _I32(2))


@_compiled(_emit_to_atom, types.uint32)
def to_atom(shared):
    """Elements of the uint32 array `shared` before its first multiple of 1024 bytes."""
    return np.uint32(0)


def _emit_on_barrier(text):
    def emit(e):
        numbers = [e.number(i) for i in range(2, len(e.args))]
        constraints = "r," * (1 + len(numbers)) + "~{memory}"
        e.assembly(text, constraints, [e.shared(0, 1), *numbers])

    return emit


@_compiled(_emit_on_barrier("mbarrier.init.shared::cta.b64 [$0], $1;"))
def start(barriers, i, arrivals):
    """Begin the first phase of barrier i."""
    emulated.start(barriers, i, arrivals)


def _emit_started(e):
    text = "fence.mbarrier_init.release.cluster; fence.proxy.async.shared::cta;"
    e.assembly(text, "~{memory}", [])


@_compiled(_emit_started)
def started():
    """Show the barriers that this thread began to bulk copies; a syncthreads follows."""


@_compiled(_emit_on_barrier("mbarrier.arrive.expect_tx.shared::cta.b64 _, [$0], $1;"))
def expect(barriers, i, size):
    """Arrive at barrier i and announce `size` bytes."""
    emulated.arrive(barriers, i, size)


@_compiled(_emit_on_barrier("mbarrier.arrive.shared::cta.b64 _, [$0];"))
def arrive(barriers, i):
    """Arrive at barrier i."""
    emulated.arrive(barriers, i, 0)


_WAIT = """{
.reg .pred ended;
again:
mbarrier.try_wait.parity.shared::cta.b64 ended, [$0], $1;
@!ended bra again;
}"""


@_compiled(_emit_on_barrier(_WAIT))
def wait(barriers, i, parity):
    """Wait until the phase of that parity of barrier i has ended; before the first, 1 has."""
    emulated.wait(barriers, i, parity)


def _emit_fetch(e):
    text = "cp.async.bulk.shared::cluster.global.mbarrier::complete_tx::bytes [$0], [$1], $2, [$3];"
    place = e.builder.ptrtoint(e.pointer(2, 3), _I64)
    size = e.builder.shl(e.number(4), _I32(2))
    e.assembly(text, "r,l,r,r,~{memory}", [e.shared(0, 1), place, size, e.shared(5, 6)])


@_compiled(_emit_fetch)
def fetch(shared, at, source, begin, count, barriers, i):
    """shared[at:at + count] = source[begin:begin + count] by a bulk copy that barrier i awaits.

    uint32 arrays; all three numbers are multiples of 4.
    """
    emulated.fetch(shared, at, source, begin, count, barriers, i)


@cache
def registers(count: int, more: bool):
    """f(): give the warpgroup `count` registers a thread, `more` than before or fewer."""
    text = f"setmaxnreg.{'inc' if more else 'dec'}.sync.aligned.u32 {count};"

    @_compiled(lambda e: e.assembly(text, "~{memory}", []) and None)
    def change():
        pass

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

    a and b are the elements of the uint32 array `shared` where the factors begin. Until
    `products_left` nothing else may read or write `sums`.
    """
    text = _passes(layout)
    tied = ",".join(["=f"] * RESULTS + [str(i) for i in range(RESULTS)])
    results = ir.LiteralStructType([ir.FloatType()] * RESULTS)
    fixed = layout.leading // 16 << 16 | layout.stride // 16 << 32 | 1 << 62

    def emit(e):
        places = [e.builder.gep(e.pointer(0), [_I64(i)]) for i in range(RESULTS)]
        factors = []
        for i in (2, 3):
            units = e.builder.lshr(e.shared(1, i), _I32(4))
            factors.append(e.builder.or_(e.builder.zext(units, _I64), _I64(fixed)))
        before = [e.builder.load(place) for place in places]
        after = e.assembly(text, tied + ",l,l,~{memory}", [*before, *factors], results)
        for i, place in enumerate(places):
            e.builder.store(e.builder.extract_value(after, i), place)

    @_compiled(emit)
    def multiply(sums, shared, a, b):
        emulated.multiply(sums, shared, int(a), int(b), layout)

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
    text = f"wgmma.wait_group.sync.aligned {count};"

    @_compiled(lambda e: e.assembly(text, "~{memory}", []) and None)
    def left():
        emulated.products_left(count)

    return left

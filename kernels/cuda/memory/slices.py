"""How a block brings slices of an operand, `depth` k of a tile's `extent`, to shared memory.

`fetch` begins with a slice, `put` ends it: one copies to registers and from there, the other leaves
it all to copies that go on by themselves. What lies outside of the operand becomes 0.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from numba.extending import register_jitable

from .asynchronous import copy_async_or_zero
from .copies import copy, vector
from .types import real_type

u4, u8 = np.uint32, np.uint64


class Mover(NamedTuple):
    """What brings slices of an operand A, and the arrays of a thread that it needs.

    begin(regs, at, A, i0, k0, t) once; then, slice by slice, fetch(regs, at, As, target, A, i0,
    k, end, t), to which `target` is where in As a slice shall lie, and put(regs, As, target, t).
    """

    begin: Callable[..., None]
    fetch: Callable[..., None]
    put: Callable[..., None]
    registers: int  # elements of regs
    places: int  # elements of at, flat indices in A


@register_jitable
def unchanged(x):
    """x."""
    return x


def mover(
    dtype: str, extent: int, depth: int, threads: int, along: bool, stride: int, first: int,
    asynchronous: bool, change: Callable[..., Any] = unchanged,
) -> Mover:  # fmt: skip
    """For slices that lie `first` behind the targets they are given, their rows `stride` apart.

    `change` is applied to each element of an operand that lies along the sum.
    """
    real, width = real_type(dtype), vector(dtype)
    total = extent * depth // width
    rounds = -(-total // threads)
    inner = depth // width if along else extent // width
    ragged = rounds * threads != total

    @register_jitable
    def place(q, t):
        """i and k in the tile of the thread's q-th 128 bits, and whether there are any."""
        index = u4(t + u4(q * threads))
        outer, within = u4(index // u4(inner)), u4(u4(index % u4(inner)) * u4(width))
        i, k = (outer, within) if along else (within, outer)
        return i, k, not ragged or index < u4(total)

    @register_jitable
    def inside(A, i):
        return i < u4(A.shape[0]) if along else i < u4(A.shape[1])

    @register_jitable
    def begin(regs, at, A, i0, k0, t):
        for q in range(rounds):
            i, k, _ = place(q, t)
            row, column = (u4(i0 + i), u4(k0 + k)) if along else (u4(k0 + k), u4(i0 + i))
            at[q] = u8(row) * u8(A.shape[1]) + u8(column)

    @register_jitable
    def step(A):
        return u8(depth) if along else u8(depth) * u8(A.shape[1])

    @register_jitable
    def fetch_to_registers(regs, at, As, target, A, i0, k0, end, t):
        for q in range(rounds):
            i, k, there = place(q, t)
            for e in range(width):
                regs[q * width + e] = real(0)
            if there & inside(A, u4(i0 + i)) & (u4(k0 + k) < end):
                copy(regs, q * width, A, at[q])
            at[q] += step(A)

    @register_jitable
    def put_from_registers(regs, As, target, t):
        for q in range(rounds):
            i, k, there = place(q, t)
            to = u4(target + u4(u4(k * u4(stride)) + u4(i + u4(first))))
            if there:
                if along:
                    for e in range(width):
                        As[to + u8(e * stride)] = change(regs[q * width + e])
                else:
                    copy(As, to, regs, q * width)

    @register_jitable
    def fetch_to_shared(regs, at, As, target, A, i0, k0, end, t):
        for q in range(rounds):
            i, k, there = place(q, t)
            to = u4(target + u4(u4(k * u4(stride)) + u4(i + u4(first))))
            if there:
                copy_async_or_zero(As, to, A, at[q], inside(A, u4(i0 + i)) & (u4(k0 + k) < end))
            at[q] += step(A)

    @register_jitable
    def put_nothing(regs, As, target, t):
        pass

    if asynchronous:
        return Mover(begin, fetch_to_shared, put_nothing, 1, rounds)
    return Mover(begin, fetch_to_registers, put_from_registers, rounds * width, rounds)

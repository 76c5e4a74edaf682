"""The ring of stages in shared memory that feeds the products of wgmma, and who may run how.

A block has one warpgroup that copies, one thread of it, and pairs of warpgroups that multiply: each
of a pair has half of a tile of 128 × 128. A stage has 64 of the sum of both factors, both planes. A
barrier says that it is full, one that all who read it have given it back. A product goes on while
the next one begins; behind that one's beginning its stage is given back.
"""

from functools import cache

import numpy as np
from numba import cuda
from numba.extending import register_jitable

from ..driver.simulated import WARP
from . import hopper
from .hopper import RESULTS, WARPGROUP, Layout

u4, f4 = np.uint32, np.float32
STAGES = 3
BLOCK = 8192  # words of 32 bits: 128 × 64, both planes
HALF = BLOCK // 4  # words of 64 × 64 of one plane
STAGE = 2 * BLOCK
WARPS = WARPGROUP // WARP
ALONG = Layout(across=False, step=32, leading=16, stride=1024, low=16384)
ACROSS = Layout(across=True, step=2048, leading=8192, stride=1024, low=16384)
# Barriers: full stages, empty stages, each pair's turn to multiply, and two for weights.
TURNS = 2 * STAGES
WEIGHTS = TURNS + 2
BARRIERS = WEIGHTS + 2
# Registers of a thread that copies and of one that multiplies: a block starts with the same number
# for all, and its warpgroups share them out anew.
_REGISTERS = {1: (40, 232), 2: (24, 112)}


def threads(pairs: int = 1) -> int:
    """Threads of a block with so many pairs of warpgroups that multiply."""
    return WARPGROUP * (1 + 2 * pairs)


@cache
def shares(pairs: int = 1):
    """few(), many(): the registers of a warpgroup that copies, and of one that multiplies."""
    few, many = _REGISTERS[pairs]
    return hopper.registers(few, False), hopper.registers(many, True)


@register_jitable
def after(slot, parity):
    """The stage after this one, and its barriers' parity."""
    last = slot == u4(STAGES - 1)
    return u4(0) if last else u4(slot + u4(1)), u4(parity ^ u4(1)) if last else parity


@cache
def ring(layout: Layout, promote: bool = False):
    """begin(barriers, readers, sharing) and consume(sums, shared, a, b, barriers, slot, parity,
    count, lane).

    `begin` starts the barriers, for so many warps that read a stage, and threads that share
    weights. `consume` multiplies `count` stages from that slot of the ring on; in its first one
    the factors begin at a and b.
    """
    multiply = hopper.multiplier(layout)
    one_left, none_left = hopper.products_left(1), hopper.products_left(0)

    @register_jitable
    def begin(barriers, readers, sharing):
        for i in range(STAGES):
            hopper.start(barriers, i, 1)
            hopper.start(barriers, STAGES + i, readers)
        for i in range(2):
            hopper.start(barriers, TURNS + i, 2 * WARPS)
            hopper.start(barriers, WEIGHTS + i, sharing)
        hopper.started()

    @register_jitable
    def begin_stage(sums, shared, a, b, barriers, slot, parity):
        hopper.wait(barriers, slot, parity)
        multiply(sums, shared, u4(a + slot * u4(STAGE)), u4(b + slot * u4(STAGE)))

    @register_jitable
    def give_back(barriers, slot, lane):
        if lane == u4(0):
            hopper.arrive(barriers, u4(u4(STAGES) + slot))

    @register_jitable
    def consume(sums, shared, a, b, barriers, slot, parity, count, lane):
        for e in range(RESULTS):
            sums[e] = f4(0)
        s, last = u4(0), u4(0)
        while s < count:
            begin_stage(sums, shared, a, b, barriers, slot, parity)
            one_left()
            if s > u4(0):
                give_back(barriers, last, lane)
            last, s = slot, u4(s + u4(1))
            slot, parity = after(slot, parity)
        none_left()
        if count > u4(0):
            give_back(barriers, last, lane)

    @register_jitable
    def consume_and_promote(sums, shared, a, b, barriers, slot, parity, count, lane):
        """`consume`, two stages at a time whose sums are added to the others rounded, not cut."""
        slab = cuda.local.array(RESULTS, f4)
        for e in range(RESULTS):
            sums[e] = slab[e] = f4(0)
        s = u4(0)
        while s < count:
            next_, next_parity = after(slot, parity)
            begin_stage(slab, shared, a, b, barriers, slot, parity)
            begin_stage(slab, shared, a, b, barriers, next_, next_parity)
            one_left()
            give_back(barriers, slot, lane)
            none_left()
            give_back(barriers, next_, lane)
            for e in range(RESULTS):
                sums[e] += slab[e]
                slab[e] = f4(0)
            slot, parity = after(next_, next_parity)
            s = u4(s + u4(2))

    return begin, consume_and_promote if promote else consume

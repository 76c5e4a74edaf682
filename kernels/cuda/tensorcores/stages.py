"""How packed fp16 planes come to the stages of `fragments` in shared memory, and what lanes read.

A stage holds 32 of the sum. Along the sum it takes half of the 64 columns of a block: with the
block's swizzle, 64 neighbouring bytes of each row. Across, 32 rows of a block, as they are.
"""

import numpy as np
from numba.extending import register_jitable

from ..memory.asynchronous import copy_async
from .fragments import PLANE, SIDE

BLOCK = 8192  # uint32 of a packed block, 128 × 64 and two planes
_BLOCK_PLANE = BLOCK // 2
_INLINE = {"forceinline": True}
u4, u8 = np.uint32, np.uint64


def geometry(along: bool, columns: int):
    """places(t), and fetch(shared, at, P, first, stride, i, end, step, t) of A and of B."""

    @register_jitable(**_INLINE)
    def at_row(row, chunk):
        if along:
            return row * u4(16) + (chunk ^ row // u4(2) % u4(4)) * u4(4)
        return row * u4(32) + (chunk ^ row % u4(8)) * u4(4)

    @register_jitable(**_INLINE)
    def places(t):
        """Indices of the rows that a lane gives to ldmatrix, of A and B, at the first 16."""
        lane, warp = t % u4(32), t // u4(32)
        low, middle, upper = lane % u4(8), lane // u4(8) % u4(2), lane // u4(16)
        one, other = low + u4(8) * middle, low + u4(8) * upper
        edge = u4(PLANE // 2)  # 64 rows along, or a block across
        startA, startB = warp // u4(2) * edge, u4(2 * PLANE) + warp % u4(2) * edge
        if along:
            return u4(startA + at_row(one, upper)), u4(startB + at_row(other, middle))
        return u4(startA + at_row(other, middle)), u4(startB + at_row(one, upper))

    @register_jitable(**_INLINE)
    def fetch_along(shared, at, P, first, stride, i, end, step, t):
        row, chunk = t // u4(4), t % u4(4)
        to = at + at_row(row, chunk)
        own = row * u4(32) + row // u4(4) % u4(2) * u4(16) + (chunk ^ row % u4(4)) * u4(4)
        start = first + u8(step // u4(2)) * u8(BLOCK) + u8(own ^ step % u4(2) * u4(16))
        for plane in range(2):
            for e in range(4):  # 32 rows
                copy_async(
                    shared, u4(to + u4(plane * PLANE + e * 512)),
                    P, start + u8(plane * _BLOCK_PLANE + e * 1024),
                )  # fmt: skip

    def across(extent):
        chunks = extent // 8
        of_warp = chunks // 2

        @register_jitable(**_INLINE)
        def fetch_across(shared, at, P, first, stride, i, end, step, t):
            row, chunk = t // u4(chunks), t % u4(chunks)
            there = i // u4(8) + chunk
            if row < u4(8) and there < end:  # a matrix may end within the tile
                block, within = chunk // u4(of_warp), chunk % u4(of_warp)
                to = at + block * u4(1024) + at_row(row, within)
                own = there // u4(8) * u4(BLOCK) + at_row(row, there % u4(8))
                start = first + u8(step // u4(4)) * stride + u8(own + step % u4(4) * u4(1024))
                for plane in range(2):
                    for e in range(4):  # 8 rows
                        copy_async(
                            shared, u4(to + u4(plane * PLANE + e * 256)),
                            P, start + u8(plane * _BLOCK_PLANE + e * 256),
                        )  # fmt: skip

        return fetch_across

    if along:
        return places, fetch_along, fetch_along
    return places, across(SIDE), across(columns)

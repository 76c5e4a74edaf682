"""Products C = A Bᵀ by tiles in shared memory and registers, with what follows in the epilogue.

C[i, j] = Σ_k A(i, k) B(j, k). An operand lies `along` the sum, (i, k), or across it, (k, i). A
block of threads makes a tile of C. It moves slices of A and B of `depth` k through shared memory,
twice buffered: the next slice travels in registers while this one is multiplied, and a slice costs
one barrier. In shared memory both lie as (k, i), so that fragments are read 128 bits at a time.

Indices are unsigned: a signed one may be negative, which costs a test and a selection each.
"""

from collections.abc import Callable
from functools import cache
from typing import Any, NamedTuple

import numpy as np
from numba import cuda
from numba.extending import register_jitable

from .driver.simulated import WARP, launch_bounds
from .memory.asynchronous import commit, wait
from .memory.copies import copy, vector
from .memory.slices import mover, unchanged
from .memory.types import real_type
from .results import handing

u4, u8 = np.uint32, np.uint64
_SHARED = 47 << 10  # bytes of a block
_PAD = 4  # keeps transposed stores on different banks


class Tile(NamedTuple):
    """A block makes `rows` × `columns` of C, each thread `height` × `width` of them."""

    rows: int
    columns: int
    depth: int
    height: int
    width: int

    @property
    def threads(self) -> int:
        """Threads of a block."""
        return self.rows // self.height * (self.columns // self.width)


class Engine(NamedTuple):
    """How a block multiplies two slices, and where in the tile a thread's results lie.

    `multiply` may leave its last step to `last`, which then runs while the next slice is awaited:
    what it needs is in the fragments.
    """

    multiply: Callable[..., Any]  # (sums, fragments, As, Bs, startA, startB, t)
    last: Callable[..., Any]  # (sums, fragments)
    fragments: int  # elements, 0 before the first slice
    place: Callable[..., Any]  # (t, r, c) -> row and column in the tile of its result r, c
    run: int  # neighbouring columns of a thread
    pad: int  # elements between rows in shared memory
    bounded: bool  # whether the compiler has to be told how many blocks are `resident`
    by_warps: bool  # whether it takes all threads of a warp, even those with nothing to do


@register_jitable
def nothing_left(sums, fragments):
    """`last` of an engine that leaves nothing to it."""


LARGE = Tile(128, 128, 8, 8, 8)
# For numbers of columns that fill up LARGE badly: one as large, and one for few rows.
WIDE = Tile(128, 128, 16, 8, 16)  # fewer reads of shared memory a result, half the warps
TALL, SLIM = Tile(256, 64, 8, 8, 8), Tile(128, 64, 8, 8, 8)


def tile_for(rows: int, columns: int) -> Tile:
    """The tile of that size for `register_tile`, its extents from 16, 32, 64 and 128."""
    if rows == columns == 128:
        return LARGE
    return Tile(rows, columns, 8, *(8 if size == 128 else 4 for size in (rows, columns)))


def in_steps(count: int, half: int, stepA: int, stepB: int, read: Any, add: Any) -> Any:
    """function(sums, fragments, As, Bs, placeA, placeB): the steps of a slice, `count` even.

    A step's fragments are read while the step before is added, into the other half. The halves are
    constants in each step, for registers have no numbers at run time.
    """

    def steps(k: int):
        following = steps(k + 1) if k + 1 < count else None
        now, before = k % 2 * half, (k + 1) % 2 * half
        onA, onB = k * stepA, k * stepB

        @register_jitable
        def step(sums, fragments, As, Bs, placeA, placeB):
            read(fragments, now, As, Bs, placeA + u8(onA), placeB + u8(onB))
            add(sums, fragments, before)

        if following is None:
            return step

        @register_jitable
        def steps_from(sums, fragments, As, Bs, placeA, placeB):
            step(sums, fragments, As, Bs, placeA, placeB)
            following(sums, fragments, As, Bs, placeA, placeB)

        return steps_from

    return steps(0)


@cache
def register_tile(dtype: str, tile: Tile) -> Engine:
    """Fused multiply-adds on a tile in registers, in parts of 128 bits; a step is one k."""
    width = vector(dtype)
    rows, columns, depth, height, breadth = tile
    strideA, strideB = rows + _PAD, columns + _PAD
    partsA, partsB = height // width, breadth // width
    half = height + breadth
    # A warp's lanes are 8 x 4, so that a fragment of all of them is at most 128 bytes.
    down = min(8, rows // height)
    across = min(WARP // down, columns // breadth)
    warps_down = rows // (height * down)
    stepA, stepB = down * width, across * width

    @register_jitable
    def corner(t):
        """The first row and column of the thread's first part."""
        warp, lane = u4(t // u4(down * across)), u4(t % u4(down * across))
        i, j = u4(warp % u4(warps_down)), u4(warp // u4(warps_down))
        x, y = u4(lane // u4(across)), u4(lane % u4(across))
        row = u4(u4(i * u4(height * down)) + u4(x * u4(width)))
        return row, u4(u4(j * u4(breadth * across)) + u4(y * u4(width)))

    @register_jitable
    def read(fragments, at, As, Bs, placeA, placeB):
        for v in range(partsA):
            copy(fragments, at + v * width, As, placeA + u8(v * stepA))
        for v in range(partsB):
            copy(fragments, at + height + v * width, Bs, placeB + u8(v * stepB))

    @register_jitable
    def add(sums, fragments, at):
        for r in range(height):
            for c in range(breadth):
                sums[r * breadth + c] += fragments[at + r] * fragments[at + height + c]

    all_steps = in_steps(depth, half, strideA, strideB, read, add)

    @register_jitable
    def multiply(sums, fragments, As, Bs, startA, startB, t):
        row, column = corner(t)
        all_steps(sums, fragments, As, Bs, u4(startA + row), u4(startB + column))

    @register_jitable
    def last(sums, fragments):
        add(sums, fragments, half)

    @register_jitable
    def place(t, r, c):
        row, column = corner(t)
        row += u4(r // width * stepA + r % width)
        column += u4(c // width * stepB + c % width)
        return row, column

    return Engine(multiply, last, 2 * half, place, width, _PAD, False, False)


@cache
def product(
    dtype: str,
    tile: Tile,
    along: tuple[bool, bool],
    epilogue: Callable[..., Any],
    engine: Callable[[str, Tile], Engine] = register_tile,
    change: Callable[..., Any] = unchanged,
):
    """Kernel(A, B, C, D, out_rows, out_columns, share): tiles of C, by way of the epilogue.

    Block (x, 0, z) makes tile x, column by column, from the z-th `share` of the sum, which has the
    length of A's columns where A lies along it, of A's rows elsewhere. `epilogue(dtype, run)` gives
    what takes runs of sums, see `results.handing`. `change` is applied to each element of A where A
    lies along the sum.
    """
    real = real_type(dtype)
    multiply, last, fragment_size, place, run, pad, bounded, by_warps = engine(dtype, tile)
    height, width, depth = tile.height, tile.width, tile.depth
    rows, columns, threads = tile.rows, tile.columns, tile.threads
    alongA, alongB = along
    asynchronous = not alongA and not alongB
    sliceA = (rows + pad) * depth
    buffer = sliceA + (columns + pad) * depth
    # Slices on their way while one is multiplied.
    ahead = 2 if asynchronous and 3 * buffer * np.dtype(dtype).itemsize <= _SHARED else 1
    stages, pending = ahead + 1, ahead - 1
    shared, results = stages * buffer, height * width
    beginA, fetchA, putA, sizeA, placesA = mover(
        dtype, rows, depth, threads, alongA, rows + pad, 0, asynchronous, change
    )
    beginB, fetchB, putB, sizeB, placesB = mover(
        dtype, columns, depth, threads, alongB, columns + pad, sliceA, asynchronous
    )
    hand = handing(dtype, results, width, run, place, epilogue(dtype, run))
    first_lane = WARP if threads >= WARP else threads

    def kernel(A, B, C, D, out_rows, out_columns, share):
        slices = cuda.shared.array(shared, real)
        regsA = cuda.local.array(sizeA, real)
        regsB = cuda.local.array(sizeB, real)
        atA = cuda.local.array(placesA, u8)
        atB = cuda.local.array(placesB, u8)
        fragments = cuda.local.array(fragment_size, real)
        sums = cuda.local.array(results, real)
        t = u4(cuda.threadIdx.x)
        across = u4(u4(u4(out_columns) + u4(columns - 1)) // u4(columns))  # tiles
        i0 = u4(u4(u4(cuda.blockIdx.x) // across) * u4(rows))
        j0 = u4(u4(u4(cuda.blockIdx.x) % across) * u4(columns))
        part = u4(cuda.blockIdx.z)
        for e in range(results):
            sums[e] = real(0)
        for e in range(fragment_size):
            fragments[e] = real(0)
        row, column = place(u4(u4(t // u4(first_lane)) * u4(first_lane)), 0, 0)
        # Whether the results of the warp lie in C at all.
        needed = u4(i0 + row) < u4(out_rows) and u4(j0 + column) < u4(out_columns)
        k = u4(part * u4(share))
        end = u4(u4(A.shape[1]) if alongA else u4(A.shape[0]))
        end = u4(min(end, u4(k + u4(share))))
        if not alongB:
            end = u4(min(end, u4(B.shape[0])))
        beginA(regsA, atA, A, i0, k, t)
        beginB(regsB, atB, B, j0, k, t)
        target, now = u4(0), u4(0)
        for _ in range(ahead):
            fetchA(regsA, atA, slices, target, A, i0, k, end, t)
            fetchB(regsB, atB, slices, target, B, j0, k, end, t)
            putA(regsA, slices, target, t)
            putB(regsB, slices, target, t)
            if asynchronous:
                commit()
            k = u4(k + u4(depth))
            target = u4(target + u4(buffer))
        rest = u4(end + u4(ahead * depth))
        while k < rest:
            if asynchronous:
                wait(pending)
            cuda.syncthreads()
            if k < end:
                fetchA(regsA, atA, slices, target, A, i0, k, end, t)
                fetchB(regsB, atB, slices, target, B, j0, k, end, t)
            if asynchronous:
                commit()
            if by_warps or needed:
                multiply(sums, fragments, slices, slices, now, u4(now + u4(sliceA)), t)
            putA(regsA, slices, target, t)
            putB(regsB, slices, target, t)
            k = u4(k + u4(depth))
            now = u4(now + u4(buffer))
            now = u4(0) if now == u4(shared) else now
            target = u4(target + u4(buffer))
            target = u4(0) if target == u4(shared) else target
        last(sums, fragments)
        hand(sums, C, D, part, i0, j0, t, out_rows, out_columns)

    options = launch_bounds(threads, resident(dtype, tile)) if bounded else {}
    return cuda.jit(kernel, **options)


def resident(dtype: str, tile: Tile) -> int:
    """Blocks that a multiprocessor holds at a time, its 64 Ki registers 128 or 256 a thread."""
    results = tile.height * tile.width * np.dtype(dtype).itemsize
    return max(1, (512 if results <= 256 else 256) // tile.threads)


def blocks(tile: Tile, rows: int, columns: int) -> int:
    """Blocks of a part of a product with so many rows and columns."""
    return -(-rows // tile.rows) * -(-columns // tile.columns)


def area(tile: Tile, rows: int, columns: int) -> int:
    """Results that tiles make for a product with so many rows and columns."""
    return blocks(tile, rows, columns) * tile.rows * tile.columns

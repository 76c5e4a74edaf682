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

from .memory import copy, vector
from .types import real_type

u4, u8 = np.uint32, np.uint64
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
    """How a block multiplies two slices, and where in the tile a thread's results lie."""

    multiply: Callable[..., Any]  # (sums, As, Bs, startA, startB, t)
    place: Callable[..., Any]  # (t, r, c) -> row and column in the tile of its result r, c
    run: int  # neighbouring columns of a thread
    pad: int  # elements between rows in shared memory


@cache
def register_tile(dtype: str, tile: Tile) -> Engine:
    """Fused multiply-adds on a tile in registers, its parts 128 bits wide and apart."""
    real, width = real_type(dtype), vector(dtype)
    across = tile.columns // tile.width
    rows, columns, depth, height, breadth = tile
    strideA, strideB = rows + _PAD, columns + _PAD
    stepA, stepB = rows * width // height, columns * width // breadth
    partsA, partsB = height // width, breadth // width

    @register_jitable
    def outer_product(sums, a, b, As, Bs, placeA, placeB):
        for v in range(partsA):
            copy(a, v * width, As, placeA + u4(v * stepA))
        for v in range(partsB):
            copy(b, v * width, Bs, placeB + u4(v * stepB))
        for r in range(height):
            for c in range(breadth):
                sums[r * breadth + c] += a[r] * b[c]

    @register_jitable
    def multiply(sums, As, Bs, startA, startB, t):
        a = cuda.local.array(height, real)
        b = cuda.local.array(breadth, real)
        placeA = startA + t // u4(across) * u4(width)
        placeB = startB + t % u4(across) * u4(width)
        for k in range(0, depth, 4):  # the compiler does not unroll a loop as long as this
            atA, atB = placeA + u4(k * strideA), placeB + u4(k * strideB)
            outer_product(sums, a, b, As, Bs, atA, atB)
            outer_product(sums, a, b, As, Bs, atA + u4(strideA), atB + u4(strideB))
            outer_product(sums, a, b, As, Bs, atA + u4(2 * strideA), atB + u4(2 * strideB))
            outer_product(sums, a, b, As, Bs, atA + u4(3 * strideA), atB + u4(3 * strideB))

    @register_jitable
    def place(t, r, c):
        row = t // u4(across) * u4(width) + u4(r // width * stepA + r % width)
        column = t % u4(across) * u4(width) + u4(c // width * stepB + c % width)
        return row, column

    return Engine(multiply, place, width, _PAD)


def _staging(dtype: str, extent: int, depth: int, threads: int, along: bool, pad: int):
    """fetch(regs, A, i0, k0, end, t) and put(regs, As, start, t): a slice to registers and on."""
    real, width = real_type(dtype), vector(dtype)
    stride = extent + pad
    total = extent * depth // width
    rounds = -(-total // threads)
    inner = depth // width if along else extent // width
    ragged = rounds * threads != total

    @register_jitable
    def fetch(regs, A, i0, k0, end, t):
        for q in range(rounds):
            index = t + u4(q * threads)
            outer, within = index // u4(inner), index % u4(inner) * u4(width)
            if along:
                row, column = i0 + outer, k0 + within
                inside = row < u4(A.shape[0]) and column < end
            else:
                row, column = k0 + outer, i0 + within
                inside = row < min(end, u4(A.shape[0])) and column < u4(A.shape[1])
            if ragged:
                inside = inside and index < u4(total)
            if inside:
                copy(regs, q * width, A, u8(row) * u8(A.shape[1]) + u8(column))
            else:
                for e in range(width):
                    regs[q * width + e] = real(0)

    @register_jitable
    def put(regs, As, start, t):
        for q in range(rounds):
            index = t + u4(q * threads)
            outer, within = index // u4(inner), index % u4(inner) * u4(width)
            if not ragged or index < u4(total):
                if along:
                    for e in range(width):
                        As[start + (within + u4(e)) * u4(stride) + outer] = regs[q * width + e]
                else:
                    copy(As, start + outer * u4(stride) + within, regs, q * width)

    return fetch, put, rounds * width


@cache
def product(
    dtype: str,
    tile: Tile,
    along: tuple[bool, bool],
    epilogue: Callable[..., Any],
    engine: Callable[[str, Tile], Engine] = register_tile,
):
    """Kernel(A, B, C, D, out_rows, out_columns, share): tiles of C, by way of the epilogue.

    Block (x, y, z) makes tile (x, y) from the z-th `share` of the sum; the sum has the length of
    A's columns where A lies along it, of A's rows elsewhere. `epilogue(dtype, run)` gives a
    function(sums, C, D, z, row, column, out_columns) that takes a run of neighbouring sums.
    """
    real = real_type(dtype)
    multiply, place, run, pad = engine(dtype, tile)
    finish = epilogue(dtype, run)
    height, width, depth = tile.height, tile.width, tile.depth
    rows, columns, threads = tile.rows, tile.columns, tile.threads
    alongA, alongB = along
    fetchA, putA, sizeA = _staging(dtype, rows, depth, threads, alongA, pad)
    fetchB, putB, sizeB = _staging(dtype, columns, depth, threads, alongB, pad)
    sliceA, sliceB = (rows + pad) * depth, (columns + pad) * depth
    sharedA, sharedB, results = 2 * sliceA, 2 * sliceB, height * width
    runs, runs_of_row = results // run, width // run

    def kernel(A, B, C, D, out_rows, out_columns, share):
        As = cuda.shared.array(sharedA, real)
        Bs = cuda.shared.array(sharedB, real)
        regsA = cuda.local.array(sizeA, real)
        regsB = cuda.local.array(sizeB, real)
        sums = cuda.local.array(results, real)
        t = u4(cuda.threadIdx.x)
        i0, j0 = u4(cuda.blockIdx.x) * u4(rows), u4(cuda.blockIdx.y) * u4(columns)
        part = u4(cuda.blockIdx.z)
        for e in range(results):
            sums[e] = real(0)
        length = u4(A.shape[1]) if alongA else u4(A.shape[0])
        k = part * u4(share)
        end = min(length, k + u4(share))
        fetchA(regsA, A, i0, k, end, t)
        fetchB(regsB, B, j0, k, end, t)
        putA(regsA, As, u4(0), t)
        putB(regsB, Bs, u4(0), t)
        cuda.syncthreads()
        now = u4(0)
        while k < end:
            k += u4(depth)
            more = k < end
            if more:
                fetchA(regsA, A, i0, k, end, t)
                fetchB(regsB, B, j0, k, end, t)
            multiply(sums, As, Bs, now * u4(sliceA), now * u4(sliceB), t)
            now = u4(1) - now
            if more:
                putA(regsA, As, now * u4(sliceA), t)
                putB(regsB, Bs, now * u4(sliceB), t)
            cuda.syncthreads()
        # Registers have no numbers at run time: a run is always taken from the first ones, and the
        # others move up. Unrolled instead, σ would stand there once for each result.
        for index in range(runs):
            row, column = place(t, index // runs_of_row, index % runs_of_row * run)
            if i0 + row < u4(out_rows) and j0 + column < u4(out_columns):
                finish(sums, C, D, part, i0 + row, j0 + column, out_columns)
            for e in range(results - run):
                sums[e] = sums[e + run]

    return cuda.jit(kernel)

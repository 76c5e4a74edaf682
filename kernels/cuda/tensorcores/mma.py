"""A = X Vᵀ and ∇V = Gᵀ X from fp16 planes by mma.sync, for sm_80 and later.

Planes hold a matrix scaled to |p| < 2¹⁵ as hi + lo, in blocks of 128 rows × 64 columns: the hi
plane, then the lo plane, 4096 uint32 each, an uint32 two neighbouring columns. In a plane the
half-word of (r, c) is 64 r + 8 (c / 8 ^ (r mod 8)) + c mod 8. Rows are filled up with zeros to a
multiple of 128, columns to one of 64. The factors that undo the scales are powers of two.

A block of four warps makes 128 × 128 results, or fewer columns. Stages of 32 of the sum travel
through a ring in shared memory, asynchronously, as many ahead as the ring has room for. A stage
costs one barrier: behind it the stage has landed, and the one before it may be overwritten.
"""

from functools import cache

import numpy as np
from numba import cuda
from numba.extending import register_jitable

from ...formulas.activations import Activation
from .. import elementary  # noqa: F401  (σ by the GPU's own instructions)
from ..driver.simulated import launch_bounds
from ..memory.asynchronous import commit, wait
from ..memory.copies import copy
from .fragments import DEPTH, EDGE, PLANE, SIDE, STAGE, warp_tile
from .stages import BLOCK, geometry

THREADS = 128
STAGES = 3  # of the ring
MOST_OUTPUTS = 16  # K of the outputs' partial sums
BLOCKS_PER_MULTIPROCESSOR = 2
u4, u8, f4 = np.uint32, np.uint64, np.float32

_TILE = SIDE * SIDE  # float32 of a block's results; what follows them in shared memory:
_ROW_FACTORS, _COLUMN_FACTORS, _WEIGHTS = _TILE, _TILE + SIDE, _TILE + 2 * SIDE
_INLINE = {"forceinline": True}


def shared_bytes(stages: int = STAGES) -> int:
    """Dynamic shared memory of either kernel: the ring, then the results and what they meet."""
    return 4 * max(stages * STAGE, _WEIGHTS + MOST_OUTPUTS * SIDE)


SHARED_HIDDEN = SHARED_SUMS = shared_bytes()


def tiles(extent: int, columns: int = SIDE) -> int:
    """Tiles along an axis of the results."""
    return -(-extent // columns)


@cache
def _accumulation(along: bool, stages: int, columns: int = SIDE):
    """accumulate(sums, shared, A, B, first, strides, corner, ends, count, t): a tile's stages.

    Of A and B each: the index of their first block; across, the distance of the blocks that
    follow, the first row or column of the tile, and how many chunks of 8 of them there are.
    """
    if stages < 2:
        raise ValueError(f"a ring has at least 2 stages, got {stages}")
    places, fetchA, fetchB = geometry(along, columns)
    warp = warp_tile(along, columns // 2)
    multiply, clear = warp.multiply, warp.clear
    ahead, pending, ring = stages - 1, stages - 2, stages * STAGE

    @register_jitable(**_INLINE)
    def second(at):
        return u4(at ^ u4(8)) if along else u4(at + u4(16 * 32))

    @register_jitable(**_INLINE)
    def fetch(shared, at, A, B, first, strides, corner, ends, step, t):
        fetchA(shared, at, A, first[0], strides[0], corner[0], ends[0], step, t)
        fetchB(shared, at + u4(2 * PLANE), B, first[1], strides[1], corner[1], ends[1], step, t)

    @register_jitable(**_INLINE)
    def accumulate(sums, shared, A, B, first, strides, corner, ends, count, t):
        atA, atB = places(t)
        clear(sums)
        for s in range(ahead):
            if u4(s) < count:
                fetch(shared, u4(s * STAGE), A, B, first, strides, corner, ends, u4(s), t)
            commit()
        read, write, step, end = u4(0), u4(ahead * STAGE), u4(ahead), u4(count + u4(ahead))
        while step < end:
            wait(pending)
            cuda.syncthreads()
            if step < count:
                fetch(shared, write, A, B, first, strides, corner, ends, step, t)
            commit()
            multiply(sums, shared, u4(atA + read), u4(atB + read))
            multiply(sums, shared, u4(second(atA) + read), u4(second(atB) + read))
            write = read
            read = u4(read + u4(STAGE))
            if read == u4(ring):
                read = u4(0)
            step = u4(step + u4(1))
        cuda.syncthreads()

    return accumulate


@register_jitable(**_INLINE)
def _swizzle(row):
    """What moves columns in row `row` of the tile, so that neither axis meets bank conflicts."""
    return u4(row % u4(4) * u4(8) + row // u4(4) % u4(2) * u4(4))


@cache
def _epilogue(columns: int):
    """keep and store, of a tile of that many columns."""
    put, width = warp_tile(True, columns // 2).put, columns // 2

    @register_jitable(**_INLINE)
    def keep(sums, tile, factors, i0, rows, t):
        """All results of the block to shared memory, and the factors of its rows."""
        tile[u4(_ROW_FACTORS) + t] = factors[i0 + t] if i0 + t < rows else f4(0)
        lane, warp = t % u4(32), t // u4(32)
        row = warp // u4(2) * u4(EDGE) + lane // u4(4)
        column = warp % u4(2) * u4(width) + lane % u4(4) * u4(2)
        put(sums, tile, u4(row * u4(SIDE)), u4(column), _swizzle(row))

    @register_jitable(**_INLINE)
    def store(tile, C, start, ld, i0, j0, rows, inside, column_factors, t):
        """C[start + i ld + j] = tile ⊙ factors, by rows, with 0 from column `inside` on."""
        first, lane = u4(t // u4(32)), u4(t % u4(32) * u4(4))
        column = u4(j0 + lane)
        if column < ld and lane < u4(columns):
            scales, values = cuda.local.array(4, f4), cuda.local.array(16, f4)
            for e in range(4):
                j = u4(column + u4(e))
                scales[e] = column_factors[j] if j < inside else f4(0)
            while first < u4(SIDE):  # four rows at a time hide what their loads take
                for r in range(4):
                    row = u4(first + u4(4 * r))
                    copy(values, 4 * r, tile, u4(row * u4(SIDE) + (lane ^ _swizzle(row))))
                for r in range(4):
                    row = u4(first + u4(4 * r))
                    factor = tile[u4(_ROW_FACTORS) + row]
                    for e in range(4):
                        scaled = values[4 * r + e] * factor * scales[e]
                        # NaN * 0 would be none
                        values[4 * r + e] = scaled if u4(column + u4(e)) < inside else f4(0)
                    if u4(i0 + row) < rows:
                        copy(C, start + u8(i0 + row) * u8(ld) + u8(column), values, 4 * r)
                first = u4(first + u4(16))

    return keep, store


@cache
def hidden(activation: Activation, K: int, stages: int = STAGES):
    """Kernel(Xp, Vp, xr, vr, W, A, Us, n, M, inputs): A = X Vᵀ, Us = parts of σ(A) Wᵀ.

    Xp, Vp planes of X (n, d) and V (M, d), d = `inputs`; xr (n,), vr (M,) undo their scales.
    W (K, ld), A (n, ld), Us (tiles(M), n, K), of which part c sums the units of column tile c.
    Launched with tiles(n) tiles(M) blocks. With K = 0 Us is left alone.
    """
    if not 0 <= K <= MOST_OUTPUTS:
        raise ValueError(f"the partial sums are made for at most {MOST_OUTPUTS} outputs, got {K}")
    value, accumulate = activation.value, _accumulation(True, stages)
    (keep, store), results = _epilogue(SIDE), warp_tile(True, EDGE).results
    size = max(K, 1)

    @register_jitable(**_INLINE)
    def prepare(tile, W, vr, j, M, t):
        """W and V's factors of the tile's units to shared memory; a thread has a unit."""
        w = cuda.local.array(size, f4)
        for k in range(K):
            w[k] = W[k, j] if j < u4(W.shape[1]) else f4(0)
        tile[u4(_COLUMN_FACTORS) + t] = vr[j] if j < M else f4(0)
        for k in range(K):
            tile[u4(_WEIGHTS + k * SIDE) + t] = w[k]

    @register_jitable(**_INLINE)
    def outputs(tile, Us, c, i, t):
        """A thread has a row."""
        u = cuda.local.array(size, f4)
        a, v, w = cuda.local.array(4, f4), cuda.local.array(4, f4), cuda.local.array(4, f4)
        for k in range(K):
            u[k] = f4(0)
        factor, start, moved = tile[u4(_ROW_FACTORS) + t], u4(t * u4(SIDE)), u4(_swizzle(t))
        column = u4(0)
        while column < u4(SIDE):
            copy(a, 0, tile, u4(start + (column ^ moved)))
            copy(v, 0, tile, u4(u4(_COLUMN_FACTORS) + column))
            for e in range(4):
                a[e] = value(a[e] * factor * v[e])
            for k in range(K):
                copy(w, 0, tile, u4(u4(_WEIGHTS + k * SIDE) + column))
                for e in range(4):
                    u[k] += a[e] * w[e]
            column = u4(column + u4(4))
        for k in range(K):
            Us[c, i, k] = u[k]

    def kernel(Xp, Vp, xr, vr, W, A, Us, n, M, inputs):
        shared = cuda.shared.array(0, u4)
        tile = cuda.shared.array(0, f4)
        sums = cuda.local.array(results, f4)
        t, block = u4(cuda.threadIdx.x), u4(cuda.blockIdx.x)
        across = (u4(M) + u4(SIDE - 1)) // u4(SIDE)
        r, c = block // across, block % across
        i0, j0 = u4(r * u4(SIDE)), u4(c * u4(SIDE))
        row = u8((u4(inputs) + u4(63)) // u4(64)) * u8(BLOCK)
        count = u4((u4(inputs) + u4(DEPTH - 1)) // u4(DEPTH))
        first, zeros, unused = (u8(r) * row, u8(c) * row), (u8(0), u8(0)), (u4(0), u4(0))
        accumulate(sums, shared, Xp, Vp, first, zeros, unused, unused, count, t)
        keep(sums, tile, xr, i0, u4(n), t)
        if K > 0:
            prepare(tile, W, vr, j0 + t, u4(M), t)
        cuda.syncthreads()
        store(tile, A, u8(0), u4(A.shape[1]), i0, j0, u4(n), u4(M), vr, t)
        if K > 0 and i0 + t < u4(n):
            outputs(tile, Us, c, i0 + t, t)

    return cuda.jit(**launch_bounds(THREADS, BLOCKS_PER_MULTIPROCESSOR))(kernel)


@cache
def sums(stages: int = STAGES, columns: int = SIDE):
    """Kernel(Gp, Xp, gr, xc, gVs, M, d, ld, share, samples): gVs = parts of Gᵀ X.

    Gp, Xp planes of G (n, M) and X (n, d), n = `samples`; gr (M,), xc (d,) undo their scales. gVs
    (parts, M ld), of which row p sums samples p share ... (p + 1) share, a multiple of 128.
    Launched with (tiles(M) tiles(d, columns), parts) blocks.
    """
    if columns % 16 or not 0 < columns <= SIDE:
        raise ValueError(f"a tile has 16, 32 ... {SIDE} columns, got {columns}")
    accumulate = _accumulation(False, stages, columns)
    (keep, store), results = _epilogue(columns), warp_tile(False, columns // 2).results

    def kernel(Gp, Xp, gr, xc, gVs, M, d, ld, share, samples):
        shared = cuda.shared.array(0, u4)
        tile = cuda.shared.array(0, f4)
        sums = cuda.local.array(results, f4)
        t, block, part = u4(cuda.threadIdx.x), u4(cuda.blockIdx.x), u4(cuda.blockIdx.y)
        across = (u4(d) + u4(columns - 1)) // u4(columns)
        i0, j0 = u4(block // across * u4(SIDE)), u4(block % across * u4(columns))
        blocksG, blocksX = (u4(M) + u4(63)) // u4(64), (u4(d) + u4(63)) // u4(64)
        strides = (u8(blocksG) * u8(BLOCK), u8(blocksX) * u8(BLOCK))
        start = u4(part * u4(share))
        end = min(u4(start + u4(share)), u4((u4(samples) + u4(127)) // u4(128) * u4(128)))
        count = u4((end - start) // u4(DEPTH)) if start < end else u4(0)
        first = (u8(start // u4(128)) * strides[0], u8(start // u4(128)) * strides[1])
        ends = (u4(blocksG * u4(8)), u4(blocksX * u4(8)))
        accumulate(sums, shared, Gp, Xp, first, strides, (i0, j0), ends, count, t)
        keep(sums, tile, gr, i0, u4(M), t)
        cuda.syncthreads()
        beginning = u8(part) * u8(M) * u8(ld)
        store(tile, gVs, beginning, u4(ld), i0, j0, u4(M), u4(d), xc, t)

    return cuda.jit(**launch_bounds(THREADS, BLOCKS_PER_MULTIPROCESSOR))(kernel)

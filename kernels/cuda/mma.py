"""A = X Vᵀ and ∇V = Gᵀ X from fp16 planes by mma.sync, for sm_80 and later.

Planes hold a matrix scaled to |p| < 2¹⁵ as hi + lo, in blocks of 128 rows × 64 columns: the hi
plane, then the lo plane, 4096 uint32 each, an uint32 two neighbouring columns. In a plane the
half-word of (r, c) is 64 r + 8 (c / 8 ^ (r mod 8)) + c mod 8. Rows are filled up with zeros to a
multiple of 128, columns to one of 64. The factors that undo the scales are powers of two.

A block of four warps makes 128 × 128 results. Stages of 32 of the sum travel through a ring in
dynamic shared memory, asynchronously; a stage costs one barrier.
"""

from functools import cache

import numpy as np
from numba import cuda
from numba.extending import register_jitable

from ..activations import Activation
from .asynchronous import commit, copy_async, wait
from .fragments import (
    DEPTH,
    PLANE,
    RESULTS,
    SIDE,
    STAGE,
    clear,
    multiply_across,
    multiply_along,
    put,
)
from .insides import bounded
from .memory import copy

THREADS = 128
STAGES = 3  # of the ring
MOST_OUTPUTS = 16  # K of the outputs' partial sums
BLOCKS_PER_MULTIPROCESSOR = 2
u4, u8, f4 = np.uint32, np.uint64, np.float32

_BLOCK = 8192  # uint32 of a packed block, 128 x 64 and two planes
_BLOCK_PLANE = _BLOCK // 2
_TILE = SIDE * SIDE  # float32 of a block's results; what follows them in shared memory:
_ROW_FACTORS, _COLUMN_FACTORS, _WEIGHTS = _TILE, _TILE + SIDE, _TILE + 2 * SIDE
_INLINE = {"forceinline": True}


def shared_bytes(stages: int = STAGES) -> int:
    """Dynamic shared memory of either kernel: the ring, then the results and what they meet."""
    return 4 * max(stages * STAGE, _WEIGHTS + MOST_OUTPUTS * SIDE)


SHARED_HIDDEN = SHARED_SUMS = shared_bytes()


def tiles(extent: int) -> int:
    """Tiles along an axis of the results."""
    return -(-extent // SIDE)


@register_jitable(**_INLINE)
def _swizzle(row):
    """What moves columns in row `row` of the tile, so that neither axis meets bank conflicts."""
    return row % u4(4) * u4(8) + row // u4(4) % u4(2) * u4(4)


def _geometry(along: bool):
    """place(t), fetch(shared, at, P, first, stride, beside, step, t), both of one operand."""

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
        edge = u4(64 * 16)  # 64 rows along, or a block of 64 columns across
        startA, startB = warp // u4(2) * edge, u4(2 * PLANE) + warp % u4(2) * edge
        if along:
            return u4(startA + at_row(one, upper)), u4(startB + at_row(other, middle))
        return u4(startA + at_row(other, middle)), u4(startB + at_row(one, upper))

    @register_jitable(**_INLINE)
    def fetch_along(shared, at, P, first, stride, beside, step, t):
        row, chunk = t // u4(4), t % u4(4)
        to = at + at_row(row, chunk)
        own = row * u4(32) + row // u4(4) % u4(2) * u4(16) + (chunk ^ row % u4(4)) * u4(4)
        start = first + u8(step // u4(2)) * u8(_BLOCK) + u8(own ^ step % u4(2) * u4(16))
        for plane in range(2):
            for e in range(4):  # 32 rows
                copy_async(
                    shared, u4(to + u4(plane * PLANE + e * 512)),
                    P, start + u8(plane * _BLOCK_PLANE + e * 1024),
                )  # fmt: skip

    @register_jitable(**_INLINE)
    def fetch_across(shared, at, P, first, stride, beside, step, t):
        to = at + t * u4(4)
        start = first + u8(step // u4(4)) * stride + u8(step % u4(4) * u4(1024) + t * u4(4))
        for plane in range(2):
            for e in range(2):  # 16 rows
                to_e = to + u4(plane * PLANE + e * 512)
                start_e = start + u8(plane * _BLOCK_PLANE + e * 512)
                copy_async(shared, u4(to_e), P, start_e)
                copy_async(shared, u4(to_e + u4(1024)), P, start_e + beside)

    return places, fetch_along if along else fetch_across


@cache
def _accumulation(along: bool, stages: int):
    """accumulate(sums, shared, A, B, starts, strides, besides, count, t): `count` stages of a tile.

    Of A and B each: the index of the first block, the distance of the blocks that follow across,
    and that of the block beside it.
    """
    if stages < 2:
        raise ValueError(f"a ring has at least 2 stages, got {stages}")
    places, fetch = _geometry(along)
    multiply = multiply_along if along else multiply_across
    ahead, pending, ring = stages - 1, stages - 2, stages * STAGE

    @register_jitable(**_INLINE)
    def second(at):
        return u4(at ^ u4(8)) if along else u4(at + u4(16 * 32))

    @register_jitable(**_INLINE)
    def accumulate(sums, shared, A, B, starts, strides, besides, count, t):
        atA, atB = places(t)
        clear(sums)
        for s in range(ahead):
            if u4(s) < count:
                at = u4(s * STAGE)
                fetch(shared, at, A, starts[0], strides[0], besides[0], u4(s), t)
                fetch(shared, at + u4(2 * PLANE), B, starts[1], strides[1], besides[1], u4(s), t)
            commit()
        read, write, step, end = u4(0), u4(ahead * STAGE), u4(ahead), u4(count + u4(ahead))
        while step < end:
            wait(pending)
            cuda.syncthreads()
            if step < count:
                fetch(shared, write, A, starts[0], strides[0], besides[0], step, t)
                fetch(shared, write + u4(2 * PLANE), B, starts[1], strides[1], besides[1], step, t)
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
def _keep(sums, tile, factors, i0, rows, t):
    """All results of the block to shared memory, and the factors of its rows."""
    tile[u4(_ROW_FACTORS) + t] = factors[i0 + t] if i0 + t < rows else f4(0)
    lane, warp = t % u4(32), t // u4(32)
    row = warp // u4(2) * u4(64) + lane // u4(4)
    column = warp % u4(2) * u4(64) + lane % u4(4) * u4(2)
    put(sums, tile, u4(row * u4(SIDE) + (column ^ _swizzle(row))))


@register_jitable(**_INLINE)
def _store(tile, C, start, ld, i0, j0, rows, columns, column_factors, t):
    """C[start + i ld + j] = tile ⊙ factors, by rows, with 0 from column `columns` on."""
    first, lane = u4(t // u4(32)), u4(t % u4(32) * u4(4))
    column = u4(j0 + lane)
    if column < ld:
        scales, values = cuda.local.array(4, f4), cuda.local.array(16, f4)
        for e in range(4):
            scales[e] = (
                column_factors[u4(column + u4(e))] if u4(column + u4(e)) < columns else f4(0)
            )
        while first < u4(SIDE):  # four rows at a time hide what their loads take
            for r in range(4):
                row = u4(first + u4(4 * r))
                copy(values, 4 * r, tile, u4(row * u4(SIDE) + (lane ^ _swizzle(row))))
            for r in range(4):
                row = u4(first + u4(4 * r))
                factor = tile[u4(_ROW_FACTORS) + row]
                for e in range(4):
                    scaled = values[4 * r + e] * factor * scales[e]
                    inside = u4(column + u4(e)) < columns  # NaN * 0 would be none
                    values[4 * r + e] = scaled if inside else f4(0)
                if u4(i0 + row) < rows:
                    copy(C, start + u8(i0 + row) * u8(ld) + u8(column), values, 4 * r)
            first = u4(first + u4(16))


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
        sums = cuda.local.array(RESULTS, f4)
        t, block = u4(cuda.threadIdx.x), u4(cuda.blockIdx.x)
        across = (u4(M) + u4(SIDE - 1)) // u4(SIDE)
        r, c = block // across, block % across
        i0, j0 = u4(r * u4(SIDE)), u4(c * u4(SIDE))
        row = u8((u4(inputs) + u4(63)) // u4(64)) * u8(_BLOCK)
        count = u4((u4(inputs) + u4(DEPTH - 1)) // u4(DEPTH))
        starts, none = (u8(r) * row, u8(c) * row), (u8(0), u8(0))
        accumulate(sums, shared, Xp, Vp, starts, none, none, count, t)
        _keep(sums, tile, xr, i0, u4(n), t)
        if K > 0:
            prepare(tile, W, vr, j0 + t, u4(M), t)
        cuda.syncthreads()
        _store(tile, A, u8(0), u4(A.shape[1]), i0, j0, u4(n), u4(M), vr, t)
        if K > 0 and i0 + t < u4(n):
            outputs(tile, Us, c, i0 + t, t)

    return bounded(kernel, THREADS, BLOCKS_PER_MULTIPROCESSOR)


@cache
def sums(stages: int = STAGES):
    """Kernel(Gp, Xp, gr, xc, gVs, M, d, ld, share, samples): gVs = parts of Gᵀ X.

    Gp, Xp planes of G (n, M) and X (n, d), n = `samples`; gr (M,), xc (d,) undo their scales. gVs
    (parts, M ld), of which row p sums samples p share ... (p + 1) share, a multiple of 128.
    Launched with (tiles(M) tiles(d), parts) blocks.
    """
    accumulate = _accumulation(False, stages)

    def kernel(Gp, Xp, gr, xc, gVs, M, d, ld, share, samples):
        shared = cuda.shared.array(0, u4)
        tile = cuda.shared.array(0, f4)
        results = cuda.local.array(RESULTS, f4)
        t, block, part = u4(cuda.threadIdx.x), u4(cuda.blockIdx.x), u4(cuda.blockIdx.y)
        across = (u4(d) + u4(SIDE - 1)) // u4(SIDE)
        m, j = u4(block // across), u4(block % across)
        blocksG, blocksX = (u4(M) + u4(63)) // u4(64), (u4(d) + u4(63)) // u4(64)
        first = u4(part * u4(share))
        end = min(u4(first + u4(share)), u4((u4(samples) + u4(127)) // u4(128) * u4(128)))
        count = u4(0)
        if first < end:
            count = u4((end - first) // u4(DEPTH))
        strides = (u8(blocksG) * u8(_BLOCK), u8(blocksX) * u8(_BLOCK))
        row = u8(first // u4(128))
        starts = (
            row * strides[0] + u8(m) * u8(2 * _BLOCK),
            row * strides[1] + u8(j) * u8(2 * _BLOCK),
        )
        # A matrix may end with half a tile: what then stands in the other half is not stored.
        besides = (
            u8(_BLOCK) if m * u4(2) + u4(1) < blocksG else u8(0),
            u8(_BLOCK) if j * u4(2) + u4(1) < blocksX else u8(0),
        )
        accumulate(results, shared, Gp, Xp, starts, strides, besides, count, t)
        i0, j0 = u4(m * u4(SIDE)), u4(j * u4(SIDE))
        _keep(results, tile, gr, i0, u4(M), t)
        cuda.syncthreads()
        start = u8(part) * u8(M) * u8(ld)
        _store(tile, gVs, start, u4(ld), i0, j0, u4(M), u4(d), xc, t)

    return bounded(kernel, THREADS, BLOCKS_PER_MULTIPROCESSOR)

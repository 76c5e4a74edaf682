"""The two large products from planes of fp16, by Hopper's wgmma.

A packed matrix holds 128 × 64 blocks, row by row: 16 KB of leading halves, then 16 KB of the rest.
In either plane the chunk c of 16 bytes of row r lies in place c XOR (r mod 8) of the row's 128
bytes, as wgmma reads it from shared memory, whether the sum runs along the rows or across them. So
a slice of a factor arrives by plain copies.

`ring` has how they travel and who multiplies. With two pairs of warpgroups one makes its tile's
epilogue while the other multiplies.
"""

from functools import cache

import numpy as np
from numba import cuda, types
from numba.extending import register_jitable

from ...formulas.activations import Activation
from .. import elementary  # noqa: F401  (σ by the GPU's own instructions)
from ..driver.simulated import WARP, launch_bounds
from ..memory.copies import copy
from ..memory.pairs import get_pair, put_pair
from . import hopper
from .hopper import RESULTS, WARPGROUP, Layout
from .ring import (
    ACROSS,
    ALONG,
    BARRIERS,
    BLOCK,
    HALF,
    STAGE,
    STAGES,
    TURNS,
    WARPS,
    WEIGHTS,
    after,
    ring,
    shares,
    threads,
)

u4, u8, f4 = np.uint32, np.uint64, np.float32
MOST_OUTPUTS = 16  # K at most
# Bytes of dynamic shared memory: stages, and twice the weights of a tile and its scales.
SHARED = hopper.ATOM + 4 * (STAGES * STAGE + 2 * 128 * (MOST_OUTPUTS + 1))


@cache
def hidden(activation: Activation, K: int, pairs: int = 1):
    """Kernel(Xp, Vp, xr, vr, W, A, Us, n, M, inputs): A = X Vᵀ, and parts of U = W σ(A).

    Xp and Vp are planes of (n, inputs) and (M, inputs), their scales undone by xr (n,) and vr (M,).
    A is (n, ld), W (K, ld) with zeros from column M on; Us[c] (n, K) is the part of the units
    128 c .. 128 c + 127. Any number of blocks takes tiles in turn.
    """
    value, outputs = activation.value, 2 * K
    # Those who share a tile's weights: a warpgroup, so that it waits for no other, or a pair.
    sharing = WARPGROUP * pairs
    rounds = -(-K // (sharing // WARP))
    fours = 2 if K <= 10 or pairs == 1 else 1  # results at a time, as many as registers allow
    begin, consume = ring(ALONG)
    few, many = shares(pairs)

    @register_jitable
    def produce(shared, first, barriers, Xp, Vp, tiles, across, blocks):
        slot, parity = u4(0), u4(0)
        for tile in range(u4(cuda.blockIdx.x), tiles, u4(cuda.gridDim.x)):
            row, column = u4(tile) // across, u4(tile) % across
            for k in range(blocks):
                hopper.wait(barriers, u4(STAGES) + slot, parity ^ u4(1))
                hopper.expect(barriers, slot, u4(4 * STAGE))
                at = first + slot * u4(STAGE)
                atX = (u8(row) * u8(blocks) + u8(k)) * u8(BLOCK)
                atV = (u8(column) * u8(blocks) + u8(k)) * u8(BLOCK)
                hopper.fetch(shared, at, Xp, atX, u4(BLOCK), barriers, slot)
                hopper.fetch(shared, at + u4(BLOCK), Vp, atV, u4(BLOCK), barriers, slot)
                slot, parity = after(slot, parity)

    @register_jitable
    def gather(floats, at, W, vr, M, column, barriers, i, t):
        """The tile's part of W and vr in shared memory, with zeros beyond the units."""
        hopper.arrive(barriers, i)
        hopper.wait(barriers, i, u4(0))  # nobody reads the last tile's any more
        four = cuda.local.array(4, f4)
        ld, c = u4(W.shape[1]), u4(t % u4(WARP) * u4(4))
        m = u4(column * u4(128) + c)
        for r in range(rounds):
            k = u4(u4(sharing // WARP * r) + t // u4(WARP))
            copy(four, 0, W, u4(min(k, u4(K - 1)) * ld + min(m, ld - u4(4))))
            for e in range(4):
                four[e] = four[e] if m < ld else f4(0)
            if k < u4(K):
                copy(floats, u4(at + k * u4(128) + c), four, 0)
        m = u4(column * u4(128) + t)
        factor = vr[min(m, M - u4(1))]
        if t < u4(128):
            floats[at + u4(128 * K) + t] = factor if m < M else f4(0)
        hopper.arrive(barriers, i)
        hopper.wait(barriers, i, u4(1))

    @register_jitable(forceinline=True)
    def finish_four(sums, e, u, floats, at, r0, r1, A, to0, to1, in0, in1, m, M):
        """Results 4 e .. 4 e + 3, in columns m and m + 1."""
        v0, v1 = get_pair(floats, at + u4(128 * K))
        a00, a01 = sums[4 * e] * r0 * v0, sums[4 * e + 1] * r0 * v1
        a10, a11 = sums[4 * e + 2] * r1 * v0, sums[4 * e + 3] * r1 * v1
        if m < u4(A.shape[1]):
            is0, is1 = m < M, u4(m + u4(1)) < M
            if in0:
                put_pair(A, to0 + u8(m), a00 if is0 else f4(0), a01 if is1 else f4(0))
            if in1:
                put_pair(A, to1 + u8(m), a10 if is0 else f4(0), a11 if is1 else f4(0))
        z00, z01, z10, z11 = value(a00), value(a01), value(a10), value(a11)
        for k in range(K):
            w0, w1 = get_pair(floats, at + u4(128 * k))
            u[k] += z00 * w0
            u[k] += z01 * w1
            u[K + k] += z10 * w0
            u[K + k] += z11 * w1

    @register_jitable
    def finish(sums, floats, at, xr, A, Us, n, M, i, column, lane):
        """Rows i and i + 8; of the columns of a tile those of this lane."""
        ld, q, j = u4(A.shape[1]), lane % u4(4), u4(i + u4(8))
        u = cuda.local.array(outputs, f4)
        for k in range(outputs):
            u[k] = f4(0)
        r0, r1 = xr[min(i, n - u4(1))], xr[min(j, n - u4(1))]
        in0, in1 = i < n, j < n
        to0, to1 = u8(i) * u8(ld), u8(j) * u8(ld)
        c = u4(u4(2) * q)
        at, m = u4(at + c), u4(column * u4(128) + c)
        for _ in range(16 // fours):
            finish_four(sums, 0, u, floats, at, r0, r1, A, to0, to1, in0, in1, m, M)
            if fours == 2:
                m_ = u4(m + u4(8))
                finish_four(sums, 1, u, floats, at + u4(8), r0, r1, A, to0, to1, in0, in1, m_, M)
            at, m = u4(at + u4(8 * fours)), u4(m + u4(8 * fours))
            for e in range(RESULTS - 4 * fours):  # registers have no numbers at run time
                sums[e] = sums[e + 4 * fours]
        for k in range(outputs):
            u[k] += cuda.shfl_xor_sync(0xFFFFFFFF, u[k], 1)
            u[k] += cuda.shfl_xor_sync(0xFFFFFFFF, u[k], 2)
        for k in range(K):
            if u4(k % 4) == q:
                if in0:
                    Us[column, i, k] = u[k]
                if in1:
                    Us[column, j, k] = u[K + k]

    def kernel(Xp, Vp, xr, vr, W, A, Us, n, M, inputs):
        shared = cuda.shared.array(0, u4)
        floats = cuda.shared.array(0, f4)  # the same memory
        barriers = cuda.shared.array(BARRIERS, u8)
        t = u4(cuda.threadIdx.x)
        lane = u4(t % u4(WARP))
        group = u4(
            cuda.shfl_sync(0xFFFFFFFF, np.int32(t // u4(WARPGROUP)), 0)
        )  # one for all, says this
        first = hopper.to_atom(shared)
        down, across = (u4(n) + u4(127)) // u4(128), (u4(M) + u4(127)) // u4(128)
        blocks = u4((u4(inputs) + u4(63)) // u4(64))
        if t == u4(0):
            begin(barriers, 2 * WARPS, sharing)
        cuda.syncthreads()
        if group == u4(0):
            few()
            if t == u4(0):
                produce(shared, first, barriers, Xp, Vp, down * across, across, blocks)
        else:
            many()
            sums = cuda.local.array(RESULTS, f4)
            pair, half = u4((group - u4(1)) // u4(2)), u4((group - u4(1)) % u4(2))
            a, b = u4(first + half * u4(HALF)), u4(first + u4(BLOCK))
            mine = half if pairs == 1 else pair
            at = first + u4(STAGES * STAGE) + mine * u4((K + 1) * 128)
            weights, me = u4(u4(WEIGHTS) + mine), t - u4(WARPGROUP) - mine * u4(sharing)
            q, turn = u4(pair * blocks), u4(u4(1) ^ pair)  # the first pair begins
            own, other = u4(u4(TURNS) + pair), u4(u4(TURNS + 1) - pair)
            # Divisions have branches, after which the compiler no longer knows what is uniform.
            tile, step = (
                u4(cuda.blockIdx.x) + pair * u4(cuda.gridDim.x),
                u4(pairs) * u4(cuda.gridDim.x),
            )
            row, column = u4(tile // across), u4(tile % across)
            rows_on, columns_on = u4(step // across), u4(step % across)
            while row < down:
                gather(floats, at, W, vr, u4(M), column, barriers, weights, me)
                if pairs == 2:
                    hopper.wait(barriers, own, turn)
                slot, parity = u4(q % u4(STAGES)), u4(q // u4(STAGES) & u4(1))
                consume(sums, shared, a, b, barriers, slot, parity, blocks, lane)
                if pairs == 2 and lane == u4(0):
                    hopper.arrive(barriers, other)
                warp = t % u4(WARPGROUP) // u4(WARP)
                i = u4(row * u4(128) + half * u4(64) + warp * u4(16) + lane // u4(4))
                finish(sums, floats, at, xr, A, Us, u4(n), u4(M), i, column, lane)
                q, turn = u4(q + u4(pairs * u4(blocks))), u4(turn ^ u4(1))
                column = u4(column + columns_on)
                over = column >= across
                row = u4(row + rows_on + (u4(1) if over else u4(0)))
                column = u4(column - across) if over else column

    return cuda.jit(**launch_bounds(threads(pairs)))(kernel)


@cache
def sums(promote: bool = False, layout: Layout = ACROSS):
    """Kernel(Gp, Xp, gr, xc, gVs, M, d, ld, share, samples): parts of ∇V = Gᵀ X.

    Gp and Xp are planes of (samples, M) and (samples, d), their scales undone by gr (M,) and
    xc (d,). gVs[p] (M ld,) is the sum over samples p share .. (p + 1) share − 1; share is a
    multiple of 128. Block (x, p) makes a tile of 128 columns of X by 128 of G. Tensor cores cut the
    sums where float32 would round: with `promote` those of 128 samples, then FADD adds them up.
    """
    begin, consume = ring(layout, promote)
    few, many = shares()

    @register_jitable
    def produce(shared, first, barriers, Xp, Gp, jx, jg, halves, blocksX, blocksG, begin_, count):
        slot, parity = u4(0), u4(0)
        for s in range(count):
            hopper.wait(barriers, u4(STAGES) + slot, parity ^ u4(1))
            hopper.expect(barriers, slot, (halves + u4(2)) * u4(4 * 2 * HALF))
            at = first + slot * u4(STAGE)
            row = begin_ + u4(64) * u4(s)
            block, inside = row // u4(128), row // u4(64) % u4(2) * u4(HALF)
            for h in range(halves):
                atX = (u8(block) * u8(blocksX) + u8(jx + u4(h))) * u8(BLOCK) + u8(inside)
                to = at + u4(h) * u4(HALF)
                hopper.fetch(shared, to, Xp, atX, u4(HALF), barriers, slot)
                atX += u8(2 * HALF)
                hopper.fetch(shared, to + u4(2 * HALF), Xp, atX, u4(HALF), barriers, slot)
            for h in range(2):
                jh = min(jg + u4(h), blocksG - u4(1))
                atG = (u8(block) * u8(blocksG) + u8(jh)) * u8(BLOCK) + u8(inside)
                to = at + u4(BLOCK) + u4(h) * u4(HALF)
                hopper.fetch(shared, to, Gp, atG, u4(HALF), barriers, slot)
                atG += u8(2 * HALF)
                hopper.fetch(shared, to + u4(2 * HALF), Gp, atG, u4(HALF), barriers, slot)
            slot, parity = after(slot, parity)

    @register_jitable
    def finish(sums, gr, xc, gVs, where, M, d, ld, j, column):
        """Columns j and j + 8 of X, and of G those of this lane from `column`."""
        c0 = xc[min(j, d - u4(1))]
        c1 = xc[min(j + u4(8), d - u4(1))]
        for part in range(4):
            for e in range(16):
                m = column + u4(32) * u4(part) + u4(e // 4 * 8 + e % 2)
                je = j + u4(e % 4 // 2 * 8)
                if m < M and je < ld:
                    total = sums[e] * gr[m] * (c1 if e % 4 > 1 else c0)
                    gVs[where, u8(m) * u8(ld) + u8(je)] = total if je < d else f4(0)
            for e in range(RESULTS - 16):  # registers have no numbers at run time
                sums[e] = sums[e + 16]

    def kernel(Gp, Xp, gr, xc, gVs, M, d, ld, share, samples):
        shared = cuda.shared.array(0, u4)
        barriers = cuda.shared.array(BARRIERS, u8)
        t = u4(cuda.threadIdx.x)
        lane = u4(t % u4(WARP))
        group = u4(
            cuda.shfl_sync(0xFFFFFFFF, np.int32(t // u4(WARPGROUP)), 0)
        )  # one for all, says this
        first = hopper.to_atom(shared)
        blocksX, blocksG = (u4(d) + u4(63)) // u4(64), (u4(M) + u4(63)) // u4(64)
        down = (u4(d) + u4(127)) // u4(128)
        jx, jg = u4(cuda.blockIdx.x) % down * u4(2), u4(cuda.blockIdx.x) // down * u4(2)
        halves = min(u4(2), blocksX - jx)  # the last tile of X may have one
        part = u4(cuda.blockIdx.y)
        rows = (u4(samples) + u4(127)) // u4(128) * u4(128)
        begin_ = min(part * u4(share), rows)
        count = u4((min(begin_ + u4(share), rows) - begin_) // u4(64))
        if t == u4(0):
            begin(barriers, halves * u4(WARPS), WARPGROUP)
        cuda.syncthreads()
        if group == u4(0):
            few()
            if t == u4(0):
                produce(
                    shared, first, barriers, Xp, Gp, jx, jg, halves, blocksX, blocksG, begin_, count
                )
        else:
            many()
            half = group - u4(1)
            if half < halves:
                sums = cuda.local.array(RESULTS, f4)
                a, b = u4(first + half * u4(HALF)), u4(first + u4(BLOCK))
                consume(sums, shared, a, b, barriers, u4(0), u4(0), count, lane)
                warp = t % u4(WARPGROUP) // u4(WARP)
                j = (jx + half) * u4(64) + warp * u4(16) + lane // u4(4)
                column = jg * u4(64) + u4(2) * (lane % u4(4))
                finish(sums, gr, xc, gVs, part, u4(M), u4(d), u4(ld), j, column)

    return cuda.jit(**launch_bounds(threads()))(kernel)


def hidden_signature() -> tuple:
    """Numba's types of the arguments of `hidden`'s kernel."""
    planes, vector = types.Array(types.uint32, 1, "C"), types.Array(types.float32, 1, "C")
    matrix, parts = types.Array(types.float32, 2, "C"), types.Array(types.float32, 3, "C")
    return (planes, planes, vector, vector, matrix, matrix, parts, *(types.int64,) * 3)


def sums_signature() -> tuple:
    """Numba's types of the arguments of `sums`'s kernel."""
    planes, vector = types.Array(types.uint32, 1, "C"), types.Array(types.float32, 1, "C")
    return (planes, planes, vector, vector, types.Array(types.float32, 2, "C"), *(types.int64,) * 5)

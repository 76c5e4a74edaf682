"""Narrow networks: forward, loss and backward in one kernel, everything in registers, X read once.

A lane has some hidden units and one sample at a time: neighbouring lanes share a sample, as many as
its units take, and a warp has 32 / that many samples. A lane's rows of V and columns of W, and the
sums of their gradients, stay in registers from its first sample to its last. For a sample:

1. a = V x, z = σ(a) and s = σ′(a) of the lane's units; the next sample's x is on its way;
2. u = W z: the lanes that share the sample add their parts by shuffles, and each has ℓ and δ;
3. g = (Wᵀ δ) ⊙ s, and the sums δ zᵀ and g xᵀ, x still in registers.

With one output the sums are of (δ s) xᵀ: w, the same for all samples, multiplies their total.
Blocks stay until all samples are done. At its end a block adds up its warps, in a fixed order.
"""

from functools import cache
from typing import NamedTuple

import numpy as np
from numba import cuda
from numba.extending import register_jitable

from ..formulas.activations import Activation
from ..formulas.losses import Forms
from . import elementary  # noqa: F401  (σ and σ′ by the GPU's own instructions)
from .driver.simulated import WARP, in_simulator
from .memory.copies import copy, element, prefetch, vector
from .memory.types import real_type

UNITS = (8, 16, 32, 64)  # hidden units of a network, filled up
# 32-bit registers that a lane's arrays may take, by the warps of the only block of a
# multiprocessor: its registers are shared out among them, 255 or 128 a lane.
_REGISTERS = {8: 206, 16: 100}

u4, u8 = np.uint32, np.uint64
_ALL = u4(0xFFFFFFFF)


class Division(NamedTuple):
    """What a block is made of: `warps`, each of `samples` at a time.

    A lane has so many `units`, and `lanes` share a sample. `ahead`: a sample is read into registers
    while the one before is computed with.
    """

    warps: int
    units: int
    lanes: int
    samples: int
    ahead: bool

    @property
    def threads(self) -> int:
        """Threads of a block."""
        return WARP * self.warps

    @property
    def block(self) -> int:
        """Samples that a block has at a time."""
        return self.warps * self.samples


def divisions(dtype: str, M: int, columns: int, K: int) -> list[Division]:
    """Those that registers allow, for M units, x of so many columns and K outputs.

    More warps hide more of each other's latencies, more units a lane share more of x. Each has as
    many units a lane as fit; with the most warps it is left out where they are fewer than 4.
    """
    words = np.dtype(dtype).itemsize // 4
    total = next(size for size in UNITS if size >= M)

    def registers(units: int, samples: int) -> int:
        return words * (units * (2 * columns + 2 * K + 2) + samples * (columns + K))

    found = []
    for warps, least in ((8, 2), (16, 4))[: 3 - words]:  # float64's σ needs more registers itself
        held = _REGISTERS[warps]
        fitting = [u for u in (8, 4, 2) if u >= least and registers(u, 1) <= held]
        units = fitting[0] if fitting else least
        if fitting or warps == 8:
            ahead = registers(units, 2) <= held
            lanes = total // units
            found.append(Division(warps, units, lanes, WARP // lanes, ahead))
    return found


@cache
def gradient(
    activation: Activation, loss: Forms, dtype: str, division: Division, columns: int, K: int
):
    """Kernel(X, Y, V, W, gVs, gWs, losses, M): sums over the samples of each block.

    X (n, columns), Y (n, K), gVs (blocks, M columns), gWs (blocks, K ld), losses (blocks,). A warp
    takes every (gridDim × warps)-th group of its number of samples, in order.
    """
    real, width = real_type(dtype), vector(dtype)
    value, slope, loss_row = activation.value, activation.slope, loss.loss_row
    warps, units, lanes, samples, ahead = division
    threads = division.threads
    sizeV, sizeW, parts = units * columns, units * K, columns // width
    one_output = K == 1
    within, across, halvings = (size.bit_length() - 1 for size in (lanes, samples, warps))
    pitch = sizeV + sizeW | 1  # rows of different lanes begin on different banks
    handed = warps // 2 * lanes * pitch

    @register_jitable
    def load(x, y, X, Y, row, last):
        """x and y of a sample, or of the last one: what is read too early may not be there."""
        row = u8(min(row, last))
        for p in range(parts):
            copy(x, p * width, X, row * u8(columns) + u8(p * width))
        for k in range(K):
            y[k] = element(Y, row * u8(K) + u8(k))

    @register_jitable
    def add_sample(x, y, v, w, gv, gw, whole, inside):
        """Add a sample's gradients to gv and gw; return ℓ. It counts if `whole` or `inside`."""
        z = cuda.local.array(units, real)
        s = cuda.local.array(units, real)
        u = cuda.local.array(K, real)
        for i in range(units):
            a = v[i * columns] * x[0]
            for j in range(1, columns):
                a += v[i * columns + j] * x[j]
            z[i] = value(a)
            s[i] = slope(a)
        for k in range(K):
            total = w[k] * z[0]
            for i in range(1, units):
                total += w[i * K + k] * z[i]
            for r in range(within):
                total += cuda.shfl_xor_sync(_ALL, total, 1 << r)
            u[k] = total
        ell = np.float64(loss_row(u, y, u))
        if not whole:
            ell = ell if inside else np.float64(0)
            for k in range(K):
                u[k] = u[k] if inside else real(0)
        for i in range(units):
            if one_output:
                g = u[0] * s[i]
            else:
                g = w[i * K] * u[0]
                for k in range(1, K):
                    g += w[i * K + k] * u[k]
                g *= s[i]
            for k in range(K):
                gw[i * K + k] += u[k] * z[i]
            for j in range(columns):
                gv[i * columns + j] += g * x[j]
        return ell

    def kernel(X, Y, V, W, gVs, gWs, losses, M):
        shared = cuda.shared.array(handed, real)
        totals = cuda.shared.array(warps, np.float64)
        v = cuda.local.array(sizeV, real)
        gv = cuda.local.array(sizeV, real)
        w = cuda.local.array(sizeW, real)
        gw = cuda.local.array(sizeW, real)
        x = cuda.local.array(columns, real)
        y = cuda.local.array(K, real)
        x_next = cuda.local.array(columns, real)
        y_next = cuda.local.array(K, real)
        t = u4(cuda.threadIdx.x)
        # The same in all lanes, as the compiler sees by the shuffle.
        warp = u4(cuda.shfl_sync(_ALL, np.int32(t // u4(WARP)), 0))
        lane = t % u4(WARP)
        first, slot = u4(lane % u4(lanes) * u4(units)), u4(lane // u4(lanes))
        M = u4(M)
        for i in range(units):
            m = u4(first + u4(i))
            for j in range(columns):
                v[i * columns + j] = gv[i * columns + j] = real(0)
            if m < M:
                for p in range(parts):
                    copy(v, i * columns + p * width, V, u8(m) * u8(columns) + u8(p * width))
            for k in range(K):
                w[i * K + k] = W[k, m] if m < M else real(0)
                gw[i * K + k] = real(0)
        total = np.float64(0)
        n = u4(X.shape[0])
        last = u4(n - u4(1))
        end = u4(n // u4(samples) * u4(samples))
        stride = u4(u4(cuda.gridDim.x) * u4(warps * samples))
        group = u4(u4(u4(cuda.blockIdx.x) * u4(warps) + warp) * u4(samples))
        if ahead:
            load(x, y, X, Y, u4(group + slot), last)
            following = u4(group + stride)
            while following < end:  # two groups of which the warp has all samples
                load(x_next, y_next, X, Y, u4(following + slot), last)
                total += add_sample(x, y, v, w, gv, gw, True, True)
                group = u4(following + stride)
                # Keeps this read after the last use of x, whose registers it then takes.
                cuda.syncwarp()
                load(x, y, X, Y, u4(group + slot), last)
                total += add_sample(x_next, y_next, v, w, gv, gw, True, True)
                following = u4(group + stride)
        while group < n:
            row = u4(group + slot)
            group = u4(group + stride)
            if not ahead:
                load(x, y, X, Y, row, last)
                following = min(u4(group + slot), last)
                prefetch(X, u8(following) * u8(columns) + u8(lane % u4(columns)))
            total += add_sample(x, y, v, w, gv, gw, False, row < n)
            if ahead:
                load(x, y, X, Y, u4(group + slot), last)
        if one_output:
            for i in range(units):
                for j in range(columns):
                    gv[i * columns + j] *= w[i]
        for r in range(across):
            offset = lanes << r
            for e in range(sizeV):
                gv[e] += cuda.shfl_xor_sync(_ALL, gv[e], offset)
            for e in range(sizeW):
                gw[e] += cuda.shfl_xor_sync(_ALL, gw[e], offset)
            total += cuda.shfl_xor_sync(_ALL, total, offset)
        if lane == u4(0):
            totals[warp] = total
        # Half of the warps hand their sums to the other half, until one warp has them all.
        for r in range(halvings):
            half = u4(warps >> (r + 1))
            cuda.syncthreads()
            if half <= warp and warp < u4(half + half) and slot == u4(0):
                at = u4(u4(u4(warp - half) * u4(lanes) + lane) * u4(pitch))
                for e in range(sizeV):
                    shared[u4(at + u4(e))] = gv[e]
                for e in range(sizeW):
                    shared[u4(at + u4(sizeV + e))] = gw[e]
            cuda.syncthreads()
            if warp < half and slot == u4(0):
                at = u4(u4(warp * u4(lanes) + lane) * u4(pitch))
                for e in range(sizeV):
                    gv[e] += shared[u4(at + u4(e))]
                for e in range(sizeW):
                    gw[e] += shared[u4(at + u4(sizeV + e))]
        part = u4(cuda.blockIdx.x)
        if warp == u4(0) and slot == u4(0):
            for i in range(units):
                m = u4(first + u4(i))
                if m < M:
                    for j in range(columns):
                        gVs[part, u4(m * u4(columns) + u4(j))] = gv[i * columns + j]
                    for k in range(K):
                        gWs[part, u4(u4(k) * u4(W.shape[1]) + m)] = gw[i * K + k]
        if t == u4(0):
            for p in range(1, warps):
                total += totals[p]
            losses[part] = total

    bounds = {} if in_simulator() else {"launch_bounds": (threads, 1)}
    return cuda.jit(kernel, **bounds)

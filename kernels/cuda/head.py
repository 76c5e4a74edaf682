"""What lies between two large products: the loss, Δᵀ Z and G, with A read from memory once.

U comes in parts, each the sum over the units of a column of tiles. The loss makes Δ of it; the head
then goes through A once more: z = σ(a), Δᵀ Z in registers, and g = (Σₖ δₖ wₖ) σ′(a), stored as it
is or packed (see `packing`), G 2⁻ʳⁱ 2ᵍᵐ. The exponent g of a unit comes from the bound

    |G_im| 2⁻ʳⁱ ≤ maxᵢ (maxₖ |Δ_ik| 2⁻ʳⁱ) · Σₖ |W_km| · max |σ′|.

Packed G is off by 2⁻³⁹ of that bound, or 2⁻²² of itself where that is more: the digits that float32
would have are lost where a unit's σ′ is below 2⁻¹⁵ for all samples. Where the bound is infinite or
NaN, so are the factors that undo the exponents: the sums are NaN.
"""

from functools import cache

import numpy as np
from numba import cuda
from numba.extending import register_jitable

from ..formulas.activations import Activation
from ..formulas.losses import Forms
from . import elementary  # noqa: F401  (σ and σ′ by the GPU's own instructions)
from .memory.copies import copy, padded, vector
from .memory.halves import LEAST, MOST, NOTHING, bits, exponent, i4, number, power, split, u4
from .memory.packing import COLUMNS as COLUMNS
from .memory.packing import PLANE, ROWS, WORDS, u8
from .memory.pairs import put_pair
from .memory.types import real_type

THREADS = 128
OUTPUTS = 16  # the most that fit into registers
STEEPEST = np.float32(1.13)  # of all activations: gelu's 1.129
_LARGEST_BITS = 0x7FFFFFFF


@cache
def loss_of_parts(loss: Forms, outputs: int):
    """Kernel(Us, Y, Delta, xr, losses, maximum): Δ (n, K) of U = Σ Us (parts, n, K).

    losses (blocks,) are the sums of ℓ of its blocks; maximum (1,) grows to the bits of the largest
    |Δ_ik| xr_i, if these are more.
    """
    loss_row = loss.loss_row
    pitch = outputs | 1  # rows of a warp begin on different banks

    def kernel(Us, Y, Delta, xr, losses, maximum):
        us = cuda.shared.array((THREADS, pitch), np.float32)
        totals = cuda.shared.array(THREADS, np.float64)
        largest = cuda.shared.array(THREADS, np.uint32)
        t = u4(cuda.threadIdx.x)
        first, n = u4(cuda.blockIdx.x) * u4(THREADS), u4(Us.shape[1])
        for index in range(t, THREADS * outputs, THREADS):
            i, k = u4(index) // u4(outputs), u4(index) % u4(outputs)
            if first + i < n:
                u = np.float32(0)
                for part in range(Us.shape[0]):
                    u += Us[part, first + i, k]
                us[i, k] = u
        cuda.syncthreads()
        total, most = np.float64(0), u4(0)
        if first + t < n:
            u = us[t, :outputs]
            total += loss_row(u, Y[first + t], u)
            for k in range(outputs):
                delta = us[t, u4(k)] * xr[first + t]
                most = max(most, u4(bits(delta) & u4(_LARGEST_BITS)))
        totals[t], largest[t] = total, most
        cuda.syncthreads()
        for index in range(t, THREADS * outputs, THREADS):
            i, k = u4(index) // u4(outputs), u4(index) % u4(outputs)
            if first + i < n:
                Delta[first + i, k] = us[i, k]
        half = u4(THREADS // 2)
        while half > u4(0):
            if t < half:
                totals[t] += totals[t + half]
                largest[t] = max(largest[t], largest[t + half])
            cuda.syncthreads()
            half //= u4(2)
        if t == u4(0):
            losses[cuda.blockIdx.x] = totals[0]
            cuda.atomic.max(maximum, 0, largest[0])

    return cuda.jit(kernel)


@cache
def link_of_parts(loss: Forms):
    """Kernel(Us, F): F (n, K) = h(Σ Us), Us (parts, n, K)."""
    link_row = loss.link_row

    def kernel(Us, F):
        i = cuda.blockIdx.x * THREADS + cuda.threadIdx.x
        if i < F.shape[0]:
            for k in range(F.shape[1]):
                u = np.float32(0)
                for part in range(Us.shape[0]):
                    u += Us[part, i, k]
                F[i, k] = u
            link_row(F[i], F[i])

    return cuda.jit(kernel)


@register_jitable(forceinline=True)
def unit_exponent(largest, total):
    """The exponent g that brings largest · total · max |σ′| to [2¹⁴, 2¹⁵), and what undoes it."""
    e, f = exponent(largest), exponent(total)
    if e == i4(128) or f == i4(128):
        return i4(0), number(u4(0x7FC00000))
    if e == i4(NOTHING) or f == i4(NOTHING):
        return i4(0), np.float32(1)
    # Their mantissas alone, because the product may overflow.
    both = number(u4((bits(_normal(largest)) & u4(0x7FFFFF)) | u4(0x3F800000)))
    both *= number(u4((bits(_normal(total)) & u4(0x7FFFFF)) | u4(0x3F800000)))
    g = i4(i4(14) - e - f - exponent(both * STEEPEST))
    # w 2ᵍ stays finite.
    g = i4(max(min(g, min(i4(MOST), i4(i4(MOST) - f))), i4(LEAST)))
    return g, power(i4(-g))


@register_jitable(forceinline=True)
def _normal(x):
    """x, or a normal number with the digits of a subnormal one."""
    return x * np.float32(16777216) if exponent(x) < i4(-126) else x


def resident(outputs: int) -> int:
    """Blocks of the head that the registers of a multiprocessor hold."""
    return max(2, min(6, 512 // (44 + 12 * outputs)))


@cache
def head(activation: Activation, outputs: int, dtype: str = "float32", packed: bool = False):
    """Kernel(A, Delta, W, gWs, G, M, share[, xr, maximum, gr]): sums of Δᵀ Z in parts, and G.

    A (n, ld), Delta (n, K), W (K, ld), gWs (parts, K ld). Block (x, y) takes units 64 x to
    64 x + 63, of as many x as cover them, and the y-th `share` of the samples, a multiple of 128. G
    is (n, ld), or packed of float32; then xr (n,) = 2⁻ʳ, maximum (1,) is what the loss found, and
    gr (padded units,) becomes 2⁻ᵍ.
    """
    real, width = real_type(dtype), vector(dtype)
    value, slope = activation.value, activation.slope
    across = COLUMNS // width  # threads that share a sample
    step = THREADS // across  # samples at a time
    pitch, results = padded(outputs, dtype), outputs * width
    sizeD, sizeS = ROWS * pitch, THREADS * width

    @register_jitable(forceinline=True)
    def run(A, Delta, W, gWs, G, M, share, xr, maximum, gr):
        deltas = cuda.shared.array(sizeD, real)
        scales = cuda.shared.array(ROWS, real)
        sums = cuda.shared.array(sizeS, real)
        a = cuda.local.array(width, real)
        coming = cuda.local.array(width, real)
        later = cuda.local.array(width, real)
        last = cuda.local.array(width, real)
        delta = cuda.local.array(pitch, real)
        w = cuda.local.array(results, real)
        gw = cuda.local.array(results, real)
        g = cuda.local.array(width, real)
        t = u4(cuda.threadIdx.x)
        lane, r = t % u4(across), t // u4(across)
        column = u4(cuda.blockIdx.x) * u4(COLUMNS) + lane * u4(width)
        n, ld = u4(A.shape[0]), u4(A.shape[1])
        inside = column < ld
        for k in range(outputs):
            for e in range(width):
                m = column + u4(e)
                w[k * width + e] = W[k, m] if m < u4(M) else real(0)
                gw[k * width + e] = real(0)
        if packed:
            largest = number(maximum[0])
            for e in range(width):
                total = real(0)
                for k in range(outputs):
                    total += abs(w[k * width + e])
                power_of, undo = unit_exponent(largest, total)
                for k in range(outputs):
                    w[k * width + e] *= power(power_of)
                if cuda.blockIdx.y == 0 and r == u4(0):
                    gr[column + u4(e)] = undo
        first = u4(cuda.blockIdx.y) * u4(share)
        end = min(first + u4(share), (n + u4(ROWS - 1)) // u4(ROWS) * u4(ROWS))
        # Of a block of a packed matrix: this thread's columns in row r, and all rows r + 8 i.
        chunk = lane * u4(width) // u4(8)
        within = r * u4(32) + (chunk ^ (r % u4(8))) * u4(4) + lane * u4(width) % u4(8) // u4(2)
        for e in range(width):
            coming[e] = real(0)
            later[e] = real(0)
            last[e] = real(0)
        if inside and first + r < n:
            copy(coming, 0, A, u8(first + r) * u8(ld) + u8(column))
        if inside and first + r + u4(step) < n:
            copy(later, 0, A, u8(first + r + u4(step)) * u8(ld) + u8(column))
        if inside and first + r + u4(2 * step) < n:
            copy(last, 0, A, u8(first + r + u4(2 * step)) * u8(ld) + u8(column))
        while first < end:
            cuda.syncthreads()
            for index in range(t, ROWS * outputs, THREADS):
                i, k = u4(index) // u4(outputs), u4(index) % u4(outputs)
                there = first + i < n
                deltas[i * u4(pitch) + k] = Delta[first + i, k] if there else real(0)
            if packed:
                scales[t] = xr[first + t] if first + t < n else real(0)
            cuda.syncthreads()
            block = u8(first // u4(ROWS)) * u8(cuda.gridDim.x) + u8(cuda.blockIdx.x)
            at = block * u8(WORDS) + u8(within)
            i = r
            while i < u4(ROWS):
                row = first + i
                for e in range(width):
                    a[e] = coming[e]
                    coming[e] = later[e]
                    later[e] = last[e]
                    last[e] = real(0)
                if inside and row + u4(3 * step) < n:
                    copy(last, 0, A, u8(row + u4(3 * step)) * u8(ld) + u8(column))
                for p in range(0, pitch, width):
                    copy(delta, p, deltas, i * u4(pitch) + u4(p))
                for e in range(width):
                    z = value(a[e])
                    dot = real(0)
                    for k in range(outputs):
                        dot += delta[k] * w[k * width + e]
                        gw[k * width + e] += delta[k] * z
                    g[e] = slope(a[e])
                    if packed:
                        g[e] *= scales[i]
                    g[e] *= dot
                if packed:
                    first_pair, rest = split(g[0], g[1])
                    second_pair, second_rest = split(g[2], g[3])
                    put_pair(G, at, first_pair, second_pair)
                    put_pair(G, at + u8(PLANE), rest, second_rest)
                    at += u8(32 * step)
                elif inside and row < n:
                    copy(G, u8(row) * u8(ld) + u8(column), g, 0)
                i += u4(step)
            first += u4(ROWS)
        m = u4(cuda.blockIdx.x) * u4(COLUMNS) + t
        for k in range(outputs):
            cuda.syncthreads()
            copy(sums, t * u4(width), gw, k * width)
            cuda.syncthreads()
            if t < u4(COLUMNS) and m < u4(M):
                total = real(0)
                for part in range(step):
                    total += sums[u4(part * COLUMNS) + t]
                gWs[cuda.blockIdx.y, u4(k) * ld + m] = total

    def with_planes(A, Delta, W, gWs, G, M, share, xr, maximum, gr):
        run(A, Delta, W, gWs, G, M, share, xr, maximum, gr)

    def plain(A, Delta, W, gWs, G, M, share):
        run(A, Delta, W, gWs, G, M, share, Delta, Delta, Delta)

    return cuda.jit(with_planes if packed else plain)

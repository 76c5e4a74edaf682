"""Narrow networks: forward, loss and backward of 32 samples at a time in one kernel, X read once.

A block has a thread a hidden unit, which keeps its row of V, its column of W and both their sums in
registers; θ and ∇L of the whole block never leave them before the last sample. For 32 samples in
shared memory:

1. each thread its unit: a = V x, Z = σ(a) and S = σ′(a) of all samples, to shared memory;
2. each of 32 threads its sample: u = W z, ℓ and δ;
3. each thread its unit: g = (Wᵀ δ) ⊙ s, and the sums δ zᵀ and g xᵀ.
"""

from functools import cache

import numpy as np
from numba import cuda

from ..activations import Activation
from ..losses import Loss
from .memory import copy, vector
from .types import real_type

SAMPLES = 32
UNITS = (32, 64)  # threads of a block
INPUTS = (4, 8, 16, 32)
OUTPUTS = (1, 2, 4, 8)


def size(extent: int, sizes: tuple[int, ...]) -> int:
    """The smallest of the sizes that the extent fits into."""
    return next(size for size in sizes if size >= extent)


@cache
def gradient(activation: Activation, loss: Loss, dtype: str, units: int, inputs: int, outputs: int):
    """Kernel(X, Y, V, W, gVs, gWs, losses, M): sums over the samples of each block.

    X (n, ld), gVs (blocks, M ld), gWs (blocks, K ld'), losses (blocks,). A block takes every
    gridDim-th group of 32 samples, in order.
    """
    real, width = real_type(dtype), vector(dtype)
    value, slope, loss_row = activation.value, activation.slope, loss.loss_row
    stride = units + width  # rows of different samples begin on different banks
    sizeX, sizeZ, sizeW, pitch = (
        SAMPLES * inputs, SAMPLES * stride, outputs * units, outputs + 1,
    )  # fmt: skip
    parts, unit_parts = inputs // width, units // width

    def kernel(X, Y, V, W, gVs, gWs, losses, M):
        Xs = cuda.shared.array(sizeX, real)
        Zs = cuda.shared.array(sizeZ, real)
        Ss = cuda.shared.array(sizeZ, real)
        Us = cuda.shared.array((SAMPLES, pitch), real)
        Ws = cuda.shared.array(sizeW, real)
        totals = cuda.shared.array(SAMPLES, np.float64)
        x = cuda.local.array(inputs, real)
        v = cuda.local.array(inputs, real)
        gv = cuda.local.array(inputs, real)
        w = cuda.local.array(outputs, real)
        gw = cuda.local.array(outputs, real)
        four = cuda.local.array(width, real)
        four_w = cuda.local.array(width, real)
        m = np.uint32(cuda.threadIdx.x)
        K = Y.shape[1]
        ld = np.uint32(V.shape[1])
        for j in range(inputs):
            inside = m < M and j < ld
            v[j] = V[m, j] if inside else real(0)
            gv[j] = real(0)
        for k in range(outputs):
            inside = m < M and k < K
            w[k] = W[k, m] if inside else real(0)
            gw[k] = real(0)
            Ws[k * units + m] = w[k]
        total = np.float64(0)
        first = np.uint64(cuda.blockIdx.x) * np.uint64(SAMPLES)
        n = np.uint64(X.shape[0])
        while first < n:
            cuda.syncthreads()
            for index in range(m, SAMPLES * parts, units):
                i, j = np.uint32(index // parts), np.uint32(index % parts * width)
                if first + i < n and j < ld:
                    copy(Xs, np.uint32(index * width), X, (first + i) * np.uint64(ld) + j)
                else:
                    for e in range(width):
                        Xs[np.uint32(index * width + e)] = real(0)
            cuda.syncthreads()
            for i in range(SAMPLES):
                for p in range(parts):
                    copy(x, p * width, Xs, np.uint32(i * inputs + p * width))
                a = real(0)
                for j in range(inputs):
                    a += v[j] * x[j]
                Zs[np.uint32(i * stride) + m] = value(a)
                Ss[np.uint32(i * stride) + m] = slope(a)
            cuda.syncthreads()
            if m < SAMPLES:
                for k in range(outputs):
                    u = real(0)
                    for p in range(unit_parts):
                        copy(four, 0, Zs, m * np.uint32(stride) + np.uint32(p * width))
                        copy(four_w, 0, Ws, np.uint32(k * units + p * width))
                        for e in range(width):
                            u += four[e] * four_w[e]
                    Us[m, k] = u
                if first + m < n:
                    total += loss_row(Us[m, :K], Y[first + m], Us[m, :K])
                else:
                    for k in range(outputs):
                        Us[m, k] = real(0)
            cuda.syncthreads()
            for i in range(SAMPLES):
                z = Zs[np.uint32(i * stride) + m]
                g = real(0)
                for k in range(outputs):
                    delta = Us[np.uint32(i), np.uint32(k)]
                    g += w[k] * delta
                    gw[k] += delta * z
                g *= Ss[np.uint32(i * stride) + m]
                for p in range(parts):
                    copy(x, p * width, Xs, np.uint32(i * inputs + p * width))
                for j in range(inputs):
                    gv[j] += g * x[j]
            first += np.uint64(cuda.gridDim.x) * np.uint64(SAMPLES)
        part = np.uint32(cuda.blockIdx.x)
        if m < M:
            for j in range(inputs):
                if j < ld:
                    gVs[part, m * ld + np.uint32(j)] = gv[j]
            for k in range(outputs):
                if k < K:
                    gWs[part, np.uint32(k) * np.uint32(W.shape[1]) + m] = gw[k]
        if m < SAMPLES:
            totals[m] = total
        cuda.syncthreads()
        if m == 0:
            for i in range(1, SAMPLES):
                total += totals[i]
            losses[part] = total

    return cuda.jit(kernel)

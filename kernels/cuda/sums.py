"""Sums of partial gradients and losses in a fixed order, and the update of θ."""

from functools import cache

import numpy as np
from numba import cuda
from numba.extending import register_jitable

from .memory.copies import copy, vector
from .memory.types import real_type

THREADS = 256
LANES = (1, 8, 32)  # threads that share the parts of a sum


def columns(lanes: int) -> int:
    """Groups of 128 bits that a block sums."""
    return THREADS // lanes


@cache
def finish(dtype: str, lanes: int, update: bool):
    """Kernel: ∇L = scale Σ partial sums, L likewise; θ ← θ − μ ∇L if `update`.

    Blocks of `columns(lanes)` × `lanes` threads. A thread adds every `lanes`-th part of 128 bits of
    gVs (parts, M ld) or gWs (parts, K ld), and the lanes are added in the order of their numbers;
    the last block sums losses (parts,) by a tree. V, W, gV and gW have rows of ld elements, and
    `mu` is an array of one, which a graph can read anew at each launch.
    """
    real, width = real_type(dtype), vector(dtype)
    groups = columns(lanes)
    size = THREADS * width

    @register_jitable
    def apply(W, gW, first, columns, total, part):
        """Update W (rows, ld) by 128 bits of `total` from a flat index on, or store them in gW."""
        column = first % np.uint64(W.shape[1])
        for e in range(width):  # the padding stays 0
            if column + np.uint64(e) >= np.uint64(columns):
                total[e] = real(0)
        if update:
            copy(part, 0, W, first)
            for e in range(width):
                part[e] -= total[e]
            copy(W, first, part, 0)
        else:
            copy(gW, first, total, 0)

    def kernel(gVs, gWs, losses, V, W, gV, gW, loss, d, M, scale, mu):
        x, y = cuda.threadIdx.x, cuda.threadIdx.y
        t = x + groups * y
        if cuda.blockIdx.x == cuda.gridDim.x - 1:
            totals = cuda.shared.array(THREADS, np.float64)
            total = np.float64(0)
            for p in range(t, len(losses), THREADS):
                total += losses[p]
            totals[t] = total
            cuda.syncthreads()
            half = THREADS // 2
            while half > 0:
                if t < half:
                    totals[t] += totals[t + half]
                cuda.syncthreads()
                half //= 2
            if t == 0:
                loss[0] = totals[0] * scale
        else:
            sums = cuda.shared.array(size, real)
            part = cuda.local.array(width, real)
            total = cuda.local.array(width, real)
            for e in range(width):
                total[e] = real(0)
            group = np.uint64(cuda.blockIdx.x * groups + x)
            first = group * np.uint64(width)
            sizeV = np.uint64(V.shape[0] * V.shape[1])
            sizeW = np.uint64(W.shape[0] * W.shape[1])
            if first < sizeV:
                for p in range(y, gVs.shape[0], lanes):
                    copy(part, 0, gVs, np.uint64(p) * sizeV + first)
                    for e in range(width):
                        total[e] += part[e]
            elif first < sizeV + sizeW:
                for p in range(y, gWs.shape[0], lanes):
                    copy(part, 0, gWs, np.uint64(p) * sizeW + (first - sizeV))
                    for e in range(width):
                        total[e] += part[e]
            if lanes > 1:
                copy(sums, t * width, total, 0)
                cuda.syncthreads()
                if y == 0:
                    for p in range(1, lanes):
                        copy(part, 0, sums, (x + groups * p) * width)
                        for e in range(width):
                            total[e] += part[e]
            if y == 0:
                for e in range(width):
                    total[e] *= real(scale)
                if update:
                    for e in range(width):
                        total[e] *= real(mu[0])
                if first < sizeV:
                    apply(V, gV, first, d, total, part)
                elif first < sizeV + sizeW:
                    apply(W, gW, first - sizeV, M, total, part)

    return cuda.jit(kernel)


def finish_grid(V, W, lanes: int) -> int:
    """Blocks that `finish` needs for V (M, ld) and W (K, ld)."""
    group = vector(V.dtype)
    return -(-(V.size + W.size) // (group * columns(lanes))) + 1


def lanes_for(elements: int, parts: int, multiprocessors: int) -> int:
    """Threads that share a sum: as few as still fill the device, or one for each part."""
    enough = 512 * multiprocessors  # threads
    return next((lanes for lanes in LANES if elements // 4 * lanes >= enough or lanes >= parts), 32)

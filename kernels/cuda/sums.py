"""Sums of partial gradients and losses in a fixed order, and the update of θ."""

from functools import cache

import numpy as np
from numba import cuda

from .types import real_type

COLUMNS = 32


@cache
def finish(dtype: str, lanes: int, update: bool):
    """Kernel: ∇L = scale Σ partial sums, L likewise; θ ← θ − μ ∇L if `update`.

    Blocks of 32 × `lanes` threads; each block sums 32 elements of gVs (parts, M ld) or gWs
    (parts, K ld), the last one losses (parts,). A lane adds every `lanes`-th part, and the lanes
    are added in the order of their numbers.
    """
    real = real_type(dtype)
    threads = COLUMNS * lanes

    def kernel(gVs, gWs, losses, V, W, gV, gW, loss, d, M, scale, mu):
        x, y = cuda.threadIdx.x, cuda.threadIdx.y
        if cuda.blockIdx.x == cuda.gridDim.x - 1:
            totals = cuda.shared.array(threads, np.float64)
            t = x + COLUMNS * y
            total = np.float64(0)
            for p in range(t, len(losses), threads):
                total += losses[p]
            totals[t] = total
            cuda.syncthreads()
            if t == 0:
                for p in range(1, min(len(losses), threads)):
                    total += totals[p]
                loss[0] = total * scale
        else:
            sums = cuda.shared.array(threads, real)
            e = cuda.blockIdx.x * COLUMNS + x
            sizeV = V.shape[0] * V.shape[1]
            sizeW = W.shape[0] * W.shape[1]
            total = real(0)
            if e < sizeV:
                for p in range(y, gVs.shape[0], lanes):
                    total += gVs[p, e]
            elif e < sizeV + sizeW:
                for p in range(y, gWs.shape[0], lanes):
                    total += gWs[p, e - sizeV]
            sums[x + COLUMNS * y] = total
            cuda.syncthreads()
            if y == 0:
                for p in range(1, lanes):
                    total += sums[x + COLUMNS * p]
                total *= real(scale)
                if e < sizeV:
                    row, column = e // V.shape[1], e % V.shape[1]
                    if column < d:  # the padding stays 0
                        if update:
                            V[row, column] -= real(mu) * total
                        else:
                            gV[row, column] = total
                elif e < sizeV + sizeW:
                    row, column = (e - sizeV) // W.shape[1], (e - sizeV) % W.shape[1]
                    if column < M:
                        if update:
                            W[row, column] -= real(mu) * total
                        else:
                            gW[row, column] = total

    return cuda.jit(kernel)


def finish_grid(V, W) -> int:
    """Blocks that `finish` needs for V (M, ld) and W (K, ld)."""
    return -(-(V.size + W.size) // COLUMNS) + 1

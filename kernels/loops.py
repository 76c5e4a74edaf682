"""The lecture's backpropagation, sample by sample and scalar by scalar.

`forward_sample` and `backward_sample` are plain functions: they run in Python on lists, and
compiled. `value`, `slope` and `loss_row` are the formulas of a network, passed in.
"""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np
from numba import prange
from numba.extending import register_jitable

from .activations import Activation
from .elementary import like
from .jit import SUMS, jit
from .losses import Loss

_LEAST_ROWS = 16


@register_jitable
def forward_sample(x, V, W, a, z, u, value):
    """a = V x, z = σ(a), u = W z, written into a (M,), z (M,) and u (K,)."""
    for m in range(len(V)):
        v = V[m]
        total = like(x[0], 0.0)
        for j in range(len(x)):
            total += v[j] * x[j]
        a[m] = total
    for m in range(len(V)):
        z[m] = value(a[m])
    for k in range(len(W)):
        w = W[k]
        total = like(x[0], 0.0)
        for m in range(len(V)):
            total += w[m] * z[m]
        u[k] = total


@register_jitable
def backward_sample(x, delta, W, a, z, g, gV, gW, slope):
    """gW += δ zᵀ, g = (Wᵀ δ) ⊙ σ′(a), gV += g xᵀ."""
    for m in range(len(z)):
        g[m] = like(x[0], 0.0)
    for k in range(len(W)):
        w = W[k]
        for m in range(len(z)):
            g[m] += w[m] * delta[k]
        row = gW[k]
        for m in range(len(z)):
            row[m] += delta[k] * z[m]
    for m in range(len(z)):
        g[m] *= slope(a[m])
    for m in range(len(z)):
        row = gV[m]
        gm = g[m]
        for j in range(len(x)):
            row[j] += gm * x[j]


@register_jitable
def backpropagate_rows(X, Y, V, W, a, z, g, u, gV, gW, value, slope, loss_row):
    """Σ ℓ over the rows of X and Y; adds Σ ∂ℓ/∂V to gV and Σ ∂ℓ/∂W to gW."""
    total = 0.0
    for i in range(len(X)):
        x = X[i]
        forward_sample(x, V, W, a, z, u, value)
        total += loss_row(u, Y[i], u)  # u holds δ from here on
        backward_sample(x, u, W, a, z, g, gV, gW, slope)
    return total


@cache
def serial(activation: Activation, loss: Loss) -> Any:
    """Compiled step(X, Y, V, W, work (3, M), u (K,), gV, gW, mu, update) -> L on one thread.

    Writes ∇L into gV and gW, and θ ← θ − μ ∇L into V and W where `update` is set.
    """
    value, slope, loss_row = activation.value, activation.slope, loss.loss_row

    @jit("loops", fastmath=SUMS)
    def step(X, Y, V, W, work, u, gV, gW, mu, update):
        gV[:] = 0
        gW[:] = 0
        total = backpropagate_rows(
            X, Y, V, W, work[0], work[1], work[2], u, gV, gW, value, slope, loss_row
        )
        scale = like(X[0, 0], 1.0 / len(X))
        factor = like(X[0, 0], mu)
        for m in range(len(gV)):
            for j in range(gV.shape[1]):
                gV[m, j] *= scale
                if update:
                    V[m, j] -= factor * gV[m, j]
        for k in range(len(gW)):
            for m in range(gW.shape[1]):
                gW[k, m] *= scale
                if update:
                    W[k, m] -= factor * gW[k, m]
        return total / len(X)

    return step


@cache
def parallel(activation: Activation, loss: Loss) -> Any:
    """Compiled gradient(X, Y, V, W, bounds, work, u, gVs, gWs, losses, gV, gW) -> L on all threads.

    Chunk c takes the rows bounds[c] to bounds[c + 1] with its own work[c] (3, M), u[c] (K,),
    gVs[c] (M, d) and gWs[c] (K, M); the chunks are added in the order of their numbers.
    """
    value, slope, loss_row = activation.value, activation.slope, loss.loss_row

    @jit("loops-parallel", fastmath=SUMS, parallel=True)
    def gradient(X, Y, V, W, bounds, work, u, gVs, gWs, losses, gV, gW):
        for c in prange(len(bounds) - 1):
            gVs[c] = 0
            gWs[c] = 0
            losses[c] = backpropagate_rows(
                X[bounds[c] : bounds[c + 1]],
                Y[bounds[c] : bounds[c + 1]],
                V,
                W,
                work[c, 0],
                work[c, 1],
                work[c, 2],
                u[c],
                gVs[c],
                gWs[c],
                value,
                slope,
                loss_row,
            )
        return reduce_chunks(len(bounds) - 1, len(X), losses, gVs, gWs, gV, gW)

    return gradient


@register_jitable
def reduce_chunks(chunks, n, losses, gVs, gWs, gV, gW):
    """L and ∇L from the sums of the chunks, added in the order of their numbers."""
    scale = like(gV[0, 0], 1.0 / n)
    for m in range(len(gV)):
        for j in range(gV.shape[1]):
            total = gVs[0, m, j]
            for c in range(1, chunks):
                total += gVs[c, m, j]
            gV[m, j] = total * scale
    for k in range(len(gW)):
        for m in range(gW.shape[1]):
            total = gWs[0, k, m]
            for c in range(1, chunks):
                total += gWs[c, k, m]
            gW[k, m] = total * scale
    total = 0.0
    for c in range(chunks):
        total += losses[c]
    return total / n


@register_jitable
def predict_rows(X, V, W, a, z, F, value, link_row):
    """F = h(σ(X Vᵀ) Wᵀ), row by row."""
    for i in range(len(X)):
        forward_sample(X[i], V, W, a, z, F[i], value)
        link_row(F[i], F[i])


@cache
def serial_predict(activation: Activation, loss: Loss) -> Any:
    """Compiled predict(X, V, W, work (3, M), F) on one thread."""
    value, link_row = activation.value, loss.link_row

    @jit("loops", fastmath=SUMS)
    def predict(X, V, W, work, F):
        predict_rows(X, V, W, work[0], work[1], F, value, link_row)

    return predict


@cache
def parallel_predict(activation: Activation, loss: Loss) -> Any:
    """Compiled predict(X, V, W, bounds, work, F) on all threads, in chunks as in `parallel`."""
    value, link_row = activation.value, loss.link_row

    @jit("loops-parallel", fastmath=SUMS, parallel=True)
    def predict(X, V, W, bounds, work, F):
        for c in prange(len(bounds) - 1):
            rows = slice(bounds[c], bounds[c + 1])
            predict_rows(X[rows], V, W, work[c, 0], work[c, 1], F[rows], value, link_row)

    return predict


def chunk_bounds(n: int, threads: int) -> np.ndarray:
    """Bounds (chunks + 1,) of a run of rows for each thread; the runs differ by one row at most.

    Fewer runs than threads where a run would be so short that launching it costs more than it
    saves.
    """
    chunks = max(1, min(threads, n // _LEAST_ROWS))
    return np.arange(chunks + 1, dtype=np.int64) * n // chunks

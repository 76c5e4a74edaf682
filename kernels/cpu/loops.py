"""The lecture's backpropagation, sample by sample and scalar by scalar.

`forward_sample` and `backward_sample` are plain functions: they run in Python on lists, and
compiled. `value`, `slope` and `loss_row` are the formulas of a network, passed in.
"""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np
from numba import from_dtype, prange, types
from numba.extending import register_jitable

from ..compiler.address import address_of, array_at, call_address, call_interpreted
from ..compiler.jit import SUMS, jit
from ..compiler.lowering import lowers_to
from ..formulas.activations import Activation
from ..formulas.elementary import like
from ..formulas.losses import Forms

_LEAST_ROWS = 16
_INTEGERS = (types.int64,) * 11  # the arguments of a network's loops: addresses and sizes


@register_jitable
def multiply(W, z, u):
    """u = W z, written into u (K,), for W (K, M) and z (M,)."""
    for k in range(len(W)):
        w = W[k]
        total = like(z[0], 0.0)
        for m in range(len(z)):
            total += w[m] * z[m]
        u[k] = total


@register_jitable
def forward_sample(x, V, W, a, z, u, value):
    """a = V x, z = σ(a), u = W z, written into a (M,), z (M,) and u (K,)."""
    multiply(V, x, a)
    for m in range(len(a)):
        z[m] = value(a[m])
    multiply(W, z, u)


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
def split(kind, work, M, K):
    """The a, z, g (M,) and u (K,) of the workspace (3M + K,) at the address `work`."""
    w = array_at(kind, work, 3 * M + K)
    return w[:M], w[M : 2 * M], w[2 * M : 3 * M], w[3 * M :]


@cache
def _gradient_rows(activation: Activation, loss: Forms) -> Any:
    value, slope, loss_row = activation.value, activation.slope, loss.loss_row

    @jit("loops", fastmath=SUMS)
    def loop_over_rows(kind, X, Y, V, W, work, gV, gW, n, d, M, K):
        a, z, g, u = split(kind, work, M, K)
        gv, gw = array_at(kind, gV, (M, d)), array_at(kind, gW, (K, M))
        gv[:] = 0
        gw[:] = 0
        x, y = array_at(kind, X, (n, d)), array_at(kind, Y, (n, K))
        v, w = array_at(kind, V, (M, d)), array_at(kind, W, (K, M))
        total = 0.0
        for i in range(n):
            forward_sample(x[i], v, w, a, z, u, value)
            total += loss_row(u, y[i], u)  # u holds δ from here on
            backward_sample(x[i], u, w, a, z, g, gv, gw, slope)
        return total

    return loop_over_rows


@cache
def _predict_rows(activation: Activation, loss: Forms) -> Any:
    value, link_row = activation.value, loss.link_row

    @jit("loops", fastmath=SUMS)
    def loop_over_rows(kind, X, F, V, W, work, gV, gW, n, d, M, K):
        x, f = array_at(kind, X, (n, d)), array_at(kind, F, (n, K))
        v, w = array_at(kind, V, (M, d)), array_at(kind, W, (K, M))
        a, _, _, _ = split(kind, work, M, K)
        for i in range(n):
            forward_sample(x[i], v, w, a, a, f[i], value)
            link_row(f[i], f[i])
        return 0.0

    return loop_over_rows


@cache
def gradient_rows(activation: Activation, loss: Forms, dtype: np.dtype) -> int:
    """The address of a network's backpropagation over samples, which `step` and `gradient` call."""
    return address_of(_gradient_rows(activation, loss), (from_dtype(dtype), *_INTEGERS))


@cache
def predict_rows(activation: Activation, loss: Forms, dtype: np.dtype) -> int:
    """The address of a network's forward pass over samples, which `predict` calls."""
    return address_of(_predict_rows(activation, loss), (from_dtype(dtype), *_INTEGERS))


@lowers_to(lambda address, kind, *_: (types.float64(types.int64, kind, *_INTEGERS), call_address))
def loop(address, kind, X, Y, V, W, work, gV, gW, n, d, M, K):
    """Call `gradient_rows` or `predict_rows` with the addresses of its arrays and their sizes."""
    return call_interpreted(address, kind, X, Y, V, W, work, gV, gW, n, d, M, K)


@register_jitable
def rows_at(address, X, Y, V, W, work, gV, gW):
    """Σ ℓ over the rows of X and Y, Σ ∂ℓ/∂V in gV and Σ ∂ℓ/∂W in gW; or F in Y. work (3M + K,)."""
    n, d = X.shape
    K, M = W.shape
    return loop(
        address, X[0, 0], X.ctypes.data, Y.ctypes.data, V.ctypes.data, W.ctypes.data,
        work.ctypes.data, gV.ctypes.data, gW.ctypes.data, n, d, M, K,
    )  # fmt: skip


def _step(formula, X, Y, V, W, work, gV, gW, mu, update):
    total = rows_at(formula, X, Y, V, W, work, gV, gW)
    scale = like(X[0, 0], 1.0 / len(X))
    factor = like(X[0, 0], mu)
    for weights, slopes in ((V, gV), (W, gW)):
        for i in range(len(slopes)):
            for j in range(slopes.shape[1]):
                slopes[i, j] *= scale
                if update:
                    weights[i, j] -= factor * slopes[i, j]
    return total / len(X)


@cache
def step() -> Any:
    """Compiled step(formula, X, Y, V, W, work (3M + K,), gV, gW, mu, update) -> L, one thread.

    Writes ∇L into gV and gW, and θ − μ ∇L into V and W where `update` is set.
    """
    return jit("loops", fastmath=SUMS)(_step)


def _gradient(formula, X, Y, V, W, bounds, work, gVs, gWs, losses, gV, gW):
    for c in prange(len(bounds) - 1):
        rows = slice(bounds[c], bounds[c + 1])
        losses[c] = rows_at(formula, X[rows], Y[rows], V, W, work[c], gVs[c], gWs[c])
    return reduce_chunks(len(bounds) - 1, len(X), losses, gVs, gWs, gV, gW)


@cache
def gradient() -> Any:
    """Compiled gradient(formula, X, Y, V, W, bounds, work, gVs, gWs, losses, gV, gW) -> L.

    Chunk c takes the rows bounds[c] to bounds[c + 1] with its own work[c] (3M + K,), gVs[c] (M d,)
    and gWs[c] (K M,); the chunks are added in the order of their numbers. Rows of these may be
    longer, to keep threads off each other's lines of the cache.
    """
    return jit("loops", fastmath=SUMS, parallel=True)(_gradient)


def _predict(formula, X, V, W, bounds, work, F):
    for c in prange(len(bounds) - 1):
        rows = slice(bounds[c], bounds[c + 1])
        rows_at(formula, X[rows], F[rows], V, W, work[c], V, W)


@cache
def predict(parallel: bool) -> Any:
    """Compiled predict(formula, X, V, W, bounds, work, F): F = h(σ(X Vᵀ) Wᵀ), in chunks."""
    return jit("loops", fastmath=SUMS, parallel=parallel)(_predict)


@register_jitable
def reduce_chunks(chunks, n, losses, gVs, gWs, gV, gW):
    """L and ∇L from the sums of the chunks, added in the order of their numbers.

    gVs (chunks, at least M d) and gWs (chunks, at least K M) hold a gradient a row.
    """
    scale = like(gV[0, 0], 1.0 / n)
    for sums, result in ((gVs, gV), (gWs, gW)):
        for i in range(len(result)):
            for j in range(result.shape[1]):
                place = i * result.shape[1] + j
                total = sums[0, place]
                for c in range(1, chunks):
                    total += sums[c, place]
                result[i, j] = total * scale
    total = 0.0
    for c in range(chunks):
        total += losses[c]
    return total / n


def chunk_count(n: int, threads: int) -> int:
    """The number of runs of rows: one a thread.

    Fewer where a run would be so short that launching it costs more than it saves.
    """
    return max(1, min(threads, n // _LEAST_ROWS))


def chunk_bounds(n: int, chunks: int) -> np.ndarray:
    """Bounds (at most chunks + 1,) of runs of rows that differ by one row at most."""
    chunks = chunk_count(n, chunks)
    return np.arange(chunks + 1, dtype=np.int64) * n // chunks

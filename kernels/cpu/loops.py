"""The lecture's backpropagation, sample by sample and scalar by scalar.

`forward_sample` and `backward_sample` are plain functions: they run in Python on lists, and
compiled. `value`, `slope` and `loss_row` are the formulas of a network, passed in.
"""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np
from numba import from_dtype, types

from ..compiler.address import address_of, array_at, call_address, call_interpreted
from ..compiler.jit import SUMS, jit, jitable
from ..compiler.lowering import lowers_to
from ..formulas.activations import Activation
from ..formulas.elementary import like
from ..formulas.losses import Forms
from . import epochs
from .epochs import matrices
from .records import record_type

_LEAST_ROWS = 16


@jitable
def multiply(W, z, u):
    """u = W z, written into u (K,), for W (K, M) and z (M,)."""
    for k in range(len(W)):
        w = W[k]
        total = like(z[0], 0.0)
        for m in range(len(z)):
            total += w[m] * z[m]
        u[k] = total


@jitable
def forward_sample(x, V, W, a, z, u, value):
    """a = V x, z = σ(a), u = W z, written into a (M,), z (M,) and u (K,)."""
    multiply(V, x, a)
    for m in range(len(a)):
        z[m] = value(a[m])
    multiply(W, z, u)


@jitable
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


@jitable
def split(kind, work, M, K):
    """The a, z, g (M,) and u (K,) of the workspace (3M + K,) at the address `work`."""
    w = array_at(kind, work, 3 * M + K)
    return w[:M], w[M : 2 * M], w[2 * M : 3 * M], w[3 * M :]


@cache
def _gradient_rows(activation: Activation, loss: Forms) -> Any:
    value, slope, loss_row = activation.value, activation.slope, loss.loss_row

    @jit("loops", fastmath=SUMS)
    def loop_over_rows(kind, addresses, sizes):
        X, Y, theta, work, gradient = addresses
        n, d, M, K = sizes
        x, y = array_at(kind, X, (n, d)), array_at(kind, Y, (n, K))
        V, W = matrices(kind, theta, d, M, K)
        gV, gW = matrices(kind, gradient, d, M, K)
        a, z, g, u = split(kind, work, M, K)
        gV[:] = 0
        gW[:] = 0
        total = 0.0
        for i in range(n):
            forward_sample(x[i], V, W, a, z, u, value)
            total += loss_row(u, y[i], u)  # u holds δ from here on
            backward_sample(x[i], u, W, a, z, g, gV, gW, slope)
        return total

    return loop_over_rows


@cache
def _predict_rows(activation: Activation, loss: Forms) -> Any:
    value, link_row = activation.value, loss.link_row

    @jit("loops", fastmath=SUMS)
    def loop_over_rows(kind, addresses, sizes):
        X, F, theta, work, _ = addresses
        n, d, M, K = sizes
        x, f = array_at(kind, X, (n, d)), array_at(kind, F, (n, K))
        V, W = matrices(kind, theta, d, M, K)
        a, _, _, _ = split(kind, work, M, K)
        for i in range(n):
            forward_sample(x[i], V, W, a, a, f[i], value)
            link_row(f[i], f[i])
        return 0.0

    return loop_over_rows


_ADDRESSES, _SIZES = types.UniTuple(types.int64, 5), types.UniTuple(types.int64, 4)


@cache
def gradient_rows(activation: Activation, loss: Forms, dtype: np.dtype) -> int:
    """The address of a network's backpropagation over samples, which `step` and `gradient` call."""
    return address_of(_gradient_rows(activation, loss), (from_dtype(dtype), _ADDRESSES, _SIZES))


@cache
def predict_rows(activation: Activation, loss: Forms, dtype: np.dtype) -> int:
    """The address of a network's forward pass over samples, which `predict` calls."""
    return address_of(_predict_rows(activation, loss), (from_dtype(dtype), _ADDRESSES, _SIZES))


def _loop(address, kind, addresses, sizes):
    return types.float64(types.int64, kind, _ADDRESSES, _SIZES), call_address


@lowers_to(_loop)
def loop(address, kind, addresses, sizes):
    """Call `gradient_rows` or `predict_rows` with (X, Y or F, θ, work, ∇L) and (n, d, M, K)."""
    return call_interpreted(address, kind, addresses, sizes)


def buffers(shape: Any, chunks: int) -> dict[str, tuple[int, int]]:
    """How many chunks have each buffer, and its elements.

    The gradient of the first chunk is where the caller wants ∇L.
    """
    _, d, M, K = shape
    return {"work": (chunks, 3 * M + K), "gradient": (chunks - 1, M * (d + K))}


CHUNK = record_type(
    ("M", "gradient_rows", "predict_rows", *epochs.FIELDS, *buffers((0, 0, 0, 0), 0))
)


@jitable
def run(record, rows, X, Y, theta, gradient):
    """Call a loop over the rows of X and Y; theta and gradient, addresses."""
    addresses = np.int64(X.ctypes.data), np.int64(Y.ctypes.data), theta, record["work"], gradient
    return loop(rows, X[0, 0], addresses, (len(X), X.shape[1], record["M"], Y.shape[1]))


@jitable
def chunk(record, X, Y, theta, gradient):
    """Σ ℓ over the rows of X and Y; Σ ∂ℓ/∂θ to the address of the gradient."""
    return run(record, record["gradient_rows"], X, Y, theta, gradient)


@jitable
def chunk_outputs(record, X, F, theta):
    """F = h(σ(X Vᵀ) Wᵀ) for the rows of X."""
    run(record, record["predict_rows"], X, F, theta, np.int64(0))


KERNELS = epochs.kernels("loops", chunk, None, chunk_outputs)


def chunk_count(n: int, threads: int) -> int:
    """The number of runs of rows: one a thread.

    Fewer where a run would be so short that launching it costs more than it saves.
    """
    return max(1, min(threads, n // _LEAST_ROWS))

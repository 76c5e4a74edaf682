"""The lecture's backpropagation, sample by sample and scalar by scalar.

`forward_sample` and `backward_sample` are plain functions: they run in Python on lists, and
compiled. `value`, `slope` and `loss_row` are the formulas of a network, passed in.
"""

from __future__ import annotations

from functools import cache
from typing import Any

from ..compiler.address import array_at
from ..compiler.jit import jitable
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


def buffers(shape: Any, chunks: int) -> dict[str, tuple[int, int]]:
    """How many chunks have each buffer, and its elements.

    The gradient of the first chunk is where the caller wants ∇L.
    """
    _, d, M, K = shape
    return {"work": (chunks, 3 * M + K), "gradient": (chunks - 1, M * (d + K))}


CHUNK = record_type(("d", "M", *epochs.FIELDS, *buffers((0, 0, 0, 0), 0)))


@cache
def kernels(activation: Activation, loss: Forms) -> epochs.Kernels:
    """The loops over the rows of a chunk for a network."""
    value, slope, loss_row, link_row = (
        activation.value, activation.slope, loss.loss_row, loss.link_row
    )  # fmt: skip

    def chunk(record, kind, X, Y, rows, K, theta, gradient):
        d, M = record["d"], record["M"]
        x, y = array_at(kind, X, (rows, d)), array_at(kind, Y, (rows, K))
        V, W = matrices(kind, theta, d, M, K)
        gV, gW = matrices(kind, gradient, d, M, K)
        a, z, g, u = split(kind, record["work"], M, K)
        gV[:] = 0
        gW[:] = 0
        total = 0.0
        for i in range(rows):
            forward_sample(x[i], V, W, a, z, u, value)
            total += loss_row(u, y[i], u)  # u holds δ from here on
            backward_sample(x[i], u, W, a, z, g, gV, gW, slope)
        return total

    def chunk_outputs(record, kind, X, F, rows, K, theta, gradient):
        d, M = record["d"], record["M"]
        x, f = array_at(kind, X, (rows, d)), array_at(kind, F, (rows, K))
        V, W = matrices(kind, theta, d, M, K)
        a, _, _, _ = split(kind, record["work"], M, K)
        for i in range(rows):
            forward_sample(x[i], V, W, a, a, f[i], value)
            link_row(f[i], f[i])
        return 0.0

    return epochs.Kernels(*(epochs.visitor("loops", CHUNK, one) for one in (chunk, chunk_outputs)))


def chunk_count(n: int, threads: int) -> int:
    """The number of runs of rows: one a thread.

    Fewer where a run would be so short that launching it costs more than it saves.
    """
    return max(1, min(threads, n // _LEAST_ROWS))

"""One thread a sample: the lecture's backpropagation, sums made by atomic additions.

Every number that a thread keeps for its sample lies in global memory, transposed, so that the
threads of a warp touch neighbours. Atomic additions come in any order: the last bits of a sum
differ from run to run.
"""

from functools import cache

from numba import cuda
from numba.extending import register_jitable

from ..formulas.activations import Activation
from ..formulas.elementary import like
from ..formulas.losses import Forms
from . import elementary  # noqa: F401  (σ and σ′ by the GPU's own instructions)
from .memory.types import real_type

THREADS = 128


@cache
def clear(dtype: str):
    """Kernel: set gV (1, M ld), gW (1, K ld) and losses (1,) to 0."""
    real = real_type(dtype)

    def kernel(gV, gW, losses):
        i = cuda.grid(1)
        if i < gV.shape[1]:
            gV[0, i] = real(0)
        if i < gW.shape[1]:
            gW[0, i] = real(0)
        if i == 0:
            losses[0] = 0.0

    return cuda.jit(kernel)


def _forward(store):
    """Function(i, X, V, W, Z, S, U, d, M): for sample i `store(Z, S, m, i, a)` of each a, and u."""

    @register_jitable
    def forward(i, X, V, W, Z, S, U, d, M):
        for m in range(M):
            a = like(X[i, 0], 0.0)
            for j in range(d):
                a += V[m, j] * X[i, j]
            store(Z, S, m, i, a)
        for k in range(U.shape[1]):
            u = like(X[i, 0], 0.0)
            for m in range(M):
                u += W[k, m] * Z[m, i]
            U[i, k] = u

    return forward


@cache
def gradient(activation: Activation, loss: Forms):
    """Kernel: add Σ ∂ℓ/∂V to gV (1, M ld), Σ ∂ℓ/∂W to gW (1, K ld) and Σ ℓ to losses (1,).

    Z and S (M, n) hold σ(A) and σ′(A), U (n, K) holds U and then Δ.
    """
    value, slope, loss_row = activation.value, activation.slope, loss.loss_row

    @register_jitable
    def store(Z, S, m, i, a):
        Z[m, i] = value(a)
        S[m, i] = slope(a)

    forward = _forward(store)

    def kernel(X, Y, V, W, Z, S, U, gV, gW, losses, d, M):
        i = cuda.grid(1)
        if i >= X.shape[0]:
            return
        forward(i, X, V, W, Z, S, U, d, M)
        cuda.atomic.add(losses, 0, loss_row(U[i], Y[i], U[i]))
        for m in range(M):
            g = like(X[i, 0], 0.0)
            for k in range(U.shape[1]):
                delta = U[i, k]
                g += W[k, m] * delta
                cuda.atomic.add(gW, (0, k * W.shape[1] + m), delta * Z[m, i])
            g *= S[m, i]
            for j in range(d):
                cuda.atomic.add(gV, (0, m * V.shape[1] + j), g * X[i, j])

    return cuda.jit(kernel)


@cache
def predict(activation: Activation, loss: Forms):
    """Kernel: F = h(σ(X Vᵀ) Wᵀ) for X (n, ld), F (n, K), Z (M, n)."""
    value, link_row = activation.value, loss.link_row

    @register_jitable
    def store(Z, S, m, i, a):
        Z[m, i] = value(a)

    forward = _forward(store)

    def kernel(X, V, W, Z, F, d, M):
        i = cuda.grid(1)
        if i >= X.shape[0]:
            return
        forward(i, X, V, W, Z, Z, F, d, M)
        link_row(F[i], F[i])

    return cuda.jit(kernel)

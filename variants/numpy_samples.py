"""Backpropagation of one sample at a time with NumPy vectors: the lecture's summary page."""

from __future__ import annotations

import numpy as np

from ..interface import Engine, Variant
from ..machine.threads import blas_threads
from ..network import Parameters


class NumpySamples(Engine):
    """z = σ(V x), u = W z, ∂ℓ/∂W = δ zᵀ, ∂ℓ/∂V = ((Wᵀ δ) ⊙ σ′(V x)) xᵀ for each sample in turn."""

    def backpropagate(
        self, X: np.ndarray, Y: np.ndarray, theta: Parameters, gradient: Parameters
    ) -> float:
        sigma, loss_batch = self.net.sigma, self.net.objective.loss_batch
        (V, W), (gV, gW) = theta, gradient
        gV[...] = 0
        gW[...] = 0
        total = 0.0
        with np.errstate(all="ignore"), blas_threads(1):
            for x, y in zip(X, Y, strict=True):
                a = V @ x  # (M,)
                z = sigma.value(a)  # (M,)
                delta = W @ z  # (K,), u until the loss overwrites it
                total += loss_batch(delta[None], y[None])
                g = (delta @ W) * sigma.slope(a)  # (M,)
                gW += np.outer(delta, z)
                gV += np.outer(g, x)
            gV /= len(X)
            gW /= len(X)
        return total / len(X)

    def forward(self, X: np.ndarray, theta: Parameters, F: np.ndarray) -> None:
        V, W = theta
        with np.errstate(all="ignore"), blas_threads(1):
            for x, f in zip(X, F, strict=True):
                f[...] = W @ self.net.sigma.value(V @ x)
                self.net.objective.link_batch(f[None])


def _workspace(shape, itemsize, threads):
    return itemsize * shape.M * (shape.d + shape.K + 8)


VARIANT = Variant(
    "numpy-samples",
    "cpu",
    "sample by sample, NumPy vectors and outer products: the lecture's summary page",
    NumpySamples,
    _workspace,
    parallel=False,
)

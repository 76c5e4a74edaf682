"""The whole batch at once with NumPy: products by BLAS, arrays reused, no needless copies.

Two n × M arrays and one n × K array exist, and live as long as the plan. σ, σ′ and ℓ are applied to
blocks of rows, so that their temporaries stay in the cache.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from ..interface import Plan, Problem, Variant
from ..network import Parameters
from ..threads import blas_threads

_BLOCK = 1 << 14  # elements of a block of rows: 64 to 128 KiB, a part of any second-level cache


def _blocks(A: np.ndarray) -> Iterator[slice]:
    rows = max(1, _BLOCK // A.shape[1])
    return (slice(start, start + rows) for start in range(0, len(A), rows))


class NumpyBatch(Plan):
    """A = X Vᵀ, Z = σ(A), U = Z Wᵀ, ∂L/∂W = Δᵀ Z / n, G = (Δ W) ⊙ σ′(A), ∂L/∂V = Gᵀ X / n."""

    def __init__(self, problem: Problem) -> None:
        super().__init__(problem)
        n, _, M, K = self.shape
        self._Z = np.empty((n, M), self.dtype)
        self._slopes = np.empty((n, M), self.dtype)
        self._U = np.empty((n, K), self.dtype)

    def _backpropagate(self, X: np.ndarray, Y: np.ndarray, gradient: Parameters) -> float:
        n = len(X)
        Z, slopes, U = self._Z[:n], self._slopes[:n], self._U[:n]
        sigma, loss_batch = self.net.sigma, self.net.objective.loss_batch
        with np.errstate(all="ignore"), blas_threads(self.threads):
            np.matmul(X, self.V.T, out=Z)  # A (n, M)
            for rows in _blocks(Z):
                slopes[rows] = sigma.slope(Z[rows])
                Z[rows] = sigma.value(Z[rows])
            np.matmul(Z, self.W.T, out=U)  # (n, K)
            total = sum(loss_batch(U[rows], Y[rows]) for rows in _blocks(U))
            Delta = U
            np.matmul(Delta.T, Z, out=gradient.W)
            np.matmul(Delta, self.W, out=Z)  # Z is not needed any more
            G = np.multiply(Z, slopes, out=Z)
            np.matmul(G.T, X, out=gradient.V)
            for sums in gradient:
                sums /= n
        return total / n

    def _forward(self, X: np.ndarray, F: np.ndarray) -> None:
        with np.errstate(all="ignore"), blas_threads(self.threads):
            for start in range(0, len(X), self.shape.n):
                rows = slice(start, start + self.shape.n)
                Z = np.matmul(X[rows], self.V.T, out=self._Z[: len(X[rows])])
                for block in _blocks(Z):
                    Z[block] = self.net.sigma.value(Z[block])
                np.matmul(Z, self.W.T, out=F[rows])
            for block in _blocks(F):
                self.net.objective.link_batch(F[block])


def _workspace(shape, itemsize, threads):
    return itemsize * (shape.n * (2 * shape.M + shape.K) + 8 * _BLOCK)


VARIANT = Variant(
    "numpy",
    "cpu",
    "the whole batch at once: what a careful NumPy user writes",
    NumpyBatch,
    _workspace,
)

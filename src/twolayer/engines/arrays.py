"""The whole batch at once, with NumPy or with a module that follows it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from ..interface import Engine, Problem
from ..kernels.formulas.activations import Activation
from ..network import Parameters, Shape


def in_place(sigma: Activation) -> tuple[Callable[[Any], None], Callable[[Any, Any], None]]:
    """A ↦ σ(A) in place, and the same with σ′(A) written into a second array."""

    def value(A: Any) -> None:
        A[...] = sigma.value(A)

    def value_and_slope(A: Any, slopes: Any) -> None:
        slopes[...] = sigma.slope(A)
        value(A)

    return value, value_and_slope


class BatchEngine(Engine):
    """A = X Vᵀ, Z = σ(A), U = Z Wᵀ, ∂L/∂W = Δᵀ Z / n, G = (Δ W) ⊙ σ′(A), ∂L/∂V = Gᵀ X / n.

    Two n × M arrays and one n × K array exist, and live as long as the engine. σ, σ′ and ℓ are
    applied to blocks of rows. A subclass decides where the arrays lie.
    """

    xp: Any = np  # the module whose arrays they are
    block = 1 << 14  # elements of a block: 64 to 128 KiB, a part of any second-level cache

    def __init__(self, problem: Problem) -> None:
        super().__init__(problem)
        n, _, M, K = self.shape
        self._Z = self.xp.empty((n, M), self.dtype)
        self._slopes = self.xp.empty((n, M), self.dtype)
        self._U = self.xp.empty((n, K), self.dtype)
        self._value, self._value_and_slope = in_place(self.net.sigma)

    def _differentiate(self, X: Any, Y: Any, theta: Parameters, gradient: Parameters) -> Any:
        """Return L over the rows of X and Y and write ∇L into `gradient`."""
        n, xp = len(X), self.xp
        V, W = theta
        Z, slopes, U = self._Z[:n], self._slopes[:n], self._U[:n]
        loss_batch = self.net.objective.loss_batch
        xp.matmul(X, V.T, out=Z)  # A (n, M)
        for rows in self._blocks(Z):
            self._value_and_slope(Z[rows], slopes[rows])
        xp.matmul(Z, W.T, out=U)  # (n, K)
        total = sum(loss_batch(U[rows], Y[rows]) for rows in self._blocks(U))
        Delta = U
        xp.matmul(Delta.T, Z, out=gradient.W)
        xp.matmul(Delta, W, out=Z)  # Z is not needed any more
        G = xp.multiply(Z, slopes, out=Z)
        xp.matmul(G.T, X, out=gradient.V)
        for sums in gradient:
            sums /= n
        return total / n

    def _outputs(self, X: Any, theta: Parameters, F: Any) -> None:
        """Write F = h(σ(X Vᵀ) Wᵀ) for the rows of X."""
        V, W = theta
        for start in range(0, len(X), self.shape.n):
            rows = slice(start, start + self.shape.n)
            Z = self.xp.matmul(X[rows], V.T, out=self._Z[: len(X[rows])])
            for block in self._blocks(Z):
                self._value(Z[block])
            self.xp.matmul(Z, W.T, out=F[rows])
        for block in self._blocks(F):
            self.net.objective.link_batch(F[block])

    def _blocks(self, A: Any) -> Iterator[slice]:
        rows = max(1, self.block // A.shape[1])
        return (slice(start, start + rows) for start in range(0, len(A), rows))


def workspace(shape: Shape, itemsize: int, block: int) -> int:
    """Bytes of the arrays of an engine, and of temporary arrays as large as a block."""
    return itemsize * (shape.n * (2 * shape.M + shape.K) + 8 * block)

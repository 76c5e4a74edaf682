"""What a variant writes: L and ∇L over rows, L alone, and F, without checks or locks."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from ..kernels.formulas.updates import Update
from ..network import Network, Shape
from .weights import Weights


class Problem(NamedTuple):
    """What an engine is made for. shape.n is the most rows that L and ∇L are asked of at once."""

    net: Network
    shape: Shape
    dtype: np.dtype  # float32 or float64, of X, θ and all results
    threads: int


class Engine:
    """An implementation, made for a network, a size and a number of threads.

    A subclass gives `backpropagate` and `forward`, and allocates what they need in `__init__`. It
    may give `weights` where θ and ∇L have a layout of its own, `hold` where X and Y do, and
    `update`, `updates` and `loss` where it can do better than what stands here. `decisions` are
    flags of what it does for some shapes only: the variant's corners lie on both sides of each.
    """

    decisions: tuple[bool, ...] = ()  # a NamedTuple where there are any

    def __init__(self, problem: Problem) -> None:
        self.net, self.shape, self.dtype, self.threads = problem

    def weights(self) -> Weights:
        """Where θ and ∇L live; `theta` and `gradient` below are arrays of such weights."""
        return Weights(self.shape, self.dtype)

    def hold(self, X: np.ndarray, Y: np.ndarray) -> tuple[Any, Any]:
        """X (n, d) and Y (n, K) in the form whose rows the methods below take."""
        return X, Y

    def backpropagate(self, X: Any, Y: Any, theta: Any, gradient: Any) -> float:
        """Return L over the rows of X and Y, and write ∇L into `gradient`."""
        raise NotImplementedError

    def forward(self, X: np.ndarray, theta: Any, F: np.ndarray) -> None:
        """Write F = h(σ(X Vᵀ) Wᵀ) for rows X on the host, however many."""
        raise NotImplementedError

    def loss(self, X: Any, Y: Any, theta: Any, gradient: Any) -> float:
        """Return L over the rows of X and Y; `gradient` is room to work in."""
        return self.backpropagate(X, Y, theta, gradient)

    def update(
        self, X: Any, Y: Any, weights: Weights, update: Update, scalars: tuple[float, ...]
    ) -> float:
        """Change θ and slots by the formula, at ∇L over the rows of X and Y; return L before."""
        loss = self.backpropagate(X, Y, weights.theta, weights.gradient)
        weights.apply(update, scalars)
        return loss

    def updates(
        self, X: Any, Y: Any, weights: Weights, update: Update, scalars: np.ndarray,
        bounds: np.ndarray,
    ) -> np.ndarray:  # fmt: skip
        """Update one after the other; return L before each.

        Arguments: scalars (count, …) and bounds (count, 2), float64 and int64: the scalars and the
        rows, from which to which, of each; at least one.
        """
        losses = [
            self.update(X[start:stop], Y[start:stop], weights, update, tuple(values))
            for (start, stop), values in zip(bounds.tolist(), scalars.tolist(), strict=True)
        ]
        return np.array(losses)

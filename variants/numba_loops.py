"""The scalar loops of `python-loops`, compiled by Numba, on one thread."""

from __future__ import annotations

import numpy as np

from ..interface import Engine, Problem, Variant, Weights
from ..kernels.cpu import loops
from ..kernels.formulas.updates import UPDATES, Update
from ..network import Parameters


class NumbaLoops(Engine):
    """One compiled call an epoch; nothing is allocated in it."""

    def __init__(self, problem: Problem) -> None:
        super().__init__(problem)
        self._rows = loops.gradient_rows(self.net.sigma, self.net.objective, self.dtype)
        self._kernel = loops.step()
        self._predict = loops.predict(parallel=False)
        self._work = np.empty(3 * self.shape.M + self.shape.K, self.dtype)

    def _pass(
        self, X, Y, theta: Parameters, gradient: Parameters, mu: float, update: bool
    ) -> float:
        return self._kernel(self._rows, X, Y, *theta, self._work, *gradient, mu, update)

    def backpropagate(
        self, X: np.ndarray, Y: np.ndarray, theta: Parameters, gradient: Parameters
    ) -> float:
        return self._pass(X, Y, theta, gradient, 0.0, False)

    def update(self, X, Y, weights: Weights, update: Update, scalars) -> float:
        if update is not UPDATES["descend"]:
            return super().update(X, Y, weights, update, scalars)
        return self._pass(X, Y, weights.theta, weights.gradient, scalars[0], True)

    def forward(self, X: np.ndarray, theta: Parameters, F: np.ndarray) -> None:
        rows = loops.predict_rows(self.net.sigma, self.net.objective, self.dtype)
        bounds = np.array([0, len(X)])
        self._predict(rows, X, *theta, bounds, self._work[None], F)


def _workspace(shape, itemsize, threads):
    return itemsize * (3 * shape.M + shape.K)


VARIANT = Variant(
    "numba-loops",
    "cpu",
    "the same scalar loops, jitted, on one thread",
    NumbaLoops,
    _workspace,
    parallel=False,
)

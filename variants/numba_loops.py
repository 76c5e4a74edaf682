"""The scalar loops of `python-loops`, compiled by Numba, on one thread."""

from __future__ import annotations

import numpy as np

from ..interface import Plan, Problem, Variant
from ..kernels.cpu import loops
from ..network import Parameters


class NumbaLoops(Plan):
    """One compiled call an epoch; nothing is allocated in it."""

    def __init__(self, problem: Problem) -> None:
        super().__init__(problem)
        self._rows = loops.gradient_rows(self.net.sigma, self.net.objective, self.dtype)
        self._kernel = loops.step()
        self._predict = loops.predict(parallel=False)
        self._work = np.empty(3 * self.shape.M + self.shape.K, self.dtype)

    def _pass(self, X, Y, gradient: Parameters, mu: float, update: bool) -> float:
        return self._kernel(self._rows, X, Y, self.V, self.W, self._work, *gradient, mu, update)

    def _step(self, mu: float) -> float:
        return self._pass(self.X, self.Y, self._gradient, mu, True)

    def _backpropagate(self, X: np.ndarray, Y: np.ndarray, gradient: Parameters) -> float:
        return self._pass(X, Y, gradient, 0.0, False)

    def _forward(self, X: np.ndarray, F: np.ndarray) -> None:
        rows = loops.predict_rows(self.net.sigma, self.net.objective, self.dtype)
        bounds = np.array([0, len(X)])
        self._predict(rows, X, self.V, self.W, bounds, self._work[None], F)


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

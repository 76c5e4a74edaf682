"""The scalar loops of `python-loops`, compiled by Numba, on one thread."""

from __future__ import annotations

from typing import Any

import numpy as np

from ..interface import Engine, Problem, Variant, Weights
from ..interface.weights import FlatWeights
from ..kernels.cpu import loops
from ..kernels.cpu.records import records
from ..kernels.formulas.updates import UPDATES, Update
from ..machine.buffers import together


class NumbaLoops(Engine):
    """One compiled call an epoch; nothing is allocated in it."""

    def __init__(self, problem: Problem) -> None:
        super().__init__(problem)
        rows = loops.gradient_rows(self.net.sigma, self.net.objective, self.dtype)
        numbers = {"M": self.shape.M, "gradient_rows": rows}
        self._buffers = together(loops.buffers(self.shape, chunks=1), self.dtype)
        self._records = records(loops.CHUNK, 1, numbers, self._buffers)
        self._step = loops.step()

    def weights(self) -> Weights:
        return FlatWeights(self.shape, self.dtype)

    def backpropagate(self, X: np.ndarray, Y: np.ndarray, theta: Any, gradient: Any) -> float:
        return self._step(self._records, X, Y, *theta, *gradient, 0.0, False)

    def update(self, X, Y, weights: Weights, update: Update, scalars) -> float:
        if update is not UPDATES["descend"]:
            return super().update(X, Y, weights, update, scalars)
        theta, gradient = weights.theta, weights.gradient
        return self._step(self._records, X, Y, *theta, *gradient, scalars[0], True)

    def forward(self, X: np.ndarray, theta: Any, F: np.ndarray) -> None:
        rows = loops.predict_rows(self.net.sigma, self.net.objective, self.dtype)
        self._records["predict_rows"] = rows
        loops.predict(parallel=False)(self._records, X, F, *theta, 1)


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

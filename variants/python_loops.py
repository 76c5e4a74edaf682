"""The lecture, scalar by scalar, in plain Python floats: the oracle of every other variant."""

from __future__ import annotations

import numpy as np

from ..interface import Engine, Problem, Variant
from ..kernels.cpu.loops import backward_sample, forward_sample
from ..network import Parameters


class PythonLoops(Engine):
    """Python lists of Python floats, so that everything between input and result is float64."""

    def __init__(self, problem: Problem) -> None:
        super().__init__(problem)
        M, K = self.shape.M, self.shape.K
        self._work = [[0.0] * M for _ in range(3)]
        self._u = [0.0] * K

    def backpropagate(
        self, X: np.ndarray, Y: np.ndarray, theta: Parameters, gradient: Parameters
    ) -> float:
        (a, z, g), u = self._work, self._u
        V, W = theta.V.tolist(), theta.W.tolist()
        gV = [[0.0] * len(row) for row in V]
        gW = [[0.0] * len(row) for row in W]
        sigma, loss_row = self.net.sigma, self.net.objective.loss_row
        total = 0.0
        for x, y in zip(X, Y, strict=True):
            row = x.tolist()
            forward_sample(row, V, W, a, z, u, sigma.value)
            total += loss_row(u, y.tolist(), u)  # u holds δ from here on
            backward_sample(row, u, W, a, z, g, gV, gW, sigma.slope)
        with np.errstate(over="ignore"):  # a descent that diverges shows in θ and L
            gradient.V[...] = [[entry / len(X) for entry in row] for row in gV]
            gradient.W[...] = [[entry / len(X) for entry in row] for row in gW]
        return total / len(X)

    def forward(self, X: np.ndarray, theta: Parameters, F: np.ndarray) -> None:
        a, z, _ = self._work
        V, W = theta.V.tolist(), theta.W.tolist()
        for x, f in zip(X, F, strict=True):
            forward_sample(x.tolist(), V, W, a, z, self._u, self.net.sigma.value)
            self.net.objective.link_row(self._u, self._u)
            with np.errstate(over="ignore"):
                f[...] = self._u


def _workspace(shape, itemsize, threads):
    return 64 * shape.M * (shape.d + shape.K + 3)  # a float in a list: 8 bytes and an object of 24


VARIANT = Variant(
    "python-loops",
    "cpu",
    "the lecture, scalar by scalar, in plain Python: the oracle, in float64",
    PythonLoops,
    _workspace,
    parallel=False,
)

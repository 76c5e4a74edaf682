"""The whole batch at once with NumPy: products by BLAS, arrays reused, no needless copies.

σ, σ′ and ℓ are applied to blocks of rows, so that their temporaries stay in the cache.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from ..engines.arrays import BatchEngine, workspace
from ..interface import Problem, Variant
from ..interface.corners import both_sides
from ..machine.threads import blas_threads
from ..network import Parameters, Shape


class Decisions(NamedTuple):
    """What an epoch does for some shapes only."""

    blocks: bool  # several of Z
    output_blocks: bool  # several of U


def decisions(shape: Shape) -> Decisions:
    """What is decided for a shape."""
    block = NumpyBatch.block
    return Decisions(shape.n > block // shape.M, shape.n > block // shape.K)


class NumpyBatch(BatchEngine):
    """As `BatchEngine`, on the host."""

    def __init__(self, problem: Problem) -> None:
        super().__init__(problem)
        self.decisions = decisions(self.shape)

    def backpropagate(
        self, X: np.ndarray, Y: np.ndarray, theta: Parameters, gradient: Parameters
    ) -> float:
        with np.errstate(all="ignore"), blas_threads(self.threads):
            return self._differentiate(X, Y, theta, gradient)

    def forward(self, X: np.ndarray, theta: Parameters, F: np.ndarray) -> None:
        with np.errstate(all="ignore"), blas_threads(self.threads):
            self._outputs(X, theta, F)


def _workspace(shape, itemsize, threads):
    return workspace(shape, itemsize, NumpyBatch.block)


def _corners(itemsize: int, threads: int) -> Iterator[Shape]:
    rows = range(1, 1 << 20)
    yield from both_sides(lambda shape: decisions(shape).blocks, rows, 3, 130, 2)
    yield from both_sides(lambda shape: decisions(shape).output_blocks, rows, 3, 5, 130)


VARIANT = Variant(
    "numpy",
    "cpu",
    "the whole batch at once: what a careful NumPy user writes",
    NumpyBatch,
    _workspace,
    corners=_corners,
)

"""The whole batch at once with NumPy: products by BLAS, arrays reused, no needless copies.

σ, σ′ and ℓ are applied to blocks of rows, so that their temporaries stay in the cache.
"""

from __future__ import annotations

import numpy as np

from ..batch import BatchPlan, workspace
from ..interface import Variant
from ..network import Parameters
from ..threads import blas_threads


class NumpyBatch(BatchPlan):
    """As `BatchPlan`, on the host."""

    def _backpropagate(self, X: np.ndarray, Y: np.ndarray, gradient: Parameters) -> float:
        with np.errstate(all="ignore"), blas_threads(self.threads):
            return self._differentiate(X, Y, gradient)

    def _forward(self, X: np.ndarray, F: np.ndarray) -> None:
        with np.errstate(all="ignore"), blas_threads(self.threads):
            self._outputs(X, F)


def _workspace(shape, itemsize, threads):
    return workspace(shape, itemsize, NumpyBatch.block)


VARIANT = Variant(
    "numpy",
    "cpu",
    "the whole batch at once: what a careful NumPy user writes",
    NumpyBatch,
    _workspace,
)

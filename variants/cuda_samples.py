"""One thread a sample, sums by atomic additions: the lecture on a GPU, to learn from.

Its sums are added in whatever order threads come, so that last bits differ from run to run.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from ..engines.cuda import CudaEngine, CudaVariant, Sums
from ..engines.cuda_facts import elements
from ..engines.cuda_memory import Rows
from ..kernels.cuda.driver.launch import Launch, bound
from ..kernels.cuda.memory.copies import padded
from ..network import Parameters


class CudaSamples(CudaEngine):
    """Z, S = σ′(A) and U of every sample in global memory, transposed; three launches an epoch."""

    def _device_bytes(self) -> int:
        n, _, M, K = self.shape
        return self.dtype.itemsize * (n * (2 * M + K) + elements(self.shape, self.dtype))

    def _prepare(self) -> int:
        from ..kernels.cuda import samples

        n, d, M, K = self.shape
        self._work = self._empty(M, n), self._empty(M, n), self._empty(n, K)
        sizes = M * padded(d, self.dtype), K * padded(M, self.dtype)
        self._sums = tuple(self._empty(1, size) for size in sizes)
        self._losses = self._cuda.device_array(1, np.float64)
        self._threads = samples.THREADS
        blocks = -(-max(sizes) // self._threads)
        sums = *self._sums, self._losses
        self._clear = bound(samples.clear(self.dtype.name), blocks, self._threads, sums)
        self._gradient_kernel = samples.gradient(self.net.sigma, self.net.objective)
        self._predict_kernel = samples.predict(self.net.sigma, self.net.objective)
        return 1

    def _sum_rows(self, X: Rows, Y: Any, theta: Parameters) -> tuple[list[Launch], Sums]:
        sums = *self._sums, self._losses
        arguments = (
            X.array, Y, *theta, *self._work, *sums, self.shape.d, self.shape.M,
        )  # fmt: skip
        blocks = -(-len(X) // self._threads)
        return [self._clear, bound(self._gradient_kernel, blocks, self._threads, arguments)], sums

    def _predict_rows(self, X: Any, theta: Parameters, F: np.ndarray) -> None:
        Z, _, U = self._work
        arguments = X, *theta, Z, U, self.shape.d, self.shape.M
        bound(self._predict_kernel, -(-len(X) // self._threads), self._threads, arguments)()
        U[: len(X)].copy_to_host(F)


VARIANT = CudaVariant(
    "cuda-samples",
    "cuda",
    "one thread a sample, atomics",
    CudaSamples,
    parallel=False,
    reproducible=False,
)

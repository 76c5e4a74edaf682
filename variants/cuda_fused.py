"""Forward, loss and backward of a narrow network in one kernel, X read from memory once."""

from __future__ import annotations

from typing import Any

import numpy as np

from ..engines.cuda import CudaEngine, CudaVariant, Sums
from ..engines.cuda_facts import elements, multiprocessors
from ..engines.cuda_memory import Rows
from ..kernels.cuda.driver.launch import Launch, bound
from ..kernels.cuda.memory.copies import padded
from ..network import Parameters, Shape


class CudaFused(CudaEngine):
    """Two launches an epoch: the sums of blocks of samples, and their sum with the update."""

    @classmethod
    def candidates(cls, shape: Shape, dtype: str) -> list[Any]:
        """Few units a lane in more warps, or more in fewer."""
        return [{"warps": one.warps} for one in _divisions(shape, dtype)]

    @property
    def _division(self) -> Any:
        """How the kernel divides a block among units and samples."""
        found = _divisions(self.shape, self.dtype.name)
        return next(one for one in found if one.warps == self.parameters["warps"])

    def _blocks(self, rows: int) -> int:
        """One block for each multiprocessor, or as many as have samples."""
        return min(multiprocessors(), -(-rows // self._division.block))

    def _device_bytes(self) -> int:
        n, _, M, K = self.shape
        items = self._blocks(n) * elements(self.shape, self.dtype) + n * (M + K)
        return self.dtype.itemsize * items + 8 * self._blocks(n)

    def _prepare(self) -> int:
        from ..kernels.cuda import fused, samples

        n, d, M, K = self.shape
        self._kernel = fused.gradient(
            self.net.sigma, self.net.objective, self.dtype.name, self._division,
            padded(d, self.dtype), K,
        )  # fmt: skip
        blocks = self._blocks(n)
        # Columns that fill a row of W up to 16 bytes are never written, nor read into θ.
        self._gVs = self._empty(blocks, M * padded(d, self.dtype))
        sums_W = np.zeros((blocks, K * padded(M, self.dtype)), self.dtype)
        self._gWs = self._cuda.to_device(sums_W)
        self._losses = self._cuda.device_array(blocks, np.float64)
        self._predict_kernel = samples.predict(self.net.sigma, self.net.objective)
        self._Z, self._F, self._threads = self._empty(M, n), self._empty(n, K), samples.THREADS
        return blocks

    def _sum_rows(self, X: Rows, Y: Any, theta: Parameters) -> tuple[list[Launch], Sums]:
        blocks = self._blocks(len(X))
        sums = self._gVs[:blocks], self._gWs[:blocks], self._losses[:blocks]
        arguments = X.array, Y, *theta, *sums, self.shape.M
        return [bound(self._kernel, blocks, self._division.threads, arguments)], sums

    def _predict_rows(self, X: Any, theta: Parameters, F: np.ndarray) -> None:
        arguments = X, *theta, self._Z, self._F, self.shape.d, self.shape.M
        bound(self._predict_kernel, -(-len(X) // self._threads), self._threads, arguments)()
        self._F[: len(X)].copy_to_host(F)


def _divisions(shape: Shape, dtype: str) -> list[Any]:
    from ..kernels.cuda import fused

    return fused.divisions(dtype, shape.M, padded(shape.d, dtype), shape.K)


def _refuses(shape: Shape, dtype: np.dtype) -> str | None:
    d, M, K = {"float32": (32, 64, 8), "float64": (16, 64, 4)}[dtype.name]
    if shape.d <= d and shape.M <= M and shape.K <= K:
        return None
    return (
        f"is made for narrow networks, d <= {d}, M <= {M} and K <= {K} in {dtype}, got {shape}: "
        "take cuda-tiled"
    )


VARIANT = CudaVariant(
    "cuda-fused",
    "cuda",
    "forward and backward of a narrow network in one kernel",
    CudaFused,
    parallel=False,
    refuses=_refuses,
)

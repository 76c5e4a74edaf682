"""Engines on a CUDA device: data, θ, ∇L, slots and the update stay there."""

from __future__ import annotations

import importlib.util
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..interface import Engine, Problem, Variant, Weights
from ..kernels.cuda.driver.launch import Launch, bound, recorded, wait
from ..kernels.cuda.driver.simulated import in_simulator
from ..kernels.cuda.memory.copies import padded
from ..kernels.formulas.updates import UPDATES, Update
from ..network import Parameters, Shape
from . import tuning
from .cuda_facts import (
    NO_GPU,
    capability,
    device_name,
    device_number,
    elements,
    enough_memory,
    free_memory,
    multiprocessors,
)  # fmt: skip
from .cuda_memory import MOST_KEPT, DeviceWeights, Rows, to_device

Sums = tuple[Any, Any, Any]

_DESCEND = UPDATES["descend"]
_ROWS = 1 << 31  # rows are numbered in 32 bits
NEEDED = (8, 0)  # compute capability: asynchronous copies, and a minimum that keeps NaN


@dataclass(frozen=True)
class CudaVariant(Variant):
    """A variant that runs kernels of Numba CUDA."""

    def unavailable(self) -> str | None:
        """None, or why the variant cannot run here."""
        if importlib.util.find_spec("numba_cuda") is None:
            return "needs the package numba-cuda"
        from numba import cuda

        if not cuda.is_available():
            return NO_GPU
        if in_simulator():
            return None
        try:
            has = capability()
        except Exception as error:  # of a driver or a library
            return f"{NO_GPU} that can be used: {error}"
        needed, found = (".".join(map(str, version)) for version in (NEEDED, has))
        return None if has >= NEEDED else f"needs compute capability {needed}, this GPU has {found}"


class CudaEngine(Engine):
    """Kernels on arrays of the device, whose matrices have rows of a multiple of 16 bytes.

    A subclass gives `_device_bytes`, makes its buffers and kernels in `_prepare`, binds launches to
    their arguments in `_sum_rows`, and in `_loss_rows` where L alone takes fewer, and launches in
    `_predict_rows`. The launches of a call are one graph, kept for the next call on the same
    arrays; what changes between calls is read from memory: θ, and μ where it is another. L is
    written to memory of the host that the device sees.
    """

    def __init__(self, problem: Problem) -> None:
        super().__init__(problem)
        from numba import cuda

        from ..kernels.cuda import sums

        n, d, _, K = self.shape
        if n >= _ROWS:
            raise ValueError(f"X: expected fewer than {_ROWS} rows on a GPU, got {n}")
        self._cuda, self._device = cuda, device_number()
        self.parameters = tuning.chosen(
            type(self).__name__, self.shape, self.dtype.name, device_name(),
            self.candidates(self.shape, self.dtype.name),
        )  # fmt: skip
        size = elements(self.shape, self.dtype)
        held = self.dtype.itemsize * (n * (padded(d, self.dtype) + K) + 2 * size)
        enough_memory(self.shape, held + self._device_bytes(), free_memory())
        self._loss = cuda.mapped_array(1, np.float64)
        self._host_mu = np.zeros(1)
        self._mu = cuda.to_device(self._host_mu)
        self._kept: dict[tuple[Any, ...], tuple[Any, ...]] = {}
        self._missed = 0  # calls in a row that nothing was kept for
        self._lanes = sums.lanes_for(size, self._prepare(), multiprocessors())
        # Compiled here: the first call is a gradient's, and no epoch has to compile.
        matrix = self._empty(1, padded(1, self.dtype))
        losses, pair = cuda.device_array(1, np.float64), Parameters(matrix, matrix)
        self._finish((*pair, losses), pair, pair, 1, update=True)

    @classmethod
    def candidates(cls, shape: Shape, dtype: str) -> list[tuning.Candidate]:
        """The parameters that an engine may have; the first where nothing was measured."""
        return [{}]

    def _device_bytes(self) -> int:
        """Bytes of the subclass's buffers."""
        raise NotImplementedError

    def _prepare(self) -> int:
        """Make buffers and kernels; returns in how many parts ∂L/∂V is summed over n rows."""
        raise NotImplementedError

    def _sum_rows(self, X: Rows, Y: Any, theta: Parameters) -> tuple[list[Launch], Sums]:
        """Launches that sum over rows X and Y (rows, K), bound to their arguments, and their sums.

        The sums are gVs (parts, M ld), gWs (parts, K ld) and losses (parts,).
        """
        raise NotImplementedError

    def _loss_rows(self, X: Rows, Y: Any, theta: Parameters) -> tuple[list[Launch], Any]:
        """As `_sum_rows`, up to the losses (parts,)."""
        launches, (_, _, losses) = self._sum_rows(X, Y, theta)
        return launches, losses

    def _predict_rows(self, X: Any, theta: Parameters, F: np.ndarray) -> None:
        """Write F for at most n rows X on the device."""
        raise NotImplementedError

    def weights(self) -> Weights:
        return DeviceWeights(self.shape, self.dtype)

    def hold(self, X: np.ndarray, Y: np.ndarray) -> tuple[Any, Any]:
        self._kept.clear()  # so that what was held before can go
        return Rows(to_device(X)), Rows(self._cuda.to_device(Y))

    def backpropagate(self, X: Any, Y: Any, theta: Parameters, gradient: Parameters) -> float:
        return self._run("gradient", X, Y, theta, gradient)

    def loss(self, X: Any, Y: Any, theta: Parameters, gradient: Parameters) -> float:
        return self._run("loss", X, Y, theta, gradient)

    def update(
        self, X: Any, Y: Any, weights: Weights, update: Update, scalars: tuple[float, ...]
    ) -> float:
        if update is not _DESCEND:
            return super().update(X, Y, weights, update, scalars)
        (mu,) = scalars
        if mu != self._host_mu[0]:
            self._host_mu[0] = mu
            self._mu.copy_to_device(self._host_mu)
        return self._run("descent", X, Y, weights.theta, weights.gradient)

    def forward(self, X: np.ndarray, theta: Parameters, F: np.ndarray) -> None:
        self._check_device()
        for start in range(0, len(X), self.shape.n):
            rows = slice(start, start + self.shape.n)
            self._predict_rows(to_device(X[rows]), theta, F[rows])

    def _run(
        self, purpose: str, X: Rows, Y: Rows, theta: Parameters, gradient: Parameters
    ) -> float:
        """L, after ∇L is in `gradient`, θ has descended, or nothing else, as the purpose says."""
        self._check_device()
        arrays = X, Y, theta.V, gradient.V
        key = purpose, *map(id, arrays)  # no other's while they are kept
        kept = self._kept.get(key)
        if kept is not None:
            self._missed = 0
            kept[0]()
        elif len(self._kept) < MOST_KEPT or len(X) == self.shape.n:
            kept = self._kept[key] = recorded(self._bind(purpose, X, Y, theta, gradient)), arrays
            kept[0]()
        else:  # in turns, those that are kept would push each other out before they are used again
            self._missed += 1
            if self._missed > MOST_KEPT:  # they are of batches that do not come any more
                self._kept.clear()
                self._missed = 0
            for launch in self._bind(purpose, X, Y, theta, gradient):
                launch()
        wait()
        return float(self._loss[0])

    def _check_device(self) -> None:
        """Raise RuntimeError where the calling thread has another GPU than the plan."""
        if (current := device_number()) != self._device:
            raise RuntimeError(
                f"device: expected GPU {self._device}, on which the plan was made, got {current}: "
                f"numba.cuda.select_device({self._device}) takes it in this thread"
            )

    def _bind(
        self, purpose: str, X: Rows, Y: Rows, theta: Parameters, gradient: Parameters
    ) -> list[Launch]:
        """The launches of a call; the last one adds the parts."""
        rows = len(X)
        if purpose == "loss":
            launches, losses = self._loss_rows(X, Y.array, theta)
            parts = *theta, losses  # the block that adds losses reads no others
            return [*launches, self._finish(parts, theta, gradient, rows, blocks=1)]
        launches, parts = self._sum_rows(X, Y.array, theta)
        return [*launches, self._finish(parts, theta, gradient, rows, purpose == "descent")]

    def _finish(
        self, parts: Sums, theta: Parameters, gradient: Parameters, rows: int,
        update: bool = False, blocks: int | None = None,
    ) -> Launch:  # fmt: skip
        """The launch that adds the parts and, if asked for, descends."""
        from ..kernels.cuda import sums

        grid = sums.finish_grid(*theta, self._lanes) if blocks is None else blocks
        arguments = (
            *parts, *theta, *gradient, self._loss, self.shape.d, self.shape.M, 1.0 / rows, self._mu,
        )  # fmt: skip
        kernel = sums.finish(self.dtype.name, self._lanes, update)
        return bound(kernel, grid, (sums.columns(self._lanes), self._lanes), arguments)

    def _empty(self, *shape: int) -> Any:
        return self._cuda.device_array(shape, self.dtype)

"""Plans on a CUDA device: data, parameters, sums and the update stay there."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..interface import Plan, Problem, Variant
from ..kernels.cuda.driver.launch import Launch, bound, recorded, wait
from ..kernels.cuda.memory.copies import padded
from ..kernels.formulas.updates import Update
from ..machine.hardware import gpu_count
from ..network import Parameters, Shape
from . import tuning

Sums = tuple[Any, Any, Any]

_STAGING = 1 << 26  # bytes of a block of rows on its way to the device
_ROWS = 1 << 31  # rows are numbered in 32 bits
_MULTIPROCESSORS = 132  # where the device does not say, as in a simulator


@dataclass(frozen=True)
class CudaVariant(Variant):
    """A variant that runs kernels of Numba CUDA."""

    def unavailable(self) -> str | None:
        """None, or why the variant cannot run here."""
        if importlib.util.find_spec("numba_cuda") is None:
            return "needs the package numba-cuda"
        from numba import cuda

        return None if cuda.is_available() else "no NVIDIA GPU"


class CudaPlan(Plan):
    """X, Y, V, W and ∇L on the device, matrices with rows of a multiple of 16 bytes.

    A subclass gives `_device_bytes`, makes its buffers and kernels in `_prepare`, binds launches to
    their arguments in `_sum_rows`, and launches in `_predict_rows`. The launches of an epoch are
    one graph; what changes between epochs is read from memory: θ, and μ where it is another. L is
    written to memory of the host that the device sees.
    """

    def __init__(self, problem: Problem) -> None:
        super().__init__(problem)
        from numba import cuda

        from ..kernels.cuda import sums

        n, d, M, K = self.shape
        self._cuda = cuda
        self.parameters = tuning.chosen(
            type(self).__name__, self.shape, self.dtype.name, device_name(),
            self.candidates(self.shape, self.dtype.name),
        )  # fmt: skip
        ld_d, ld_M = padded(d, self.dtype), padded(M, self.dtype)
        fixed = self.dtype.itemsize * (n * (ld_d + K) + 2 * (M * ld_d + K * ld_M))
        self._enough_memory(fixed + self._device_bytes())
        self._host_V, self._host_W = (
            np.zeros((M, ld_d), self.dtype),
            np.zeros((K, ld_M), self.dtype),
        )
        self._loss = cuda.mapped_array(1, np.float64)
        self._host_mu = np.zeros(1)
        self._mu = cuda.to_device(self._host_mu)
        self._dV, self._dW = cuda.to_device(self._host_V), cuda.to_device(self._host_W)
        self._gV, self._gW = cuda.to_device(self._host_V), cuda.to_device(self._host_W)
        self._set_theta(problem.theta)
        self.X = self._to_device(problem.X)
        self.Y = cuda.to_device(problem.Y)
        self._prepare()
        launches, parts = self._sum_rows(self.X, self.Y)
        size = self._dV.size + self._dW.size
        self._lanes = sums.lanes_for(size, len(parts[0]), multiprocessors())
        self._epoch = recorded([*launches, self._finish(parts, n, update=True)])

    @classmethod
    def candidates(cls, shape: Shape, dtype: str) -> list[tuning.Candidate]:
        """The parameters that a plan may have; the first where nothing was measured."""
        return [{}]

    def _device_bytes(self) -> int:
        """Bytes of the subclass's buffers."""
        raise NotImplementedError

    def _prepare(self) -> None:
        """Make buffers and kernels."""
        raise NotImplementedError

    def _sum_rows(self, X: Any, Y: Any) -> tuple[list[Launch], Sums]:
        """Launches that sum over rows on the device, bound to their arguments, and their sums.

        The sums are gVs (parts, M ld), gWs (parts, K ld) and losses (parts,).
        """
        raise NotImplementedError

    def _predict_rows(self, X: Any, F: np.ndarray) -> None:
        """Write F for at most n rows X on the device."""
        raise NotImplementedError

    def _finish(self, parts: Sums, rows: int, update: bool) -> Launch:
        """The launch that adds the parts and, if asked for, updates θ."""
        from ..kernels.cuda import sums

        grid = sums.finish_grid(self._dV, self._dW, self._lanes)
        threads = (sums.columns(self._lanes), self._lanes)
        arguments = (
            *parts, self._dV, self._dW, self._gV, self._gW, self._loss, self.shape.d, self.shape.M,
            1.0 / rows, self._mu,
        )  # fmt: skip
        return bound(sums.finish(self.dtype.name, self._lanes, update), grid, threads, arguments)

    def _run(self, *launches: Callable[[], None]) -> float:
        self._cuda.current_context()  # the calling thread may be a new one
        for launch in launches:
            launch()
        wait()
        return float(self._loss[0])

    def _step(self, mu: float) -> float:
        if mu != self._host_mu[0]:
            self._host_mu[0] = mu
            self._mu.copy_to_device(self._host_mu)
        return self._run(self._epoch)

    def _sum_gradient(self, X: Any, Y: Any) -> float:
        """Return L over those rows on the device and leave ∇L there."""
        launches, parts = self._sum_rows(X, Y)
        return self._run(*launches, self._finish(parts, len(X), update=False))

    def _backpropagate(self, X: Any, Y: Any, gradient: Parameters) -> float:
        loss = self._sum_gradient(X, Y)
        for source, host, target in (
            (self._gV, self._host_V, gradient.V),
            (self._gW, self._host_W, gradient.W),
        ):
            source.copy_to_host(host)
            target[...] = host[:, : target.shape[1]]
        return loss

    def _forward(self, X: np.ndarray, F: np.ndarray) -> None:
        for start in range(0, len(X), self.shape.n):
            rows = slice(start, start + self.shape.n)
            self._predict_rows(self._to_device(X[rows]), F[rows])

    def _update(self, update: Update, scalars: tuple[float, ...], rows: slice) -> float:
        from ..kernels.cuda import updates

        loss = self._sum_gradient(self.X[rows], self.Y[rows])
        kernel = updates.elementwise(update)
        columns = self.shape.d, self.shape.M
        arrays = zip((self._dV, self._dW), (self._gV, self._gW), *self._slots, strict=True)
        for (W, *others), width in zip(arrays, columns, strict=True):
            blocks = -(-W.size // updates.THREADS)
            bound(kernel, blocks, updates.THREADS, (W, *others, width, scalars))()
        return loss

    def _get_slots(self) -> tuple[Parameters, ...]:
        return tuple(self._on_host(*slot) for slot in self._slots)

    def _set_slots(self, slots: tuple[Parameters, ...]) -> None:
        needed = len(slots) * self.dtype.itemsize * (self._dV.size + self._dW.size)
        self._enough_memory(needed)
        self._slots = tuple(
            Parameters(self._empty(*self._dV.shape), self._empty(*self._dW.shape)) for _ in slots
        )
        for device, values in zip(self._slots, slots, strict=True):
            self._put(device, values)

    def _get_theta(self) -> Parameters:
        return self._on_host(self._dV, self._dW)

    def _set_theta(self, theta: Parameters) -> None:
        self._put((self._dV, self._dW), theta)

    def _on_host(self, V: Any, W: Any) -> Parameters:
        V, W = V.copy_to_host(), W.copy_to_host()
        return Parameters(V[:, : self.shape.d].copy(), W[:, : self.shape.M].copy())

    def _put(self, devices: tuple[Any, Any], values: Parameters) -> None:
        """Copy arrays shaped as θ to the device, rows filled up with zeros."""
        hosts = self._host_V, self._host_W
        for device, host, value in zip(devices, hosts, values, strict=True):
            host[...] = 0
            host[:, : value.shape[1]] = value
            device.copy_to_device(host)

    def _empty(self, *shape: int) -> Any:
        return self._cuda.device_array(shape, self.dtype)

    def _to_device(self, X: np.ndarray) -> Any:
        """X (n, d) on the device, its rows filled up with zeros."""
        columns = padded(X.shape[1], self.dtype)
        if columns == X.shape[1]:
            return self._cuda.to_device(X)
        device = self._cuda.device_array((len(X), columns), self.dtype)
        rows = min(len(X), max(1, _STAGING // (columns * self.dtype.itemsize)))
        block = np.zeros((rows, columns), self.dtype)
        for start in range(0, len(X), rows):
            part = X[start : start + rows]
            block[: len(part), : X.shape[1]] = part
            device[start : start + len(part)].copy_to_device(block[: len(part)])
        return device

    def _enough_memory(self, needed: int) -> None:
        if self.shape.n >= _ROWS:
            raise ValueError(f"X: expected fewer than {_ROWS} rows on a GPU, got {self.shape.n}")
        enough_memory(self.shape, needed, self._cuda.current_context().get_memory_info().free)


def device_name() -> str:
    """The name of the current device, as in "NVIDIA H200"."""
    from numba import cuda

    name = getattr(cuda.get_current_device(), "name", "a simulated GPU")
    return name.decode() if isinstance(name, bytes) else str(name)


def compute_capability() -> tuple[int, int]:
    """The compute capability of the current device."""
    from numba import cuda

    return tuple(cuda.get_current_device().compute_capability)[:2]


def multiprocessors() -> int:
    """Multiprocessors of the current device."""
    from numba import cuda

    return int(getattr(cuda.get_current_device(), "MULTIPROCESSOR_COUNT", _MULTIPROCESSORS))


def lacks_gpu() -> str | None:
    """None, or that there is no GPU, found without importing a library that uses one."""
    return None if gpu_count() else "no NVIDIA GPU"


def enough_memory(shape: Shape, needed: int, free: int) -> None:
    """Raise MemoryError, before anything is allocated, if so many bytes are not free on a GPU."""
    if needed > free:
        raise MemoryError(
            f"a plan on the GPU with {shape}: needs {needed / 2**30:.2f} GiB of its memory, "
            f"{free / 2**30:.2f} GiB are free"
        )


def elements(shape: Shape, dtype: np.dtype) -> int:
    """Elements of V and W with their padding."""
    return shape.M * padded(shape.d, dtype) + shape.K * padded(shape.M, dtype)

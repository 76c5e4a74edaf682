"""The whole batch at once with CuPy: what a careful user of NumPy writes for a GPU.

Products are cuBLAS's, in float32 and not in TF32 unless CUPY_TF32 is set, which is refused. σ and
σ′ are one kernel, which `cupy.fuse` makes of the formulas that NumPy computes.
"""

from __future__ import annotations

import os
from functools import cache
from typing import Any

import numpy as np

from ..engines.arrays import BatchEngine, in_place, workspace
from ..engines.cuda import enough_memory, lacks_gpu
from ..interface import Problem, Variant
from ..kernels.formulas.activations import Activation
from ..kernels.formulas.updates import Update
from ..network import Parameters


class _Traced(np.lib.mixins.NDArrayOperatorsMixin):
    """What `cupy.fuse` hands to a function, so that NumPy's functions call CuPy's on it."""

    def __init__(self, inner: Any) -> None:
        self.inner = inner

    def __array_ufunc__(self, ufunc, method, *inputs, **kwargs):
        return self.__array_function__(ufunc, (), inputs, kwargs)

    def __array_function__(self, function, types, arguments, kwargs):
        import cupy
        from cupyx.scipy import special

        name = function.__name__
        own = getattr(cupy, name, None) or getattr(special, name)
        return _Traced(own(*(getattr(a, "inner", a) for a in arguments), **kwargs))

    def __setitem__(self, index: Any, value: Any) -> None:
        self.inner[index] = value.inner


@cache  # what is compiled for one plan serves the next
def _fused(sigma: Activation) -> list[Any]:
    """`in_place` of σ, a kernel each."""
    import cupy

    def fuse(function):
        def fused(*arrays):
            function(*map(_Traced, arrays))

        return cupy.fuse(fused)

    return [fuse(function) for function in in_place(sigma)]


class Cupy(BatchEngine):
    """As `BatchEngine`, on the device: X, Y, θ, ∇L and the update stay there."""

    V: Any  # CuPy's arrays
    W: Any
    _gradient: Any
    _slots: Any

    def __init__(self, problem: Problem) -> None:
        import cupy

        self.xp = cupy
        shape, dtype = problem.shape, problem.X.dtype
        self.block = shape.n * max(shape.M, shape.K)  # all rows at once
        copies = (shape.n + 2 * shape.M) * (shape.d + shape.K)  # X, Y, θ and ∇L
        temporary = shape.n * shape.K  # elements of an array that the loss makes
        needed = dtype.itemsize * copies + workspace(shape, dtype.itemsize, temporary)
        pool = cupy.get_default_memory_pool()
        enough_memory(shape, needed, cupy.cuda.runtime.memGetInfo()[0] + pool.free_bytes())
        X, Y = cupy.asarray(problem.X), cupy.asarray(problem.Y)
        theta = Parameters(*map(cupy.asarray, problem.theta))
        super().__init__(problem._replace(X=X, Y=Y, theta=theta))
        self._value, self._value_and_slope = _fused(self.net.sigma)

    def _backpropagate(self, X: Any, Y: Any, gradient: Parameters) -> float:
        loss = self._differentiate(X, Y, self._gradient)
        if gradient is not self._gradient:
            for device, host in zip(self._gradient, gradient, strict=True):
                device.get(out=host)
        return loss

    def _update(self, update: Update, scalars: tuple[float, ...], rows: slice) -> float:
        loss = self._loss_and_gradient(rows, self._gradient)
        for arrays in zip((self.V, self.W), self._gradient, *self._slots, strict=True):
            weights, _, *slots = arrays
            new = update.formula(*arrays, *scalars)
            for array, values in zip((weights, *slots), new, strict=True):
                array[...] = values
        return loss

    def _get_slots(self) -> tuple[Parameters, ...]:
        return tuple(Parameters(*(array.get() for array in slot)) for slot in self._slots)

    def _set_slots(self, slots: tuple[Parameters, ...]) -> None:
        self._slots = tuple(Parameters(*map(self.xp.asarray, slot)) for slot in slots)

    def _forward(self, X: np.ndarray, F: np.ndarray) -> None:
        device = self.xp.empty(F.shape, self.dtype)
        self._outputs(self.xp.asarray(X), device)
        device.get(out=F)

    def _get_theta(self) -> Parameters:
        return Parameters(self.V.get(), self.W.get())

    def _set_theta(self, theta: Parameters) -> None:
        self.V.set(theta.V)
        self.W.set(theta.W)


def _lacks() -> str | None:
    if os.environ.get("CUPY_TF32", "0") != "0":
        return "CUPY_TF32 is set, which rounds float32 to TF32: unset it"
    return lacks_gpu()


VARIANT = Variant(
    "cupy",
    "cuda",
    "the whole batch at once: what a careful CuPy user writes",
    Cupy,
    requires=("cupy",),
    lacks=_lacks,
    parallel=False,
    reproducible=False,
)

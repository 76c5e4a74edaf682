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
from ..engines.cuda_facts import enough_memory, lacks_gpu
from ..interface import Problem, Variant, Weights
from ..kernels.formulas.activations import Activation
from ..kernels.formulas.updates import UPDATES, Update
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


class CupyWeights(Weights):
    """θ, ∇L and slots as CuPy's arrays."""

    def room(self) -> Parameters:
        import cupy

        _, d, M, K = self.shape
        return Parameters(cupy.empty((M, d), self.dtype), cupy.empty((K, M), self.dtype))

    def put(self, values: Parameters, arrays: Any) -> None:
        for array, value in zip(arrays, values, strict=True):
            array.set(value)

    def get(self, arrays: Any) -> Parameters:
        return Parameters(*(array.get() for array in arrays))

    def apply(self, update: Update, scalars: tuple[float, ...]) -> None:
        """The formula by CuPy's functions."""
        if update is UPDATES["descend"]:
            return super().apply(update, scalars)  # in place
        for arrays in zip(self.theta, self.gradient, *self.slots, strict=True):
            weights, _, *slots = arrays
            new = update.formula(*arrays, *scalars)
            for array, values in zip((weights, *slots), new, strict=True):
                array[...] = values


class Cupy(BatchEngine):
    """As `BatchEngine`, on the device: X, Y, θ, ∇L and the update stay there."""

    def __init__(self, problem: Problem) -> None:
        import cupy

        self.xp = cupy
        shape, dtype = problem.shape, problem.dtype
        self.block = shape.n * max(shape.M, shape.K)  # all rows at once
        copies = (shape.n + 2 * shape.M) * (shape.d + shape.K)  # X, Y, θ and ∇L
        temporary = shape.n * shape.K  # elements of an array that the loss makes
        needed = dtype.itemsize * copies + workspace(shape, dtype.itemsize, temporary)
        pool = cupy.get_default_memory_pool()
        enough_memory(shape, needed, cupy.cuda.runtime.memGetInfo()[0] + pool.free_bytes())
        super().__init__(problem)
        self._value, self._value_and_slope = _fused(self.net.sigma)

    def weights(self) -> Weights:
        return CupyWeights(self.shape, self.dtype)

    def hold(self, X: np.ndarray, Y: np.ndarray) -> tuple[Any, Any]:
        return self.xp.asarray(X), self.xp.asarray(Y)

    def backpropagate(self, X: Any, Y: Any, theta: Parameters, gradient: Parameters) -> float:
        return float(self._differentiate(X, Y, theta, gradient))

    def forward(self, X: np.ndarray, theta: Parameters, F: np.ndarray) -> None:
        device = self.xp.empty(F.shape, self.dtype)
        self._outputs(self.xp.asarray(X), theta, device)
        device.get(out=F)


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

"""JAX, as its users write it: jax.value_and_grad under jax.jit, θ donated.

JAX starts its threads once a process, and nothing changes their number later: the first plan's
`threads` decides it, and later plans run on as many. Where somebody else started JAX before, it has
a thread for each CPU. On a GPU it takes memory as it needs it, where a plan started it, and not
three quarters at once; its products are asked for in the highest precision, which is float32 and
not TF32. `THREE_PASSES`, in no list, is asked for three passes of TF32, as `cuda-tensor` takes.
"""

from __future__ import annotations

import importlib.util
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import cache, partial
from typing import Any

import numpy as np

from ..engines.cuda_facts import enough_memory, lacks_gpu
from ..interface import Engine, ForeignWeights, Problem, Variant, Weights
from ..kernels.formulas.updates import UPDATES, Update
from ..machine.forks import refuse, renewed
from ..network import Network, Parameters, Shape

_THREADS = "PJRT_NPROC"  # both are read when JAX starts; there is no call that says them
_PREALLOCATE = "XLA_PYTHON_CLIENT_PREALLOCATE"
_starting = renewed(sys.modules[__name__], "_starting")
_process: int | None = None  # the one that started JAX's threads


@contextmanager
def float64() -> Iterator[None]:
    """Let JAX compute in float64 inside the context, without a change to the process's setting.

    Raises RuntimeError in a forked child of a process that did so: JAX would wait there forever for
    threads that were not copied.
    """
    import jax

    global _process
    _process = _process or os.getpid()
    refuse(_process, "JAX")
    with jax.enable_x64(True):
        yield


def place(name: str, threads: int) -> Any:
    """JAX's CPU or GPU, with so many threads if this is what starts it."""
    import jax

    settings = {_THREADS: str(threads), _PREALLOCATE: "false"}
    with _starting:
        before = {variable: os.environ.get(variable) for variable in settings}
        os.environ.update(settings)
        try:
            return jax.devices(name)[0]
        finally:
            for variable, value in before.items():
                if value is None:
                    del os.environ[variable]
                else:
                    os.environ[variable] = value


@cache  # what is compiled for one plan serves the next
def functions(net: Network, precision: str = "highest") -> tuple[Callable, Callable, Callable]:
    """(θ, X, Y, μ) ↦ (θ − μ ∇L, L), (θ, X, Y) ↦ (L, ∇L) and (θ, X) ↦ F, compiled when called."""
    import jax
    import jax.numpy as jnp

    sigma = getattr(jax.nn, net.activation)
    if net.activation == "gelu":
        sigma = partial(sigma, approximate=False)
    product = partial(jnp.matmul, precision=precision)
    link, losses = {
        "squared": (jax.nn.identity, lambda U, Y: (U - Y) ** 2),
        "squared_logistic": (jax.nn.sigmoid, lambda U, Y: (jax.nn.sigmoid(U) - Y) ** 2),
        "logistic": (jax.nn.sigmoid, lambda U, Y: jax.nn.softplus(-Y * U)),
        "softmax": (jax.nn.softmax, lambda U, Y: -Y * jax.nn.log_softmax(U)),
    }[net.loss]

    def outputs(theta, X):
        return product(sigma(product(X, theta.V.T)), theta.W.T)

    def loss(theta, X, Y):
        return losses(outputs(theta, X), Y).sum(1).mean(dtype=jnp.float64)

    differentiate = jax.value_and_grad(loss)

    def step(theta, X, Y, mu):
        value, gradient = differentiate(theta, X, Y)
        return jax.tree.map(lambda weights, slope: weights - mu * slope, theta, gradient), value

    def predict(theta, X):
        return link(outputs(theta, X))

    return jax.jit(step, donate_argnums=0), jax.jit(differentiate), jax.jit(predict)


class _Arrays(ForeignWeights):
    """θ, ∇L and slots as lists of JAX's arrays, which nobody can write to."""

    def __init__(self, shape: Shape, dtype: np.dtype, place: Any) -> None:
        self._place = place
        super().__init__(shape, dtype)

    def room(self) -> list[Any]:
        values = super().room()
        arrays: list[Any] = [None, None]
        self.put(values, arrays)
        return arrays

    def put(self, values: Parameters, arrays: list[Any]) -> None:
        import jax

        with float64():  # a step gives the memory of θ away
            arrays[:] = jax.device_put(list(values), self._place, may_alias=False)

    def get(self, arrays: list[Any]) -> Parameters:
        return Parameters(*map(np.array, arrays))


class Jax(Engine):
    """One compiled call an epoch; X, Y and θ stay with JAX."""

    def __init__(
        self, problem: Problem, device: str = "cpu", precision: str = "highest"
    ) -> None:  # fmt: skip
        super().__init__(problem)
        self._data: tuple[Any, ...] = ()
        self._place = place(device, self.threads)
        if device == "cuda":
            enough_memory(self.shape, _needed(self.shape, self.dtype.itemsize), _free(self._place))
        self._epoch, self._differentiate, self._predict = functions(self.net, precision)

    def weights(self) -> Weights:
        return _Arrays(self.shape, self.dtype, self._place)

    def hold(self, X: np.ndarray, Y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        import jax

        with float64():
            first = not self._data
            self._data = tuple(jax.device_put(array, self._place) for array in (X, Y))
            if first:
                self._epoch(Parameters(*self.weights().theta), *self._data, 0.0)  # compiles
        return X, Y  # to slice JAX's arrays would compile for every slice

    def _held(self, X: np.ndarray, Y: np.ndarray) -> tuple[Any, Any]:
        return self._data if len(X) == self.shape.n else (X, Y)

    def update(self, X, Y, weights: Weights, update: Update, scalars) -> float:
        if update is not UPDATES["descend"] or len(X) != self.shape.n:
            return super().update(X, Y, weights, update, scalars)
        with float64():
            weights.theta[:], loss = self._epoch(
                Parameters(*weights.theta), *self._data, scalars[0]
            )
            return float(loss)

    def backpropagate(self, X: np.ndarray, Y: np.ndarray, theta: Any, gradient: Any) -> float:
        with float64():
            loss, gradient[:] = self._differentiate(Parameters(*theta), *self._held(X, Y))
            return float(loss)

    def forward(self, X: np.ndarray, theta: Any, F: np.ndarray) -> None:
        with float64():
            F[...] = self._predict(Parameters(*theta), X)


def _workspace(shape, itemsize, threads):
    copies = shape.d + shape.K  # of X and Y, which JAX uses in place where they are well aligned
    return itemsize * shape.n * (copies + 3 * shape.M + 4 * shape.K)


def _needed(shape, itemsize):
    """Bytes of a plan and a step on a GPU."""
    return _workspace(shape, itemsize, 0) + 3 * itemsize * shape.M * (shape.d + shape.K)


def _free(place):
    """Bytes of the GPU that JAX can have."""
    found = place.memory_stats()
    return found["bytes_limit"] - found["bytes_in_use"]


def _lacks_cuda() -> str | None:
    if reason := lacks_gpu():
        return reason
    plugins = ("jax_cuda12_plugin", "jax_cuda13_plugin")  # to look for devices would start JAX
    found = any(importlib.util.find_spec(plugin) for plugin in plugins)
    return None if found else "JAX was installed without CUDA"


def _lacks_three_passes() -> str | None:
    if reason := _lacks_cuda():
        return reason
    import jax

    presets = getattr(jax.lax, "DotAlgorithmPreset", None)
    return None if hasattr(presets, _X3) else f"this JAX knows no {_X3}"


def _refuses_three_passes(shape: Shape, dtype: np.dtype) -> str | None:
    return None if dtype == np.float32 else f"is made for float32, got {dtype}: take jax"


_X3 = "TF32_TF32_F32_X3"
_SUMMARY = "JAX: value_and_grad under jit"
VARIANT = Variant(
    "jax",
    "cpu",
    _SUMMARY,
    Jax,
    _workspace,
    ("jax",),
    elsewhere=(
        Variant(
            "jax",
            "cuda",
            _SUMMARY,
            partial(Jax, device="cuda"),
            requires=("jax",),
            lacks=_lacks_cuda,
            parallel=False,
            reproducible=False,
            by_name=True,
        ),
    ),
    by_name=True,
)

THREE_PASSES = replace(
    VARIANT.on("cuda"),
    name="jax-tf32x3",
    summary="JAX, three passes of TF32 at near-float32 accuracy",
    make=partial(Jax, device="cuda", precision=_X3),
    lacks=_lacks_three_passes,
    refuses=_refuses_three_passes,
)

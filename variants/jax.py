"""JAX on the CPU, as its users write it: jax.value_and_grad under jax.jit, θ donated.

JAX starts its threads once a process, and nothing changes their number later: the first plan's
`threads` decides it, and later plans run on as many. Where somebody else started JAX before, it has
a thread for each CPU.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache, partial
from typing import Any

import numpy as np

from ..interface import Plan, Problem, Variant
from ..network import Network, Parameters

_THREADS = "PJRT_NPROC"  # read when JAX starts; there is no call that says it
_starting = threading.Lock()
_process: int | None = None  # the one that started JAX's threads


@contextmanager
def _float64() -> Iterator[None]:
    """Let JAX compute in float64 inside the context, without a change to the process's setting.

    Raises RuntimeError in a forked child of a process that did so: JAX would wait there forever for
    threads that were not copied.
    """
    import jax

    global _process
    _process = _process or os.getpid()
    if _process != os.getpid():
        raise RuntimeError(
            f"threads: process {os.getpid()} was forked from process {_process} after that had run "
            "JAX, and its threads were not copied: start processes with "
            "multiprocessing.get_context('spawn')"
        )
    with jax.enable_x64(True):
        yield


def _device(threads: int) -> Any:
    """JAX's CPU, with so many threads if this is what starts it."""
    import jax

    with _starting:
        before = os.environ.get(_THREADS)
        os.environ[_THREADS] = str(threads)
        try:
            return jax.devices("cpu")[0]
        finally:
            if before is None:
                del os.environ[_THREADS]
            else:
                os.environ[_THREADS] = before


@cache  # what is compiled for one plan serves the next
def _functions(net: Network) -> tuple[Callable, Callable, Callable]:
    """(θ, X, Y, μ) ↦ (θ − μ ∇L, L), (θ, X, Y) ↦ (L, ∇L) and (θ, X) ↦ F, compiled when called."""
    import jax
    import jax.numpy as jnp

    sigma = getattr(jax.nn, net.activation)
    if net.activation == "gelu":
        sigma = partial(sigma, approximate=False)
    link, losses = {
        "squared": (jax.nn.identity, lambda U, Y: (U - Y) ** 2),
        "squared_logistic": (jax.nn.sigmoid, lambda U, Y: (jax.nn.sigmoid(U) - Y) ** 2),
        "logistic": (jax.nn.sigmoid, lambda U, Y: jax.nn.softplus(-Y * U)),
        "softmax": (jax.nn.softmax, lambda U, Y: -Y * jax.nn.log_softmax(U)),
    }[net.loss]

    def outputs(theta, X):
        return sigma(X @ theta.V.T) @ theta.W.T

    def loss(theta, X, Y):
        return losses(outputs(theta, X), Y).sum(1).mean(dtype=jnp.float64)

    differentiate = jax.value_and_grad(loss)

    def step(theta, X, Y, mu):
        value, gradient = differentiate(theta, X, Y)
        return jax.tree.map(lambda weights, slope: weights - mu * slope, theta, gradient), value

    def predict(theta, X):
        return link(outputs(theta, X))

    return jax.jit(step, donate_argnums=0), jax.jit(differentiate), jax.jit(predict)


class Jax(Plan):
    """One compiled call an epoch; X, Y and θ stay with JAX."""

    _theta: Parameters  # of JAX's arrays

    def __init__(self, problem: Problem) -> None:
        super().__init__(problem)
        import jax

        self._put = partial(jax.device_put, device=_device(self.threads))
        self._epoch, self._differentiate, self._predict = _functions(self.net)
        with _float64():
            self._data = self._put(self.X), self._put(self.Y)
        self._set_theta(problem.theta)
        self._step(0.0)  # compiles
        self._set_theta(problem.theta)

    def _step(self, mu: float) -> float:
        with _float64():
            self._theta, loss = self._epoch(self._theta, *self._data, mu)
            return float(loss)

    def _backpropagate(self, X: np.ndarray, Y: np.ndarray, gradient: Parameters) -> float:
        with _float64():
            loss, slopes = self._differentiate(self._theta, X, Y)
            gradient.V[...], gradient.W[...] = slopes
            return float(loss)

    def _forward(self, X: np.ndarray, F: np.ndarray) -> None:
        with _float64():
            F[...] = self._predict(self._theta, X)

    def _get_theta(self) -> Parameters:
        return Parameters(*(np.array(weights) for weights in self._theta))

    def _set_theta(self, theta: Parameters) -> None:
        with _float64():
            self._theta = self._put(theta, may_alias=False)  # a step gives its memory away


def _workspace(shape, itemsize, threads):
    copies = shape.d + shape.K  # of X and Y, which JAX uses in place where they are well aligned
    return itemsize * shape.n * (copies + 3 * shape.M + 4 * shape.K)


VARIANT = Variant(
    "jax",
    "cpu",
    "JAX: value_and_grad under jit",
    Jax,
    _workspace,
    ("jax",),
)

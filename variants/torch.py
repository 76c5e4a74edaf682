"""PyTorch on the CPU, as its users write it: autograd, and autograd under torch.compile.

X, Y, V and W are tensors, and NumPy arrays that share their memory. The number of PyTorch's threads
is the process's: plans take turns, and put it back after every call.
"""

from __future__ import annotations

import os
import shutil
import sys
import threading
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from types import FunctionType

import numpy as np

from ..interface import Plan, Problem, Variant
from ..network import Network, Parameters

_one_at_a_time = threading.Lock()
_process: int | None = None  # the one that started PyTorch's threads


@contextmanager
def _torch_threads(threads: int) -> Iterator[None]:
    """Let PyTorch use `threads` threads inside the context; put the setting back after.

    Raises RuntimeError in a forked child of a process that did so: PyTorch would wait there forever
    for threads that were not copied.
    """
    import torch

    global _process
    _process = _process or os.getpid()
    if _process != os.getpid():
        raise RuntimeError(
            f"threads: process {os.getpid()} was forked from process {_process} after that had run "
            "PyTorch, and its threads were not copied: start processes with "
            "multiprocessing.get_context('spawn')"
        )
    with _one_at_a_time:
        before = torch.get_num_threads()
        if before != threads:
            torch.set_num_threads(threads)
        try:
            yield
        finally:
            if before != threads:
                torch.set_num_threads(before)


def _identity(A):
    return A


def _functions(net: Network) -> tuple[Callable, Callable, Callable]:
    """(V, W, X) ↦ U, h and (U, Y) ↦ ℓ (n,) in PyTorch's own functions."""
    import torch
    from torch.nn import functional

    # Beyond its threshold it returns its argument: the default of 20 would cost float64 digits.
    softplus = partial(functional.softplus, threshold=40.0)
    special: dict[str, Callable] = {"identity": _identity, "softplus": softplus}
    sigma = special.get(net.activation) or getattr(functional, net.activation)
    forms: dict[str, tuple[Callable, Callable]] = {
        "squared": (_identity, lambda U, Y: (U - Y).square().sum(1)),
        "squared_logistic": (torch.sigmoid, lambda U, Y: (torch.sigmoid(U) - Y).square().sum(1)),
        "logistic": (torch.sigmoid, lambda U, Y: softplus(-Y * U).sum(1)),
        "softmax": (
            partial(torch.softmax, dim=1),
            partial(functional.cross_entropy, reduction="none"),
        ),
    }
    link, losses = forms[net.loss]

    def outputs(V, W, X):
        return sigma(X @ V.T) @ W.T

    return outputs, link, losses


class Torch(Plan):
    """L by PyTorch's own functions, ∇L by autograd, the update in place."""

    def __init__(self, problem: Problem) -> None:
        super().__init__(problem)
        import torch

        self._torch = torch
        self._outputs, self._link, self._losses = _functions(self.net)
        # Copies begin at a multiple of 64 bytes. Where an array begins changes bits of MKL's sums.
        self._data = torch.tensor(self.X), torch.tensor(self.Y)
        self._theta = tuple(torch.tensor(a, requires_grad=True) for a in (self.V, self.W))
        self.X, self.Y, self.V, self.W = (a.detach().numpy() for a in (*self._data, *self._theta))

    def _loss(self, V, W, X, Y):
        return self._losses(self._outputs(V, W, X), Y).mean(dtype=self._torch.float64)

    def _differentiate(self, X, Y):
        loss = self._loss(*self._theta, X, Y)
        return loss.item(), self._torch.autograd.grad(loss, self._theta)

    def _step(self, mu: float) -> float:
        with _torch_threads(self.threads):
            loss, gradient = self._differentiate(*self._data)
            with self._torch.no_grad():
                for weights, slope in zip(self._theta, gradient, strict=True):
                    weights.sub_(slope, alpha=mu)
        return loss

    def _backpropagate(self, X: np.ndarray, Y: np.ndarray, gradient: Parameters) -> float:
        with _torch_threads(self.threads):
            loss, slopes = self._differentiate(self._torch.from_numpy(X), self._torch.from_numpy(Y))
        gradient.V[...], gradient.W[...] = (slope.numpy() for slope in slopes)
        return loss

    def _forward(self, X: np.ndarray, F: np.ndarray) -> None:
        with _torch_threads(self.threads), self._torch.inference_mode():
            U = self._outputs(*self._theta, self._torch.tensor(X))
            F[...] = self._link(U).numpy()


class TorchCompiled(Torch):
    """L and ∇L compiled together for the shapes of X and Y; what has other shapes runs eagerly."""

    def __init__(self, problem: Problem) -> None:
        super().__init__(problem)
        torch = self._torch
        grad_and_value = torch.func.grad_and_value(self._loss, argnums=(0, 1))

        def differentiate(V, W, X, Y):
            return grad_and_value(V, W, X, Y)

        # Compilations are counted by code object, and the ninth is refused: a plan has its own.
        code = differentiate.__code__.replace()
        own = FunctionType(code, globals(), closure=differentiate.__closure__)
        self._compiled = torch.compile(own, fullgraph=True, dynamic=False)
        self._plain_theta = tuple(weights.detach() for weights in self._theta)
        with warnings.catch_warnings(), _torch_threads(self.threads):
            warnings.filterwarnings("ignore", category=DeprecationWarning, module=r"torch\b")
            self._differentiate(*self._data)

    def _differentiate(self, X, Y):
        if len(X) != self.shape.n:
            return super()._differentiate(X, Y)
        slopes, loss = self._compiled(*self._plain_theta, X, Y)
        return loss.item(), slopes


class _NeedsCompiler(Variant):
    def unavailable(self) -> str | None:
        """None, or why the variant cannot run here."""
        default = {"darwin": "clang++", "win32": "cl"}.get(sys.platform, "g++")
        compiler = os.environ.get("CXX", default)  # as PyTorch looks for it
        missing = None if shutil.which(compiler) else f"needs the C++ compiler {compiler}"
        return super().unavailable() or missing


def _workspace(shape, itemsize, threads):
    copies = shape.d + shape.K  # of X and Y
    losses = 3 * 8  # of a sample, in float64
    return shape.n * (itemsize * (copies + 3 * shape.M + 6 * shape.K) + losses)


VARIANTS = (
    Variant("torch", "cpu", "PyTorch, eager, with autograd", Torch, _workspace, ("torch",)),
    _NeedsCompiler(
        "torch-compile",
        "cpu",
        "PyTorch, loss and gradient under torch.compile",
        TorchCompiled,
        _workspace,
        ("torch",),
    ),
)

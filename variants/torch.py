"""PyTorch, as its users write it: autograd, and autograd under torch.compile.

X, Y, V and W are tensors on the plan's device. The number of PyTorch's threads and the precision of
its float32 products are the process's: plans take turns, and put both back after every call.
"""

from __future__ import annotations

import os
import shutil
import sys
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from types import FunctionType
from typing import Any

import numpy as np

from ..engines.cuda_facts import enough_memory, lacks_gpu
from ..interface import Engine, ForeignWeights, Problem, Variant, Weights
from ..kernels.formulas.updates import UPDATES, Update
from ..machine.forks import refuse, renewed
from ..network import Network, Parameters, Shape

_STRICT = "highest"  # float32 products in float32, on GPUs not in TF32
_one_at_a_time = renewed(sys.modules[__name__], "_one_at_a_time")
_process: int | None = None  # the one that started PyTorch's threads


@contextmanager
def settings(threads: int) -> Iterator[None]:
    """Let PyTorch use `threads` threads, and true float32, inside the context; put them back after.

    Raises RuntimeError in a forked child of a process that did so: PyTorch would wait there forever
    for threads that were not copied.
    """
    import torch

    global _process
    _process = _process or os.getpid()
    refuse(_process, "PyTorch")
    with _one_at_a_time:
        before, precision = torch.get_num_threads(), torch.get_float32_matmul_precision()
        if before != threads:
            torch.set_num_threads(threads)
        if precision != _STRICT:
            torch.set_float32_matmul_precision(_STRICT)
        try:
            yield
        finally:
            if before != threads:
                torch.set_num_threads(before)
            if precision != _STRICT:
                torch.set_float32_matmul_precision(precision)


def _identity(A):
    return A


def functions(net: Network) -> tuple[Callable, Callable, Callable]:
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


class _Tensors(ForeignWeights):
    """θ, ∇L and slots as tensors on a device."""

    def __init__(self, shape: Shape, dtype: np.dtype, device: str) -> None:
        self._device = device
        super().__init__(shape, dtype)
        for weights in self.theta:
            weights.requires_grad_()

    def room(self) -> list[Any]:
        import torch

        # Copies begin at a multiple of 64 bytes. Where an array begins changes bits of MKL's sums.
        return [torch.tensor(array, device=self._device) for array in super().room()]

    def put(self, values: Parameters, arrays: list[Any]) -> None:
        import torch

        with torch.no_grad():
            for tensor, array in zip(arrays, values, strict=True):
                tensor.copy_(torch.from_numpy(array))

    def get(self, arrays: list[Any]) -> Parameters:
        return Parameters(*(np.array(tensor.numpy(force=True)) for tensor in arrays))


class Torch(Engine):
    """L by PyTorch's own functions, ∇L by autograd, the update in place; on any of its devices."""

    def __init__(self, problem: Problem, device: str = "cpu") -> None:
        super().__init__(problem)
        import torch

        self._torch, self._device = torch, device
        self._outputs, self._link, self._losses = functions(self.net)
        if device == "cuda":
            enough_memory(self.shape, _needed(self.shape, self.dtype.itemsize), _free())

    def weights(self) -> Weights:
        return _Tensors(self.shape, self.dtype, self._device)

    def hold(self, X: np.ndarray, Y: np.ndarray) -> tuple[Any, Any]:
        return self._put(X), self._put(Y)

    def _put(self, array: np.ndarray) -> Any:
        return self._torch.tensor(array, device=self._device)

    def _mean_loss(self, V, W, X, Y):
        return self._losses(self._outputs(V, W, X), Y).mean(dtype=self._torch.float64)

    def _differentiate(self, X, Y, theta):
        loss = self._mean_loss(*theta, X, Y)
        return loss, self._torch.autograd.grad(loss, theta)

    def update(self, X, Y, weights: Weights, update: Update, scalars) -> float:
        if update is not UPDATES["descend"]:
            return super().update(X, Y, weights, update, scalars)
        with settings(self.threads):
            loss, gradient = self._differentiate(X, Y, weights.theta)
            with self._torch.no_grad():
                for tensor, slope in zip(weights.theta, gradient, strict=True):
                    tensor.sub_(slope, alpha=scalars[0])
            return loss.item()  # waits for all that came before on the device

    def backpropagate(self, X, Y, theta, gradient) -> float:
        with settings(self.threads):
            loss, slopes = self._differentiate(X, Y, theta)
            gradient[:] = slopes
            return loss.item()

    def loss(self, X, Y, theta, gradient) -> float:
        with settings(self.threads), self._torch.inference_mode():
            V, W = theta
            return self._mean_loss(V, W, X, Y).item()

    def forward(self, X: np.ndarray, theta, F: np.ndarray) -> None:
        with settings(self.threads), self._torch.inference_mode():
            F[...] = self._link(self._outputs(*theta, self._put(X))).numpy(force=True)


class TorchCompiled(Torch):
    """L and ∇L compiled together for the shapes of X and Y; what has other shapes runs eagerly."""

    def __init__(self, problem: Problem, device: str = "cpu") -> None:
        super().__init__(problem, device)
        torch = self._torch
        grad_and_value = torch.func.grad_and_value(self._mean_loss, argnums=(0, 1))

        def differentiate(V, W, X, Y):
            return grad_and_value(V, W, X, Y)

        # Compilations are counted by code object, and the ninth is refused: an engine has its own.
        code = differentiate.__code__.replace()
        own = FunctionType(code, globals(), closure=differentiate.__closure__)
        self._compiled = torch.compile(own, fullgraph=True, dynamic=False)

    def hold(self, X: np.ndarray, Y: np.ndarray) -> tuple[Any, Any]:
        held = super().hold(X, Y)
        with warnings.catch_warnings(), settings(self.threads):
            warnings.filterwarnings("ignore", category=DeprecationWarning, module=r"torch\b")
            warnings.filterwarnings("ignore", "TensorFloat32 tensor cores")  # not, on purpose
            self._differentiate(*held, self.weights().theta)
        return held

    def _differentiate(self, X, Y, theta):
        if len(X) != self.shape.n:
            return super()._differentiate(X, Y, theta)
        slopes, loss = self._compiled(*(tensor.detach() for tensor in theta), X, Y)
        return loss, slopes


def _lacks_compiler() -> str | None:
    default = {"darwin": "clang++", "win32": "cl"}.get(sys.platform, "g++")
    compiler = os.environ.get("CXX", default)  # as PyTorch looks for it
    return None if shutil.which(compiler) else f"needs the C++ compiler {compiler}"


def _lacks_cuda() -> str | None:
    if reason := lacks_gpu():
        return reason
    import torch

    if torch.version.cuda is None:
        return "PyTorch was installed without CUDA"
    return None if torch.cuda.is_available() else "PyTorch cannot use the GPU"


def _free() -> int:
    """Bytes of the GPU that PyTorch can have, those included that it holds and does not use."""
    import torch

    held = torch.cuda.memory_reserved() - torch.cuda.memory_allocated()
    return torch.cuda.mem_get_info()[0] + held


def _workspace(shape, itemsize, threads):
    copies = shape.d + shape.K  # of X and Y
    losses = 3 * 8  # of a sample, in float64
    return shape.n * (itemsize * (copies + 3 * shape.M + 6 * shape.K) + losses)


def _needed(shape, itemsize):
    """Bytes of a plan and a step on a GPU."""
    return _workspace(shape, itemsize, 0) + 3 * itemsize * shape.M * (shape.d + shape.K)


def _on_cuda(name: str, summary: str, make: Callable[..., Engine], *requires: str) -> Variant:
    return Variant(
        name,
        "cuda",
        summary,
        partial(make, device="cuda"),
        requires=("torch", *requires),
        lacks=_lacks_cuda,
        parallel=False,
        reproducible=False,
        by_name=True,
    )


_EAGER = "PyTorch, eager, with autograd"
_COMPILED = "PyTorch, loss and gradient under torch.compile"
VARIANTS = (
    Variant(
        "torch",
        "cpu",
        _EAGER,
        Torch,
        _workspace,
        ("torch",),
        elsewhere=(_on_cuda("torch", _EAGER, Torch),),
        by_name=True,
    ),
    Variant(
        "torch-compile",
        "cpu",
        _COMPILED,
        TorchCompiled,
        _workspace,
        ("torch",),
        _lacks_compiler,
        elsewhere=(_on_cuda("torch-compile", _COMPILED, TorchCompiled, "triton"),),
        by_name=True,
    ),
)

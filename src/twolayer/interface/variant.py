"""A variant: the descriptor of one interchangeable implementation, which makes its plans."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from ..machine.hardware import thread_limit
from ..network import Network, Parameters, Shape, enough_memory, one_of, positive_integer
from . import checks
from .engine import Engine, Problem
from .plan import Plan

_PREDICTED = 1 << 14  # the most rows that an engine for predictions is made for


def _no_workspace(shape: Shape, itemsize: int, threads: int) -> int:
    return 0


def _no_corners(itemsize: int, threads: int) -> tuple[Shape, ...]:
    return ()


def _takes_all(shape: Shape, dtype: np.dtype) -> str | None:
    return None


def _lacks_nothing() -> str | None:
    return None


@dataclass(frozen=True)
class Variant:
    """One interchangeable implementation.

    Arguments: name; device, "cpu", "cuda", "cluster" or "any"; summary, one line; make, the Engine
    class; workspace(shape, itemsize, threads), the bytes of its buffers beyond X, Y and two copies
    of θ; requires, the modules without which it cannot run; lacks(), None or what else is missing
    here; parallel, whether it uses `threads`; reproducible, whether the same call returns the same
    bits; refuses(shape, dtype), None or a sentence that says for which problems it is made and what
    to take for others; corners(itemsize, threads), shapes on both sides of every size from which it
    decides differently, where `verify` is to look; by_name, whether it knows this project's σ and ℓ
    by their names, and no others; elsewhere, the same variant on other devices.
    """

    name: str
    device: str
    summary: str
    make: Callable[[Problem], Engine] = field(repr=False)
    workspace: Callable[[Shape, int, int], int] = field(default=_no_workspace, repr=False)
    requires: tuple[str, ...] = ()
    lacks: Callable[[], str | None] = field(default=_lacks_nothing, repr=False)
    parallel: bool = True
    reproducible: bool = True
    refuses: Callable[[Shape, np.dtype], str | None] = field(default=_takes_all, repr=False)
    corners: Callable[[int, int], Iterable[Shape]] = field(default=_no_corners, repr=False)
    elsewhere: tuple[Variant, ...] = field(default=(), repr=False)
    by_name: bool = False

    @property
    def devices(self) -> tuple[str, ...]:
        """All devices that it can run on, `device` first."""
        return (self.device, *(variant.device for variant in self.elsewhere))

    def on(self, device: str) -> Variant:
        """The variant on one of its `devices`. Raises ValueError with the list of them."""
        one_of(f"device of variant {self.name}", device, self.devices)
        return next(one for one in (self, *self.elsewhere) if one.device == device)

    def unavailable(self) -> str | None:
        """None, or why the variant cannot run here."""
        missing = [name for name in self.requires if importlib.util.find_spec(name) is None]
        return f"needs the package {', '.join(missing)}" if missing else self.lacks()

    def refusal(self, net: Network, shape: Shape, dtype: np.dtype) -> str | None:
        """None, or a sentence that says for which networks and problems it is made."""
        if self.by_name and (others := net.from_outside()):
            return f"knows no {others[0]}: take another variant"
        return self.refuses(shape, dtype)

    def plan(
        self, net: Network, X: Any, Y: Any, theta: Parameters, threads: int | None = None,
        device: str | None = None,
    ) -> Plan:  # fmt: skip
        """Check everything once and make the plan that runs.

        Arguments: net; X (n, d) and theta, V (M, d) and W (K, M), all float32 or all float64; Y
        (n, K) of any real dtype, or (n,) integer labels for softmax and (n,) labels ±1 for
        logistic; threads, at most and by default the CPUs that this process may use; device, one of
        `devices`, by default the first. None of the arrays is ever written to. Raises ValueError,
        TypeError or MemoryError in a sentence that names the argument, RuntimeError where the
        variant cannot run here.
        """
        if device is not None and device != self.device:
            return self.on(device).plan(net, X, Y, theta, threads)
        theta, threads = self._checked(net, theta, threads)
        X = checks.as_array("X", X)
        shape = self._affordable(net, X, theta, threads, X, Y)
        X = checks.check_inputs_of(theta, X)
        Y = checks.check_targets(net, Y, shape, X.dtype)
        engine = self.make(Problem(net, shape, X.dtype, threads))
        plan = Plan(engine, X, Y, theta, self.name)
        plan.gradient(slice(0, 1))  # compiles, so that no epoch has to
        return plan

    def predict(
        self, net: Network, theta: Parameters, X: Any, threads: int | None = None,
        device: str | None = None,
    ) -> np.ndarray:  # fmt: skip
        """F = h(σ(X Vᵀ) Wᵀ) (n, K), without targets; arguments and errors as for `plan`."""
        if device is not None and device != self.device:
            return self.on(device).predict(net, theta, X, threads)
        theta, threads = self._checked(net, theta, threads)
        X = checks.as_array("X", X)
        shape = self._affordable(net, X[:_PREDICTED] if X.ndim else X, theta, threads, X)
        X = checks.check_inputs_of(theta, X)
        engine = self.make(Problem(net, shape, X.dtype, threads))
        weights = engine.weights()
        weights.put(theta, weights.theta)
        F = np.empty((len(X), shape.K), X.dtype)
        engine.forward(X, weights.theta, F)
        return F

    def _checked(self, net: Any, theta: Any, threads: int | None) -> tuple[Parameters, int]:
        """θ as a copy, and the number of threads that will run."""
        if reason := self.unavailable():
            raise RuntimeError(f"variant {self.name} cannot run here: {reason}")
        if not isinstance(net, Network):
            raise TypeError(f"net: expected a Network, got {type(net).__name__}")
        count = check_threads(threads)
        return checks.check_parameters(net, theta), count if self.parallel else 1

    def _affordable(
        self, net: Network, X: np.ndarray, theta: Parameters, threads: int, *data: Any
    ) -> Shape:
        """The shape of an engine for these rows; raises where it is refused or has no memory."""
        if X.ndim != 2:
            return Shape(0, 0, *theta.W.shape[::-1])  # a wrong rank is reported by the next check
        shape, dtype = Shape(*X.shape, *theta.W.shape[::-1]), theta.V.dtype
        if refusal := self.refusal(net, shape, dtype):
            raise ValueError(f"variant {self.name} {refusal}")
        copies = sum(
            _copy(array, len(data[0]), columns, dtype)
            for array, columns in zip(data, (shape.d, shape.K), strict=False)
        )
        buffers = self.workspace(shape, dtype.itemsize, threads)
        enough_memory(f"variant {self.name} with {shape}", buffers + copies)
        return shape


def check_threads(threads: int | None) -> int:
    """`threads`, or as many as this process may use where it is None."""
    limit, why = thread_limit()
    if threads is None:
        return limit
    value = positive_integer("threads", threads)
    if value > limit:
        raise ValueError(f"threads: expected 1 to {limit}, {why}, got {value}")
    return value


def _copy(array: Any, rows: int, columns: int, dtype: np.dtype) -> int:
    """Bytes of a copy of X or Y, where it cannot be used as it is."""
    used = (
        isinstance(array, np.ndarray)
        and array.flags.c_contiguous
        and array.dtype == dtype
        and array.size == rows * columns
    )
    return 0 if used else dtype.itemsize * rows * columns

"""The interface between an implementation and everybody who runs one: `Variant` and `Plan`.

A variant is a descriptor. Its plan is made once for a network, a data set and parameters; making it
pays for checks, compiling, buffers and copies. What is left for every epoch is `step`.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np

from ..kernels.formulas import updates
from ..kernels.formulas.updates import Update
from ..machine.forks import renewed
from ..machine.hardware import cpu_count
from ..network import Network, Parameters, Shape, enough_memory, one_of, positive_integer
from . import checks


class Problem(NamedTuple):
    """A checked problem: C-contiguous arrays of one dtype. θ is a copy that the plan may change."""

    net: Network
    X: np.ndarray  # (n, d), never written to
    Y: np.ndarray  # (n, K), never written to
    theta: Parameters  # V (M, d), W (K, M)
    threads: int

    @property
    def shape(self) -> Shape:
        """The sizes n, d, M, K."""
        return Shape(*self.X.shape, *self.theta.W.shape[::-1])


class Plan:
    """An implementation at work on one problem.

    A subclass gives `_backpropagate` and `_forward`, and allocates what they need in `__init__`; it
    may give `_step` where one pass can do more than the two, and `_get_theta` and `_set_theta`
    where it keeps θ in a form of its own; where it also keeps ∇L so, `_update`, `_get_slots` and
    `_set_slots`. Rows handed to it are C-contiguous. Calls from several Python threads take turns.
    `variant` is the name of the one that made it; `decisions`, flags of what it does for some
    shapes only: corners of the variant lie on both sides of each.
    """

    variant = ""
    decisions: tuple[bool, ...] = ()  # a NamedTuple where there are any

    def __init__(self, problem: Problem) -> None:
        self.net, self.X, self.Y, (self.V, self.W), self.threads = problem
        self.shape = problem.shape
        self.dtype = self.X.dtype
        self._gradient = Parameters(np.empty_like(self.V), np.empty_like(self.W))
        self._slots: tuple[Parameters, ...] = ()
        self._turn = renewed(self, "_turn")

    def _backpropagate(self, X: np.ndarray, Y: np.ndarray, gradient: Parameters) -> float:
        """Return L over the rows of X and Y and write ∇L into `gradient`."""
        raise NotImplementedError

    def _forward(self, X: np.ndarray, F: np.ndarray) -> None:
        """Write F = h(σ(X Vᵀ) Wᵀ) for the rows of X."""
        raise NotImplementedError

    def _loss_and_gradient(self, rows: slice, gradient: Parameters) -> float:
        """Return L over those rows and write ∇L into `gradient`."""
        return self._backpropagate(self.X[rows], self.Y[rows], gradient)

    def _step(self, mu: float) -> float:
        loss = self._loss_and_gradient(slice(0, self.shape.n), self._gradient)
        with np.errstate(all="ignore"):  # a descent that diverges shows in θ and L
            for weights, slope in zip((self.V, self.W), self._gradient, strict=True):
                slope *= mu
                weights -= slope
        return loss

    def _get_theta(self) -> Parameters:
        return Parameters(self.V.copy(), self.W.copy())

    def _set_theta(self, theta: Parameters) -> None:
        self.V[...], self.W[...] = theta

    def _update(self, update: Update, scalars: tuple[float, ...], rows: slice) -> float:
        loss = self._loss_and_gradient(rows, self._gradient)
        theta = self._get_theta()
        run = updates.loop(update)
        with np.errstate(all="ignore"):  # as in `_step`
            for arrays in zip(theta, self._gradient, *self._slots, strict=True):
                run(*(array.reshape(-1) for array in arrays), scalars)
        self._set_theta(theta)
        return loss

    def _get_slots(self) -> tuple[Parameters, ...]:
        return tuple(Parameters(*(array.copy() for array in slot)) for slot in self._slots)

    def _set_slots(self, slots: tuple[Parameters, ...]) -> None:
        self._slots = slots

    def step(self, mu: float) -> float:
        """One epoch of gradient descent, θ ← θ − μ ∇L(θ); returns L at the θ it started from.

        Arguments: mu, the step size. Raises ValueError unless it is finite.
        """
        mu = checks.check_step_size(mu, self.dtype)
        with self._turn:
            return float(self._step(mu))

    def gradient(self, rows: slice | None = None) -> tuple[float, Parameters]:
        """L and ∇L at the current θ over all rows of X and Y, or a slice of them.

        Returns L and Parameters(∂L/∂V (M, d), ∂L/∂W (K, M)), arrays of the caller's own. Raises
        ValueError for rows out of range.
        """
        rows = checks.check_rows(rows, self.shape.n)
        gradient = Parameters(*(np.empty(a.shape, self.dtype) for a in (self.V, self.W)))
        with self._turn:
            loss = self._loss_and_gradient(rows, gradient)
        return float(loss), gradient

    def update(self, update: Update, scalars: Sequence[float], rows: slice | None = None) -> float:
        """(θ, slots) ← formula(θ, ∇L, slots; scalars) for each weight; returns L at the old θ.

        Arguments: update, one of `kernels.updates.UPDATES`; scalars, in the order of its formula;
        rows, a slice that L and ∇L are over, all of X and Y by default. What the update keeps for
        each weight is in `slots`, which must be set before. Raises ValueError for rows out of
        range, for scalars that are not finite and for another number of slots than the update has.
        """
        rows = checks.check_rows(rows, self.shape.n)
        values = tuple(checks.check_step_size(value, self.dtype) for value in scalars)
        with self._turn:
            if len(self._slots) != update.slots:
                raise ValueError(
                    f"slots: expected {update.slots} for {update.name}, got {len(self._slots)}"
                )
            return float(self._update(update, values, rows))

    def predict(self, X_new: Any) -> np.ndarray:
        """F = h(σ(X_new Vᵀ) Wᵀ) (n_new, K) for X_new (n_new, d) of the plan's dtype."""
        X = checks.check_inputs(X_new, "X_new")
        checks.same_type("X_new", X.dtype, "X", self.dtype)
        if X.shape[1] != self.shape.d:
            raise ValueError(f"X_new: expected shape (n, {self.shape.d}), got {X.shape}")
        F = np.empty((len(X), self.shape.K), self.dtype)
        with self._turn:
            self._forward(X, F)
        return F

    @property
    def theta(self) -> Parameters:
        """The current parameters, copied; assigning sets them."""
        with self._turn:
            return self._get_theta()

    @theta.setter
    def theta(self, theta: Parameters) -> None:
        new = self._check_like_theta(theta)
        with self._turn:
            self._set_theta(new)

    @property
    def slots(self) -> tuple[Parameters, ...]:
        """What an optimizer keeps for each weight, shaped as θ, copied; assigning sets them."""
        with self._turn:
            return self._get_slots()

    @slots.setter
    def slots(self, slots: Sequence[Parameters]) -> None:
        new = tuple(self._check_like_theta(slot) for slot in slots)
        with self._turn:
            self._set_slots(new)

    def _check_like_theta(self, theta: Parameters) -> Parameters:
        new = checks.check_parameters(self.net, theta)
        for name, old, value in zip(new._fields, (self.V, self.W), new, strict=True):
            checks.same_type(f"theta.{name}", value.dtype, "X", self.dtype)
            if value.shape != old.shape:
                raise ValueError(f"theta.{name}: expected shape {old.shape}, got {value.shape}")
        return new


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

    Arguments: name; device, "cpu", "cuda", "cluster" or "any"; summary, one line; make, the Plan
    class; workspace(shape, itemsize, threads), the bytes of its buffers beyond X, Y and two copies
    of θ; requires, the modules without which it cannot run; lacks(), None or what else is missing
    here; parallel, whether it uses `threads`; reproducible, whether the same call returns the same
    bits; refuses(shape, dtype), None or a sentence that says for which problems it is made and what
    to take for others; corners(itemsize, threads), shapes on both sides of every size from which it
    decides differently, where `verify` is to look; elsewhere, the same variant on other devices.
    """

    name: str
    device: str
    summary: str
    make: Callable[[Problem], Plan] = field(repr=False)
    workspace: Callable[[Shape, int, int], int] = field(default=_no_workspace, repr=False)
    requires: tuple[str, ...] = ()
    lacks: Callable[[], str | None] = field(default=_lacks_nothing, repr=False)
    parallel: bool = True
    reproducible: bool = True
    refuses: Callable[[Shape, np.dtype], str | None] = field(default=_takes_all, repr=False)
    corners: Callable[[int, int], Iterable[Shape]] = field(default=_no_corners, repr=False)
    elsewhere: tuple[Variant, ...] = field(default=(), repr=False)

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
        reason = self.unavailable()
        if reason:
            raise RuntimeError(f"variant {self.name} cannot run here: {reason}")
        if not isinstance(net, Network):
            raise TypeError(f"net: expected a Network, got {type(net).__name__}")
        threads = check_threads(threads)
        theta = checks.check_parameters(net, theta)
        X = checks.as_array("X", X)
        if X.ndim == 2:  # a wrong rank is reported by the check below
            shape = Shape(*X.shape, *theta.W.shape[::-1])
            refusal = self.refuses(shape, theta.V.dtype)
            if refusal:
                raise ValueError(f"variant {self.name} {refusal}")
            itemsize = theta.V.dtype.itemsize
            buffers = self.workspace(shape, itemsize, threads)
            enough_memory(
                f"variant {self.name} with {shape}", buffers + _copies(X, Y, shape, theta.V.dtype)
            )
        X = checks.check_inputs(X)
        checks.same_type("theta.V", theta.V.dtype, "X", X.dtype)
        if theta.V.shape[1] != X.shape[1]:
            raise ValueError(
                f"theta.V: expected shape (M, {X.shape[1]}) to fit X {X.shape}, got {theta.V.shape}"
            )
        Y = checks.check_targets(net, Y, shape, X.dtype)
        plan = self.make(Problem(net, X, Y, theta, threads))
        plan.variant = self.name
        plan.gradient(slice(0, 1))  # compiles, so that no epoch has to
        return plan


def check_threads(threads: int | None) -> int:
    """`threads`, or the number of CPUs that this process may use where it is None."""
    limit = cpu_count()
    if threads is None:
        return limit
    value = positive_integer("threads", threads)
    if value > limit:
        raise ValueError(f"threads: expected 1 to {limit}, the CPUs available here, got {value}")
    return value


def _copies(X: Any, Y: Any, shape: Shape, dtype: np.dtype) -> int:
    """Bytes that X and Y cost when they cannot be used as they are."""
    X_used, Y_used = (
        isinstance(array, np.ndarray)
        and array.flags.c_contiguous
        and array.dtype == dtype
        and array.size == shape.n * columns
        for array, columns in ((X, shape.d), (Y, shape.K))
    )
    return dtype.itemsize * shape.n * (shape.d * (not X_used) + shape.K * (not Y_used))

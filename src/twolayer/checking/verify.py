"""Whether a variant agrees with the oracle, within a bound that is derived, not tuned."""

from __future__ import annotations

from collections.abc import Iterator
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np

from .. import variants
from ..interface import Plan, Variant, check_threads, checks
from ..network import Network, Parameters, Shape
from ..texts import cause
from . import bounds, cases

ORACLE = "python-loops"
STEPS = 3


class Agreement(NamedTuple):
    """The worst of a variant's errors on one problem, in units of the bound, and where it is."""

    variant: str
    net: Network
    case: str
    shape: Shape
    dtype: str
    ratio: float  # |value − expected| / bound, at most 1 where the variant agrees
    quantity: str = ""
    at: tuple[int, ...] = ()
    value: float = np.nan
    expected: float = np.nan
    failure: str = ""
    undecided: bool = False  # there was too little memory to find out

    @property
    def agrees(self) -> bool:
        """Whether every error was within its bound."""
        return self.ratio <= 1

    @property
    def wrong(self) -> bool:
        """Whether an error was beyond its bound, or the variant raised."""
        return not (self.agrees or self.undecided)

    def __str__(self) -> str:
        where = (
            f"{self.variant}: {self.net.activation}, {self.net.loss}, {self.dtype}, {self.shape} "
            f"({self.case})"
        )
        if self.failure:
            return f"{where}: {self.failure}"
        at = f"[{', '.join(map(str, self.at))}]" if self.at else ""
        return (
            f"{where}: {self.quantity}{at} = {self.value:.9g}, expected {self.expected:.9g}: "
            f"{self.ratio:.3g} times the bound"
        )


def failed(
    about: tuple[str, Network, str, Shape, str], error: Exception, *whole: type[Exception],
    quantity: str = "",
) -> Agreement:  # fmt: skip
    """The agreement of a variant that raised; about: its first five entries; whole, of `cause`."""
    undecided = isinstance(error, MemoryError)
    return Agreement(*about, np.inf, quantity, failure=cause(error, *whole), undecided=undecided)


class Expected(NamedTuple):
    """One quantity as it should be."""

    quantity: str
    value: Any
    bound: Any


class Worst(NamedTuple):
    """The largest error of one quantity, in units of its bound, and where it is."""

    ratio: float
    quantity: str
    at: tuple[int, ...]
    value: float
    expected: float


class _Reference(NamedTuple):
    """What every variant must find on a case."""

    half: slice
    initial: list[Expected]  # L, ∇L and L alone at θ, the same over half of the rows, and F
    steps: int
    mu: float
    losses: list[Expected]  # what each step returns
    final: list[Expected]  # θ after the steps


def agreement(variant: Variant, case: cases.Case, threads: int | None = None) -> Agreement:
    """The worst error of a variant on a case: losses, gradients, predictions and θ after steps.

    A variant that raises, or that returns another shape or dtype than it should, disagrees; one
    that finds too little memory is undecided.
    """
    reference = _reference(_Key(case))
    about = (variant.name, case.net, case.name, case.shape, case.X.dtype.name)
    # What a variant does to its arguments is not to be blamed on the next one.
    theta = Parameters(*(array.copy() for array in case.theta))
    case = case._replace(X=case.X.copy(), Y=case.Y.copy(), theta=theta)
    found: list[Worst] = []
    try:
        plan = variant.plan(case.net, case.X, case.Y, case.theta, threads)
        Y = checks.check_targets(case.net, case.Y, case.shape, case.X.dtype)
        for one in _compare(plan, case._replace(Y=Y), reference):
            found.append(one)  # stays when the next one raises
    except Exception as error:
        if all(one.ratio <= 1 for one in found):  # a wrong number says more than what it led to
            return failed(about, error)
    return max(
        (Agreement(*about, *worst) for worst in found),
        key=lambda one: np.inf if np.isnan(one.ratio) else one.ratio,
    )


def verify(
    variant: Variant, net: Network, dtype: str, threads: int | None = None
) -> Iterator[Agreement]:
    """The agreement of a variant on every case of a network and dtype that it is made for."""
    for case in cases.all_cases(net, dtype):
        if not variant.refusal(case.net, case.shape, case.X.dtype):
            yield agreement(variant, case, threads)


def corners(
    variant: Variant, net: Network, dtype: str, threads: int | None = None
) -> Iterator[Agreement]:
    """The agreement of a variant where it says that it begins to decide differently."""
    try:
        shapes = corner_shapes(variant, net, dtype, threads)
    except Exception as error:
        yield failed((variant.name, net, "its corners", Shape(1, 1, 1, 1), dtype), error)
        return
    for seed, shape in enumerate(shapes):
        yield agreement(variant, cases.problem(net, shape, dtype, seed, "a corner"), threads)


def corner_shapes(variant: Variant, net: Network, dtype: str, threads: int | None) -> list[Shape]:
    """The shapes at which a variant says so, of those that it is made for."""
    found = variant.corners(np.dtype(dtype).itemsize, check_threads(threads))
    return [shape for shape in found if not variant.refusal(net, shape, np.dtype(dtype))]


def _compare(plan: Plan, case: cases.Case, reference: _Reference) -> Iterator[Worst]:
    loss, gradient = plan.gradient()
    half_loss, half_gradient = plan.gradient(reference.half)
    F = plan.predict(case.X)
    alone, half_alone = plan.loss(), plan.loss(reference.half)
    values = [loss, *gradient, alone, half_loss, *half_gradient, half_alone, F]
    for expected, value in zip(reference.initial, values, strict=True):
        yield worst(expected, value, case.X.dtype)
    for name, before, after in zip(("theta.V", "theta.W"), case.theta, plan.theta, strict=True):
        yield worst(Expected(f"{name} after gradient", before, 0.0), after, case.X.dtype)
    for expected in reference.losses:
        yield worst(expected, plan.step(reference.mu), case.X.dtype)
    for expected, value in zip(reference.final, plan.theta, strict=True):
        yield worst(expected, value, case.X.dtype)
    yield worst(
        Expected("predict after the steps", *_forward(plan, case)), plan.predict(case.X), F.dtype
    )


def _forward(plan: Plan, case: cases.Case) -> tuple[np.ndarray, np.ndarray]:
    """F and its bound at the plan's own parameters."""
    now = bounds.evaluate(case.net, plan.theta, case.X, case.Y, case.X.dtype)
    return now.F, now.F_bound


def worst(expected: Expected, value: Any, dtype: np.dtype, unbounded: bool = False) -> Worst:
    """The largest error of a quantity, in units of its bound; where that is infinite, 0 if allowed.

    Raises TypeError for another dtype, ValueError for another shape.
    """
    quantity, reference, bound = expected
    reference = np.asarray(reference, np.float64)
    if isinstance(value, np.ndarray) and value.dtype != dtype:
        raise TypeError(f"{quantity} has dtype {value.dtype} instead of {dtype}")
    if np.shape(value) != reference.shape:
        raise ValueError(f"{quantity} has shape {np.shape(value)} instead of {reference.shape}")
    value = np.asarray(value, np.float64)
    if not (unbounded or np.isfinite(bound).all()):
        raise ValueError(f"{quantity}: the case is so ill-conditioned that no error can be bounded")
    with np.errstate(divide="ignore", invalid="ignore"):
        error = abs(value - reference)
        ratio = np.where(error == 0, 0.0, error / bound)
    ratio = np.where(np.isnan(ratio), np.inf, ratio)
    at = np.unravel_index(int(np.argmax(ratio)), ratio.shape) if ratio.ndim else ()
    index = tuple(int(i) for i in at)
    return Worst(float(ratio[at]), quantity, index, float(value[at]), float(reference[at]))


class _Key:
    """A case as a key of the cache of references: equal where all its numbers are."""

    def __init__(self, case: cases.Case) -> None:
        self.case = case
        arrays = (case.X, case.Y, *case.theta)
        self._content = (case.net, *((a.shape, a.dtype.str, a.tobytes()) for a in arrays))
        self._hash = hash(self._content)

    def __hash__(self) -> int:
        return self._hash

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Key) and self._content == other._content


# What the oracle may cost: beyond this many operations, and for the steps, the reference is the
# float64 evaluation that comes with the bound, which the tests hold to the oracle; beyond the
# second the steps are fewer.
_ORACLE_FLOPS = 5e4
_STEPS_FLOPS = 2e6


@lru_cache(maxsize=1024)
def _reference(key: _Key) -> _Reference:
    case = key.case
    dtype = case.X.dtype
    Y = checks.check_targets(case.net, case.Y, case.shape, dtype)
    X, Y = case.X.astype(np.float64), Y.astype(np.float64)
    theta = Parameters(*(array.astype(np.float64) for array in case.theta))
    small = case.shape.flops() <= _ORACLE_FLOPS
    oracle = variants.get(ORACLE).plan(case.net, X, Y, theta) if small else None
    at_start = bounds.evaluate(case.net, theta, X, Y, dtype)

    n = case.shape.n
    half = slice(n // 3, n // 3 + (n + 1) // 2)
    at_half = bounds.evaluate(case.net, theta, X[half], Y[half], dtype)
    initial = []
    whole = at_start[:2] if oracle is None else oracle.gradient()
    for label, evaluation, (loss, gradient) in (
        ("", at_start, whole), (" of rows", at_half, at_half[:2]),
    ):  # fmt: skip
        initial += [
            Expected(f"L{label}", loss, evaluation.loss_bound),
            Expected(f"dL/dV{label}", gradient.V, evaluation.gradient_bound.V),
            Expected(f"dL/dW{label}", gradient.W, evaluation.gradient_bound.W),
            Expected(f"L alone{label}", loss, evaluation.loss_bound),
        ]
    F = at_start.F if oracle is None else oracle.predict(X)
    initial.append(Expected("F", F, at_start.F_bound))

    mu = _step_size(case.net, theta, X, Y, at_start, dtype)
    steps = STEPS if case.shape.flops() <= _STEPS_FLOPS else 2
    error = Parameters(*(np.zeros_like(array) for array in theta))
    losses = []
    for _ in range(steps):
        evaluation = bounds.evaluate(case.net, theta, X, Y, dtype, error)
        losses.append(Expected("L returned by step", evaluation.loss, evaluation.loss_bound))
        theta = Parameters(*(w - mu * g for w, g in zip(theta, evaluation.gradient, strict=True)))
        error = bounds.step_bound(theta, evaluation, mu, dtype, error)
    final = [
        Expected(f"V after {steps} steps", theta.V, error.V),
        Expected(f"W after {steps} steps", theta.W, error.W),
    ]
    return _Reference(half, initial, steps, mu, losses, final)


def _step_size(
    net: Network, theta: Parameters, X: Any, Y: Any, at_start: bounds.Evaluation, dtype: Any
) -> float:
    """A μ for which a step enlarges the bound on the error of θ by a tenth at most.

    An error as large as the bound of one step is put into θ, and the bound on ∇L is looked at.
    """
    unit = float(np.finfo(dtype).eps)
    error = Parameters(*(unit * (abs(a) + abs(a).max()) for a in theta))
    with_error = bounds.evaluate(net, theta, X, Y, dtype, error)
    growth = 0.0
    for new, old, e in zip(with_error.gradient_bound, at_start.gradient_bound, error, strict=True):
        growth = max(growth, float(((new - old) / e.max()).max()))
    return min(0.1, 0.1 / growth) if growth > 0 else 0.1

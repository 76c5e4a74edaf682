"""Whether a variant is equal to the exact result, on integers that no arithmetic rounds."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from ..interface import Plan, Variant
from ..network import Network, Parameters, Shape
from . import cases
from .verify import Agreement, Expected, Worst, corner_shapes, failed, worst

_LONGEST = 0.2  # seconds of an epoch


def exact(
    variant: Variant,
    dtype: str,
    threads: int | None = None,
    networks: Sequence[Network] = cases.EXACT,
) -> Iterator[Agreement]:
    """The agreement of a variant on each exact case: L, ∇L, F and θ after a step are equal.

    Also at the variant's corners, as far as they are exact. A variant whose epoch of a case takes
    long is spared it.
    """
    for case in (*cases.exact(dtype), *_exact_corners(variant, dtype, threads)):
        if case.net not in networks or variant.refusal(case.net, case.shape, case.X.dtype):
            continue
        about = (variant.name, case.net, case.name, case.shape, case.X.dtype.name)
        theta = Parameters(*(array.copy() for array in case.theta))
        try:
            plan = variant.plan(case.net, case.X.copy(), case.Y.copy(), theta, threads)
            if _seconds(plan) > _LONGEST:
                continue
            found = list(_equal(plan, case))
        except Exception as error:
            yield failed(about, error)
            continue
        first = next((one for one in found if one.ratio > 1), None)
        yield Agreement(*about, *(first or max(found, key=lambda one: one.ratio)))


def _seconds(plan: Plan) -> float:
    """About how long an epoch takes, from few rows; from more where a call's own cost misleads."""
    n, rows = plan.shape.n, 8
    while True:
        rows = min(n, 8 * rows)
        plan.gradient(slice(0, rows))  # the first time may compile
        begun = time.perf_counter()
        plan.gradient(slice(0, rows))
        seconds = time.perf_counter() - begun
        estimate = seconds * n / rows
        if rows == n or estimate <= _LONGEST or seconds > _LONGEST / 20:
            return estimate


def _exact_corners(variant: Variant, dtype: str, threads: int | None) -> Iterator[cases.Case]:
    shapes: list[Shape] = []
    with contextlib.suppress(Exception):  # `corners` tells it
        shapes = corner_shapes(variant, cases.EXACT[0], dtype, threads)
    for seed, (n, *sizes) in enumerate(shapes):
        if dtype == "float64" or n & (n - 1) == 0:  # float32 may round a division by another n
            case = cases.integers(Shape(n, *sizes), dtype, seed)
            if cases.is_exact(case):
                yield case


def _equal(plan: Plan, case: cases.Case) -> Iterator[Worst]:
    dtype, n = case.X.dtype, case.shape.n
    X, Y, V, W = (np.asarray(a, np.float64) for a in (case.X, case.Y, *case.theta))
    A = X @ V.T
    Z, slope = case.net.sigma.value(A), case.net.sigma.slope(A)
    F = Z @ W.T

    def rounding(count: int) -> float:
        """n L and n ∇L are integers. Where n is no power of two their division by it is rounded.

        Before the sum in some implementations; errors of less than a quarter of one are no lost
        term.
        """
        return 0.0 if count & (count - 1) == 0 else 0.25

    def judge(what: str, rows: slice, loss: float, gradient: Any = None) -> Iterator[Worst]:
        r = F[rows] - Y[rows]
        count, slack = len(r), rounding(len(r))
        yield worst(Expected(f"L{what}", (r * r).sum() / count, slack / count), loss, dtype)
        if gradient is not None:
            gW = 2 * r.T @ Z[rows] / count
            gV = 2 * (r @ W * slope[rows]).T @ X[rows] / count
            yield worst(Expected(f"dL/dV{what}", gV, slack / count), gradient.V, dtype)
            yield worst(Expected(f"dL/dW{what}", gW, slack / count), gradient.W, dtype)

    # Half of the rows, or one more than a multiple of blocks that are no powers of two.
    start = max(0, n // 4 - 3)
    whole, part = slice(0, n), slice(start, start + min((n + 1) // 2, 24001))
    yield from judge("", whole, *plan.gradient())
    yield from judge(" alone", whole, plan.loss())
    yield worst(Expected("F", F, 0.0), plan.predict(case.X), dtype)
    yield from judge(" of rows", part, *plan.gradient(part))
    yield from judge(" alone of rows", part, plan.loss(part))
    mu = 0.125
    yield from judge(" returned by step", whole, plan.step(mu))
    r = F - Y
    gradient = (2 * (r @ W * slope).T @ X / n, 2 * r.T @ Z / n)
    for name, weights, g, value in zip("VW", (V, W), gradient, plan.theta, strict=True):
        after = weights - mu * g
        bound = mu * rounding(n) / n + float(np.finfo(dtype).eps) * abs(after)
        yield worst(Expected(f"{name} after a step", after, bound), value, dtype)

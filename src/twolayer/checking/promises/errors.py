"""What cannot be is refused in a sentence that names the argument, and changes nothing."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import numpy as np

from ...kernels.formulas.updates import UPDATES
from ...network import Parameters
from ..verify import Worst
from .trial import Broken, Trial


def refusals(trial: Trial) -> Iterator[Worst]:
    """Calls that must raise ValueError or TypeError."""
    plan, n = trial.plan(), trial.case.shape.n
    (V, W), X = trial.case.theta, trial.case.X

    def spoiled(array: np.ndarray, value: float = np.nan) -> np.ndarray:
        array = array.copy()
        array[-1, -1] = value
        return array

    other = np.float64 if trial.dtype == np.float32 else np.float32
    uses: list[tuple[str, str, Callable[[], Any]]] = [
        ("X", "NaN in X", lambda: trial.plan(X=spoiled(X))),
        ("X", "infinity in X", lambda: trial.plan(X=spoiled(X, np.inf))),
        ("X", "X without rows", lambda: trial.plan(X=X[:0], Y=trial.Y[:0])),
        ("X", "X of one axis", lambda: trial.plan(X=X[0])),
        ("X", "X of another dtype", lambda: trial.plan(X=X.astype(other))),
        ("Y", "NaN in Y", lambda: trial.plan(Y=spoiled(trial.Y))),
        ("Y", "too few rows of Y", lambda: trial.plan(Y=trial.Y[:-1])),
        ("theta", "NaN in V", lambda: trial.plan(theta=Parameters(spoiled(V), W))),
        ("theta", "V of other inputs", lambda: trial.plan(theta=Parameters(V[:, 1:], W))),
        ("theta", "W of other units", lambda: trial.plan(theta=Parameters(V, W[:, 1:]))),
        ("rows", "rows beyond n", lambda: plan.gradient(slice(0, n + 1))),
        ("rows", "negative rows", lambda: plan.gradient(slice(-3, None))),
        ("rows", "no rows", lambda: plan.gradient(slice(5, 5))),
        ("rows", "every second row", lambda: plan.gradient(slice(0, n, 2))),
        ("rows", "a loss beyond n", lambda: plan.loss(slice(0, n + 1))),
        ("rows", "a loss of no rows", lambda: plan.loss(slice(5, 5))),
        ("X_new", "NaN in X_new", lambda: plan.predict(spoiled(X))),
        ("X_new", "X_new without rows", lambda: plan.predict(X[:0])),
        ("X_new", "X_new of other inputs", lambda: plan.predict(X[:, 1:])),
        ("X_new", "X_new of another dtype", lambda: plan.predict(X.astype(other))),
        ("theta", "NaN in θ", lambda: setattr(plan, "theta", Parameters(V, spoiled(W)))),
        ("theta", "one row for V", lambda: setattr(plan, "theta", Parameters(V[:1], W))),
        ("theta", "θ of another dtype", lambda: setattr(
            plan, "theta", Parameters(V.astype(other), W.astype(other)))),
        ("", "one row for a slot", lambda: setattr(plan, "slots", (Parameters(V[:1], W),))),
        ("slots", "no slots for momentum", lambda: plan.update(
            UPDATES["descend_with_momentum"], (0.1, 0.9))),
        ("rows", "an update beyond n", lambda: plan.update(
            UPDATES["descend"], (0.1,), slice(0, n + 1))),
        ("rows", "the second update beyond n", lambda: plan.updates(
            UPDATES["descend"], [(0.1,)] * 2, [(0, n), (0, n + 1)])),
        ("scalars", "NaN in the second update", lambda: plan.updates(
            UPDATES["descend"], [(0.1,), (np.nan,)], [(0, n)] * 2)),
        ("scalars", "one update over two batches", lambda: plan.updates(
            UPDATES["descend"], [(0.1,)], [(0, n)] * 2)),
    ]  # fmt: skip
    numbers: tuple[Any, ...] = (np.nan, np.inf, -np.inf, None, "1")
    for mu in numbers:
        uses.append(("mu", f"a step of {mu!r}", partial(plan.step, mu)))
    targets = trial.case.net.objective.targets
    if targets.wrong is not None:
        wrong = targets.wrong
        uses.append(("Y", f"{wrong} as a target", lambda: trial.plan(Y=spoiled(trial.Y, wrong))))
    if targets.labels:
        labels = np.full(n, trial.case.shape.K)
        uses.append(("Y", "a label K", lambda: trial.plan(Y=labels)))
    for argument, what, use in uses:
        try:
            use()
        except (ValueError, TypeError) as error:
            if argument not in str(error):
                raise Broken(f"{what} is refused without naming {argument}: {error}") from None
        else:
            raise Broken(f"{what} is not refused")
    for name, before, after in zip("VW", trial.case.theta, plan.theta, strict=True):
        yield trial.same(f"{name} after what was refused", before, after)
    yield from trial.gradient("after what was refused", plan)

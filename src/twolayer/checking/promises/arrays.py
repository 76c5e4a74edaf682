"""Arrays of the caller may lie in memory in any way and are left alone; results are his own."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from ...kernels.formulas.updates import UPDATES
from ...network import Parameters
from .. import cases
from ..verify import Worst
from .trial import Broken, Trial


def in_other_layouts(array: np.ndarray) -> Iterator[tuple[str, np.ndarray]]:
    """The same numbers in other layouts."""
    apart = np.full((2 * array.shape[0], 2 * array.shape[1]), np.nan, array.dtype)
    apart[::2, ::2] = array
    yield "strided", apart[::2, ::2]
    yield "reversed", array[::-1].copy()[::-1]
    yield "Fortran-ordered", np.asfortranarray(array)
    fixed = array.copy()
    fixed.flags.writeable = False
    yield "read-only", fixed


def layouts(trial: Trial) -> Iterator[Worst]:
    """X, Y and θ in any layout give the same answers, and are left alone."""
    right = trial.at(trial.case.theta)
    for (name, X), (_, Y), (_, V), (_, W) in zip(
        *map(in_other_layouts, (trial.case.X, trial.Y, *trial.case.theta)), strict=True
    ):
        kept = [array.tobytes() for array in (X, Y, V, W)]
        plan = trial.plan(X=X, Y=Y, theta=Parameters(V, W))
        yield from trial.compare(f"with {name} X, Y and θ", right, *plan.gradient())
        yield from trial.step(f"of a step with {name} X, Y and θ", plan, 0.1)
        if kept != [array.tobytes() for array in (X, Y, V, W)]:
            raise Broken(f"{name} X, Y or θ of the caller was written to")


def untouched(trial: Trial) -> Iterator[Worst]:
    """X, Y, θ and X_new of the caller are never written to."""
    X, Y = trial.case.X.copy(), trial.Y.copy()
    V, W = (array.copy() for array in trial.case.theta)
    later, new = trial.theta(1), X[: max(1, len(X) // 2)] + 1
    arrays = {"X": X, "Y": Y, "theta.V": V, "theta.W": W, "X_new": new}
    arrays |= {"the V that was set": later.V, "the W that was set": later.W}
    kept = {name: array.tobytes() for name, array in arrays.items()}

    def look(what: str) -> None:
        for name, array in arrays.items():
            if array.tobytes() != kept[name]:
                raise Broken(f"{name} of the caller was written to by {what}")

    plan = trial.plan(X=X, Y=Y, theta=Parameters(V, W))
    look("plan")
    uses: dict[str, Callable[[], Any]] = {
        "gradient": plan.gradient,
        "gradient of rows": lambda: plan.gradient(slice(1, 5)),
        "loss": plan.loss,
        "step": lambda: plan.step(0.1),
        "predict": lambda: plan.predict(new),
        "predict for X": lambda: plan.predict(X),
        "update": lambda: plan.update(UPDATES["descend"], (0.1,)),
        "theta": lambda: setattr(plan, "theta", later),
    }
    for _ in range(2):  # the second time with the θ that was set
        for name, use in uses.items():
            use()
            look(name)
    yield from trial.gradient("at the end", plan)


def apart(trial: Trial) -> Iterator[Worst]:
    """Results are the caller's own: they stay as they are, and may be written to."""
    plan, X = trial.plan(), trial.case.X
    first, F = plan.gradient()[1], plan.predict(X)
    theta = plan.theta
    results = {"dL/dV": first.V, "dL/dW": first.W, "F": F, "V": theta.V, "W": theta.W}
    kept = {name: array.copy() for name, array in results.items()}
    plan.step(0.1)
    second, later = plan.gradient()[1], plan.predict(X)
    plan.update(UPDATES["descend"], (0.1,))
    plan.gradient(slice(0, 1))
    plan.predict(X[:1])
    for name, array in results.items():
        yield trial.same(f"{name} kept while the plan went on", kept[name], array)
    for name, one, other in (
        ("dL/dV", first.V, second.V), ("dL/dW", first.W, second.W), ("F", F, later),
        ("V", theta.V, plan.theta.V), ("W", theta.W, plan.theta.W),
    ):  # fmt: skip
        if np.may_share_memory(one, other):
            raise Broken(f"two results {name} share memory")
    for array in (*second, later, *plan.gradient()[1], plan.predict(X)):
        array[...] = 7
    yield from trial.gradient("after results were written to", plan)
    yield from trial.predict("after results were written to", plan, X)


def refilled(trial: Trial) -> Iterator[Worst]:
    """A plan takes X and Y as they are, though one before it was made of the same arrays."""
    X, Y = trial.case.X.copy(), trial.Y.copy()
    other = cases.problem(trial.case.net, trial.case.shape, trial.dtype.name, seed=65)
    for case in (trial.case, other, trial.case):
        there = trial.on(case)
        X[...], Y[...] = there.case.X, there.Y
        plan = there.plan(X=X, Y=Y)
        yield from there.gradient("of X and Y filled anew", plan)
        yield from there.step("of a step over X and Y filled anew", plan, 0.1)
        del plan


def same_bits(trial: Trial) -> Iterator[Worst]:
    """The same calls return the same bits, whether or not θ is read between them."""
    runs: list[list[Any]] = []
    for read in (False, True, False):
        plan, run = trial.plan(), []
        for number in range(4 - 2 * trial.long):
            loss, gradient = plan.gradient()
            if not runs and number == 0:
                loss_again, again = plan.gradient()
                for name, one, other in zip(
                    ("L", "dL/dV", "dL/dW"), (loss, *gradient), (loss_again, *again), strict=True
                ):
                    yield trial.same(f"{name} at once a second time", one, other)
            run += [loss, *gradient, plan.loss(), plan.predict(trial.case.X), plan.step(0.1)]
            if read or number == 3 - 2 * trial.long:
                theta = plan.theta
        runs.append([*run, *theta, *trial.plan().gradient()[1]])
    for run in runs[1:]:
        for number, (one, other) in enumerate(zip(runs[0], run, strict=True)):
            yield trial.same(f"result {number} a second time", one, other)

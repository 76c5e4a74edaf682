"""θ and slots are read and set as copies; updates follow their formulas."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from inspect import signature
from typing import Any

import numpy as np

from ...interface import Plan
from ...kernels.formulas.updates import UPDATES, Update
from ...network import Parameters, Shape
from .. import cases
from ..verify import ORACLE, Expected, Worst, worst
from .trial import Broken, Trial

_ROUNDING = 32  # units in the last place that an update may cost
MANY = 130  # updates in one call, more than a training makes
WEIGHTS = Shape(700, 40, 900, 4)  # more than a block of threads, a part or a panel has
_DRIFT = 1e-3  # of the largest number, what roundings of some updates may come to

# The scalars of the updates by the names of their formulas' arguments; no two are the same.
_SCALARS = {
    "mu": 0.05, "beta": 0.9, "beta_next": 0.8, "epsilon": 1e-3, "rho": 0.7, "rest": 0.3,
    "beta1": 0.6, "rest1": 0.4, "beta2": 0.95, "rest2": 0.05, "keep": 0.97,
}  # fmt: skip


def parameters(trial: Trial) -> Iterator[Worst]:
    """theta is read and set as copies, and what is set is used at once."""
    plan = trial.plan()
    for number in range(2):
        read, kept = plan.theta, plan.theta
        for array in read:
            if array.flags.writeable:
                array[...] = 7
        for name, before, after in zip("VW", kept, plan.theta, strict=True):
            yield trial.same(f"{name} after the arrays read were changed", before, after)
        yield from trial.gradient("after the arrays read were changed", plan)
        given = Parameters(*(array.copy() for array in trial.theta(number + 1)))
        plan.theta = given
        for array in given:
            array[...] = 7
        for name, before, after in zip("VW", trial.theta(number + 1), plan.theta, strict=True):
            yield trial.same(f"{name} after it was set and the array changed", before, after)
        yield from trial.gradient("after θ was set and the arrays changed", plan)
        plan.step(0.01)
    # Each use comes directly after θ was set, for each may go through a copy of its own.
    right, n = [trial.at(trial.theta(seed)) for seed in range(10, 15)], trial.case.shape.n
    plan.theta = trial.theta(10)
    yield from trial.compare("after θ was set", right[0], *plan.gradient())
    plan.theta = trial.theta(11)
    F = plan.predict(trial.case.X)
    yield trial.worst("F after θ was set", right[1].F, right[1].F_bound, F)
    plan.theta = trial.theta(12)
    yield from trial.compare("of a step after θ was set", right[2], plan.step(0.1))
    yield from trial.moved("of a step after θ was set", plan, trial.theta(12), right[2], 0.1)
    plan.theta = trial.theta(13)
    loss = plan.update(UPDATES["descend"], (0.1,))
    yield from trial.compare("of an update after θ was set", right[3], loss)
    yield from trial.moved("of an update after θ was set", plan, trial.theta(13), right[3], 0.1)
    plan.theta = Parameters(*(np.asfortranarray(array) for array in trial.theta(14)))
    of_rows = trial.at(trial.theta(14), slice(1, n))
    yield from trial.compare("of rows after θ was set", of_rows, *plan.gradient(slice(1, n)))


def losses(trial: Trial) -> Iterator[Worst]:
    """loss, over all rows and slices and at any θ, is L and changes nothing that can be seen."""
    n, momentum = trial.case.shape.n, UPDATES["descend_with_momentum"]
    plan = trial.plan()
    plan.slots = (trial.theta(1),)
    for number in range(2):
        what = f"alone after {number} steps"
        first = plan.gradient()[1]
        kept = [array.copy() for array in first]
        theta, slots = plan.theta, plan.slots
        for rows in (None, slice(n // 3, n - 2), slice(n - 1, n), slice(None, 5), slice(5, None)):
            yield from trial.loss(what, plan, rows)
        for name, before, after in zip("VW", kept, first, strict=True):
            yield trial.same(f"dL/d{name} of a gradient before L {what}", before, after)
        for name, before, after in zip("VW", theta, plan.theta, strict=True):
            yield trial.same(f"{name} after L {what}", before, after)
        yield from _same_slots(trial, f"after L {what}", slots, plan.slots)
        yield from trial.gradient(f"after L {what}", plan)
        plan.loss()
        yield from one_update(trial, plan, momentum, None)
        plan.loss(slice(0, n - 1))
        yield from trial.step(f"of a step after L {what}", plan, 0.1)
    plan.theta = trial.theta(2)
    right = trial.at(trial.theta(2))
    yield from trial.compare("alone after θ was set", right, plan.loss())


def updates(trial: Trial) -> Iterator[Worst]:
    """update by every formula, over all rows and a slice; slots are read and set as copies."""
    n = trial.case.shape.n
    plan = trial.plan()
    for update in [UPDATES["adam"]] if trial.long else UPDATES.values():
        slots = tuple(
            Parameters(*(0.5 + abs(array) for array in trial.theta(seed)))
            for seed in range(20, 20 + update.slots)
        )
        given = tuple(Parameters(*(array.copy() for array in slot)) for slot in slots)
        plan.slots = given
        for slot in given:
            for array in slot:
                array[...] = 7
        for slot in plan.slots:  # copies, too
            for array in slot:
                if array.flags.writeable:
                    array[...] = 7
        yield from _same_slots(trial, f"set for {update.name}", slots, plan.slots)
        for rows in (None, slice(n // 3, n - 2), slice(n - 1, n)):
            yield from one_update(trial, plan, update, rows)
        yield from trial.gradient(f"after {update.name}", plan)
        yield from trial.step(f"of a step after {update.name}", plan, 0.01)
    if trial.long:
        case = cases.problem(trial.case.net, WEIGHTS, trial.dtype.name, seed=63)
        if not trial.variant.refusal(case.net, case.shape, trial.dtype):
            large, adam = trial.on(case), UPDATES["adam"]
            plan = large.plan()
            plan.slots = tuple(_filled(large, 0.5) for _ in range(adam.slots))
            yield from one_update(large, plan, adam, None)
            yield from one_update(large, plan, adam, slice(100, 200))


def first_updates(trial: Trial) -> Iterator[Worst]:
    """update from slots of 0, also of weights whose slope is 0 exactly."""
    X = trial.case.X.copy()
    X[:, 0] = 0
    trial = trial.on(trial.case._replace(X=X))
    for update in UPDATES.values():
        plan = trial.plan()
        plan.slots = tuple(_filled(trial, 0.0) for _ in range(update.slots))
        yield from one_update(trial, plan, update, None)
        yield from one_update(trial, plan, update, slice(1, trial.case.shape.n))


def several(trial: Trial) -> Iterator[Worst]:
    """Updates in one call are the same updates one after the other, of other sizes among them."""
    n = trial.case.shape.n
    few = n // 4
    mixed = np.array([
        (0, few), (n // 3, n // 3 + few), (1, n), (n - 1, n), (0, 1), (few, 2 * few), (0, few)
    ])  # fmt: skip
    for update in [UPDATES["adam"]] if trial.long else UPDATES.values():
        given = _scalars(update)
        scalars = [[value * (1 - i / 16) for value in given] for i in range(len(mixed))]
        plans = trial.plan(), trial.plan()
        for start in (0.0, 0.5):  # the second time as where a training goes on
            yield from _alike(trial, plans, update, scalars, mixed, start)
        yield from one_update(trial, plans[1], update, slice(*mixed[0].tolist()))
    if trial.long:
        return
    # As training makes them: many, of one size, in any order, with the same scalars.
    slow = trial.variant.name == ORACLE or trial.variant.device == "cluster"
    starts = np.resize(np.arange(0, n - 1, 2), MANY // 8 if slow else MANY)
    starts = np.random.default_rng(62).permutation(starts)
    even = np.stack([starts, starts + 2], axis=1)
    for update in (UPDATES["descend"], UPDATES["adam"]):
        for rows in (even, np.vstack([even, [(n - 1, n)]])):
            scalars = [[value / 8 for value in _scalars(update)]] * len(rows)
            yield from _alike(trial, (trial.plan(), trial.plan()), update, scalars, rows, 0.0)


def _filled(trial: Trial, value: float) -> Parameters:
    """As θ, with one number throughout."""
    return Parameters(*(np.full_like(array, value) for array in trial.case.theta))


def _alike(
    trial: Trial, plans: tuple[Plan, Plan], update: Update, scalars: Any, rows: np.ndarray,
    start: float,
) -> Iterator[Worst]:  # fmt: skip
    """Of two plans one makes each update by itself, one all in one call, from slots of `start`."""
    one, together = plans
    one.slots = together.slots = tuple(_filled(trial, start) for _ in range(update.slots))
    one_by_one = np.array([
        one.update(update, values, slice(*run))
        for values, run in zip(scalars, rows.tolist(), strict=True)
    ])  # fmt: skip
    pairs = [("L", one_by_one, together.updates(update, scalars, rows))]
    names = "θ", *(f"slot {number}" for number in range(update.slots))
    after = (one.theta, *one.slots), (together.theta, *together.slots)
    for name, *both in zip(names, *after, strict=True):
        pairs += [(f"{part} of {name}", *of) for part, *of in zip("VW", *both, strict=True)]
    for name, expected, found in pairs:
        # What adds up in any order also rounds so, from update to update.
        bound = 0.0 if trial.variant.reproducible else _DRIFT * abs(expected).max()
        what = f"{name} of {len(rows)} {update.name} in one call"
        yield worst(Expected(what, expected, bound), found, expected.dtype)


def _same_slots(trial: Trial, what: str, before: Any, after: Any) -> Iterator[Worst]:
    if len(before) != len(after):
        raise Broken(f"{len(after)} slots {what} instead of {len(before)}")
    for number, pair in enumerate(zip(before, after, strict=True)):
        for name, old, new in zip("VW", *pair, strict=True):
            yield trial.same(f"slot {number} of {name} {what}", old, new)


def _scalars(update: Update) -> list[float]:
    return [_SCALARS[name] for name in [*signature(update.formula).parameters][2 + update.slots :]]


def one_update(
    trial: Trial, plan: Plan, update: Update, rows: slice | None, in_one_call: bool = False
) -> Iterator[Worst]:
    """One update against its formula in float64, at ∇L and at both ends of its bound."""
    what = f"of {update.name}" + (f" over rows {rows.start} to {rows.stop}" if rows else "")
    scalars = _scalars(update)
    theta, slots = plan.theta, plan.slots
    right = trial.at(theta, rows or slice(None))
    if in_one_call and rows is not None:
        loss = float(plan.updates(update, [scalars], [(rows.start, rows.stop)])[0])
    else:
        loss = plan.update(update, scalars) if rows is None else plan.update(update, scalars, rows)
    yield from trial.compare(what, right, loss)
    after = (plan.theta, *plan.slots)
    unit = _ROUNDING * float(np.finfo(trial.dtype).eps)
    for index, name in enumerate("VW"):
        g, e = right.gradient[index], right.gradient_bound[index]
        kept = [np.asarray(one[index], np.float64) for one in (theta, *slots)]
        at_g, low, high = (
            update.formula(kept[0], slope, *kept[1:], *scalars) for slope in (g, g - e, g + e)
        )
        size = unit * (sum(map(abs, kept)) + abs(g))
        labels = (name, *(f"slot {number} of {name}" for number in range(update.slots)))
        for label, found, *ends in zip(labels, after, at_g, low, high, strict=True):
            middle = ends[0]
            change = np.maximum(abs(ends[1] - middle), abs(ends[2] - middle))
            bound = 2 * change + size + unit * abs(middle)
            yield trial.worst(f"{label} {what}", middle, bound, found[index])


def any_order(trial: Trial) -> Iterator[Worst]:
    """Each use of a plan after each other; only `update` and setting them changes the slots."""
    case = cases.problem(trial.case.net, Shape(13, 3, 5, 2), trial.dtype.name, seed=61)
    trial = trial.on(case)
    plan, momentum = trial.plan(), UPDATES["descend_with_momentum"]
    plan.slots = (trial.theta(1),)

    def set_theta(what: str) -> Iterator[Worst]:
        plan.theta = trial.theta(2)
        for name, before, after in zip("VW", trial.theta(2), plan.theta, strict=True):
            yield trial.same(f"{name} {what}", before, after)

    uses: dict[str, Callable[[str], Iterator[Worst]]] = {
        "gradient": lambda what: trial.gradient(what, plan),
        "gradient of rows": lambda what: trial.gradient(what, plan, slice(4, 11)),
        "loss": lambda what: trial.loss(what, plan),
        "loss of rows": lambda what: trial.loss(what, plan, slice(4, 11)),
        "predict": lambda what: trial.predict(what, plan, case.X[2:7]),
        "predict of more rows": lambda what: trial.predict(what, plan, case.X.repeat(3, axis=0)),
        "step": lambda what: trial.step(what, plan, 0.1),
        "update": lambda what: one_update(trial, plan, momentum, None),
        "update of rows": lambda what: one_update(trial, plan, momentum, slice(4, 11)),
        "updates": lambda what: one_update(trial, plan, momentum, slice(2, 9), in_one_call=True),
        "theta": set_theta,
    }
    for first, use in uses.items():
        for then, next_use in uses.items():
            yield from use(f"of {first}")
            slots = plan.slots
            yield from next_use(f"of {then} after {first}")
            if not then.startswith("update"):
                yield from _same_slots(trial, f"after {then}", slots, plan.slots)

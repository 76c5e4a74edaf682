"""L, ∇L, F and θ after steps, over slices, for other rows, other Y and numbers that are 0."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from ...kernels.formulas.updates import UPDATES
from ...network import Parameters, Shape
from .. import cases
from ..verify import ORACLE, Worst
from .arrays import in_other_layouts
from .state import one_update
from .trial import Broken, Trial

STEP_SIZES = (1e-6, 1e-3, 1, 10.0, 0.0, -0.1, 0.1)
STEPS = 130  # of the oracle, which is slow, fewer
MANY = Shape(1 << 15, 1, 1, 2)
SIZES = (Shape(64, 32, 64, 16), Shape(32, 64, 32, 64), Shape(33, 3, 5, 300))


def after_steps(trial: Trial) -> Iterator[Worst]:
    """step, gradient and predict at every θ that steps lead to."""
    for mu in STEP_SIZES[-1:] if trial.long else STEP_SIZES:
        plan = trial.plan()
        yield from trial.step(f"of a step of {mu:g}", plan, mu)
        yield from trial.gradient(f"after a step of {mu:g}", plan)
    plan, steps = trial.plan(), 4 if trial.long else STEPS
    if trial.variant.name == ORACLE:
        steps = STEPS // 4
    every = trial.case.shape.n < 20
    for number in range(steps):
        if number < steps - 2 and not every:
            plan.step(0.01)  # θ is not read, which might mend it
        else:
            yield from trial.step(f"of step {number + 1}", plan, 0.01)
        if number in (0, 25):
            yield from trial.gradient(f"after {number + 1} steps", plan)
    yield from trial.gradient(f"after {steps} steps", plan)
    yield from trial.gradient("of rows after steps", plan, slice(1, trial.case.shape.n))
    yield from trial.predict("after steps", plan, trial.case.X)


def slices(trial: Trial) -> Iterator[Worst]:
    """gradient over slices, which changes nothing."""
    n = trial.case.shape.n
    plan = trial.plan()
    starts = (0, 1, 7, n // 3, n // 2, n - 5, n - 1)
    stops = (1, 2, n // 3 + 1, n // 2 + 8, n - 3, n - 1, n)
    for i, start in enumerate(starts):
        for j, stop in enumerate(stops):
            some = i == 0 or j == len(stops) - 1 or start + 1 == stop
            if 0 <= start < stop <= n and (some or not trial.long):
                rows = slice(start, stop)
                yield from trial.gradient(f"of rows {start} to {stop}", plan, rows)
    for rows in (slice(None, 5), slice(5, None), slice(None)):
        yield from trial.gradient(f"of rows {rows.start} to {rows.stop}", plan, rows)
    yield from trial.gradient("of all rows after slices", plan)
    for name, before, after in zip("VW", trial.case.theta, plan.theta, strict=True):
        yield trial.same(f"{name} after gradients", before, after)


def predictions(trial: Trial) -> Iterator[Worst]:
    """predict for one row, fewer and more rows than n, in any layout, in a buffer used again."""
    n, plan = trial.case.shape.n, trial.plan()
    new = cases.problem(
        trial.case.net, trial.case.shape._replace(n=3 * n + 5), trial.dtype.name, seed=30
    ).X
    for rows in (n, 1, 2, n - 1, n + 1, 2 * n, 3 * n + 5, n // 2):
        yield from trial.predict(f"of {rows} new rows", plan, new[:rows])
    for layout, X in in_other_layouts(new[:n]):
        yield from trial.predict(f"of {layout} X_new", plan, X)
    other = trial.case.X.copy()
    other[n // 2] = new[0]  # neither the first row nor the last
    yield from trial.predict("of X with another row", plan, other)
    buffer = new[:n].copy()
    yield from trial.predict("of X_new", plan, buffer)
    buffer[...] = new[n : 2 * n]
    yield from trial.predict("of other numbers in the same X_new", plan, buffer)
    yield from trial.gradient("after predict", plan)


def sizes(trial: Trial) -> Iterator[Worst]:
    """All of a plan at sizes that fill vectors, warps and blocks exactly, and with many outputs."""
    for seed, shape in enumerate(SIZES):
        case = cases.problem(trial.case.net, shape, trial.dtype.name, seed=66 + seed)
        forms = [case, cases.labelled(case)] if case.net.objective.targets.labels else [case]
        if trial.variant.refusal(case.net, case.shape, trial.dtype):
            continue
        for there in map(trial.on, forms):
            plan = there.plan()
            yield from there.gradient("", plan)
            yield from there.loss("", plan, slice(16, 32))
            yield from there.predict("", plan, there.case.X)
            yield from there.step("of a step", plan, 0.1)
            plan.slots = (there.theta(1), Parameters(*map(abs, there.theta(2))))
            yield from one_update(there, plan, UPDATES["adam"], None)


def labels(trial: Trial) -> Iterator[Worst]:
    """Y of other dtypes, and labels in place of rows."""
    targets, K = trial.case.net.objective.targets, trial.case.shape.K
    random = np.random.default_rng(40)
    n = trial.case.shape.n
    if targets.labels:
        classes = random.integers(0, K, n)
        Y = np.eye(K, dtype=trial.dtype)[classes]
        forms: list[np.ndarray] = [
            classes,
            classes.astype(np.uint8),
            Y.astype(np.int32),
            Y.astype(np.float64),
        ]
    else:
        Y = np.rint(targets.rows(random, n, K)).astype(trial.dtype)
        forms = [Y.astype(np.int8), Y.astype(np.float32), Y.astype(np.float64)]
        forms += [form[:, 0] for form in forms if K == 1]
    right = trial.at(trial.case.theta, Y=Y)
    for form in forms:
        found = trial.plan(Y=form).gradient()
        yield from trial.compare(f"with Y {form.dtype} {form.shape}", right, *found)


def zeros(trial: Trial) -> Iterator[Worst]:
    """W = 0, V = 0 and rows of zeros: pre-activations that are 0 exactly."""
    V, W = trial.case.theta
    X = trial.case.X.copy()
    X[::3] = 0
    for what, x, theta in (
        ("where W = 0", trial.case.X, Parameters(V, np.zeros_like(W))),
        ("where V = 0", trial.case.X, Parameters(np.zeros_like(V), W)),
        ("where θ = 0", trial.case.X, Parameters(np.zeros_like(V), np.zeros_like(W))),
        ("with rows of zeros", X, Parameters(V, W)),
        ("where X = 0", np.zeros_like(X), Parameters(V, W)),
    ):
        right = trial.at(theta, X=x)
        plan = trial.plan(X=x, theta=theta)
        yield from trial.compare(what, right, *plan.gradient())
        yield trial.worst(f"F {what}", right.F, right.F_bound, plan.predict(x))
        yield from trial.compare(f"of a step {what}", right, plan.step(0.1))
        yield from trial.moved(f"of a step {what}", plan, theta, right, 0.1)


def overflow(trial: Trial) -> Iterator[Worst]:
    """A gradient too large for the dtype shows; nothing makes it finite."""
    if trial.case.net.loss != "squared":  # δ of the others is bounded
        return
    huge = np.finfo(trial.dtype).max / 8
    plan = trial.plan()
    plan.theta = trial.case.theta._replace(W=np.full_like(trial.case.theta.W, huge))
    with np.errstate(all="ignore"):
        _, gradient = plan.gradient()
    if np.isfinite(gradient.V).all():
        raise Broken(f"dL/dV is finite where it overflows: W is {huge:g}")
    plan.theta = trial.case.theta
    yield from trial.gradient("after an overflow", plan)


def long_sums(trial: Trial) -> Iterator[Worst]:
    """L is accumulated in float64: a float32 sum of so many equal terms loses a part of each."""
    if trial.dtype != np.float32 or trial.variant.name == ORACLE:
        return
    case = cases.problem(trial.case.net, MANY, "float32", seed=60)
    ones = np.ones((MANY.n, 1), np.float32)
    trial = trial.on(case._replace(X=ones, Y=ones @ case.Y[1:2]))
    loss, _ = trial.plan().gradient()
    yield from trial.compare("of equal rows", trial.at(case.theta), loss)

"""Whether a variant keeps what the interface promises beyond L, ∇L and F at the first θ.

Each promise is a function that uses plans as a caller may, and yields what it found there next to
what it should be. All numbers are judged at the θ that the plan itself reports, so no error of a
step is carried into the next.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from inspect import signature
from typing import Any

import numpy as np

from . import bounds, cases, checks
from .interface import Plan, Variant
from .kernels.updates import UPDATES, Update
from .network import Network, Parameters, Shape
from .verify import Agreement, Expected, Worst, worst

# The first has a tail beyond 16 inputs, 32 hidden units and 8 outputs, the second many rows.
SHAPES = (Shape(67, 19, 35, 11), Shape(2311, 3, 5, 2))
STEP_SIZES = (1e-6, 1e-3, 0.1, 1.0, 10.0)
STEPS = 40
_ROUNDING = 32  # units in the last place that an update may cost

# The scalars of the updates by the names of their formulas' arguments; no two are the same.
_SCALARS = {
    "mu": 0.05, "beta": 0.9, "beta_next": 0.8, "epsilon": 1e-3, "rho": 0.7, "rest": 0.3,
    "beta1": 0.6, "rest1": 0.4, "beta2": 0.95, "rest2": 0.05, "root": 0.55, "keep": 0.97,
}  # fmt: skip


class Broken(Exception):
    """A promise that is not kept and that no number says."""


@dataclass(frozen=True)
class Bench:
    """A variant and a case to try it on; Y is the case's as checked, (n, K) of X's dtype."""

    variant: Variant
    case: cases.Case
    Y: np.ndarray
    threads: int | None

    @property
    def dtype(self) -> np.dtype:
        """The dtype of X, θ and all results."""
        return self.case.X.dtype

    def plan(self, **changed: Any) -> Plan:
        """A new plan for the case, with other X, Y or theta where they are given."""
        data: dict[str, Any] = {"X": self.case.X, "Y": self.case.Y, "theta": self.case.theta}
        return self.variant.plan(self.case.net, **(data | changed), threads=self.threads)

    def theta(self, seed: int) -> Parameters:
        """Other parameters of the case's shapes."""
        return cases.problem(self.case.net, self.case.shape, self.dtype.name, seed).theta

    def at(
        self, theta: Parameters, rows: slice = slice(None), X: Any = None, Y: Any = None
    ) -> bounds.Evaluation:
        """L, ∇L and F as they should be, over those rows of the case or of other data."""
        X, Y = self.case.X if X is None else X, self.Y if Y is None else Y
        return bounds.evaluate(self.case.net, theta, X[rows], Y[rows], self.dtype)

    def gradient(self, what: str, plan: Plan, rows: slice | None = None) -> Iterator[Worst]:
        """L and ∇L at the plan's θ."""
        theta = plan.theta
        loss, gradient = plan.gradient() if rows is None else plan.gradient(rows)
        yield from self.compare(what, self.at(theta, rows or slice(None)), loss, gradient)

    def compare(
        self, what: str, right: bounds.Evaluation, loss: Any, gradient: Any = None
    ) -> Iterator[Worst]:
        """L, and ∇L where it is given."""
        if type(loss) is not float:
            raise Broken(f"L {what} is a {type(loss).__name__} instead of a Python float")
        yield self.worst(f"L {what}", right.loss, right.loss_bound, loss)
        if gradient is not None:
            terms = zip("VW", right.gradient, right.gradient_bound, gradient, strict=True)
            for name, expected, bound, value in terms:
                yield self.worst(f"dL/d{name} {what}", expected, bound, value)

    def predict(self, what: str, plan: Plan, X: Any) -> Iterator[Worst]:
        """F at the plan's θ for any rows."""
        theta = plan.theta
        F = plan.predict(X)
        again = np.arange(len(X)) % len(self.Y)
        right = self.at(theta, X=X, Y=self.Y[again])
        yield self.worst(f"F {what}", right.F, right.F_bound, F)

    def step(self, what: str, plan: Plan, mu: float) -> Iterator[Worst]:
        """The loss that a step returns, and θ after it."""
        before = plan.theta
        right = self.at(before)
        yield from self.compare(what, right, plan.step(mu))
        yield from self.moved(what, plan, before, right, mu)

    def moved(
        self, what: str, plan: Plan, before: Parameters, right: bounds.Evaluation, mu: float
    ) -> Iterator[Worst]:
        """θ after a step from `before`, where ∇L is as in `right`."""
        pairs = zip(before, right.gradient, strict=True)
        theta = Parameters(*(w.astype(np.float64) - mu * g for w, g in pairs))
        none = Parameters(*(np.zeros_like(w) for w in theta))
        bound = bounds.step_bound(theta, right, mu, self.dtype, none)
        terms = zip("VW", theta, bound, plan.theta, before, strict=True)
        for name, expected, e, value, start in terms:
            e = e + 2 * float(np.finfo(self.dtype).eps) * abs(start)  # w − μ g may cancel
            yield self.worst(f"{name} {what}", expected, e, value)

    def worst(self, quantity: str, expected: Any, bound: Any, value: Any) -> Worst:
        """The largest error; where no error can be bounded, none is found."""
        bound = np.where(np.isfinite(bound), bound, np.inf)
        return worst(Expected(quantity, expected, bound), value, self.dtype, unbounded=True)

    def same(self, what: str, before: Any, after: Any) -> Worst:
        """Numbers that must not have changed at all."""
        return worst(Expected(what, before, 0.0), after, self.dtype)


def after_steps(bench: Bench) -> Iterator[Worst]:
    """step, gradient and predict at every θ that steps lead to."""
    for mu in STEP_SIZES:
        plan = bench.plan()
        yield from bench.step(f"of a step of {mu:g}", plan, mu)
        yield from bench.gradient(f"after a step of {mu:g}", plan)
    plan = bench.plan()
    for number in range(STEPS):
        if number < STEPS - 2:
            plan.step(0.01)  # θ is not read, which might mend it
        else:
            yield from bench.step(f"of step {number + 1}", plan, 0.01)
        if number in (0, 25):
            yield from bench.gradient(f"after {number + 1} steps", plan)
    yield from bench.gradient(f"after {STEPS} steps", plan)
    yield from bench.gradient("of rows after steps", plan, slice(1, bench.case.shape.n))
    yield from bench.predict("after steps", plan, bench.case.X)


def slices(bench: Bench) -> Iterator[Worst]:
    """gradient over slices, which changes nothing."""
    n = bench.case.shape.n
    plan = bench.plan()
    starts = (0, 1, 7, n // 3, n // 2, n - 5, n - 1)
    stops = (1, 2, n // 3 + 1, n // 2 + 8, n - 3, n - 1, n)
    for start in starts:
        for stop in stops:
            if start < stop:
                rows = slice(start, stop)
                yield from bench.gradient(f"of rows {start} to {stop}", plan, rows)
    yield from bench.gradient("of all rows after slices", plan)
    for name, before, after in zip("VW", bench.case.theta, plan.theta, strict=True):
        yield bench.same(f"{name} after gradients", before, after)


def parameters(bench: Bench) -> Iterator[Worst]:
    """theta is read and set as copies, and what is set is used at once."""
    plan = bench.plan()
    for number in range(2):
        read, kept = plan.theta, plan.theta
        for array in read:
            if array.flags.writeable:
                array[...] = 7
        for name, before, after in zip("VW", kept, plan.theta, strict=True):
            yield bench.same(f"{name} after the arrays read were changed", before, after)
        yield from bench.gradient("after the arrays read were changed", plan)
        given = Parameters(*(array.copy() for array in bench.theta(number + 1)))
        plan.theta = given
        for array in given:
            array[...] = 7
        for name, before, after in zip("VW", bench.theta(number + 1), plan.theta, strict=True):
            yield bench.same(f"{name} after it was set and the array changed", before, after)
        yield from bench.gradient("after θ was set and the arrays changed", plan)
        plan.step(0.01)
    # Each use comes directly after θ was set, for each may go through a copy of its own.
    right, n = [bench.at(bench.theta(seed)) for seed in range(10, 15)], bench.case.shape.n
    plan.theta = bench.theta(10)
    yield from bench.compare("after θ was set", right[0], *plan.gradient())
    plan.theta = bench.theta(11)
    F = plan.predict(bench.case.X)
    yield bench.worst("F after θ was set", right[1].F, right[1].F_bound, F)
    plan.theta = bench.theta(12)
    yield from bench.compare("of a step after θ was set", right[2], plan.step(0.1))
    yield from bench.moved("of a step after θ was set", plan, bench.theta(12), right[2], 0.1)
    plan.theta = bench.theta(13)
    loss = plan.update(UPDATES["descend"], (0.1,))
    yield from bench.compare("of an update after θ was set", right[3], loss)
    yield from bench.moved("of an update after θ was set", plan, bench.theta(13), right[3], 0.1)
    plan.theta = Parameters(*(np.asfortranarray(array) for array in bench.theta(14)))
    of_rows = bench.at(bench.theta(14), slice(1, n))
    yield from bench.compare("of rows after θ was set", of_rows, *plan.gradient(slice(1, n)))


def updates(bench: Bench) -> Iterator[Worst]:
    """update by every formula, over all rows and a slice; slots are read and set as copies."""
    n = bench.case.shape.n
    plan = bench.plan()
    for update in UPDATES.values():
        slots = tuple(
            Parameters(*(0.5 + abs(array) for array in bench.theta(seed)))
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
        yield from _same_slots(bench, f"set for {update.name}", slots, plan.slots)
        for rows in (None, slice(n // 3, n - 2), slice(n - 1, n)):
            yield from _update(bench, plan, update, rows)
        yield from bench.gradient(f"after {update.name}", plan)
        yield from bench.step(f"of a step after {update.name}", plan, 0.01)


def _same_slots(bench: Bench, what: str, before: Any, after: Any) -> Iterator[Worst]:
    if len(before) != len(after):
        raise Broken(f"{len(after)} slots {what} instead of {len(before)}")
    for number, pair in enumerate(zip(before, after, strict=True)):
        for name, old, new in zip("VW", *pair, strict=True):
            yield bench.same(f"slot {number} of {name} {what}", old, new)


def _update(bench: Bench, plan: Plan, update: Update, rows: slice | None) -> Iterator[Worst]:
    """One update against its formula in float64, at ∇L and at both ends of its bound."""
    what = f"of {update.name}" + (f" over rows {rows.start} to {rows.stop}" if rows else "")
    names = [*signature(update.formula).parameters][2 + update.slots :]
    scalars = [_SCALARS[name] for name in names]
    theta, slots = plan.theta, plan.slots
    right = bench.at(theta, rows or slice(None))
    loss = plan.update(update, scalars) if rows is None else plan.update(update, scalars, rows)
    yield from bench.compare(what, right, loss)
    after = (plan.theta, *plan.slots)
    unit = _ROUNDING * float(np.finfo(bench.dtype).eps)
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
            yield bench.worst(f"{label} {what}", middle, bound, found[index])


def predictions(bench: Bench) -> Iterator[Worst]:
    """predict for one row, fewer rows and more rows than n, and new data, in any layout."""
    n, plan = bench.case.shape.n, bench.plan()
    new = cases.problem(
        bench.case.net, bench.case.shape._replace(n=3 * n + 5), bench.dtype.name, seed=30
    ).X
    for rows in (n, 1, 2, n - 1, n + 1, 2 * n, 3 * n + 5, n // 2):
        yield from bench.predict(f"of {rows} new rows", plan, new[:rows])
    for layout, X in _layouts(new):
        yield from bench.predict(f"of {layout} X_new", plan, X)
    yield from bench.gradient("after predict", plan)


def labels(bench: Bench) -> Iterator[Worst]:
    """Y of other dtypes, and labels in place of rows."""
    targets, K = bench.case.net.objective.targets, bench.case.shape.K
    random = np.random.default_rng(40)
    n = bench.case.shape.n
    if targets == "distribution":
        classes = random.integers(0, K, n)
        Y = np.eye(K, dtype=bench.dtype)[classes]
        forms: list[np.ndarray] = [
            classes,
            classes.astype(np.uint8),
            Y.astype(np.int32),
            Y.astype(np.float64),
        ]
    else:
        values = random.choice([-1, 1], (n, K))
        Y = values.astype(bench.dtype)
        forms = [values.astype(np.int8), values.astype(np.float32), values.astype(np.float64)]
        forms += [form[:, 0] for form in forms if K == 1]
    right = bench.at(bench.case.theta, Y=Y)
    for form in forms:
        found = bench.plan(Y=form).gradient()
        yield from bench.compare(f"with Y {form.dtype} {form.shape}", right, *found)


def _layouts(array: np.ndarray) -> Iterator[tuple[str, np.ndarray]]:
    """The same numbers in other layouts."""
    apart = np.full((2 * array.shape[0], 2 * array.shape[1]), np.nan, array.dtype)
    apart[::2, ::2] = array
    yield "strided", apart[::2, ::2]
    yield "reversed", array[::-1].copy()[::-1]
    yield "Fortran-ordered", np.asfortranarray(array)
    fixed = array.copy()
    fixed.flags.writeable = False
    yield "read-only", fixed


def layouts(bench: Bench) -> Iterator[Worst]:
    """X, Y and θ in any layout give the same answers, and are left alone."""
    right = bench.at(bench.case.theta)
    for (name, X), (_, Y), (_, V), (_, W) in zip(
        *map(_layouts, (bench.case.X, bench.Y, *bench.case.theta)), strict=True
    ):
        kept = [array.tobytes() for array in (X, Y, V, W)]
        plan = bench.plan(X=X, Y=Y, theta=Parameters(V, W))
        yield from bench.compare(f"with {name} X, Y and θ", right, *plan.gradient())
        yield from bench.step(f"of a step with {name} X, Y and θ", plan, 0.1)
        if kept != [array.tobytes() for array in (X, Y, V, W)]:
            raise Broken(f"{name} X, Y or θ of the caller was written to")


def untouched(bench: Bench) -> Iterator[Worst]:
    """X, Y, θ and X_new of the caller are never written to."""
    X, Y = bench.case.X.copy(), bench.Y.copy()
    V, W = (array.copy() for array in bench.case.theta)
    later, new = bench.theta(1), X[: max(1, len(X) // 2)] + 1
    arrays = {"X": X, "Y": Y, "theta.V": V, "theta.W": W, "X_new": new}
    arrays |= {"the V that was set": later.V, "the W that was set": later.W}
    kept = {name: array.tobytes() for name, array in arrays.items()}

    def look(what: str) -> None:
        for name, array in arrays.items():
            if array.tobytes() != kept[name]:
                raise Broken(f"{name} of the caller was written to by {what}")

    plan = bench.plan(X=X, Y=Y, theta=Parameters(V, W))
    look("plan")
    uses: dict[str, Callable[[], Any]] = {
        "gradient": plan.gradient,
        "gradient of rows": lambda: plan.gradient(slice(1, 5)),
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
    yield from bench.gradient("at the end", plan)


def apart(bench: Bench) -> Iterator[Worst]:
    """Results are the caller's own: they stay as they are, and may be written to."""
    plan, X = bench.plan(), bench.case.X
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
        yield bench.same(f"{name} kept while the plan went on", kept[name], array)
    for name, one, other in (
        ("dL/dV", first.V, second.V), ("dL/dW", first.W, second.W), ("F", F, later),
        ("V", theta.V, plan.theta.V), ("W", theta.W, plan.theta.W),
    ):  # fmt: skip
        if np.may_share_memory(one, other):
            raise Broken(f"two results {name} share memory")
    for array in (*second, later, *plan.gradient()[1], plan.predict(X)):
        array[...] = 7
    yield from bench.gradient("after results were written to", plan)
    yield from bench.predict("after results were written to", plan, X)


def same_bits(bench: Bench) -> Iterator[Worst]:
    """The same calls return the same bits, whether or not θ is read between them."""
    runs = []
    for read in (False, True, False):
        plan, run = bench.plan(), []
        for number in range(4):
            loss, gradient = plan.gradient()
            run += [loss, *gradient, plan.predict(bench.case.X), plan.step(0.1)]
            if read or number == 3:
                theta = plan.theta
        runs.append([*run, *theta, *bench.plan().gradient()[1]])
    for run in runs[1:]:
        for number, (one, other) in enumerate(zip(runs[0], run, strict=True)):
            yield bench.same(f"result {number} a second time", one, other)


def zeros(bench: Bench) -> Iterator[Worst]:
    """W = 0, V = 0 and rows of zeros: pre-activations that are 0 exactly."""
    V, W = bench.case.theta
    X = bench.case.X.copy()
    X[::3] = 0
    for what, x, theta in (
        ("where W = 0", bench.case.X, Parameters(V, np.zeros_like(W))),
        ("where V = 0", bench.case.X, Parameters(np.zeros_like(V), W)),
        ("where θ = 0", bench.case.X, Parameters(np.zeros_like(V), np.zeros_like(W))),
        ("with rows of zeros", X, Parameters(V, W)),
        ("where X = 0", np.zeros_like(X), Parameters(V, W)),
    ):
        right = bench.at(theta, X=x)
        plan = bench.plan(X=x, theta=theta)
        yield from bench.compare(what, right, *plan.gradient())
        yield bench.worst(f"F {what}", right.F, right.F_bound, plan.predict(x))
        yield from bench.compare(f"of a step {what}", right, plan.step(0.1))
        yield from bench.moved(f"of a step {what}", plan, theta, right, 0.1)


EVERYWHERE: dict[str, Callable[[Bench], Iterator[Worst]]] = {
    "steps": after_steps,
    "slices": slices,
    "theta": parameters,
    "update": updates,
    "predict": predictions,
    "untouched": untouched,
    "same bits": same_bits,
}
ONCE = {"labels": labels, "layouts": layouts, "apart": apart, "zeros": zeros}


def promises(
    variant: Variant, net: Network, dtype: str, threads: int | None = None
) -> Iterator[Agreement]:
    """Whether a variant keeps each promise, on a network and dtype: an Agreement for each."""
    for number, shape in enumerate(SHAPES):
        case = cases.problem(net, shape, dtype, seed=50 + number)
        if variant.refuses(case.shape, case.X.dtype):
            continue
        Y = checks.check_targets(net, case.Y, case.shape, case.X.dtype)
        bench = Bench(variant, case, Y, threads)
        for name, promise in (EVERYWHERE | ({} if number else ONCE)).items():
            if variant.reproducible or promise is not same_bits:
                yield _kept(bench, name, promise)


def _kept(bench: Bench, name: str, promise: Callable[[Bench], Iterator[Worst]]) -> Agreement:
    case = bench.case
    about = (bench.variant.name, case.net, f"promise: {name}", case.shape, bench.dtype.name)
    state = _surroundings()
    try:
        found: Sequence[Worst] = list(promise(bench))
        if state != _surroundings():
            raise Broken("NumPy's error state or a global random state was changed")
    except Broken as broken:
        return Agreement(*about, np.inf, quantity=name, failure=str(broken))
    except Exception as error:  # whatever a variant raises is its own affair
        return Agreement(*about, np.inf, quantity=name, failure=f"{type(error).__name__}: {error}")
    finally:
        np.seterr(**state[0])
    first = next((one for one in found if one.ratio > 1), None)
    return Agreement(*about, *(first or max(found, key=lambda one: one.ratio)))


def _surroundings() -> tuple[Any, ...]:
    return np.geterr(), repr(np.random.get_state(legacy=False)), random.getstate()

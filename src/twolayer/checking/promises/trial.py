"""What judges: a variant on a case, and how far what its plans return is from what it should be.

All numbers are judged at the θ that the plan itself reports, so no error of a step is carried into
the next.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from ...interface import Plan, Variant, checks
from ...network import Parameters
from .. import bounds, cases
from ..verify import Expected, Worst, worst


class Broken(Exception):
    """A promise that is not kept and that no number says."""


@dataclass(frozen=True)
class Trial:
    """A variant and a case to try it on; Y is the case's as checked, (n, K) of X's dtype."""

    variant: Variant
    case: cases.Case
    Y: np.ndarray
    threads: int | None

    @property
    def dtype(self) -> np.dtype:
        """The dtype of X, θ and all results."""
        return self.case.X.dtype

    @property
    def long(self) -> bool:
        """Whether the case has many rows: what does not depend on them is then tried less."""
        return self.case.shape.n > 1000

    def plan(self, **changed: Any) -> Plan:
        """A new plan for the case, with other X, Y, theta or threads where they are given."""
        data: dict[str, Any] = {"X": self.case.X, "Y": self.case.Y, "theta": self.case.theta}
        return self.variant.plan(self.case.net, **(data | {"threads": self.threads} | changed))

    @classmethod
    def of(cls, variant: Variant, case: cases.Case, threads: int | None) -> Trial:
        """The trial on a case."""
        Y = checks.check_targets(case.net, case.Y, case.shape, case.X.dtype)
        return cls(variant, case, Y, threads)

    def on(self, case: cases.Case) -> Trial:
        """The same variant on another case."""
        return self.of(self.variant, case, self.threads)

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

    def loss(self, what: str, plan: Plan, rows: slice | None = None) -> Iterator[Worst]:
        """L alone at the plan's θ."""
        right = self.at(plan.theta, rows or slice(None))
        yield from self.compare(what, right, plan.loss() if rows is None else plan.loss(rows))

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

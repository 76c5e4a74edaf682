"""The one check before anything is timed: the plan itself against float64, on all of its rows."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np

from ..data import datasets
from ..interface import Plan, checks
from ..network import Network, Parameters, Shape, enough_memory
from . import bounds
from .verify import Expected, Worst, worst

DISAGREES = "disagrees with the oracle"  # how every sentence of a Disagreement begins
_DISTINCT = 256  # rows at most, of data drawn for a shape
_LEAST = 32  # of them, however much one costs
_COST = 1e8  # floating-point operations that their answers may take
_ELEMENT = 1000  # operations that a number of A or U costs in NumPy
_MOVED = 0.01  # error of A or U that a step may bring: of larger ones a bound says little
_BLOCK = 1 << 16  # numbers that are compared at once


class Disagreement(RuntimeError):
    """What a plan finds is not what its problem has for an answer."""


class Epoch(NamedTuple):
    """L, ∇L and F at θ, and θ after a step with a bound on its error."""

    right: bounds.Evaluation
    mu: float
    after: Parameters
    slack: Parameters


class Answers:
    """A problem and what every plan of it must find, made when first needed and kept.

    Arguments: net; X (n, d), Y (n, K) as a plan has it, theta; of (n,), where rows occur again, the
    number of the row that each is equal to: the first ones are all that are evaluated.
    """

    def __init__(
        self, net: Network, X: np.ndarray, Y: np.ndarray, theta: Parameters,
        of: np.ndarray | None = None,
    ) -> None:  # fmt: skip
        self.net, self.X, self.Y, self.theta, self._of = net, X, Y, theta, of

    @classmethod
    def drawn(cls, net: Network, shape: Shape, dtype: str) -> Answers:
        """Random data and θ of a shape, whose answers cost about the same for any n.

        The rows are drawn from a few, so that a mean over some of them is another one than that
        over all. Raises MemoryError for a shape that cannot fit.
        """
        n, d, M, K = shape
        enough_memory(f"data with n={n}, d={d}, K={K}", shape.bytes(dtype) + 2 * n)
        theta = net.init(d, M, K, dtype)
        a_row = shape._replace(n=1).flops() + _ELEMENT * (M + K)
        distinct = min(n, _DISTINCT, max(_LEAST, int(_COST / a_row)))
        data = datasets.synthetic(shape._replace(n=distinct), net.objective, dtype)
        Y = checks.check_targets(net, data.Y, shape._replace(n=distinct), data.X.dtype)
        of = np.arange(n, dtype=np.uint16)
        of[distinct:] = np.random.default_rng(0).integers(0, distinct, n - distinct, np.uint16)
        return cls(net, data.X[of], Y[of], theta, of)

    @property
    def problem(self) -> tuple[Network, np.ndarray, np.ndarray, Parameters]:
        """net, X, Y and θ, as plans are made of them."""
        return self.net, self.X, self.Y, self.theta

    def hold(self, plan: Plan) -> float:
        """The largest error of a plan of this problem in units of its bound; it ends with its θ.

        Two epochs are compared on all rows: L, ∇L, F, what `step` returns and θ after it. Raises
        Disagreement where an error exceeds its bound or a shape is another one. What the plan
        raises is no disagreement, and another time it may not: it passes.
        """
        epochs, largest = self.epochs, 0.0
        for found in self._compare(plan, epochs):
            if found.ratio > 1:
                raise Disagreement(
                    f"{DISAGREES}: {found.quantity} of all {len(self.X)} rows is off by "
                    f"{found.ratio:.3g} times the bound"
                )
            largest = max(largest, found.ratio)
        return largest

    @cached_property
    def epochs(self) -> list[Epoch]:
        """Two epochs of gradient descent."""
        dtype, epochs = self.X.dtype, []
        X, Y, counts = self.X, self.Y, None
        if self._of is not None:
            counts = np.bincount(self._of)
            X, Y = X[: len(counts)], Y[: len(counts)]
        theta = Parameters(*(np.asarray(weights, np.float64) for weights in self.theta))
        error = None
        for _ in range(2):
            right = bounds.evaluate(self.net, theta, X, Y, dtype, error, counts)
            if error is None:
                error = Parameters(*(2 * float(np.finfo(dtype).eps) * abs(w) for w in theta))
                gV, gW = (float(bound.max()) for bound in right.gradient_bound)
                mu = _MOVED / max(_MOVED, gV * theta.V.shape[1], gW * len(theta.V))
            theta = Parameters(*(w - mu * g for w, g in zip(theta, right.gradient, strict=True)))
            error = bounds.step_bound(theta, right, mu, dtype, error)
            epochs.append(Epoch(right, mu, theta, error))
        return epochs

    def _compare(self, plan: Plan, epochs: list[Epoch]) -> Iterator[Worst]:
        plan.theta = self.theta
        for when, epoch in zip(("", " after a step"), epochs, strict=True):
            right = epoch.right
            loss, gradient = plan.gradient()
            yield self._worst(f"L{when}", right.loss, right.loss_bound, loss)
            terms = zip("VW", right.gradient, right.gradient_bound, gradient, strict=True)
            for name, expected, bound, value in terms:
                yield self._worst(f"dL/d{name}{when}", expected, bound, value)
            F = plan.predict(self.X)
            yield self._worst(f"F{when}", right.F, right.F_bound, F, self._of)
            loss = plan.step(epoch.mu)
            yield self._worst(f"L returned by step{when}", right.loss, right.loss_bound, loss)
            ends = zip("VW", epoch.after, epoch.slack, plan.theta, strict=True)
            for name, expected, bound, value in ends:
                yield self._worst(f"{name} after step{when}", expected, bound, value)
        plan.theta = self.theta

    def _worst(
        self, quantity: str, expected: Any, bound: Any, value: Any, of: np.ndarray | None = None
    ) -> Worst:
        """The largest error in units of the bound, block by block; of, see `Answers`."""
        shape = np.shape(expected) if of is None else (len(of), *np.shape(expected)[1:])
        if np.shape(value) != shape:
            raise Disagreement(f"{DISAGREES}: {quantity} has shape {np.shape(value)}, not {shape}")
        rows = max(1, _BLOCK // shape[1]) if shape else 1
        found = Worst(0.0, quantity, (), 0.0, 0.0)
        for start in range(0, shape[0] if shape else 1, rows):
            part: Any = slice(start, start + rows) if shape else ()
            at = part if of is None else of[part]
            limit = np.asarray(bound)[at]
            limit = np.where(np.isfinite(limit), limit, np.inf)
            one = Expected(quantity, np.asarray(expected)[at], limit)
            block = value[part] if shape else value
            here = worst(one, block, self.X.dtype, unbounded=True)
            found = here if here.ratio > found.ratio else found
        return found

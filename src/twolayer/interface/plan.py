"""An engine at work on one data set: what everybody calls, with all checks and one lock."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, final

import numpy as np

from ..deferred import html
from ..kernels.formulas.updates import UPDATES, Update, scalar_count
from ..machine.forks import renewed
from ..network import Parameters
from . import checks
from .engine import Engine

_DESCEND = UPDATES["descend"]


@final
class Plan:
    """An engine with its data and parameters. Calls from several Python threads take turns.

    `variant` is the name of the one that made it. `engine`, `weights`, `X` and `Y`, as the engine
    holds them, are there for plans made of others.
    """

    _repr_html_ = html

    def __init__(
        self, engine: Engine, X: Any, Y: Any, theta: Parameters, variant: str = ""
    ) -> None:
        self.net, self.shape, self.dtype = engine.net, engine.shape, engine.dtype
        self.threads, self.engine, self.variant = engine.threads, engine, variant
        self.weights = engine.weights()
        self.weights.put(theta, self.weights.theta)
        self.X, self.Y = engine.hold(X, Y)
        self._turn = renewed(self, "_turn")

    def __reduce_ex__(self, protocol: Any) -> Any:
        raise TypeError(
            "plan: cannot be copied or pickled, for its compiled code and buffers belong to this "
            "process: pass net, X, Y and plan.theta on, and make a plan of them there"
        )

    def step(self, mu: float) -> float:
        """One epoch of gradient descent, θ ← θ − μ ∇L(θ); returns L at the θ it started from.

        Arguments: mu, the step size. Raises ValueError unless it is finite.
        """
        mu = checks.check_step_size(mu, self.dtype)
        with self._turn:
            return float(self.engine.update(self.X, self.Y, self.weights, _DESCEND, (mu,)))

    def gradient(self, rows: slice | None = None) -> tuple[float, Parameters]:
        """L and ∇L at the current θ over all rows of X and Y, or a slice of them.

        Returns L and Parameters(∂L/∂V (M, d), ∂L/∂W (K, M)), arrays of the caller's own. Raises
        ValueError for rows out of range.
        """
        X, Y = self._rows(rows)
        weights = self.weights
        with self._turn:
            loss = float(self.engine.backpropagate(X, Y, weights.theta, weights.gradient))
            return loss, weights.get(weights.gradient)

    def loss(self, rows: slice | None = None) -> float:
        """L at the current θ over all rows of X and Y, or a slice of them.

        Raises ValueError for rows out of range.
        """
        X, Y = self._rows(rows)
        weights = self.weights
        with self._turn:
            return float(self.engine.loss(X, Y, weights.theta, weights.gradient))

    def update(self, update: Update, scalars: Sequence[float], rows: slice | None = None) -> float:
        """(θ, slots) ← formula(θ, ∇L, slots; scalars) for each weight; returns L at the old θ.

        Arguments: update, one of `kernels.formulas.updates.UPDATES`; scalars, in the order of its
        formula; rows, a slice that L and ∇L are over, all of X and Y by default. What the update
        keeps for each weight is in `slots`, which must be set before. Raises ValueError for rows
        out of range, for scalars that are not finite and for another number of scalars or slots
        than the update has.
        """
        X, Y = self._rows(rows)
        values = checks.check_scalars(scalars, self.dtype)
        if len(values) != (count := scalar_count(update)):
            raise ValueError(f"scalars: expected {count} for {update.name}, got {len(values)}")
        with self._turn:
            self._check_slots(update)
            return float(self.engine.update(X, Y, self.weights, update, values))

    def updates(self, update: Update, scalars: Any, rows: Any) -> np.ndarray:
        """As many updates, one after the other; returns L (count,) at the θ before each.

        The same as `update` for each in its turn, but compiled variants take one call for all.
        Arguments: update; scalars (count, …), those of each; rows (count, 2), integers: the first
        row of each and the one behind its last. Raises ValueError and TypeError as `update` does,
        before θ changes.
        """
        bounds = checks.check_runs(rows, self.shape.n)
        values = checks.check_table(scalars, len(bounds), scalar_count(update), self.dtype)
        with self._turn:
            self._check_slots(update)
            if len(bounds) == 0:
                return np.empty(0)
            return self.engine.updates(self.X, self.Y, self.weights, update, values, bounds)

    def predict(self, X_new: Any) -> np.ndarray:
        """F = h(σ(X_new Vᵀ) Wᵀ) (n_new, K) for X_new (n_new, d) of the plan's dtype."""
        X = checks.check_new_inputs(X_new, self.shape.d, self.dtype)
        F = np.empty((len(X), self.shape.K), self.dtype)
        with self._turn:
            self.engine.forward(X, self.weights.theta, F)
        return F

    @property
    def theta(self) -> Parameters:
        """The current parameters, copied; assigning sets them."""
        with self._turn:
            return self.weights.get(self.weights.theta)

    @theta.setter
    def theta(self, theta: Parameters) -> None:
        new = self._check_like_theta(theta)
        with self._turn:
            self.weights.put(new, self.weights.theta)

    @property
    def slots(self) -> tuple[Parameters, ...]:
        """What an optimizer keeps for each weight, shaped as θ, copied; assigning sets them."""
        with self._turn:
            return tuple(map(self.weights.get, self.weights.slots))

    @slots.setter
    def slots(self, slots: Sequence[Parameters]) -> None:
        values = tuple(map(self._check_like_theta, slots))
        with self._turn:
            new = tuple(self.weights.room() for _ in values)
            for arrays, value in zip(new, values, strict=True):
                self.weights.put(value, arrays)
            self.weights.slots = new

    def _rows(self, rows: slice | None) -> tuple[Any, Any]:
        if rows is None:
            return self.X, self.Y
        rows = checks.check_rows(rows, self.shape.n)
        return self.X[rows], self.Y[rows]

    def _check_slots(self, update: Update) -> None:
        if len(self.weights.slots) != update.slots:
            raise ValueError(
                f"slots: expected {update.slots} for {update.name}, got {len(self.weights.slots)}"
            )

    def _check_like_theta(self, theta: Parameters) -> Parameters:
        _, d, M, K = self.shape
        new = checks.check_parameters(self.net, theta)
        for name, shape, value in zip(new._fields, ((M, d), (K, M)), new, strict=True):
            checks.same_type(f"theta.{name}", value.dtype, "X", self.dtype)
            if value.shape != shape:
                raise ValueError(f"theta.{name}: expected shape {shape}, got {value.shape}")
        return new

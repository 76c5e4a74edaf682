"""Optimizers: pairs of pure functions, `init` and `update`, around one formula for a weight.

    optimizer = optimizers.get("adam")(step=0.01)
    state = optimizer.init(theta)
    theta, state = optimizer.update(gradient, state, theta)

`advance` makes the same update inside a plan, where the plan keeps its arrays. Step sizes follow a
rule, μₖ = μ r(k) for the k-th update, k = 1, 2, …
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from inspect import signature
from typing import Any, NamedTuple

import numpy as np

from ..interface import Plan
from ..kernels.formulas.updates import UPDATES, Update
from ..network import Parameters, one_of
from ..registry import Registry, listed

_SUFFICIENT = 1e-4  # of the decrease that the slope promises

RULES: dict[str, Callable[[int], float]] = {
    "constant": lambda k: 1.0,
    "1/k": lambda k: 1 / k,
    "1/sqrtk": lambda k: 1 / math.sqrt(k),
    "backtracking": lambda k: 1.0,
}


class State(NamedTuple):
    """Between two updates: how many were made, and the slots, each shaped as θ."""

    k: int
    slots: tuple[Parameters, ...]


@dataclass(frozen=True)
class Algorithm:
    """An optimizer with its settings, as two pure functions.

    Arguments: formula, the update of a weight; scalars(k), what the formula takes at the k-th
    update; backtracking, whether the first scalar is halved until L falls enough.
    """

    formula: Update
    scalars: Callable[[int], tuple[float, ...]]
    backtracking: bool = False

    def init(self, theta: Parameters) -> State:
        """The state before the first update."""
        zeros = (Parameters(*map(np.zeros_like, theta)) for _ in range(self.formula.slots))
        return State(0, tuple(zeros))

    def update(
        self,
        gradient: Parameters,
        state: State,
        theta: Parameters,
        loss: float = math.nan,
        value: Callable[[Parameters], float] | None = None,
    ) -> tuple[Parameters, State]:
        """θ and the state after one more update.

        Arguments: gradient, ∇L(θ); state; theta; with backtracking also loss, L(θ), and value, the
        function L. Raises ValueError where those are missing.
        """
        scalars = self.scalars(state.k + 1)
        if self.backtracking:
            if value is None:
                raise ValueError("value: expected the function L for backtracking, got None")
            scalars = (_backtrack(scalars[0], theta, gradient, loss, value),)
        with np.errstate(all="ignore"):  # a descent that diverges shows in θ and L
            new = [
                self.formula.formula(*arrays, *scalars)
                for arrays in zip(theta, gradient, *state.slots, strict=True)
            ]
        theta, *slots = (Parameters(*arrays) for arrays in zip(*new, strict=True))
        return theta, State(state.k + 1, tuple(slots))


def advance(algorithm: Algorithm, plan: Plan, k: int, rows: slice | None = None) -> float:
    """The k-th update, k = 1, 2, …, of a plan's θ and slots; returns L over the rows before it.

    Before the first one, `plan.slots = algorithm.init(plan.theta).slots`. Backtracking takes one
    more pass over the rows for each step size that it tries; where L or ∇L is not finite it leaves
    θ as it is and returns NaN. Errors as for `Plan.update`.
    """
    scalars = algorithm.scalars(k)
    if algorithm.backtracking:
        loss, gradient = plan.gradient(rows)
        if not (math.isfinite(loss) and all(np.isfinite(array).all() for array in gradient)):
            return math.nan  # no step would help
        theta = plan.theta

        def value(trial: Parameters) -> float:
            if not all(np.isfinite(array).all() for array in trial):
                return math.inf
            plan.theta = trial
            return plan.loss(rows)

        plan.theta, _ = algorithm.update(gradient, State(k - 1, ()), theta, loss, value)
        return loss
    if rows is None and algorithm.formula is UPDATES["descend"]:
        return plan.step(*scalars)
    return plan.update(algorithm.formula, scalars, rows)


def advance_over(algorithm: Algorithm, plan: Plan, k: int, rows: np.ndarray) -> np.ndarray:
    """Updates k, k + 1, …, as many as rows (count, 2) has pairs; returns L (count,) before each.

    The same as `advance` over each run of rows, from the first number of a pair to below the
    second; where a plan's variant is compiled, they are one call. Errors as for `Plan.updates`.
    """
    if algorithm.backtracking:
        of_each = (advance(algorithm, plan, k + i, slice(*run)) for i, run in enumerate(rows))
        return np.fromiter(of_each, np.float64)
    scalars = [algorithm.scalars(k + i) for i in range(len(rows))]
    return plan.updates(algorithm.formula, scalars, rows)


def _backtrack(
    mu: float,
    theta: Parameters,
    gradient: Parameters,
    loss: float,
    value: Callable[[Parameters], float],
) -> float:
    """The first of μ, μ/2, μ/4, … with L(θ − μ ∇L) ≤ L − 10⁻⁴ μ ‖∇L‖².

    A step so small that it leaves θ as it is ends the search too.

    Source: Armijo, Minimization of functions having Lipschitz continuous first partial derivatives
    (1966); Nocedal, Wright, Numerical Optimization (2006), algorithm 3.1, has the constants.
    """
    square = sum(float(np.vdot(g, g.astype(np.float64))) for g in gradient)
    while True:
        with np.errstate(all="ignore"):
            pairs = zip(theta, gradient, strict=True)
            trial = Parameters(*(UPDATES["descend"].formula(w, g, mu)[0] for w, g in pairs))
        if value(trial) <= loss - _SUFFICIENT * mu * square:
            return mu
        if mu == 0 or all((moved == w).all() for moved, w in zip(trial, theta, strict=True)):
            return mu
        mu /= 2


def gradient_descent(step: float = 0.1, rule: str = "constant") -> Algorithm:
    """θ ← θ − μₖ ∇L(θ).

    Arguments: step μ; rule, one of `RULES`: μₖ = μ, μ/k or μ/√k, or the first of μ, μ/2, μ/4, …
    that decreases L enough. Raises ValueError for a step that is not positive or an unknown rule.
    Source: Cauchy, Méthode générale pour la résolution des systèmes d'équations (1847).
    """
    mu = step_sizes(step, rule, backtracking=True)
    return Algorithm(UPDATES["descend"], lambda k: (mu(k),), rule == "backtracking")


def nesterov(step: float = 0.1, rule: str = "constant", momentum: float | None = None) -> Algorithm:
    """Accelerated gradient descent: v ← βₖ v − μₖ ∇L(θ), θ ← θ − μₖ ∇L(θ) + βₖ₊₁ v.

    θ is the extrapolated point, where ∇L is taken. Arguments: step μ; rule; momentum, a constant β,
    or None for βₖ = (k − 1)/(k + 2). Raises ValueError for what is out of range.
    Source: Nesterov, A method of solving a convex programming problem with convergence rate
    O(1/k²) (1983); the βₖ of Su, Boyd, Candès, A differential equation for modeling Nesterov's
    accelerated gradient method (2016).
    """
    mu = step_sizes(step, rule)
    if momentum is None:
        return Algorithm(UPDATES["accelerate"], lambda k: (mu(k), (k - 1) / (k + 2), k / (k + 3)))
    beta = _share("momentum", momentum)
    return Algorithm(UPDATES["accelerate"], lambda k: (mu(k), beta, beta))


def sgd(step: float = 0.01, rule: str = "constant", momentum: float = 0.9) -> Algorithm:
    """Stochastic gradient descent with momentum: v ← β v + ∇L(θ), θ ← θ − μₖ v.

    ∇L is over a mini-batch, of rows that no other batch of the epoch has. Arguments: step μ; rule;
    momentum β, 0 for none. Raises ValueError for what is out of range.
    Source: Robbins, Monro, A stochastic approximation method (1951); Polyak, Some methods of
    speeding up the convergence of iteration methods (1964).
    """
    mu = step_sizes(step, rule)
    beta = _share("momentum", momentum)
    if beta == 0:
        return Algorithm(UPDATES["descend"], lambda k: (mu(k),))
    return Algorithm(UPDATES["descend_with_momentum"], lambda k: (mu(k), beta))


def adagrad(step: float = 0.01, rule: str = "constant", epsilon: float = 1e-10) -> Algorithm:
    """s ← s + ∇L(θ)², θ ← θ − μₖ ∇L(θ) / (√s + ε), for each weight.

    Arguments: step μ; rule; epsilon ε. Raises ValueError for what is out of range.
    Source: Duchi, Hazan, Singer, Adaptive subgradient methods for online learning and stochastic
    optimization (2011).
    """
    mu = step_sizes(step, rule)
    epsilon = _positive("epsilon", epsilon)
    return Algorithm(UPDATES["adagrad"], lambda k: (mu(k), epsilon))


def rmsprop(
    step: float = 0.01, rule: str = "constant", rho: float = 0.99, epsilon: float = 1e-8
) -> Algorithm:
    """s ← ρ s + (1 − ρ) ∇L(θ)², θ ← θ − μₖ ∇L(θ) / (√s + ε), for each weight.

    Arguments: step μ; rule; rho ρ, PyTorch's alpha; epsilon ε. Raises ValueError for what is out
    of range. Source: Tieleman, Hinton, Neural networks for machine learning, lecture 6.5 (2012).
    """
    mu = step_sizes(step, rule)
    rho, epsilon = _share("rho", rho), _positive("epsilon", epsilon)
    return Algorithm(UPDATES["rmsprop"], lambda k: (mu(k), rho, 1 - rho, epsilon))


def adam(
    step: float = 0.001,
    rule: str = "constant",
    beta1: float = 0.9,
    beta2: float = 0.999,
    epsilon: float = 1e-8,
) -> Algorithm:
    """m ← β₁ m + (1 − β₁) g, s ← β₂ s + (1 − β₂) g², θ ← θ − μₖ m̂ / (√ŝ + ε), with g = ∇L(θ).

    m̂ = m / (1 − β₁ᵏ) and ŝ = s / (1 − β₂ᵏ). Arguments: step μ; rule; beta1 β₁; beta2 β₂; epsilon
    ε. Raises ValueError for what is out of range.
    Source: Kingma, Ba, Adam: a method for stochastic optimization (2015), algorithm 1.
    """
    return adamw(step, rule, beta1, beta2, epsilon, 0.0)


def adamw(
    step: float = 0.001,
    rule: str = "constant",
    beta1: float = 0.9,
    beta2: float = 0.999,
    epsilon: float = 1e-8,
    decay: float = 0.01,
) -> Algorithm:
    """Adam with decoupled weight decay: θ ← (1 − μₖ λ) θ before the update of `adam`.

    Arguments: as for `adam`; decay λ. Raises ValueError for what is out of range.
    Source: Loshchilov, Hutter, Decoupled weight decay regularization (2019), algorithm 2, with
    PyTorch's μₖ λ.
    """
    mu = step_sizes(step, rule)
    beta1, beta2 = _share("beta1", beta1), _share("beta2", beta2)
    epsilon = _positive("epsilon", epsilon)
    if not 0 <= decay < math.inf:
        raise ValueError(f"decay: expected a number of at least 0, got {decay}")

    def scalars(k: int) -> tuple[float, ...]:
        mu_k, root = mu(k), math.sqrt(1 - beta2**k)
        corrected = mu_k * root / (1 - beta1**k)
        keep = 1 - mu_k * decay
        return corrected, beta1, 1 - beta1, beta2, 1 - beta2, epsilon * root, keep

    return Algorithm(UPDATES["adam"], scalars)


@dataclass(frozen=True)
class Optimizer:
    """An optimizer by name: called with settings, it gives the algorithm.

    Arguments: name; make(step, rule, …), whose first two settings have defaults.
    """

    name: str
    make: Callable[..., Algorithm]

    def __call__(self, *arguments: Any, **settings: Any) -> Algorithm:
        """The algorithm with these settings. Raises ValueError for what is out of range."""
        return self.make(*arguments, **settings)

    @property
    def step(self) -> float:
        """The step size that it takes by default."""
        return float(signature(self.make).parameters["step"].default)


def step_sizes(step: float, rule: str, backtracking: bool = False) -> Callable[[int], float]:
    """k ↦ μₖ for a step size and a rule. Raises ValueError for what is out of range."""
    step = _positive("step", step)
    one_of("rule", rule, [name for name in RULES if backtracking or name != "backtracking"])
    return lambda k: step * RULES[rule](k)


def _positive(argument: str, value: float) -> float:
    if not 0 < value < math.inf:
        raise ValueError(f"{argument}: expected a positive number, got {value}")
    return float(value)


def _share(argument: str, value: float) -> float:
    if not 0 <= value < 1:
        raise ValueError(f"{argument}: expected a number from 0 to below 1, got {value}")
    return float(value)


REGISTRY = listed(
    Registry(
        Optimizer,
        (
            Optimizer("gd", gradient_descent),
            Optimizer("nesterov", nesterov),
            Optimizer("sgd", sgd),
            Optimizer("adagrad", adagrad),
            Optimizer("rmsprop", rmsprop),
            Optimizer("adam", adam),
            Optimizer("adamw", adamw),
        ),
    )
)

names = REGISTRY.names
get = REGISTRY.get
add = REGISTRY.add

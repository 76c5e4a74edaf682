"""The losses: each with the targets it takes, its score and a bound on the errors of its values.

The formulas of h, ℓ and δ stand in `kernels/formulas/losses.py`; docs/math.md derives the bounds.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import product
from typing import Any, NamedTuple

import numpy as np

from .kernels.formulas import losses as formulas
from .kernels.formulas.activations import sigmoid_slope, softplus
from .kernels.formulas.elementary import logistic
from .kernels.formulas.losses import LOSSES, Forms
from .registry import Registry, listed
from .targets import DISTRIBUTIONS, REAL, SIGNS, Targets

# Roundings in the longest chain of scalar operations that a formula of h, ℓ, δ or an update goes
# through, its elementary functions counted with their error in ULP; the sums are counted apart.
OPERATIONS = 16


class Rounding(NamedTuple):
    """The unit roundoff, γ of a sum over K outputs, and what may underflow to zero."""

    unit: float
    gamma: float
    tiny: float


class Part(NamedTuple):
    """ℓ (n,), F and Δ (n, K) of a block of samples, and for each a bound on its error."""

    loss: np.ndarray
    eloss: np.ndarray
    F: np.ndarray
    eF: np.ndarray
    Delta: np.ndarray
    eDelta: np.ndarray


Bound = Callable[[Any, Any, Any, Rounding], Part]


class Loss(Forms):
    """A loss: its forms, for kernels, and what everybody else must know of it.

    Arguments: name; forms, as in `kernels/formulas/losses.py`; targets, the Y that it takes;
    bound(U, eU, y, rounding), the `Part` for U (n, K) in float64 with errors of at most eU.
    """

    name: str
    targets: Targets
    bound: Bound

    def __init__(self, name: str, forms: Forms, targets: Targets, bound: Bound) -> None:
        super().__init__(**vars(forms))
        self.name, self.targets, self.bound = name, targets, bound

    def __repr__(self) -> str:
        return f"Loss({self.name!r})"

    @classmethod
    def of_terms(
        cls,
        name: str,
        link: Callable[[Any], Any],
        loss: Callable[[Any, Any], Any],
        delta: Callable[[Any, Any], Any],
        targets: Targets = REAL,
        bound: Bound | None = None,
    ) -> Loss:
        """The loss Σₖ ℓ(uₖ, yₖ) with F = h(u).

        Arguments: name; link(u), h; loss(u, y), ℓ; delta(u, y), ∂ℓ/∂u, three functions of numbers
        or arrays under Numba's `register_jitable`; targets; bound, by default what changes of u and
        y as large as their errors do to the three functions.
        """
        forms = formulas.terms(link, loss, delta)
        return cls(name, forms, targets, bound or _by_changes(link, loss, delta))

    def score(self, F: Any, Y: Any) -> tuple[str, float]:
        """How good F = plan.predict(X) is for Y (n, K) or (n,): the name of the measure, its value.

        The accuracy where the targets are classes, else R².
        """
        F = np.asarray(F, np.float64)
        zero = np.zeros((1, F.shape[1]))
        self.link_batch(zero)
        return self.targets.score(F, np.asarray(Y), zero[0])


def _by_changes(link: Any, loss: Any, delta: Any) -> Bound:
    """The bound that takes a formula's error for that of its arguments.

    Each is moved by its own error and by as much as the formula's roundings can be worth; twice the
    largest change is allowed, for a formula that is not straight in between.
    """

    def bound(U: Any, eU: Any, y: Any, rounding: Rounding) -> Part:
        share = OPERATIONS * rounding.unit
        u, target = (U, eU + share * abs(U)), (y, share * abs(y))

        def judged(formula: Any, *arguments: Any) -> tuple[Any, Any]:
            value = formula(*(centre for centre, _ in arguments))
            change = np.zeros_like(value)
            for signs in product((-1, 1), repeat=len(arguments)):
                moved = (c + s * e for (c, e), s in zip(arguments, signs, strict=True))
                change = np.maximum(change, abs(formula(*moved) - value))
            return value, 2 * change + share * abs(value) + rounding.tiny * (1 + abs(U))

        terms, eterms = judged(loss, u, target)
        eterms = eterms + rounding.gamma * abs(terms)
        return Part(
            terms.sum(axis=1),
            eterms.sum(axis=1),
            *judged(link, u),
            *judged(delta, u, target),
        )

    return bound


def _squared(U: Any, eU: Any, y: Any, rounding: Rounding) -> Part:
    unit, gamma, tiny = rounding
    r = U - y
    rounded = 2 * unit * (abs(U) + abs(y)) + tiny
    eloss = 2 * abs(r) * (eU + rounded) + (eU + rounded) ** 2 + (4 * unit + gamma) * r * r
    return Part((r * r).sum(axis=1), eloss.sum(axis=1), U, eU, 2 * r, 2 * eU + 2 * rounded)


def _squared_logistic(U: Any, eU: Any, y: Any, rounding: Rounding) -> Part:
    f, slope = logistic(U), sigmoid_slope(U)
    rounded = OPERATIONS * rounding.unit + rounding.tiny
    eF = eU / 4 + rounded  # |h′| ≤ 1/4
    r = f - y
    er = eF + rounded * abs(y)
    eslope = 0.1 * eU + rounded  # |h″| ≤ 1/(6√3) < 0.1
    eloss = 2 * abs(r) * er + er**2 + rounding.gamma * r * r
    eDelta = 2 * (er * (slope + eslope) + abs(r) * eslope) + rounded * abs(2 * r * slope)
    return Part((r * r).sum(axis=1), eloss.sum(axis=1), f, eF, 2 * r * slope, eDelta)


def _logistic(U: Any, eU: Any, y: Any, rounding: Rounding) -> Part:
    margin = y * U
    rounded = OPERATIONS * rounding.unit + rounding.tiny
    loss = softplus(-margin)
    eloss = eU + rounded * softplus(abs(margin))  # |h| ≤ 1
    eF = eU / 4 + rounded
    return Part(loss[:, 0], eloss[:, 0], logistic(U), eF, -y * logistic(-margin), eF)


def _softmax(U: Any, eU: Any, y: Any, rounding: Rounding) -> Part:
    unit, gamma, tiny = rounding
    shifted = U - U.max(axis=1, keepdims=True)  # (n, K)
    e = np.exp(shifted)
    s = e.sum(axis=1, keepdims=True)
    f = e / s
    # Each logit is off by its own error and by that of the shift; logits of different signs carry
    # their offset's rounding, which is in eU.
    eu = eU + 2 * unit * abs(shifted)
    spread = (f * np.exp(eu)).sum(axis=1, keepdims=True)  # the largest relative change of s
    relative = gamma + OPERATIONS * unit
    eF = f * (np.exp(eu) * spread * (1 + relative) - 1) + tiny
    dot = -(y * shifted).sum(axis=1)
    log_s = np.log(s[:, 0])
    weight = y.sum(axis=1)
    eloss = np.log(spread[:, 0]) * weight + (y * eu).sum(axis=1)
    eloss += relative * (1 + log_s + dot) + gamma * dot
    return Part(
        weight * log_s + dot,
        eloss,
        f,
        eF,
        f - y,
        eF + 2 * unit * (f + y),
    )


REGISTRY = listed(
    Registry(
        Loss,
        (
            Loss("squared", LOSSES["squared"], REAL, _squared),
            Loss("squared_logistic", LOSSES["squared_logistic"], REAL, _squared_logistic),
            Loss("logistic", LOSSES["logistic"], SIGNS, _logistic),
            Loss("softmax", LOSSES["softmax"], DISTRIBUTIONS, _softmax),
        ),
    )
)

names = REGISTRY.names
get = REGISTRY.get
add = REGISTRY.add

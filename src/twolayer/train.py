"""Training: one epoch after the other over a plan, and how good the model is that comes out."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import numpy as np

from .interface import Plan
from .network import Network, positive_integer


class Epoch(NamedTuple):
    """An epoch that is done: its number, from 1 on, and L at the parameters it started from."""

    number: int
    loss: float


class Diverged(ArithmeticError):
    """L or the parameters were not finite any more."""


def gradient_descent(plan: Plan, step: float, epochs: int) -> Iterator[Epoch]:
    """θ ← θ − step ∇L(θ), so many times; what it yields and raises is as for `train`.

    Source: Cauchy, Méthode générale pour la résolution des systèmes d'équations (1847).
    """
    return train(plan, lambda: plan.step(step), epochs)


def train(plan: Plan, advance: Callable[[], float], epochs: int) -> Iterator[Epoch]:
    """Call `advance` for each epoch and yield what is known after it.

    Arguments: plan, which keeps the parameters, so that a caller may stop at any epoch and read
    them; advance, which changes them and returns L at those it started from; epochs, at least 1.
    Raises Diverged when L or θ stop being finite; the plan then has the last θ at which both were.
    """
    epochs = positive_integer("epochs", epochs)
    previous = start = plan.theta
    for number in range(1, epochs + 1):
        loss = advance()
        theta = plan.theta
        if not math.isfinite(loss):
            plan.theta = previous
            raise Diverged(_reason(number, f"the loss was {loss}"))
        if not all(np.isfinite(array).all() for array in theta):
            plan.theta = start
            raise Diverged(_reason(number, "the parameters were not finite any more"))
        previous, start = start, theta
        yield Epoch(number, loss)


def _reason(number: int, what: str) -> str:
    return f"training stopped in epoch {number}, where {what}: a smaller step or scaled inputs help"


def score(net: Network, F: Any, Y: Any) -> tuple[str, float]:
    """How good F = plan.predict(X) is: its accuracy where the loss takes classes, else its R².

    Arguments: net; F (n, K); Y (n, K), or (n,) labels. R² = 1 − Σ(y − f)² / Σ(y − ȳ)², over all
    outputs; where all y are equal it is 1 for F = Y and 0 otherwise.
    """
    F, Y = np.asarray(F, np.float64), np.asarray(Y)
    targets = net.objective.targets
    if targets == "distribution":
        classes = Y if Y.ndim == 1 else Y.argmax(axis=1)
        return "accuracy", float((F.argmax(axis=1) == classes).mean())
    Y = Y.reshape(F.shape).astype(np.float64)
    if targets == "sign":
        return "accuracy", float(((F > 0.5) == (Y > 0)).mean())
    residual = float(((Y - F) ** 2).sum())
    total = float(((Y - Y.mean(axis=0)) ** 2).sum())
    return "R²", 1 - residual / total if total > 0 else float(residual == 0)

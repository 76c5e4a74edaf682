"""The one-line forms of the interface."""

from __future__ import annotations

from typing import Any

import numpy as np

from .. import variants
from ..network import Network, Parameters


def loss_and_gradient(
    net: Network,
    theta: Parameters,
    X: Any,
    Y: Any,
    variant: str = "numpy",
    threads: int | None = None,
) -> tuple[float, Parameters]:
    """L(θ) and ∇L(θ) for a data set; arguments and errors as for `Variant.plan`."""
    return variants.get(variant).plan(net, X, Y, theta, threads).gradient()


def predict(
    net: Network,
    theta: Parameters,
    X: Any,
    variant: str = "numpy",
    threads: int | None = None,
) -> np.ndarray:
    """F = h(σ(X Vᵀ) Wᵀ) (n, K) for X (n, d); arguments and errors as for `Variant.plan`."""
    return variants.get(variant).predict(net, theta, X, threads)

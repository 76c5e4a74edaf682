"""`auto`: the variant that is whichever one is the fastest that is right."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from .. import variants
from ..choosing import Terms, ask
from ..choosing.choice import Question
from ..interface import Engine, Plan, Variant, check_threads
from ..network import DTYPES, Network, Parameters

_CHECKER = "numpy"  # whose plan says what is wrong with arguments


@dataclass(frozen=True)
class _Auto(Variant):
    def plan(
        self, net: Network, X: Any, Y: Any, theta: Parameters, threads: int | None = None,
        device: str | None = None,
    ) -> Plan:  # fmt: skip
        """The plan of the variant that is chosen for these sizes; its name is `plan.variant`."""
        chosen = _chosen(net, X, theta, threads, device)
        return chosen.plan(net, X, Y, theta, threads, device)

    def predict(
        self, net: Network, theta: Parameters, X: Any, threads: int | None = None,
        device: str | None = None,
    ) -> np.ndarray:  # fmt: skip
        """F by the variant that is chosen for these sizes."""
        return _chosen(net, X, theta, threads, device).predict(net, theta, X, threads, device)


def _chosen(net: Any, X: Any, theta: Any, threads: int | None, device: str | None) -> Variant:
    """The fastest that is right; for arguments that are wrong one that says so."""
    checker = variants.get(_CHECKER)
    try:
        n, d = np.shape(X)
        V, W = map(np.asarray, theta)
        (M, _), (K, M_of_W) = V.shape, W.shape
        good = M_of_W == M and d == V.shape[1] and V.dtype in DTYPES and min(n, d, M, K) > 0
    except (ValueError, TypeError):
        return checker
    if not (good and isinstance(net, Network)) or (net.objective.targets.single and K > 1):
        return checker
    q = Question(net.activation, net.loss, n, d, M, K, V.dtype.name, check_threads(threads))
    return variants.get(ask(net, q, Terms(device=device, deterministic=True, held=True)).variant)


VARIANT = _Auto(
    "auto", "any", "the fastest that is right for this network, shape and machine", Engine
)

"""How far two right implementations can be apart: a running error analysis of one epoch.

Every quantity is evaluated in float64 together with a bound on what rounding to a coarser unit, in
any order of summation, can do to it. docs/math.md derives the rules. None of the numbers here was
fitted: they are lengths of sums, counts of operations and the units of the dtypes.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from ..losses import OPERATIONS, Rounding
from ..network import Network, Parameters

# Elements of a block of X, A or U: small arrays are reused, large ones mapped anew each time.
_BLOCK = 1 << 14


class Evaluation(NamedTuple):
    """L, ∇L and F in float64, and for each a bound on the error of an implementation."""

    loss: float
    gradient: Parameters
    F: np.ndarray  # (n, K)
    loss_bound: float
    gradient_bound: Parameters
    F_bound: np.ndarray  # (n, K)


def evaluate(
    net: Network, theta: Parameters, X: Any, Y: Any, dtype: Any, error: Parameters | None = None,
    counts: np.ndarray | None = None,
) -> Evaluation:  # fmt: skip
    """L, ∇L and F with their bounds for arithmetic in `dtype`, compared with arithmetic in float64.

    Arguments: net; theta, X (n, d), Y (n, K); dtype float32 or float64; error, bounds on the errors
    that the implementation's V and W already have; counts (n,), how often a row occurs, by default
    once.
    """
    info = np.finfo(dtype)
    unit = float(info.eps) / 2 + 2.0**-53  # the implementation's and the reference's own
    tiny = float(info.tiny)  # some machines and libraries flush what is smaller to zero
    V, W = (np.asarray(array, np.float64) for array in theta)
    eV, eW = error if error is not None else Parameters(np.zeros_like(V), np.zeros_like(W))
    absV, absW = abs(V), abs(W)
    (rows_of_X, d), (K, M) = X.shape, W.shape
    counts = np.ones(rows_of_X) if counts is None else np.asarray(counts, np.float64)
    n = int(counts.sum())

    def gamma(length: int) -> float:
        product = (length + 1) * unit
        return product / (1 - product) if product < 0.5 else np.inf

    loss = loss_bound = 0.0
    gV, gW, bV, bW = (np.zeros_like(array) for array in (V, W, V, W))
    F, F_bound = np.empty((rows_of_X, K)), np.empty((rows_of_X, K))
    step = max(16, _BLOCK // max(d, M, K))
    with np.errstate(all="ignore"):
        for start in range(0, rows_of_X, step):
            rows = slice(start, start + step)
            count = counts[rows]
            x, y = np.asarray(X[rows], np.float64), np.asarray(Y[rows], np.float64)
            absx = abs(x)
            A = x @ V.T
            eA = absx @ (gamma(d) * absV + eV).T + d * tiny
            Z, eZ, S, eS = _activation(net, A, eA, unit, tiny)
            absZ = abs(Z)
            U = Z @ W.T
            eU = absZ @ (gamma(M) * absW + eW).T + eZ @ (absW + eW).T + M * tiny
            part = net.objective.bound(U, eU, y, Rounding(unit, gamma(K), tiny))
            Delta, eDelta = count[:, None] * part.Delta, count[:, None] * part.eDelta
            absDelta = abs(Delta)
            loss += float(count @ part.loss)
            loss_bound += float(count @ part.eloss)
            F[rows], F_bound[rows] = part.F, part.eF
            gW += Delta.T @ Z
            bW += absDelta.T @ (eZ + gamma(n) * absZ) + eDelta.T @ (absZ + eZ)
            B = Delta @ W
            eB = eDelta @ (absW + eW) + absDelta @ (eW + gamma(K) * absW) + K * tiny
            G = B * S
            eG = abs(B) * eS + eB * (abs(S) + eS) + unit * abs(G)
            gV += G.T @ x
            bV += (eG + gamma(n) * (abs(G) + eG)).T @ absx
    rounding = n * 2.0**-52 * abs(loss)  # L is accumulated in float64
    return Evaluation(
        loss / n,
        Parameters(gV / n, gW / n),
        F,
        (loss_bound + rounding) / n,
        Parameters(bV / n + n * tiny, bW / n + n * tiny),
        F_bound,
    )


def step_bound(
    theta: Parameters, evaluation: Evaluation, mu: float, dtype: Any, error: Parameters
) -> Parameters:
    """Bounds on the errors of θ after θ ← θ − μ ∇L, given those before; `theta` is θ after it."""
    unit = float(np.finfo(dtype).eps) / 2 + 2.0**-53
    terms = zip(theta, evaluation.gradient, evaluation.gradient_bound, error, strict=True)
    return Parameters(
        *(
            e + abs(mu) * (bound + 3 * unit * abs(slope)) + 2 * unit * abs(weights)
            for weights, slope, bound, e in terms
        )
    )


def _activation(net: Network, A: Any, eA: Any, unit: float, tiny: float) -> tuple[Any, ...]:
    """Z, its bound, S = σ′(A), its bound.

    Implementations may form σ from σ(−a), and σ′ from σ: rounding is measured against the larger of
    σ(±a), and against 1 for σ′.
    """
    sigma = net.sigma
    Z, S = sigma.value(A), sigma.slope(A)
    S_low, S_high = sigma.slope(A - eA), sigma.slope(A + eA)
    steepest = np.maximum(abs(S), np.maximum(abs(S_low), abs(S_high)))
    size = np.maximum(abs(Z), abs(sigma.value(-A)))
    counts = [ulp + OPERATIONS for ulp in sigma.ulp]
    eZ = steepest * eA + counts[0] * unit * size + tiny * (1 + abs(A))
    change = np.maximum(abs(S_low - S), abs(S_high - S))
    eS = 2 * change + counts[1] * unit * np.maximum(1, abs(S)) + tiny * (1 + abs(A))
    return Z, eZ, S, eS

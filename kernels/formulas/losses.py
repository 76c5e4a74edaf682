"""The losses: the link h, the loss ℓ of one sample and δ = ∂ℓ/∂u, each formula written once.

u (K,) are a sample's outputs before h, f = h(u) its outputs, y (K,) its targets. A loss comes in
three forms made from the same scalar formulas:

- rows, for code that walks through samples: `link_row(u, f)` and `loss_row(u, y, delta) -> ℓ`;
  f and delta may be u itself. Plain Python on any sequences, or compiled.
- batches, for arrays of NumPy or of a module that follows it: `link_batch(U)` and
  `loss_batch(U, Y) -> Σ ℓ`; both overwrite U, with F and Δ.
- columns, for blocks of samples: `link_columns(U, work)` and `loss_columns(U, Y, work) -> Σ ℓ` for
  contiguous U and Y (K, rows), with work (4, rows) to write to; U becomes F or Δ. Vectors run along
  the samples, whatever K is. Compiled.

Where a row of Y may have a single 1, `label_row(u, label) -> ℓ` and `label_columns(U, labels,
work) -> Σ ℓ` take its place instead, labels (rows,), and make Δ of u and U.

Sums of ℓ are accumulated in float64.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..compiler.address import in_whole_registers
from ..compiler.jit import jitable
from .activations import sigmoid_slope, softplus
from .elementary import exp_neg, like, log1p, logistic, select


@dataclass(eq=False, repr=False)
class Forms:
    """A loss in its row, batch and column forms."""

    link_row: Callable[..., Any]
    loss_row: Callable[..., Any]
    link_batch: Callable[..., Any]
    loss_batch: Callable[..., Any]
    link_columns: Callable[..., Any]
    loss_columns: Callable[..., Any]
    label_row: Callable[..., Any] | None = None  # where rows of Y may be labels
    label_columns: Callable[..., Any] | None = None


@jitable(forceinline=True)
def identity_link(u):
    """h(u) = u."""
    return u


@jitable(forceinline=True)
def squared_loss(u, y):
    """ℓ = (u − y)², not halved."""
    return (u - y) * (u - y)


@jitable(forceinline=True)
def squared_delta(u, y):
    """δ = 2 (u − y)."""
    return like(u, 2.0) * (u - y)


@jitable(forceinline=True)
def squared_logistic_loss(u, y):
    """ℓ = (f − y)², f = h(u) the logistic function of u."""
    return squared_loss(logistic(u), y)


@jitable(forceinline=True)
def squared_logistic_delta(u, y):
    """δ = 2 (f − y) h′(u)."""
    return squared_delta(logistic(u), y) * sigmoid_slope(u)


@jitable(forceinline=True)
def logistic_loss(u, y):
    """ℓ = −log h(y u) = log(1 + e^(−y u)), y = ±1."""
    return softplus(-y * u)


@jitable(forceinline=True)
def logistic_delta(u, y):
    """δ = −y h(−y u)."""
    return -y * logistic(-y * u)


@jitable(forceinline=True)
def shifted_exponential(u, m):
    """e^(u − m), with m = max u so that no logit overflows and one term is 1."""
    return exp_neg(u - m)


@jitable(forceinline=True)
def cross_entropy(weight, s, dot):
    """ℓ = −yᵀ log f = (Σ y) log s − yᵀ(u − m), s = Σ e^(u − m); both terms are non-negative."""
    return weight * log1p(s - like(s, 1.0)) - dot


@jitable(forceinline=True)
def softmax_delta(e, share, y):
    """δ = f − y, f = e / s, from share = 1 / s."""
    return e * share - y


@jitable(forceinline=True)
def softmax_link_row(u, f):
    """f = e^(u − m) / Σ e^(u − m), m = max u."""
    m = u[0]
    for k in range(1, len(u)):
        m = max(m, u[k])
    s = like(u[0], 0.0)
    for k in range(len(u)):
        f[k] = shifted_exponential(u[k], m)
        s += f[k]
    for k in range(len(u)):
        f[k] /= s


@jitable(forceinline=True)
def softmax_loss_row(u, y, delta):
    """ℓ = −yᵀ log f, δ = f − y, f the softmax of u."""
    m = u[0]
    for k in range(1, len(u)):
        m = max(m, u[k])
    s = like(u[0], 0.0)
    dot = like(u[0], 0.0)
    weight = like(u[0], 0.0)
    for k in range(len(u)):
        dot += y[k] * (u[k] - m)
        weight += y[k]
        delta[k] = shifted_exponential(u[k], m)
        s += delta[k]
    share = like(s, 1.0) / s
    for k in range(len(u)):
        delta[k] = softmax_delta(delta[k], share, y[k])
    return cross_entropy(weight, s, dot)


@jitable(forceinline=True)
def maxima(U, m):
    """m (rows,), the largest number of every column of U (K, rows)."""
    in_whole_registers()
    for i in range(len(m)):
        m[i] = U[0, i]
    # Two rows at a time: of one, LLVM makes a masked store, which some processors are slow at.
    for k in range(1, len(U), 2):
        u, v = U[k], U[min(k + 1, len(U) - 1)]
        for i in range(len(m)):
            larger = select(m[i] > u[i], m[i], u[i])
            m[i] = select(larger > v[i], larger, v[i])


@jitable(forceinline=True)
def exponentials(U, m, s):
    """U becomes e^(U − m) for every column of U (K, rows), s their sums; m and s (rows,)."""
    in_whole_registers()
    for i in range(len(m)):
        s[i] = like(m[i], 0.0)
    for k in range(len(U)):
        u = U[k]
        for i in range(len(m)):
            u[i] = shifted_exponential(u[i], m[i])
            s[i] += u[i]


@jitable(forceinline=True)
def softmax_link_columns(U, work):
    """F = softmax of every column of U (K, rows), in place; work (4, rows) is written to."""
    in_whole_registers()
    m, s = work[0], work[1]
    maxima(U, m)
    exponentials(U, m, s)
    for i in range(len(s)):
        s[i] = like(s[i], 1.0) / s[i]
    for k in range(len(U)):
        u = U[k]
        for i in range(len(m)):
            u[i] *= s[i]


@jitable(forceinline=True)
def softmax_loss_columns(U, Y, work):
    """Σ ℓ over the columns of U and Y (K, rows); U becomes Δ, work (4, rows) is written to.

    As `softmax_loss_row`, with the loop over samples inside, where vectors can run along it.
    """
    in_whole_registers()
    m, s, dot, weight = work[0], work[1], work[2], work[3]
    maxima(U, m)
    for i in range(len(m)):
        dot[i] = like(m[i], 0.0)
        weight[i] = like(m[i], 0.0)
    for k in range(len(U)):
        u, y = U[k], Y[k]
        for i in range(len(m)):
            dot[i] += y[i] * (u[i] - m[i])
            weight[i] += y[i]
    exponentials(U, m, s)
    total = 0.0
    for i in range(len(m)):
        total += cross_entropy(weight[i], s[i], dot[i])
        s[i] = like(s[i], 1.0) / s[i]
    for k in range(len(U)):
        u, y = U[k], Y[k]
        for i in range(len(m)):
            u[i] = softmax_delta(u[i], s[i], y[i])
    return total


@jitable(forceinline=True)
def softmax_label_row(u, label):
    """`softmax_loss_row` for a y with a single 1, at the label; u becomes δ."""
    m = u[0]
    for k in range(1, len(u)):
        m = max(m, u[k])
    dot = u[label] - m
    s = like(u[0], 0.0)
    for k in range(len(u)):
        e = shifted_exponential(u[k], m)
        u[k] = e
        s += e
    share = like(s, 1.0) / s
    for k in range(len(u)):
        u[k] = softmax_delta(u[k], share, like(s, 0.0))
    u[label] -= like(s, 1.0)
    return cross_entropy(like(s, 1.0), s, dot)


@jitable(forceinline=True)
def softmax_label_columns(U, labels, work):
    """`softmax_loss_columns` for columns of Y with a single 1, at labels (rows,)."""
    in_whole_registers()
    m, s, dot = work[0], work[1], work[2]
    maxima(U, m)
    for i in range(len(m)):
        dot[i] = U[int(labels[i]), i] - m[i]
    exponentials(U, m, s)
    total = 0.0
    for i in range(len(m)):
        total += cross_entropy(like(m[i], 1.0), s[i], dot[i])
        s[i] = like(s[i], 1.0) / s[i]
    for k in range(len(U)):
        u = U[k]
        for i in range(len(m)):
            u[i] = softmax_delta(u[i], s[i], like(s[i], 0.0))
    for i in range(len(m)):
        U[int(labels[i]), i] -= like(m[i], 1.0)
    return total


def softmax_link_batch(U):
    """F = softmax of each row of U (n, K), in place."""
    U -= U.max(axis=1, keepdims=True)
    np.exp(U, out=U)
    U /= U.sum(axis=1, keepdims=True)


def softmax_loss_batch(U, Y):
    """Σ ℓ over the rows of U and Y (n, K); U becomes Δ."""
    m = U.max(axis=1, keepdims=True)  # (n, 1)
    dot = np.einsum("ik,ik->i", Y, U - m)  # (n,)
    weight = Y.sum(axis=1)  # (n,)
    U[...] = shifted_exponential(U, m)
    s = U.sum(axis=1)  # (n,)
    U[...] = softmax_delta(U, 1 / s[:, None], Y)
    return cross_entropy(weight, s, dot).sum(dtype=np.float64)


def terms(link: Callable[..., Any], loss: Callable[..., Any], delta: Callable[..., Any]) -> Forms:
    """All forms of the loss Σₖ ℓ(uₖ, yₖ) with fₖ = h(uₖ), from h, ℓ and ∂ℓ/∂u for numbers."""

    @jitable(forceinline=True)
    def link_row(u, f):
        for k in range(len(u)):
            f[k] = link(u[k])

    @jitable(forceinline=True)
    def loss_row(u, y, delta_out):
        total = 0.0
        for k in range(len(u)):
            total += loss(u[k], y[k])
            delta_out[k] = delta(u[k], y[k])
        return total

    def link_batch(U):
        U[...] = link(U)

    def loss_batch(U, Y):
        total = loss(U, Y).sum(dtype=np.float64)
        U[...] = delta(U, Y)
        return total

    # Not by the row forms: two names for one array keep a loop from running in vectors.
    @jitable(forceinline=True)
    def link_columns(U, work):
        in_whole_registers()
        u = U.ravel()
        for i in range(len(u)):
            u[i] = link(u[i])

    @jitable(forceinline=True)
    def loss_columns(U, Y, work):
        in_whole_registers()
        u, y = U.ravel(), Y.ravel()
        total = 0.0
        for i in range(len(u)):
            before = u[i]
            total += loss(before, y[i])
            u[i] = delta(before, y[i])
        return total

    return Forms(link_row, loss_row, link_batch, loss_batch, link_columns, loss_columns)


LOSSES: dict[str, Forms] = {
    "squared": terms(identity_link, squared_loss, squared_delta),
    "squared_logistic": terms(logistic, squared_logistic_loss, squared_logistic_delta),
    "logistic": terms(logistic, logistic_loss, logistic_delta),
    "softmax": Forms(
        softmax_link_row,
        softmax_loss_row,
        softmax_link_batch,
        softmax_loss_batch,
        softmax_link_columns,
        softmax_loss_columns,
        softmax_label_row,
        softmax_label_columns,
    ),
}

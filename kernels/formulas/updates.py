"""The optimizers' updates of a weight, each formula written once.

A formula takes a weight w, its slope g = ∂L/∂w, the slots that the optimizer keeps for the weight
and the scalars of this update, and returns w and the slots anew. The same text serves Python
floats, NumPy arrays and compiled code. All slots begin at 0.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import cache
from typing import Any, NamedTuple

import numpy as np
from numba.extending import overload, register_jitable

from ..compiler.jit import jit
from .elementary import like


class Update(NamedTuple):
    """An update: `formula(w, g, *slots, *scalars)` returns (w, *slots)."""

    name: str
    formula: Callable[..., tuple[Any, ...]]
    slots: int


def sqrt(x):
    """√x."""
    return math.sqrt(x) if isinstance(x, float) else np.sqrt(x)


@overload(sqrt)
def _overload_sqrt(x):
    return lambda x: math.sqrt(x)


@register_jitable
def descend(w, g, mu):
    """w ← w − μ g."""
    return (w - like(w, mu) * g,)


@register_jitable
def descend_with_momentum(w, g, v, mu, beta):
    """v ← β v + g, w ← w − μ v."""
    v = like(w, beta) * v + g
    return w - like(w, mu) * v, v


@register_jitable
def accelerate(w, g, v, mu, beta, beta_next):
    """v ← β v − μ g, w ← w − μ g + β′ v, with β′ the next update's β."""
    move = like(w, mu) * g
    v = like(w, beta) * v - move
    return w - move + like(w, beta_next) * v, v


@register_jitable
def adagrad(w, g, s, mu, epsilon):
    """s ← s + g², w ← w − μ g / (√s + ε)."""
    s = s + g * g
    return w - like(w, mu) * g / (sqrt(s) + like(w, epsilon)), s


@register_jitable
def rmsprop(w, g, s, mu, rho, rest, epsilon):
    """s ← ρ s + (1 − ρ) g², w ← w − μ g / (√s + ε)."""
    s = like(w, rho) * s + like(w, rest) * (g * g)
    return w - like(w, mu) * g / (sqrt(s) + like(w, epsilon)), s


@register_jitable
def adam(w, g, m, s, mu, beta1, rest1, beta2, rest2, root, epsilon, keep):
    """m ← β₁ m + (1 − β₁) g, s ← β₂ s + (1 − β₂) g², w ← keep w − μ m / (√s / root + ε)."""
    m = like(w, beta1) * m + like(w, rest1) * g
    s = like(w, beta2) * s + like(w, rest2) * (g * g)
    scale = sqrt(s) / like(w, root) + like(w, epsilon)
    return like(w, keep) * w - like(w, mu) * m / scale, m, s


UPDATES: dict[str, Update] = {
    entry.name: entry
    for entry in (
        Update("descend", descend, 0),
        Update("descend_with_momentum", descend_with_momentum, 1),
        Update("accelerate", accelerate, 1),
        Update("adagrad", adagrad, 1),
        Update("rmsprop", rmsprop, 1),
        Update("adam", adam, 2),
    )
}


def at(arrays, i):
    """The i-th number of each of the arrays."""
    return tuple(array[i] for array in arrays)


@overload(at)
def _overload_at(arrays, i):
    if len(arrays) == 0:
        return lambda arrays, i: ()
    return lambda arrays, i: (arrays[0][i], *at(arrays[1:], i))


def put(arrays, i, values):
    """Make the values the i-th numbers of the arrays."""
    for array, value in zip(arrays, values, strict=True):
        array[i] = value


@overload(put)
def _overload_put(arrays, i, values):
    if len(arrays) == 0:
        return lambda arrays, i, values: None

    def put_all(arrays, i, values):
        arrays[0][i] = values[0]
        put(arrays[1:], i, values[1:])

    return put_all


@cache
def loop(update: Update) -> Any:
    """Compiled: (w, g, *slots, scalars) updates flat arrays w and slots in place."""
    formula = update.formula

    @jit("update")
    def run(w, g, *rest):
        slots, scalars = rest[:-1], rest[-1]
        for i in range(w.size):
            values = formula(w[i], g[i], *at(slots, i), *scalars)
            w[i] = values[0]
            put(slots, i, values[1:])

    return run

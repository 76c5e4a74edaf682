"""The optimizers' updates of a weight, each formula written once.

A formula takes a weight w, its slope g = ∂L/∂w, the slots that the optimizer keeps for the weight
and the scalars of this update, and returns w and the slots anew. The same text serves Python
floats, NumPy arrays and compiled code. All slots begin at 0.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import cache
from inspect import signature
from typing import Any, NamedTuple

import numpy as np
from numba import from_dtype, types
from numba.extending import overload

from ..compiler.address import address_of, array_at, in_whole_registers, item_size
from ..compiler.jit import jit, jitable
from .elementary import like


class Update(NamedTuple):
    """An update: `formula(w, g, *slots, *scalars)` returns (w, *slots)."""

    name: str
    formula: Callable[..., tuple[Any, ...]]
    slots: int


@cache
def scalar_count(update: Update) -> int:
    """How many scalars its formula takes."""
    return len(signature(update.formula).parameters) - 2 - update.slots


def sqrt(x):
    """√x."""
    return math.sqrt(x) if isinstance(x, float) else np.sqrt(x)


@overload(sqrt)
def _overload_sqrt(x):
    return lambda x: math.sqrt(x)


@jitable
def descend(w, g, mu):
    """w ← w − μ g."""
    return (w - like(w, mu) * g,)


@jitable
def descend_with_momentum(w, g, v, mu, beta):
    """v ← β v + g, w ← w − μ v."""
    v = like(w, beta) * v + g
    return w - like(w, mu) * v, v


@jitable
def accelerate(w, g, v, mu, beta, beta_next):
    """v ← β v − μ g, w ← w − μ g + β′ v, with β′ the next update's β."""
    move = like(w, mu) * g
    v = like(w, beta) * v - move
    return w - move + like(w, beta_next) * v, v


@jitable
def adagrad(w, g, s, mu, epsilon):
    """s ← s + g², w ← w − μ g / (√s + ε)."""
    s = s + g * g
    return w - like(w, mu) * g / (sqrt(s) + like(w, epsilon)), s


@jitable
def rmsprop(w, g, s, mu, rho, rest, epsilon):
    """s ← ρ s + (1 − ρ) g², w ← w − μ g / (√s + ε)."""
    s = like(w, rho) * s + like(w, rest) * (g * g)
    return w - like(w, mu) * g / (sqrt(s) + like(w, epsilon)), s


@jitable
def adam(w, g, m, s, mu, beta1, rest1, beta2, rest2, epsilon, keep):
    """m ← β₁ m + (1 − β₁) g, s ← β₂ s + (1 − β₂) g², w ← keep w − μ m / (√s + ε).

    μ and ε have the corrections of m and s in them, which saves a division for each weight.
    """
    m = like(w, beta1) * m + like(w, rest1) * g
    s = like(w, beta2) * s + like(w, rest2) * (g * g)
    return like(w, keep) * w - like(w, mu) * m / (sqrt(s) + like(w, epsilon)), m, s


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


def taken(array, example):
    """The first numbers of an array, as many as the example has."""
    return tuple(array[i] for i in range(len(example)))


@overload(taken)
def _overload_taken(array, example):
    if len(example) == 0:
        return lambda array, example: ()
    return lambda array, example: (array[0], *taken(array[1:], example[1:]))


def arrays_at(kind, addresses, place, size):
    """Arrays (size,) of numbers like `kind`, so many elements behind each of the addresses."""
    return tuple(array_at(kind, a + item_size(kind) * place, size) for a in addresses)


@overload(arrays_at)
def _overload_arrays_at(kind, addresses, place, size):
    if len(addresses) == 0:
        return lambda kind, addresses, place, size: ()
    return lambda kind, addresses, place, size: (
        array_at(kind, addresses[0] + item_size(kind) * place, size),
        *arrays_at(kind, addresses[1:], place, size),
    )


@cache
def _run(update: Update) -> Any:
    formula = update.formula

    @jitable
    def run(w, g, slots, scalars):
        in_whole_registers()
        for i in range(w.size):
            values = formula(w[i], g[i], *at(slots, i), *scalars)
            w[i] = values[0]
            put(slots, i, values[1:])

    return run


@cache
def loop(update: Update) -> Any:
    """Compiled: (w, g, *slots, scalars) updates flat arrays w and slots in place."""
    run = _run(update)

    @jit("update")
    def of_arrays(w, g, *rest):
        run(w, g, rest[:-1], rest[-1])

    return of_arrays


@cache
def _part(update: Update) -> Any:
    run, slots = _run(update), (0,) * update.slots
    scalars = (0.0,) * scalar_count(update)

    @jit("update")
    def of_part(kind, w, g, slots_at, scalars_at, place, size):
        numbers = taken(array_at(np.float64(0), scalars_at, len(scalars)), scalars)
        addresses = taken(array_at(np.int64(0), slots_at, len(slots)), slots)
        run(
            array_at(kind, w, size), array_at(kind, g, size),
            arrays_at(kind, addresses, place, size), numbers,
        )  # fmt: skip

    return of_part


@cache
def part(update: Update, dtype: np.dtype) -> int:
    """The address of the update of a part of all weights, which `blocks.advance` calls."""
    return address_of(_part(update), (from_dtype(dtype), *(types.int64,) * 6))

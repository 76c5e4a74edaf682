"""What is done to a block of samples between its products: σ, σ′, h, ℓ and δ in vectors.

Each formula's pass over a block is compiled once for a dtype, and kernels call it through its
address. So a kernel does not depend on the network, and is not compiled again for every pair of an
activation and a loss. Addresses and sizes are integers; `kind` is any number of the dtype.

Arrays of outputs are (K, rows): vectors run along the samples, whatever K is.
"""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np
from numba import from_dtype, types

from ..compiler.address import (
    address_of,
    array_at,
    call_address,
    call_interpreted,
    in_whole_registers,
)
from ..compiler.jit import SUMS, jit, jitable
from ..compiler.lowering import lowers_to
from ..formulas.activations import Activation
from ..formulas.losses import Forms


@cache
def _features(activation: Activation) -> Any:
    value, slope = activation.value, activation.slope

    @jit("blocks", fastmath=SUMS)
    def features(kind, A, S, size):
        in_whole_registers()
        a, s = array_at(kind, A, size), array_at(kind, S, size)
        for i in range(size):
            pre = a[i]
            s[i] = slope(pre)  # before a[i], which may stay as it was: see `positive`
            a[i] = value(pre)

    return features


@cache
def _values(activation: Activation) -> Any:
    value = activation.value

    @jit("blocks", fastmath=SUMS)
    def values(kind, A, S, size):
        in_whole_registers()
        a = array_at(kind, A, size)
        for i in range(size):
            a[i] = value(a[i])

    return values


@cache
def _losses(loss: Forms) -> Any:
    loss_row, loss_columns = loss.loss_row, loss.loss_columns

    @jit("blocks", fastmath=SUMS)
    def losses(kind, U, Y, work, K, rows):
        u, y = array_at(kind, U, K * rows), array_at(kind, Y, K * rows)
        if rows == 1:  # vectors would run along a single sample
            return 1.0 * loss_row(u, y, u)
        sums = array_at(kind, work, 4 * rows).reshape(4, rows)
        return loss_columns(u.reshape(K, rows), y.reshape(K, rows), sums)

    return losses


@cache
def _labels(loss: Forms) -> Any:
    label_row, label_columns = loss.label_row, loss.label_columns

    @jit("blocks", fastmath=SUMS)
    def labels(kind, U, Y, work, K, rows):
        u, y = array_at(kind, U, K * rows), array_at(kind, Y, rows)
        if rows == 1:
            return 1.0 * label_row(u, int(y[0]))
        return label_columns(u.reshape(K, rows), y, array_at(kind, work, 4 * rows).reshape(4, rows))

    return labels


@cache
def _links(loss: Forms) -> Any:
    link_columns = loss.link_columns

    @jit("blocks", fastmath=SUMS)
    def links(kind, U, Y, work, K, rows):
        sums = array_at(kind, work, 4 * rows).reshape(4, rows)
        link_columns(array_at(kind, U, K * rows).reshape(K, rows), sums)
        return 0.0

    return links


def features(activation: Activation, dtype: np.dtype) -> int:
    """The address of σ's pass: `apply(features, kind, A, S, size)` makes Z of A and σ′(A) of S."""
    return _address(_features(activation), dtype, 3)


def values(activation: Activation, dtype: np.dtype) -> int:
    """The same without slopes: `apply(values, kind, A, S, size)` makes Z of A and leaves S."""
    return _address(_values(activation), dtype, 3)


def losses(loss: Forms, dtype: np.dtype) -> int:
    """The address of ℓ's pass: `evaluate(losses, …)` returns Σ ℓ and turns U into Δ."""
    return _address(_losses(loss), dtype, 5)


def labels(loss: Forms, dtype: np.dtype) -> int:
    """The same where Y (rows,) is the number of the one output that is 1 in each row."""
    return _address(_labels(loss), dtype, 5)


def links(loss: Forms, dtype: np.dtype) -> int:
    """The address of h's pass: `evaluate(links, …)` turns U into F and returns 0."""
    return _address(_links(loss), dtype, 5)


@cache
def _address(formula: Any, dtype: np.dtype, integers: int) -> int:
    return address_of(formula, (from_dtype(dtype), *(types.int64,) * integers))


def _call(result, integers):
    """What a call of a pass with so many integers after `kind` lowers to."""
    return lambda address, kind, *_: (
        result(types.int64, kind, *[types.int64] * integers), call_address
    )  # fmt: skip


@lowers_to(_call(types.none, 3))
def apply(address, kind, A, S, size):
    """Call the pass over A and S (size,) at an address: `features` or `values`."""
    call_interpreted(address, kind, A, S, size)


@lowers_to(_call(types.float64, 5))
def evaluate(address, kind, U, Y, work, K, rows):
    """Call the pass over U and Y (K, rows) at an address, with work (4, rows):
    `losses` or `links`.
    """
    return call_interpreted(address, kind, U, Y, work, K, rows)


@lowers_to(_call(types.none, 6))
def advance(address, kind, w, g, slots, scalars, place, size):
    """Call an update's pass, `updates.part`, over w and g (size,), `place` elements behind the
    beginning of θ.
    """
    call_interpreted(address, kind, w, g, slots, scalars, place, size)


@jitable
def losses_of(record, columns):
    """The address of ℓ's pass for targets (rows, columns), K of them, or for labels (rows, 1)."""
    return record["losses"] if columns == record["K"] else record["labels"]


@jitable
def turn(matrix, columns):
    """Write matrix (rows, K) as columns (K, rows)."""
    rows, K = matrix.shape
    for k in range(K):
        for i in range(rows):
            columns[k, i] = matrix[i, k]

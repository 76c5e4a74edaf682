"""Epochs over chunks of the samples, which threads share: the loops around what a chunk does.

What is done to a chunk, and after all of them, is called through addresses in the records: it is
compiled once, and not again with each loop around it. The gradients of the chunks are added in the
order of their numbers, so that an epoch's bits do not depend on which thread was first. θ and ∇L
are flat arrays, whatever their layout.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any, NamedTuple

import numpy as np
from numba import from_dtype, prange, typeof, types

from ..compiler.address import address_of, array_at, call_address, call_interpreted, item_size
from ..compiler.jit import SUMS, jit, jitable
from ..compiler.lowering import lowers_to
from ..formulas.elementary import like
from .blocks import advance
from .records import add, mean_loss, multiply


class Rule(NamedTuple):
    """How θ changes: the address of an update's pass, those of its slots' and scalars' arrays.

    It lies in the records: a tuple among the arguments would be long to take apart.
    """

    run: int
    slots: int
    scalars: int
    keeps_0: int  # 1 where a weight of 0 whose slope is 0 stays 0


class Kernels(NamedTuple):
    """What gives, for a dtype, the addresses of what a variant does to a chunk.

    All are called as `visit` says; predict and loss leave the gradient alone, and predict writes F
    to where Y would lie. settle, called as `follow` says, or None, follows a change of θ.
    """

    chunk: Callable[[np.dtype], int]
    predict: Callable[[np.dtype], int]
    loss: Callable[[np.dtype], int] | None = None
    settle: Callable[[np.dtype], int] | None = None


FIELDS = ("alone", "size", "chunk", "settle", "finish", *Rule._fields)  # of the records
_INTEGERS = (types.int64,) * 6


@jitable
def matrices(kind, theta, d, M, K):
    """V (M, d) and W (K, M) of a θ or ∇L at an address, where they lie plain."""
    return array_at(kind, theta, (M, d)), array_at(kind, theta + item_size(kind) * M * d, (K, M))


def visitor(name: str, record: np.dtype, function: Any) -> Callable[[np.dtype], int]:
    """What gives the address of a function of a chunk, compiled for a dtype; name, of its recipe.

    function(record, kind, X, Y, rows, columns, theta, gradient) takes the chunk's rows of X and Y
    (rows, columns) and all of θ; returns Σ ℓ and writes Σ ∂ℓ/∂θ. Arrays are addresses.
    """
    compiled = jit(name, fastmath=SUMS)(function)
    return cache(
        lambda dtype: address_of(compiled, (from_dtype(record), from_dtype(dtype), *_INTEGERS))
    )


def follower(name: str, record: np.dtype, function: Any) -> Callable[[np.dtype], int]:
    """The same of function(record, kind, theta), which follows a change of θ."""
    compiled = jit(name, fastmath=SUMS)(function)
    return cache(
        lambda dtype: address_of(compiled, (from_dtype(record), from_dtype(dtype), types.int64))
    )


def _visit(address, record, kind, *_):
    return types.float64(types.int64, record, kind, *_INTEGERS), call_address


@lowers_to(_visit)
def visit(address, record, kind, X, Y, rows, columns, theta, gradient):
    """Call the function of a chunk at an address: see `visitor`."""
    return call_interpreted(address, record, kind, X, Y, rows, columns, theta, gradient)


def _follow(address, record, kind, theta):
    return types.none(types.int64, record, kind, types.int64), call_address


@lowers_to(_follow)
def follow(address, record, kind, theta):
    """Call what follows a change of θ at an address: see `follower`."""
    call_interpreted(address, record, kind, theta)


def _finish(records, kind, theta, gradient, first, last, chunks, n, update):
    """Elements first to last of ∇L from the chunks' sums; of θ, by the rule of the records."""
    record, size, shift = records[0], last - first, item_size(kind) * first
    total = array_at(kind, gradient + shift, size)
    for c in range(1, chunks):
        add(total, array_at(kind, records[c]["gradient"] + shift, size))
    multiply(total, like(kind, 1.0 / n))
    if update:
        advance(
            record["run"], kind, theta + shift, gradient + shift, record["slots"],
            record["scalars"], first, size,
        )  # fmt: skip


def _end(address, records, kind, *_):
    return types.none(types.int64, records, kind, *_INTEGERS, types.int64), call_address


@lowers_to(_end)
def _end_of(address, records, kind, theta, gradient, first, last, chunks, n, update):
    """Call `_finish` at an address."""
    call_interpreted(address, records, kind, theta, gradient, first, last, chunks, n, update)


@cache
def finish(record: np.dtype, dtype: np.dtype) -> int:
    """The address of what ends an epoch with such records."""
    kinds = typeof(np.empty(1, record)), from_dtype(dtype), *_INTEGERS, types.int64
    return address_of(jit("epochs", fastmath=SUMS)(_finish), kinds)


def _epoch(records, X, Y, theta, gradient, update, chunks):
    first, kind, n, columns = records[0], X[0, 0], len(X), Y.shape[1]
    x, y, size = np.int64(X.ctypes.data), np.int64(Y.ctypes.data), first["size"]
    of_theta, of_first = np.int64(theta.ctypes.data), np.int64(gradient.ctypes.data)
    x_row, y_row = item_size(kind) * X.shape[1], item_size(kind) * columns
    for c in prange(chunks):
        start, stop = c * n // chunks, (c + 1) * n // chunks
        record = records[c]
        record["loss"] = visit(
            record["chunk"], record, kind, x + x_row * start, y + y_row * start, stop - start,
            columns, of_theta, record["gradient"] if c > 0 else of_first,
        )  # fmt: skip
    end = first["finish"]
    if first["alone"]:
        _end_of(end, records, kind, of_theta, of_first, 0, size, chunks, n, update)
    else:
        for c in prange(chunks):
            _end_of(
                end, records, kind, of_theta, of_first, c * size // chunks,
                (c + 1) * size // chunks, chunks, n, update,
            )  # fmt: skip
    if update and first["settle"] != 0:
        follow(first["settle"], first, kind, of_theta)
    return mean_loss(records, chunks, n)


def _over_chunks(records, address, X, Y, theta, chunks):
    kind, n, columns = X[0, 0], len(X), Y.shape[1]
    x, y, of_theta = (
        np.int64(X.ctypes.data), np.int64(Y.ctypes.data), np.int64(theta.ctypes.data)
    )  # fmt: skip
    x_row, y_row = item_size(kind) * X.shape[1], item_size(kind) * columns
    for c in prange(chunks):
        start, stop = c * n // chunks, (c + 1) * n // chunks
        record = records[c]
        record["loss"] = visit(
            address, record, kind, x + x_row * start, y + y_row * start, stop - start, columns,
            of_theta, 0,
        )  # fmt: skip
    return mean_loss(records, chunks, n)


@cache
def epoch(parallel: bool) -> Any:
    """Compiled epoch(records, X, Y, theta, gradient, update, chunks) -> L; ∇L into gradient.

    Where `update` is 1, not 0, it changes theta by the records' `Rule`. In so many chunks of the
    samples, as there are records or fewer.
    """
    return jit("epochs", fastmath=SUMS, parallel=parallel)(_epoch)


def _run_at(address, records, X, Y, theta, gradient, update, chunks):
    whole = types.int64
    kinds = whole, records, X, Y, theta, gradient, whole, whole
    return types.float64(*kinds), call_address


@lowers_to(_run_at)
def run_at(address, records, X, Y, theta, gradient, update, chunks):
    """Call an epoch at an address."""
    return call_interpreted(address, records, X, Y, theta, gradient, update, chunks)


@cache
def epoch_address(kernel: Any, record: np.dtype, dtype: np.dtype) -> int:
    """The address of `epoch(…)`, or of what is called like it, for `updates`."""
    kind = from_dtype(dtype)
    rows, flat = types.Array(kind, 2, "C"), types.Array(kind, 1, "C")
    sizes = types.int64, types.int64
    return address_of(kernel, (typeof(np.empty(1, record)), rows, rows, flat, flat, *sizes))


def _updates(records, address, X, Y, theta, gradient, scalars, bounds, chunks, losses):
    now = array_at(losses[0], records[0]["scalars"], scalars.shape[1])
    for i in range(len(bounds)):
        for j in range(len(now)):
            now[j] = scalars[i, j]
        x, y = X[bounds[i, 0] : bounds[i, 1]], Y[bounds[i, 0] : bounds[i, 1]]
        losses[i] = run_at(address, records, x, y, theta, gradient, 1, chunks)


@cache
def updates() -> Any:
    """Compiled updates(records, address, X, Y, theta, gradient, scalars, bounds, chunks, losses).

    An update after the other: the i-th over the rows from bounds[i, 0] to bounds[i, 1] in so many
    chunks, with scalars[i], which the records' `Rule` then has; L goes into losses[i]. address, an
    `epoch_address`.
    """
    return jit("epochs")(_updates)


@cache
def over_chunks(parallel: bool) -> Any:
    """Compiled over_chunks(records, address, X, Y, theta, chunks): call what is at the address.

    The function is called for each chunk; returns its sum over the chunks, divided by n.
    """
    return jit("epochs", fastmath=SUMS, parallel=parallel)(_over_chunks)

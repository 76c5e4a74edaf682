"""Epochs over chunks of the samples, which threads share: the loops around what a chunk does.

The gradients of the chunks are added in the order of their numbers, so that an epoch's bits do not
depend on which thread was first. θ and ∇L are flat arrays, whatever their layout.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any, NamedTuple

import numpy as np
from numba import prange

from ..compiler.address import array_at, item_size
from ..compiler.jit import SUMS, jit, jitable
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


FIELDS = ("alone", "size", *Rule._fields)  # of the records, beside buffers: `gradient` is one


@jitable
def matrices(kind, theta, d, M, K):
    """V (M, d) and W (K, M) of a θ or ∇L at an address, where they lie plain."""
    return array_at(kind, theta, (M, d)), array_at(kind, theta + item_size(kind) * M * d, (K, M))


@jitable
def as_it_is(record, kind, theta):
    """What follows a change of θ where it lies plain: nothing."""


class Kernels(NamedTuple):
    """Functions of `parallel` that give a compiled kernel each.

    epoch(records, X, Y, theta, gradient, update, chunks) -> L writes ∇L into gradient and, where
    `update` is 1, not 0, changes theta by the records' `Rule`. loss(records, X, Y, theta, chunks)
    -> L. predict(records, X, F, theta, chunks) writes F. All in so many chunks of the samples, as
    there are records or fewer.
    """

    epoch: Callable[[bool], Any]
    loss: Callable[[bool], Any]
    predict: Callable[[bool], Any]


@jitable
def add_up(records, gradient, first, last, chunks, scale):
    """Elements first to last of the gradient: the sum over the chunks, times scale."""
    total = gradient[first:last]
    for c in range(1, chunks):
        add(total, array_at(gradient[0], records[c]["gradient"], last)[first:])
    multiply(total, scale)


@jitable
def renew(theta, gradient, record, first, last):
    """Elements first to last of θ by the rule of a record."""
    w, g = theta[first:last], gradient[first:last]
    advance(
        record["run"], theta[0], np.int64(w.ctypes.data), np.int64(g.ctypes.data),
        record["slots"], record["scalars"], np.int64(first), np.int64(last - first),
    )  # fmt: skip


def kernels(
    name: str, chunk: Any, chunk_loss: Any, chunk_outputs: Any, settle: Any = as_it_is
) -> Kernels:
    """The kernels made of what is done to a chunk, all of it compiled with them.

    chunk(record, X, Y, theta, gradient) -> Σ ℓ and chunk_loss(record, X, Y, theta) -> Σ ℓ over the
    rows, chunk_outputs(record, X, F, theta); settle(record, kind, theta), after a change of θ.
    theta and gradient are addresses; a record has `FIELDS`, `gradient` and `loss`.
    """

    def epoch(records, X, Y, theta, gradient, update, chunks):
        n = len(X)
        at, of_first = np.int64(theta.ctypes.data), np.int64(gradient.ctypes.data)
        for c in prange(chunks):
            start, stop = c * n // chunks, (c + 1) * n // chunks
            own = records[c]["gradient"] if c > 0 else of_first
            records[c]["loss"] = chunk(records[c], X[start:stop], Y[start:stop], at, own)
        scale, size = like(X[0, 0], 1.0 / n), records[0]["size"]
        parts = 1 if records[0]["alone"] else chunks
        if parts == 1:
            add_up(records, gradient, 0, size, chunks, scale)
            if update:
                renew(theta, gradient, records[0], 0, size)
        else:
            for c in prange(parts):
                first, last = c * size // parts, (c + 1) * size // parts
                add_up(records, gradient, first, last, chunks, scale)
                if update:
                    renew(theta, gradient, records[0], first, last)
        if update:
            settle(records[0], X[0, 0], at)
        return mean_loss(records, chunks, n)

    def loss(records, X, Y, theta, chunks):
        n, at = len(X), np.int64(theta.ctypes.data)
        for c in prange(chunks):
            start, stop = c * n // chunks, (c + 1) * n // chunks
            records[c]["loss"] = chunk_loss(records[c], X[start:stop], Y[start:stop], at)
        return mean_loss(records, chunks, n)

    def predict(records, X, F, theta, chunks):
        n, at = len(X), np.int64(theta.ctypes.data)
        for c in prange(chunks):
            start, stop = c * n // chunks, (c + 1) * n // chunks
            chunk_outputs(records[c], X[start:stop], F[start:stop], at)

    def compiled(function):
        return cache(lambda parallel: jit(name, fastmath=SUMS, parallel=parallel)(function))

    return Kernels(*map(compiled, (epoch, loss, predict)))

"""The optimizers' updates, an element a thread."""

from functools import cache

from numba import cuda

from ..formulas.updates import Update

THREADS = 128
MOST_SLOTS = 2


@cache
def elementwise(update: Update):
    """Kernel(W, G, *slots, columns, scalars): the formula on the first `columns` of all rows.

    What fills rows up is left alone: an update may divide by 0 there.
    """
    formula = update.formula

    def without(W, G, columns, scalars):
        i = cuda.grid(1)
        at = i // W.shape[1], i % W.shape[1]
        if at[0] < W.shape[0] and at[1] < columns:
            (W[at],) = formula(W[at], G[at], *scalars)

    def with_one(W, G, S, columns, scalars):
        i = cuda.grid(1)
        at = i // W.shape[1], i % W.shape[1]
        if at[0] < W.shape[0] and at[1] < columns:
            W[at], S[at] = formula(W[at], G[at], S[at], *scalars)

    def with_two(W, G, R, S, columns, scalars):
        i = cuda.grid(1)
        at = i // W.shape[1], i % W.shape[1]
        if at[0] < W.shape[0] and at[1] < columns:
            W[at], R[at], S[at] = formula(W[at], G[at], R[at], S[at], *scalars)

    return cuda.jit((without, with_one, with_two)[update.slots])

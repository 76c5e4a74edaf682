"""What follows a product: σ and σ′, a factor, or a partial sum; and the loss of rows.

An epilogue is made for a dtype and a run of neighbouring results, which it stores 128 bits at a
time where the run is as long.
"""

from functools import cache

import numpy as np
from numba import cuda
from numba.extending import register_jitable

from ..formulas.activations import Activation
from ..formulas.losses import Forms
from . import elementary  # noqa: F401  (σ and σ′ by the GPU's own instructions)
from .memory.copies import copy, vector
from .memory.types import real_type

THREADS = 128
u8 = np.uint64


def _store(dtype: str, run: int):
    wide = run == vector(dtype)

    @register_jitable
    def store(C, row, column, values, at):
        if wide:
            copy(C, u8(row) * u8(C.shape[1]) + u8(column), values, at)
        else:
            for e in range(run):
                C[row, column + u8(e)] = values[at + e]

    return store


@cache
def activate(activation: Activation):
    """Epilogue: C = σ(sum), D = σ′(sum)."""
    value, slope = activation.value, activation.slope

    def make(dtype: str, run: int):
        real, store = real_type(dtype), _store(dtype, run)

        @register_jitable
        def epilogue(sums, C, D, part, row, column, columns):
            Z = cuda.local.array(run, real)
            for e in range(run):
                Z[e] = value(sums[e])
                sums[e] = slope(sums[e])
            store(C, row, column, Z, 0)
            store(D, row, column, sums, 0)

        return epilogue

    return make


def plain(dtype: str, run: int):
    """Epilogue: C = sum."""
    store = _store(dtype, run)

    @register_jitable
    def epilogue(sums, C, D, part, row, column, columns):
        store(C, row, column, sums, 0)

    return epilogue


def times(dtype: str, run: int):
    """Epilogue: C = sum ⊙ D; C may be D. What it reads of D is read for several runs at a time."""
    store = _store(dtype, run)
    wide = run == vector(dtype)

    @register_jitable
    def read(factors, at, D, row, column, columns):
        if wide:
            copy(factors, at, D, u8(row) * u8(columns) + u8(column))
        else:
            for e in range(run):
                factors[at + e] = D[row, column + u8(e)]

    @register_jitable
    def epilogue(sums, factors, at, C, row, column):
        for e in range(run):
            sums[e] *= factors[at + e]
        store(C, row, column, sums, 0)

    return read, epilogue


def partial(dtype: str, run: int):
    """Epilogue: row `part` of C = the matrix of sums, flat."""
    store = _store(dtype, run)

    @register_jitable
    def epilogue(sums, C, D, part, row, column, columns):
        store(C, part, u8(row) * u8(columns) + u8(column), sums, 0)

    return epilogue


@cache
def loss_of_rows(loss: Forms):
    """Kernel(U, Y, losses): U (n, ld) becomes Δ, losses (blocks,) the sums of ℓ of its blocks."""
    loss_row = loss.loss_row

    def kernel(U, Y, losses):
        totals = cuda.shared.array(THREADS, np.float64)
        t = cuda.threadIdx.x
        i = cuda.blockIdx.x * THREADS + t
        total = np.float64(0)
        if i < U.shape[0]:
            u = U[i, : Y.shape[1]]
            total += loss_row(u, Y[i], u)
        totals[t] = total
        cuda.syncthreads()
        half = THREADS // 2
        while half > 0:
            if t < half:
                totals[t] += totals[t + half]
            cuda.syncthreads()
            half //= 2
        if t == 0:
            losses[cuda.blockIdx.x] = totals[0]

    return cuda.jit(kernel)


@cache
def link_of_rows(loss: Forms):
    """Kernel(U, K): the first K columns of U (n, ld) become F."""
    link_row = loss.link_row

    def kernel(U, K):
        i = cuda.blockIdx.x * THREADS + cuda.threadIdx.x
        if i < U.shape[0]:
            u = U[i, :K]
            link_row(u, u)

    return cuda.jit(kernel)

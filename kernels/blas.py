"""Epochs in cache-sized blocks of samples: BLAS for the products, everything else fused.

The products call the gemm of SciPy's BLAS from compiled code, through its address: unlike `np.dot`
it can add to what is there. BLAS must run on one thread meanwhile.
"""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np
from llvmlite import ir
from numba import prange, types
from numba.core import cgutils
from numba.extending import get_cython_function_address, intrinsic, register_jitable

from .activations import Activation
from .jit import SUMS, jit
from .loops import reduce_chunks
from .losses import Loss


@cache
def gemm_address(dtype: np.dtype) -> int:
    """The address of BLAS's sgemm or dgemm in this process."""
    name = {"float32": "sgemm", "float64": "dgemm"}[dtype.name]
    return get_cython_function_address("scipy.linalg.cython_blas", name)


@intrinsic
def _call_gemm(typingctx, address, kind, trans_a, trans_b, m, n, k, a, lda, b, ldb, beta, c, ldc):
    """gemm(trans_a, trans_b, m, n, k, 1, a, lda, b, ldb, beta, c, ldc), column-major as in BLAS.

    Pointers are integers; `kind` is a number of the dtype.
    """

    def codegen(context, builder, signature, args):
        real = context.get_value_type(kind)
        integer, character = ir.IntType(32), ir.IntType(8)
        reference = character.as_pointer()

        def by_reference(value, type_):
            slot = cgutils.alloca_once(builder, type_)
            builder.store(value, slot)
            return builder.bitcast(slot, reference)

        def number(value):
            return by_reference(builder.trunc(value, integer), integer)

        def pointer(value):
            return builder.inttoptr(value, reference)

        def flag(value):
            letter = builder.select(
                builder.trunc(value, ir.IntType(1)), character(ord("T")), character(ord("N"))
            )
            return by_reference(letter, character)

        address_, _, ta, tb, m_, n_, k_, a_, lda_, b_, ldb_, beta_, c_, ldc_ = args
        function = ir.FunctionType(ir.VoidType(), [reference] * 13).as_pointer()
        builder.call(
            builder.inttoptr(address_, function),
            [
                flag(ta), flag(tb), number(m_), number(n_), number(k_),
                by_reference(ir.Constant(real, 1.0), real), pointer(a_), number(lda_),
                pointer(b_), number(ldb_), by_reference(beta_, real), pointer(c_), number(ldc_),
            ],
        )  # fmt: skip
        return context.get_dummy_value()

    i8 = types.int64
    return types.void(
        types.uintp, kind, types.boolean, types.boolean, i8, i8, i8, i8, i8, i8, i8, kind, i8, i8
    ), codegen


@register_jitable
def product(address, A, trans_a, B, trans_b, beta, C):
    """C = op(A) op(B) + beta C for C-contiguous A, B and C; op transposes where its flag is set.

    beta is 0 or 1, a number of the arrays' dtype.
    """
    inner = A.shape[0] if trans_a else A.shape[1]
    # BLAS is column-major: it sees the transposes, and Cᵀ = op(B)ᵀ op(A)ᵀ.
    _call_gemm(
        address, beta, trans_b, trans_a, C.shape[1], C.shape[0], inner,
        B.ctypes.data, B.shape[1], A.ctypes.data, A.shape[1], beta, C.ctypes.data, C.shape[1],
    )  # fmt: skip


@register_jitable
def forward_block(gemm, X, V, W, A, Z, U, value):
    """A = X Vᵀ, Z = σ(A), U = Z Wᵀ for the rows of a block."""
    zero = X.dtype.type(0)
    product(gemm, X, False, V, True, zero, A)
    a, z = A.ravel(), Z.ravel()
    for i in range(len(a)):
        z[i] = value(a[i])
    product(gemm, Z, False, W, True, zero, U)


@cache
def gradient(activation: Activation, loss: Loss) -> Any:
    """Compiled gradient(gemm, X, Y, V, W, bounds, work, u, gVs, gWs, losses, gV, gW) -> L.

    gemm, BLAS's address; chunk c takes the rows bounds[c] to bounds[c + 1] in blocks of as many
    rows as work[c] (3, rows, M) and u[c] (rows, K) hold, and adds into gVs[c] (M, d) and gWs[c]
    (K, M).
    """
    value, slope = activation.value, activation.slope
    loss_row, coupled = loss.loss_row, loss.coupled

    @jit("blas", fastmath=SUMS, parallel=True)
    def gradient(gemm, X, Y, V, W, bounds, work, u, gVs, gWs, losses, gV, gW):
        zero, one = X.dtype.type(0), X.dtype.type(1)
        for c in prange(len(bounds) - 1):
            gVs[c] = 0
            gWs[c] = 0
            total = 0.0
            rows = work.shape[2]
            for start in range(bounds[c], bounds[c + 1], rows):
                stop = min(start + rows, bounds[c + 1])
                x, y = X[start:stop], Y[start:stop]
                A, Z, G = work[c, 0, : len(x)], work[c, 1, : len(x)], work[c, 2, : len(x)]
                U = u[c, : len(x)]
                forward_block(gemm, x, V, W, A, Z, U, value)
                if coupled:
                    for i in range(len(x)):
                        total += loss_row(U[i], y[i], U[i])  # U holds Δ from here on
                else:
                    total += loss_row(U.ravel(), y.ravel(), U.ravel())
                product(gemm, U, True, Z, False, one, gWs[c])
                product(gemm, U, False, W, False, zero, G)
                g, a = G.ravel(), A.ravel()
                for i in range(len(g)):
                    g[i] *= slope(a[i])
                product(gemm, G, True, x, False, one, gVs[c])
            losses[c] = total
        return reduce_chunks(len(bounds) - 1, len(X), losses, gVs, gWs, gV, gW)

    return gradient


@cache
def predict(activation: Activation, loss: Loss) -> Any:
    """Compiled predict(gemm, X, V, W, bounds, work, F), in chunks and blocks as in `gradient`."""
    value, link_row, coupled = activation.value, loss.link_row, loss.coupled

    @jit("blas", fastmath=SUMS, parallel=True)
    def predict(gemm, X, V, W, bounds, work, F):
        for c in prange(len(bounds) - 1):
            rows = work.shape[2]
            for start in range(bounds[c], bounds[c + 1], rows):
                stop = min(start + rows, bounds[c + 1])
                x, f = X[start:stop], F[start:stop]
                forward_block(gemm, x, V, W, work[c, 0, : len(x)], work[c, 1, : len(x)], f, value)
                if coupled:
                    for i in range(len(f)):
                        link_row(f[i], f[i])
                else:
                    link_row(f.ravel(), f.ravel())

    return predict

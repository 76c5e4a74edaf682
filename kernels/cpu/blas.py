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
from numba.extending import (
    get_cython_function_address,
    intrinsic,
    overload,
    register_jitable,
)

from ..compiler.jit import SUMS, jit
from .blocks import apply, evaluate, turn
from .loops import reduce_chunks


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


def product(address, A, trans_a, B, trans_b, beta, C):
    """C = op(A) op(B) + beta C for C-contiguous A, B and C; op transposes where its flag is set.

    beta is 0 or 1, a number of the arrays' dtype.
    """
    total = (A.T if trans_a else A) @ (B.T if trans_b else B)
    C[...] = C + total if beta else total


@overload(product)
def _product(address, A, trans_a, B, trans_b, beta, C):
    def gemm(address, A, trans_a, B, trans_b, beta, C):
        inner = A.shape[0] if trans_a else A.shape[1]
        # BLAS is column-major: it sees the transposes, and Cᵀ = op(B)ᵀ op(A)ᵀ.
        _call_gemm(
            address, beta, trans_b, trans_a, C.shape[1], C.shape[0], inner,
            B.ctypes.data, B.shape[1], A.ctypes.data, A.shape[1], beta, C.ctypes.data, C.shape[1],
        )  # fmt: skip

    return gemm


@register_jitable
def forward_block(gemm, formula, X, V, W, Z, S, U):
    """Z = X Vᵀ, then the formula's pass over Z and S, U (K, rows) = W Zᵀ."""
    zero = X.dtype.type(0)
    product(gemm, X, False, V, True, zero, Z)
    apply(formula, zero, Z.ctypes.data, S.ctypes.data, Z.size)
    product(gemm, W, False, Z, True, zero, U)


@register_jitable
def workspace_size(rows, M, K):
    """Elements of a chunk's workspace: Z, S, G, U and Y by columns, four sums."""
    return rows * (3 * M + 2 * K + 4)


@register_jitable
def split(work, rows, M, K):
    """A workspace's Z, S and G (rows, M), U and Y (K, rows), and four sums, for a block of rows."""
    size = rows * M
    Z, S, G = work[:size], work[size : 2 * size], work[2 * size : 3 * size]
    rest = work[3 * size :]
    U, Y = rest[: K * rows].reshape(K, rows), rest[K * rows : 2 * K * rows].reshape(K, rows)
    shape = (rows, M)
    return Z.reshape(shape), S.reshape(shape), G.reshape(shape), U, Y, rest[2 * K * rows :]


def _gradient(gemm, formulas, X, Y, V, W, bounds, block, work, gVs, gWs, losses, gV, gW):
    zero, one = X.dtype.type(0), X.dtype.type(1)
    K = len(W)
    for c in prange(len(bounds) - 1):
        gv, gw = gVs[c, : gV.size].reshape(gV.shape), gWs[c, : gW.size].reshape(gW.shape)
        gv[:] = 0
        gw[:] = 0
        total = 0.0
        for start in range(bounds[c], bounds[c + 1], block):
            stop = min(start + block, bounds[c + 1])
            x, rows = X[start:stop], stop - start
            Z, S, G, U, y, sums = split(work[c], rows, W.shape[1], K)
            forward_block(gemm, formulas[0], x, V, W, Z, S, U)
            turn(Y[start:stop], y)
            total += evaluate(
                formulas[1], zero, U.ctypes.data, y.ctypes.data, sums.ctypes.data, K, rows
            )
            Delta = U
            product(gemm, Delta, False, Z, False, one, gw)
            product(gemm, Delta, True, W, False, zero, G)
            g, s = G.ravel(), S.ravel()
            for i in range(len(g)):
                g[i] *= s[i]
            product(gemm, G, True, x, False, one, gv)
        losses[c] = total
    return reduce_chunks(len(bounds) - 1, len(X), losses, gVs, gWs, gV, gW)


@cache
def gradient() -> Any:
    """Compiled gradient(gemm, formulas, X, Y, V, W, bounds, block, work, gVs, gWs, losses, gV,
    gW) -> L.

    gemm, BLAS's address; formulas, the network's `blocks.features` and `blocks.losses`. Chunk c
    takes the rows bounds[c] to bounds[c + 1] in blocks of `block` rows, with its own work[c],
    gVs[c] and gWs[c].
    """
    return jit("blas", fastmath=SUMS, parallel=True)(_gradient)


def _predict(gemm, formulas, X, V, W, bounds, block, work, F):
    zero = X.dtype.type(0)
    K = len(W)
    for c in prange(len(bounds) - 1):
        for start in range(bounds[c], bounds[c + 1], block):
            stop = min(start + block, bounds[c + 1])
            rows = stop - start
            Z, S, _, U, f, sums = split(work[c], rows, W.shape[1], K)
            forward_block(gemm, formulas[0], X[start:stop], V, W, Z, S, U)
            evaluate(formulas[1], zero, U.ctypes.data, f.ctypes.data, sums.ctypes.data, K, rows)
            turn(U, F[start:stop])


@cache
def predict() -> Any:
    """Compiled predict(gemm, formulas, X, V, W, bounds, block, work, F), as `gradient`.

    formulas, the network's `blocks.values` and `blocks.links`.
    """
    return jit("blas", fastmath=SUMS, parallel=True)(_predict)

"""Epochs in cache-sized blocks of samples: BLAS for the products, everything else fused.

The products call the gemm of SciPy's BLAS from compiled code, through its address: unlike `np.dot`
it can add to what is there. BLAS must run on one thread meanwhile.
"""

from __future__ import annotations

from functools import cache
from typing import Any, NamedTuple

import numpy as np
from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import get_cython_function_address

from ..compiler.address import array_at
from ..compiler.jit import jitable
from ..compiler.lowering import lowers_to
from . import epochs
from .blocks import apply, evaluate, losses_of, turn
from .epochs import matrices
from .records import record_type


@cache
def gemm_address(dtype: np.dtype) -> int:
    """The address of BLAS's sgemm or dgemm in this process."""
    name = {"float32": "sgemm", "float64": "dgemm"}[dtype.name]
    return get_cython_function_address("scipy.linalg.cython_blas", name)


def _gemm(address, A, trans_a, B, trans_b, beta, C):
    """gemm(op, op, m, n, k, 1, B, ldb, A, lda, beta, C, ldc): BLAS is column-major.

    It sees the transposes, and Cᵀ = op(B)ᵀ op(A)ᵀ.
    """

    def codegen(context, builder, signature, args):
        integer, character = ir.IntType(32), ir.IntType(8)
        reference = character.as_pointer()

        def by_reference(value):
            slot = cgutils.alloca_once(builder, value.type)
            builder.store(value, slot)
            return builder.bitcast(slot, reference)

        def number(value):
            return by_reference(builder.trunc(value, integer))

        def flag(value):
            letter = builder.select(
                builder.trunc(value, ir.IntType(1)), character(ord("T")), character(ord("N"))
            )
            return by_reference(letter)

        def matrix(at):
            array = context.make_array(signature.args[at])(context, builder, args[at])
            return builder.bitcast(array.data, reference), cgutils.unpack_tuple(
                builder, array.shape
            )

        (a, of_a), (b, of_b), (c, of_c) = matrix(1), matrix(3), matrix(6)
        address, _, trans_a, _, trans_b, beta, _ = args
        inner = builder.select(builder.trunc(trans_a, ir.IntType(1)), *of_a)
        function = ir.FunctionType(ir.VoidType(), [reference] * 13).as_pointer()
        builder.call(
            builder.inttoptr(address, function),
            [
                flag(trans_b), flag(trans_a), number(of_c[1]), number(of_c[0]), number(inner),
                by_reference(ir.Constant(beta.type, 1.0)), b, number(of_b[1]), a, number(of_a[1]),
                by_reference(beta), c, number(of_c[1]),
            ],
        )  # fmt: skip

    return types.void(types.int64, A, types.boolean, B, types.boolean, C.dtype, C), codegen


@lowers_to(_gemm)
def product(address, A, trans_a, B, trans_b, beta, C):
    """C = op(A) op(B) + beta C for C-contiguous A, B and C; op transposes where its flag is set.

    address, of gemm; beta is 0 or 1, a number of the arrays' dtype.
    """
    total = (A.T if trans_a else A) @ (B.T if trans_b else B)
    C[...] = C + total if beta else total


class Code(NamedTuple):
    """The addresses of what is called: BLAS, σ's pass over a block, with or without slopes, ℓ's or
    h's.
    """

    gemm: int
    features: int
    losses: int


class Block(NamedTuple):
    """A block's Z, S = σ′(A) and G (rows, M), U, then Δ, and Y (K, rows), and room for sums."""

    Z: Any
    S: Any
    G: Any
    U: Any
    Y: Any
    sums: int


def buffers(shape: Any, chunks: int, rows: int) -> dict[str, tuple[int, int]]:
    """How many chunks have each buffer, and its elements, for blocks of so many rows.

    The gradient of the first chunk is where the caller wants ∇L.
    """
    _, d, M, K = shape
    of_block = {"Z": M, "S": M, "G": M, "U": K, "Y": K, "sums": 4}
    sizes = {name: (chunks, rows * size) for name, size in of_block.items()}
    return sizes | {"gradient": (chunks - 1, M * (d + K))}


_SIZES = ("d", "M", "K", "rows", *epochs.FIELDS)
_CODE = ("gemm", "features", "values", "losses", "labels", "links")
CHUNK = record_type((*_SIZES, *_CODE, *buffers((0, 0, 0, 0), 0, 0)))


@jitable
def block_of(record, kind, rows, W):
    """The arrays of a block of so many rows."""
    K, M = W.shape
    return Block(
        array_at(kind, record["Z"], (rows, M)), array_at(kind, record["S"], (rows, M)),
        array_at(kind, record["G"], (rows, M)), array_at(kind, record["U"], (K, rows)),
        array_at(kind, record["Y"], (K, rows)), record["sums"],
    )  # fmt: skip


@jitable
def forward(code, x, V, W, block):
    """Z = σ(X Vᵀ), and S where the code writes it, U (K, rows) = W Zᵀ."""
    zero, Z = x.dtype.type(0), block.Z
    product(code.gemm, x, False, V, True, zero, Z)
    apply(code.features, zero, Z.ctypes.data, block.S.ctypes.data, Z.size)
    product(code.gemm, W, False, Z, True, zero, block.U)


@jitable
def judge(code, kind, block):
    """Σ ℓ, and Δ in U; or 0, and F in U."""
    U = block.U
    return evaluate(
        code.losses, kind, U.ctypes.data, block.Y.ctypes.data, block.sums, U.shape[0], U.shape[1]
    )


@jitable
def backward(gemm, x, W, block, gV, gW):
    """gW += Δᵀ Z, G = (Δ W) ⊙ S, gV += Gᵀ X."""
    zero, one = x.dtype.type(0), x.dtype.type(1)
    Delta, G = block.U, block.G
    product(gemm, Delta, False, block.Z, False, one, gW)
    product(gemm, Delta, True, W, False, zero, G)
    g, s = G.ravel(), block.S.ravel()
    for i in range(len(g)):
        g[i] *= s[i]
    product(gemm, G, True, x, False, one, gV)


def _chunk(record, kind, X, Y, rows, columns, theta, gradient):
    """Σ ℓ over the rows of X and Y; Σ ∂ℓ/∂θ."""
    d, M, K = record["d"], record["M"], record["K"]
    X, Y = array_at(kind, X, (rows, d)), array_at(kind, Y, (rows, columns))
    V, W = matrices(kind, theta, d, M, K)
    gV, gW = matrices(kind, gradient, d, M, K)
    code = Code(record["gemm"], record["features"], losses_of(record, columns))
    gV[:] = 0
    gW[:] = 0
    total = 0.0
    for start in range(0, rows, record["rows"]):
        x, y = X[start : start + record["rows"]], Y[start : start + record["rows"]]
        block = block_of(record, kind, len(x), W)
        forward(code, x, V, W, block)
        turn(y, block.Y)
        total += judge(code, kind, block)
        backward(code.gemm, x, W, block, gV, gW)
    return total


def _chunk_loss(record, kind, X, Y, rows, columns, theta, gradient):
    """Σ ℓ over the rows of X and Y."""
    d, M, K = record["d"], record["M"], record["K"]
    X, Y = array_at(kind, X, (rows, d)), array_at(kind, Y, (rows, columns))
    V, W = matrices(kind, theta, d, M, K)
    code = Code(record["gemm"], record["values"], losses_of(record, columns))
    total = 0.0
    for start in range(0, rows, record["rows"]):
        x, y = X[start : start + record["rows"]], Y[start : start + record["rows"]]
        block = block_of(record, kind, len(x), W)
        forward(code, x, V, W, block)
        turn(y, block.Y)
        total += judge(code, kind, block)
    return total


def _chunk_outputs(record, kind, X, F, rows, columns, theta, gradient):
    """F = h(σ(X Vᵀ) Wᵀ) for the rows of X."""
    d, M, K = record["d"], record["M"], record["K"]
    X, F = array_at(kind, X, (rows, d)), array_at(kind, F, (rows, columns))
    V, W = matrices(kind, theta, d, M, K)
    code = Code(record["gemm"], record["values"], record["links"])
    for start in range(0, rows, record["rows"]):
        x, f = X[start : start + record["rows"]], F[start : start + record["rows"]]
        block = block_of(record, kind, len(x), W)
        forward(code, x, V, W, block)
        judge(code, kind, block)
        turn(block.U, f)
    return 0.0


KERNELS = epochs.Kernels(
    *(epochs.visitor("blas", CHUNK, one) for one in (_chunk, _chunk_outputs, _chunk_loss))
)

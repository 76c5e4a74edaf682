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
from llvmlite import ir
from numba import carray, from_dtype, types
from numba.extending import intrinsic, register_jitable

from .activations import Activation
from .jit import SUMS, jit
from .losses import Loss, softmax_link_columns, softmax_loss_columns


@intrinsic
def _pointer(typingctx, kind, address):
    """The address as a pointer to numbers like `kind`."""

    def codegen(context, builder, signature, args):
        return builder.inttoptr(args[1], context.get_value_type(signature.return_type))

    return types.CPointer(kind)(kind, types.int64), codegen


@register_jitable
def array_at(kind, address, size):
    """The array (size,) of numbers like `kind` at an address."""
    return carray(_pointer(kind, address), size)


@cache
def _features(activation: Activation) -> Any:
    value, slope = activation.value, activation.slope

    @jit("blocks", fastmath=SUMS)
    def features(kind, A, S, size):
        a, s = array_at(kind, A, size), array_at(kind, S, size)
        for i in range(size):
            pre = a[i]
            a[i] = value(pre)
            s[i] = slope(pre)

    return features


@cache
def _values(activation: Activation) -> Any:
    value = activation.value

    @jit("blocks", fastmath=SUMS)
    def values(kind, A, S, size):
        a = array_at(kind, A, size)
        for i in range(size):
            a[i] = value(a[i])

    return values


@cache
def _losses(loss: Loss) -> Any:
    loss_row, coupled = loss.loss_row, loss.coupled

    @jit("blocks", fastmath=SUMS)
    def losses(kind, U, Y, work, K, rows):
        u, y = array_at(kind, U, K * rows), array_at(kind, Y, K * rows)
        if coupled:
            w = array_at(kind, work, 4 * rows).reshape(4, rows)
            shape = (K, rows)
            return softmax_loss_columns(u.reshape(shape), y.reshape(shape), w[0], w[1], w[2], w[3])
        return loss_row(u, y, u)

    return losses


@cache
def _links(loss: Loss) -> Any:
    link_row, coupled = loss.link_row, loss.coupled

    @jit("blocks", fastmath=SUMS)
    def links(kind, U, Y, work, K, rows):
        u = array_at(kind, U, K * rows)
        if coupled:
            w = array_at(kind, work, 4 * rows).reshape(4, rows)
            softmax_link_columns(u.reshape(K, rows), w[0], w[1])
        else:
            link_row(u, u)
        return 0.0

    return links


@cache
def formulas(activation: Activation, loss: Loss, dtype: np.dtype) -> tuple[int, int, int, int]:
    """The addresses of a network's passes over a block: features, losses, values and links.

    `apply(features, kind, A, S, size)` turns A into Z = σ(A) and S into σ′(A), with values A only;
    `evaluate(losses, kind, U, Y, work, K, rows)` returns Σ ℓ and turns U into Δ, with links into F.
    """
    kind, i8 = from_dtype(dtype), types.int64
    return (
        _address(_features(activation), (kind, i8, i8, i8)),
        _address(_losses(loss), (kind, i8, i8, i8, i8, i8)),
        _address(_values(activation), (kind, i8, i8, i8)),
        _address(_links(loss), (kind, i8, i8, i8, i8, i8)),
    )


def _address(function: Any, signature: tuple[Any, ...]) -> int:
    """The address of a function's machine code, compiled or loaded from disk.

    Whoever calls it keeps to Numba's convention: a place for the result, a place for an exception
    (there is none here), then the arguments.
    """
    function.compile(signature)
    compiled = function.overloads[signature]
    return int(compiled.library.get_pointer_to_function(compiled.fndesc.llvm_func_name))


def _call(context: Any, builder: Any, signature: Any, args: Any) -> Any:
    """Emit a call of the address args[0] with the other args."""
    address, *values = args
    result = context.get_value_type(signature.return_type)
    byte = ir.IntType(8).as_pointer()
    place = builder.alloca(result)
    exception = builder.alloca(byte)
    kinds = [place.type, exception.type, *(value.type for value in values)]
    function = ir.FunctionType(ir.IntType(32), kinds).as_pointer()
    builder.call(builder.inttoptr(address, function), [place, exception, *values])
    return builder.load(place)


@intrinsic
def apply(typingctx, address, kind, A, S, size):
    """Call the pass over A and S (size,) at an address: see `formulas`."""
    i8 = types.int64

    def codegen(context, builder, signature, args):
        _call(context, builder, signature, args)
        return context.get_dummy_value()

    return types.none(i8, kind, i8, i8, i8), codegen


@intrinsic
def evaluate(typingctx, address, kind, U, Y, work, K, rows):
    """Call the pass over U and Y (K, rows) at an address, with work (4, rows): see `formulas`."""
    i8 = types.int64
    return types.float64(i8, kind, i8, i8, i8, i8, i8), _call


@register_jitable
def turn(matrix, columns):
    """Write matrix (rows, K) as columns (K, rows)."""
    rows, K = matrix.shape
    for k in range(K):
        for i in range(rows):
            columns[k, i] = matrix[i, k]

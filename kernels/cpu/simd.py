"""Register-tiled products in explicit SIMD vectors: the calls under `fused.py`.

A *panel* is a contiguous (rows, lanes) array whose rows are one or two vectors wide. `product`
computes

    C[r, :] = [C[r, :] +] Σₖ a[r ra + k ka] b[k, :]        or        C[r, :] *= Σₖ …

for a panel C (rows, lanes) and a panel b (K, lanes): a is broadcast with any two strides, b is read
as it lies. `dots` sums along the lanes. Pointers are passed as integers (`array.ctypes.data`),
offsets in elements. Nothing is checked. Each has an interpreted form; the code that is compiled
comes from `tiles`.
"""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np
from llvmlite import ir
from numba import types
from numba.core import config
from numba.extending import intrinsic, overload

from ..compiler.address import array_at
from ..compiler.jit import jit
from ..compiler.target import TARGET
from .tiles import FLAG, INDEX, dots_function, product_function, spread_function

HEIGHT = TARGET.height  # rows of a tile, and of a group of what was spread
_PLAIN, _SCALED = 0, 1  # what stands for the addresses of products where nothing is compiled


@intrinsic
def _addresses(typingctx, kind):
    """The addresses of product, product_scaled and dots for the dtype of the number `kind`."""

    def codegen(context, builder, signature, args):
        real = context.get_value_type(kind)
        functions = (
            product_function(builder.module, real, TARGET, False),
            product_function(builder.module, real, TARGET, True),
            dots_function(builder.module, real, TARGET),
            spread_function(builder.module, real, TARGET),
        )
        values = [builder.ptrtoint(function, INDEX) for function in functions]
        return context.make_tuple(builder, signature.return_type, values)

    return types.UniTuple(types.int64, 4)(kind), codegen


@cache
def addresses() -> Any:
    """Compiled addresses(kind): those of product, product_scaled and dots for a dtype.

    Kernels call them through these: tiles are long to compile, and serve every network.
    """

    if config.DISABLE_JIT:
        return lambda kind: (_PLAIN, _SCALED, _PLAIN, _PLAIN)

    @jit(f"simd-{TARGET.name}")
    def addresses(kind):
        return _addresses(kind)

    return addresses


def _call(kind: Any, arguments: str) -> tuple[Any, Any]:
    """Signature and code of a call through an address; arguments are p, i or f, one a letter.

    p, an address; i, an integer; f, a flag.
    """
    numba_types = [types.boolean if letter == "f" else types.int64 for letter in arguments]

    def codegen(context, builder, signature, args):
        pointer = context.get_value_type(kind).as_pointer()
        kinds = {"p": pointer, "i": INDEX, "f": FLAG}
        address, _, *values = args
        for i, letter in enumerate(arguments):
            if letter == "p":
                values[i] = builder.inttoptr(values[i], pointer)
            elif letter == "f":
                values[i] = builder.trunc(values[i], FLAG)
        function = ir.FunctionType(ir.VoidType(), [kinds[letter] for letter in arguments])
        builder.call(builder.inttoptr(address, function.as_pointer()), values)
        return context.get_dummy_value()

    return types.void(types.int64, kind, *numba_types), codegen


def product(address, kind, c, cs, a, at, ar, ac, ak, b, bs, length, accumulate, rows, lanes):
    """C[r, :] = [C[r, :] if accumulate] + Σₖ a(r, k) b[k bs :], r < rows, k < length.

    a(r, k) lies at a + (r // H) at + (r % H) ar + (k // H) ac + (k % H) ak with H = HEIGHT: a
    matrix as it lies, where at = H ar and ac = H ak, or one that was spread. address, of product;
    or of product_scaled, C[r, :] *= Σₖ …; kind, any number of the arrays' dtype; c, a, b addresses;
    strides in elements; lanes, one or two vectors.
    """
    C = _strided(kind, c, (rows, lanes), (cs, 1))
    total = _grouped(kind, a, (rows, length), (at, ar), (ac, ak)) @ _strided(
        kind, b, (length, lanes), (bs, 1)
    )
    if address == _SCALED:
        C *= total
    elif accumulate:
        C += total
    else:
        C[...] = total


@overload(product)
def _overload_product(
    address, kind, c, cs, a, at, ar, ac, ak, b, bs, length, accumulate, rows, lanes
):  # fmt: skip
    return lambda address, kind, c, cs, a, at, ar, ac, ak, b, bs, length, accumulate, rows, lanes: (
        _product(address, kind, c, cs, a, at, ar, ac, ak, b, bs, length, accumulate, rows, lanes)
    )


@intrinsic
def _product(
    typingctx, address, kind, c, cs, a, at, ar, ac, ak, b, bs, length, accumulate, rows, lanes
):  # fmt: skip
    return _call(kind, "pipiiiipiifii")


def dots(address, kind, out, z, z_step, w, w_step, w_last, panels, lanes, last, rows):
    """out[i] = Σ over all lanes of z[i, :] w[:], i < rows, for operands split into panels.

    address, of dots; kind as for product. Panel p of z (rows, lanes) starts at z + p z_step, of w
    (lanes,) at w + p w_step; the last panel has `last` lanes, and its w is at w_last if that is a
    single vector.
    """
    total = _strided(kind, out, (rows,), (1,))
    total[...] = 0
    for p in range(panels):
        narrow = p == panels - 1 and last < lanes
        width = last if narrow else lanes
        w_row = _strided(kind, w_last if narrow else w + p * w_step * kind.itemsize, (width,), (1,))
        start = z + p * z_step * kind.itemsize
        total += _strided(kind, start, (rows, width), (width, 1)) @ w_row


@overload(dots)
def _overload_dots(
    address, kind, out, z, z_step, w, w_step, w_last, panels, lanes, last, rows
):  # fmt: skip
    return lambda address, kind, out, z, z_step, w, w_step, w_last, panels, lanes, last, rows: (
        _dots(address, kind, out, z, z_step, w, w_step, w_last, panels, lanes, last, rows)
    )


@intrinsic
def _dots(typingctx, address, kind, out, z, z_step, w, w_step, w_last, panels, lanes, last, rows):
    return _call(kind, "ppipipiiii")


def spread(address, kind, out, step, x, xs, rows, columns):
    """Write x[r, j] to out + (j // H) step + r H + j % H, r < rows, j < columns, H = HEIGHT.

    address, of spread; kind as for product; out and x addresses; xs, the stride of x's rows. Both a
    tile of H rows over the columns and one of H columns over the rows then read as they lie.
    """
    X = _strided(kind, x, (rows, columns), (xs, 1))
    for j in range(columns):
        start = out + kind.itemsize * (j // HEIGHT * step + j % HEIGHT)
        _strided(kind, start, (rows,), (HEIGHT,))[...] = X[:, j]


@overload(spread)
def _overload_spread(address, kind, out, step, x, xs, rows, columns):
    return lambda address, kind, out, step, x, xs, rows, columns: _spread(
        address, kind, out, step, x, xs, rows, columns
    )


@intrinsic
def _spread(typingctx, address, kind, out, step, x, xs, rows, columns):
    return _call(kind, "pipiii")


def _grouped(kind, address, shape, row_strides, column_strides):
    """A copy of the matrix whose rows and columns lie in groups of HEIGHT; strides in elements."""
    r, k = (np.arange(n) for n in shape)
    offsets = [
        i // HEIGHT * outer + i % HEIGHT * inner
        for i, (outer, inner) in ((r, row_strides), (k, column_strides))
    ]
    places = offsets[0][:, None] + offsets[1]
    return array_at(kind, address, places.max() + 1)[places]


def _strided(kind, address, shape, strides):
    """A view of numbers like `kind` at an address; strides in elements."""
    size = 1 + sum((n - 1) * s for n, s in zip(shape, strides, strict=True))
    item = kind.itemsize
    return np.lib.stride_tricks.as_strided(
        array_at(kind, address, size), shape, [item * s for s in strides]
    )

"""Register-tiled products in explicit SIMD vectors: the calls under `fused.py`.

`product` computes

    C[r, :] = [C[r, :] +] Σₖ a(r, k) b[k, :]        or        C[r, :] *= Σₖ …

for panels C and b (see `panels`): a is broadcast with any strides, b is read as it lies. `dots`
sums along the lanes. Addresses are integers (`array.ctypes.data`), strides count elements. Nothing
is checked. Each has an interpreted form; the code that is compiled comes from `tiles`.
"""

from __future__ import annotations

from functools import cache
from typing import Any, NamedTuple

import numpy as np
from llvmlite import ir
from numba import types
from numba.core import config
from numba.extending import intrinsic, overload, register_jitable

from ..compiler.address import array_at, item_size
from ..compiler.jit import jit
from ..compiler.target import TARGET
from .panels import from_row, panel, panel_count, view
from .tiles import FLAG, INDEX, dots_function, product_function, spread_function

HEIGHT = TARGET.height  # rows of a tile, and of a group of what was spread
_PLAIN, _SCALED = 0, 1  # what stands for the addresses of products where nothing is compiled


class Addresses(NamedTuple):
    """Where the machine code of the calls below lies, for one dtype."""

    product: int
    scaled: int  # of the product that C is multiplied by
    dots: int
    spread: int


@intrinsic
def _addresses(typingctx, kind):
    """The `Addresses` for the dtype of the number `kind`, as a tuple."""

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
def _compiled_addresses() -> Any:
    @jit(f"simd-{TARGET.name}")
    def addresses(kind):
        return _addresses(kind)

    return addresses


@cache
def addresses(dtype: np.dtype) -> Addresses:
    """Where the code for a dtype lies, compiled or loaded from disk.

    Kernels call it through these addresses: tiles are long to compile, and serve every network.
    """
    if config.DISABLE_JIT:
        return Addresses(_PLAIN, _SCALED, _PLAIN, _PLAIN)
    return Addresses(*_compiled_addresses()(dtype.type(0)))


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


class Operand(NamedTuple):
    """A matrix a of which products broadcast single numbers, in groups of HEIGHT rows and columns.

    a(r, k) lies at address + (r // H) row_group + (r % H) row + (k // H) column_group
    + (k % H) column with H = HEIGHT: a matrix as it lies, where row_group = H row and
    column_group = H column, or one that was spread. Strides in elements.
    """

    address: int
    row_group: int
    row: int
    column_group: int
    column: int


@register_jitable
def as_it_lies(address, columns):
    """A contiguous matrix with so many columns."""
    return Operand(address, HEIGHT * columns, columns, HEIGHT, 1)


@register_jitable
def as_spread(address, step):
    """A matrix that `spread` has written."""
    return Operand(address, HEIGHT * HEIGHT, HEIGHT, step, 1)


@register_jitable
def turned(a):
    """The transposed matrix."""
    return Operand(a.address, a.column_group, a.column, a.row_group, a.row)


@register_jitable
def from_column(kind, a, column):
    """The matrix without what lies before that column, a multiple of HEIGHT."""
    address = a.address + item_size(kind) * (column // HEIGHT * a.column_group)
    return Operand(address, a.row_group, a.row, a.column_group, a.column)


def product(address, kind, C, a, b, rows, length, accumulate):
    """C[r, :] = [C[r, :] if accumulate] + Σₖ a(r, k) b[k, :], r < rows, k < length.

    address, of product; or of scaled, C[r, :] *= Σₖ …; kind, any number of the dtype; C and
    b panels of as many lanes; a, an operand.
    """
    out = _strided(kind, C.address, (rows, C.lanes), (C.step, 1))
    total = _grouped(kind, a, (rows, length)) @ _strided(
        kind, b.address, (length, C.lanes), (b.step, 1)
    )
    if address == _SCALED:
        out *= total
    elif accumulate:
        out += total
    else:
        out[...] = total


@overload(product)
def _overload_product(address, kind, C, a, b, rows, length, accumulate):
    return lambda address, kind, C, a, b, rows, length, accumulate: _product(
        address, kind, C.address, C.step, a.address, a.row_group, a.row, a.column_group, a.column,
        b.address, b.step, length, accumulate, rows, C.lanes,
    )  # fmt: skip


@intrinsic
def _product(
    typingctx, address, kind, c, cs, a, at, ar, ac, ak, b, bs, length, accumulate, rows, lanes
):  # fmt: skip
    """The call as tiles take it: addresses, and strides in elements."""
    return _call(kind, "pipiiiipiifii")


def dots(address, out, Z, W, k):
    """out[i] = Σₘ Z[i, m] W[k, m] for panels Z (rows, M) and W, whose padding is 0; out (rows,).

    address, of dots; out, an address.
    """
    total = _strided(Z.kind, out, (Z.rows,), (1,))
    total[...] = 0
    for p in range(panel_count(Z.columns, Z.lanes)):
        total += view(Z, p) @ view(W, p)[k]


@overload(dots)
def _overload_dots(address, out, Z, W, k):
    def call(address, out, Z, W, k):
        panels = panel_count(Z.columns, Z.lanes)
        last = panel(W, panels - 1)
        _dots(
            address, Z.kind, out, Z.address, Z.rows * Z.lanes,
            W.address + item_size(Z.kind) * k * Z.lanes, W.rows * W.lanes,
            from_row(Z.kind, last, k).address, panels, Z.lanes, last.lanes, Z.rows,
        )  # fmt: skip

    return call


@intrinsic
def _dots(typingctx, address, kind, out, z, z_step, w, w_step, w_last, panels, lanes, last, rows):
    """The call as its code takes it: panel p of z (rows, lanes) starts at z + p z_step, of w
    (lanes,) at w + p w_step; the last panel has `last` lanes, and its w is at w_last if that is a
    single vector.
    """
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


def _grouped(kind, a, shape):
    """A copy of an operand (rows, columns)."""
    r, k = (np.arange(n) for n in shape)
    offsets = [
        i // HEIGHT * group + i % HEIGHT * one
        for i, group, one in ((r, a.row_group, a.row), (k, a.column_group, a.column))
    ]
    places = offsets[0][:, None] + offsets[1]
    return array_at(kind, a.address, places.max() + 1)[places]


def _strided(kind, address, shape, strides):
    """A view of numbers like `kind` at an address; strides in elements."""
    size = 1 + sum((n - 1) * s for n, s in zip(shape, strides, strict=True))
    item = kind.itemsize
    return np.lib.stride_tricks.as_strided(
        array_at(kind, address, size), shape, [item * s for s in strides]
    )

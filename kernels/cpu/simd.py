"""Register-tiled products in explicit SIMD vectors: the calls under `fused.py`.

`product` computes

    C[r, :] = [C[r, :] +] Σₖ a(r, k) b[k, :]        or        C[r, :] *= Σₖ …

for panels C and b (see `panels`): a is broadcast with any strides, b is read as it lies. `dots`
sums along the lanes. Addresses are integers (`array.ctypes.data`), strides count elements. Nothing
is checked. Each has an interpreted form; the code that is compiled comes from `tiles`.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any, NamedTuple

import numpy as np
from llvmlite import ir
from numba import types
from numba.core import cgutils, config
from numba.extending import intrinsic, register_jitable

from ..compiler.address import array_at, item_size
from ..compiler.jit import jit
from ..compiler.lowering import lowers_to
from ..compiler.target import TARGET
from .panels import from_row, panel, panel_count
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


def _call(letters: str, arrange: Callable[..., Any] = lambda *values: values) -> Any:
    """What a call through an address lowers to.

    Arguments: letters, one for each argument of the code there: p, an address; i, an integer; f, a
    flag. arrange(*values), which makes these of what follows address and kind, for a tuple the
    tuple of its entries.
    """

    def form(address, kind, *kinds):
        flag, whole = types.boolean, types.int64
        taken = [
            k if isinstance(k, types.BaseTuple) else flag if k == flag else whole for k in kinds
        ]

        def codegen(context, builder, signature, args):
            pointer = context.get_value_type(kind).as_pointer()

            def entries(k, value):
                parts = zip(cgutils.unpack_tuple(builder, value), k, strict=True)
                return [context.cast(builder, part, of_part, whole) for part, of_part in parts]

            values = arrange(
                *(
                    entries(k, value) if isinstance(k, types.BaseTuple) else value
                    for k, value in zip(taken, args[2:], strict=True)
                )
            )
            make = {
                "p": (pointer, lambda value: builder.inttoptr(value, pointer)),
                "i": (INDEX, lambda value: value),
                "f": (FLAG, lambda value: builder.trunc(value, FLAG)),
            }
            function = ir.FunctionType(ir.VoidType(), [make[letter][0] for letter in letters])
            builder.call(
                builder.inttoptr(args[0], function.as_pointer()),
                [make[letter][1](value) for letter, value in zip(letters, values, strict=True)],
            )

        return types.void(whole, kind, *taken), codegen

    return form


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


def _product(C, a, b, rows, length, accumulate):
    return C[0], C[1], *a, b[0], b[1], length, accumulate, rows, C[2]


@lowers_to(_call("pipiiiipiifii", _product))
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


@lowers_to(_call("ppipipiiii"))
def _dots(address, kind, out, z, z_step, w, w_step, w_last, panels, lanes, last, rows):
    """The call as its code takes it: panel p of z (rows, lanes) starts at z + p z_step, of w
    (lanes,) at w + p w_step; the last panel has `last` lanes, and its w is at w_last if that is a
    single vector.
    """
    total = _strided(kind, out, (rows,), (1,))
    total[...] = 0
    for p in range(panels):
        of_z, of_w = z + kind.itemsize * p * z_step, w + kind.itemsize * p * w_step
        if p == panels - 1 and last < lanes:
            lanes, of_w = last, w_last
        total += array_at(kind, of_z, (rows, lanes)) @ array_at(kind, of_w, lanes)


@register_jitable
def dots(address, out, Z, W, k):
    """out[i] = Σₘ Z[i, m] W[k, m] for panels Z (rows, M) and W, whose padding is 0; out (rows,).

    address, of dots; out, an address.
    """
    panels = panel_count(Z.columns, Z.lanes)
    last = panel(W, panels - 1)
    _dots(
        address, Z.kind, out, Z.address, Z.rows * Z.lanes,
        W.address + item_size(Z.kind) * k * Z.lanes, W.rows * W.lanes,
        from_row(Z.kind, last, k).address, panels, Z.lanes, last.lanes, Z.rows,
    )  # fmt: skip


@lowers_to(_call("pipiii"))
def spread(address, kind, out, step, x, xs, rows, columns):
    """Write x[r, j] to out + (j // H) step + r H + j % H, r < rows, j < columns, H = HEIGHT.

    address, of spread; kind as for product; out and x addresses; xs, the stride of x's rows. Both a
    tile of H rows over the columns and one of H columns over the rows then read as they lie.
    """
    X = _strided(kind, x, (rows, columns), (xs, 1))
    for j in range(columns):
        start = out + kind.itemsize * (j // HEIGHT * step + j % HEIGHT)
        _strided(kind, start, (rows,), (HEIGHT,))[...] = X[:, j]


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

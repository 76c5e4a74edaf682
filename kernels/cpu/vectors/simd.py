"""Register-tiled products in explicit SIMD vectors: the calls under `fused.py`.

`product` computes

    C[r, :] = Σₖ a(r, k) b[k, :],        C[r, :] += Σₖ …        or        C[r, :] *= Σₖ …

for panels C and b (see `panels`): a is broadcast with any strides, b is read as it lies. `dots`
sums along the lanes. Addresses are integers (`array.ctypes.data`), strides count elements. Nothing
is checked. Each has an interpreted form; the code that is compiled comes
from `tiles` and `lanes`.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any, NamedTuple

import numpy as np
from llvmlite import ir
from numba import types
from numba.core import cgutils, config
from numba.extending import intrinsic

from ...compiler.address import array_at, item_size
from ...compiler.jit import jit, jitable
from ...compiler.lowering import lowers_to
from ...compiler.target import TARGET
from .emit import FLAG, INDEX
from .lanes import dots_function, spread_function, transpose_function
from .panels import panel, panel_count
from .tiles import ADD, WRITE, product_function

HEIGHT = TARGET.height  # rows of a tile, and of a group of what was spread
_PLAIN = 0  # what stands for the addresses where nothing is compiled


class Addresses(NamedTuple):
    """Where the machine code of the calls below lies, for one dtype."""

    product: int
    dots: int
    spread: int
    transpose: int


@intrinsic
def _addresses(typingctx, kind):
    """The `Addresses` for the dtype of the number `kind`, as a tuple."""

    def codegen(context, builder, signature, args):
        real = context.get_value_type(kind)
        functions = (
            product_function(builder.module, real, TARGET),
            dots_function(builder.module, real, TARGET),
            spread_function(builder.module, real, TARGET),
            transpose_function(builder.module, real, TARGET),
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
        return Addresses(_PLAIN, _PLAIN, _PLAIN, _PLAIN)
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


@jitable
def as_it_lies(address, columns):
    """A contiguous matrix with so many columns."""
    return Operand(address, HEIGHT * columns, columns, HEIGHT, 1)


@jitable
def spread_step(rows, itemsize):
    """Elements from one group of inputs to the next, where so many rows are spread.

    An odd number of cache lines, so that the groups of a row do not compete for few sets.
    """
    line = 64 // itemsize
    return ((rows * HEIGHT + line - 1) // line | 1) * line


@jitable
def as_spread(address, step):
    """A matrix that `spread` has written."""
    return Operand(address, HEIGHT * HEIGHT, HEIGHT, step, 1)


@jitable
def turned(a):
    """The transposed matrix."""
    return Operand(a.address, a.column_group, a.column, a.row_group, a.row)


@jitable
def from_column(kind, a, column):
    """The matrix without what lies before that column, a multiple of HEIGHT."""
    address = a.address + item_size(kind) * (column // HEIGHT * a.column_group)
    return Operand(address, a.row_group, a.row, a.column_group, a.column)


def _product(C, a, b, rows, length, how):
    return C[0], C[1], *a, b[0], b[1], length, how, rows, C[2]


@lowers_to(_call("pipiiiipiiiii", _product))
def product(address, kind, C, a, b, rows, length, how):
    """C[r, :] = Σₖ a(r, k) b[k, :], r < rows, k < length; or C[r, :] += …, or C[r, :] *= ….

    address, of product; kind, any number of the dtype; C and b panels of as many lanes; a, an
    operand; how, WRITE, ADD or SCALE.
    """
    out = _strided(kind, C.address, (rows, C.lanes), (C.step, 1))
    total = _grouped(kind, a, (rows, length)) @ _strided(
        kind, b.address, (length, C.lanes), (b.step, 1)
    )
    if how == WRITE:
        out[...] = total
    elif how == ADD:
        out += total
    else:
        out *= total


class Rows(NamedTuple):
    """Rows of a matrix along the lanes: two vectors in a panel, then what is left of each row."""

    address: int
    row: int  # from a row to the next, in elements
    panel: int  # from a panel to the next
    rest: int  # the address of what is left
    rest_row: int


class Length(NamedTuple):
    """How long such rows are."""

    panels: int
    vectors: int  # that are left, at most one
    lanes: int  # of a last vector, which may be a part of one


@jitable
def rows_of(P):
    """The rows of panels, and their length, padding included."""
    count = panel_count(P.columns, P.lanes)
    last = panel(P, count - 1)
    rest = 0 if last.lanes == P.lanes else 1
    rows = Rows(P.address, P.lanes, P.rows * P.lanes, last.address, last.lanes)
    return rows, Length(count - rest, rest, 0)


@jitable
def lying_rows(kind, address, columns):
    """The rows of a contiguous matrix with so many columns, and their length."""
    width = TARGET.vector_bytes // item_size(kind)
    panels, rest = columns // (2 * width), columns % (2 * width)
    end = address + item_size(kind) * (panels * 2 * width)
    rows = Rows(address, columns, 2 * width, end, columns)
    return rows, Length(panels, rest // width, rest % width)


def _dots(out, a, b, length, shape, add):
    return *out, *a, *b, *length, *shape, add


@lowers_to(_call("pipiipipiipiiiiiif", _dots))
def dots(address, kind, out, a, b, length, shape, add):
    """out[c, r] = [out[c, r] if add] + Σ a[r, :] b[c, :] for r and c below shape, a pair.

    address, of dots; kind as for product; out, the address and the stride of its rows; a and b,
    `Rows` of one length.
    """
    result = _strided(kind, out[0], shape[::-1], (out[1], 1))
    total = _dense(kind, b, length, shape[1]) @ _dense(kind, a, length, shape[0]).T
    result[...] = result + total if add else total


@lowers_to(_call("pipiii"))
def transpose(address, kind, out, step, a, a_step, rows, columns):
    """out[c, r] = a[r, c] for r < rows, c < columns.

    address, of transpose; kind as for product; out and a addresses; step and a_step, the strides of
    their rows.
    """
    _strided(kind, out, (columns, rows), (step, 1))[...] = _strided(
        kind, a, (rows, columns), (a_step, 1)
    ).T


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


def _dense(kind, a, length, count):
    """A copy of `Rows`, so many of that length."""
    width = TARGET.lanes(kind.itemsize)
    parts = [
        _strided(kind, a.address + kind.itemsize * p * a.panel, (count, 2 * width), (a.row, 1))
        for p in range(length.panels)
    ]
    left = length.vectors * width + length.lanes
    if left:
        parts.append(_strided(kind, a.rest, (count, left), (a.rest_row, 1)))
    return np.hstack(parts)


def _strided(kind, address, shape, strides):
    """A view of numbers like `kind` at an address; strides in elements."""
    size = 1 + sum((n - 1) * s for n, s in zip(shape, strides, strict=True))
    item = kind.itemsize
    return np.lib.stride_tricks.as_strided(
        array_at(kind, address, size), shape, [item * s for s in strides]
    )

"""Updates over few samples: threads share the hidden units, each with its part of V and W.

A chunk of the samples would read all of θ and write a gradient as large. Here a thread reads, and
renews, the weights of its own units only; what it needs of the others is their part of U.
"""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np
from numba import from_dtype, prange, typeof, types

from ..compiler.address import address_of, array_at, call_address, call_interpreted, item_size
from ..compiler.jit import SUMS, jit, jitable
from ..compiler.lowering import lowers_to
from ..compiler.target import TARGET
from ..formulas.elementary import like
from .blocks import advance, evaluate, losses_of
from .chunks import CHUNK, code_of, cut_of, part_of, room_of, weights_at
from .fused import block_of, forward, lying, settle_part
from .records import add, multiply
from .vectors.panels import Panel, clear, from_row, panel, panel_count
from .vectors.simd import as_it_lies, from_column, product, transpose, turned
from .vectors.tiles import SCALE, WRITE


@jitable
def share(record, kind, address, part, parts):
    """The weights of one of so many parts of the hidden units."""
    weights = weights_at(record, kind, address)
    panels = panel_count(record["M"], record["lanes"])
    return part_of(weights, part * panels // parts, (part + 1) * panels // parts)


@jitable
def judge(records, kind, y, part, parts):
    """Σ ℓ over the block with targets y (rows, K), and the address of Δ / rows (K, rows)."""
    record, (rows, columns) = records[part], y.shape
    K = record["K"]
    U = record["U"]
    if parts > 1:
        U = record["total"]
        total = array_at(kind, U, K * rows)
        first = array_at(kind, records[0]["U"], K * rows)
        for i in range(len(total)):  # `total[:] = first` compiles a second longer
            total[i] = first[i]
        for other in range(1, parts):
            add(total, array_at(kind, records[other]["U"], K * rows))
    y_at = np.int64(y.ctypes.data)
    transpose(record["transpose"], kind, record["Y"], rows, y_at, columns, rows, columns)
    loss = evaluate(losses_of(record, columns), kind, U, record["Y"], record["sums"], K, rows)
    multiply(array_at(kind, U, K * rows), like(kind, 1.0 / rows))
    return loss, U


@jitable
def backward(code, block, Delta, theta, gradient, record, update, base):
    """gW = Δᵀ Z, S becomes G = (Δ W) ⊙ S, gV = Gᵀ X, for Δ (K, rows), a panel after the other.

    Where θ changes, which begins at `base`, only the gradient's first panel is written.
    """
    Z, W, kind, d = block.Z, theta.W, code.kind, theta.V.rows
    keep, depth = update == 0, record["depth"]
    for p in range(panel_count(Z.columns, Z.lanes)):
        z, s, w, v = panel(Z, p), panel(block.S, p), panel(W, p), panel(theta.V, p)
        place = p if keep else 0
        gW = Panel(panel(gradient.W, place).address, w.lanes, w.lanes)
        gV = Panel(panel(gradient.V, place).address, v.lanes, v.lanes)
        product(code.product, kind, gW, Delta, z, W.rows, Z.rows, WRITE)
        product(code.product, kind, s, turned(Delta), w, Z.rows, W.rows, SCALE)
        for start in range(0, d, depth):
            inputs = min(depth, d - start)
            x = turned(from_column(kind, block.x, start))
            product(code.product, kind, from_row(kind, gV, start), x, s, inputs, Z.rows, WRITE)
        if not keep:
            renew(kind, v, gV, d, record, base)
            renew(kind, w, gW, W.rows, record, base)
    if keep:
        clear(gradient.W)  # Z is σ(0) there


@jitable
def renew(kind, w, g, rows, record, base):
    """A panel of weights by the rule of a record."""
    place = (w.address - base) // item_size(kind)
    advance(
        record["run"], kind, w.address, g.address, record["slots"], record["scalars"], place,
        rows * w.lanes,
    )  # fmt: skip


def _forward(records, kind, X, Y, rows, columns, theta, gradient, update, part, parts):
    """Z, S and U of a part of the hidden units."""
    record = records[part]
    code = code_of(record, kind, record["features"], 0)
    x = array_at(kind, X, (rows, record["d"]))
    mine = share(record, kind, theta, part, parts)
    forward(code, x, mine, room_of(record), cut_of(record))


def _backward(records, kind, X, Y, rows, columns, theta, gradient, update, part, parts):
    """Σ ℓ, and the gradient or the new weights of a part of the hidden units."""
    record = records[part]
    room, code = room_of(record), code_of(record, kind, record["features"], 0)
    x, y = array_at(kind, X, (rows, record["d"])), array_at(kind, Y, (rows, columns))
    record["loss"], Delta = judge(records, kind, y, part, parts)
    mine, slopes = (
        share(record, kind, theta, part, parts), share(record, kind, gradient, part, parts)
    )  # fmt: skip
    block = block_of(lying(kind, x, room, cut_of(record).spreads), rows, mine.V, room)
    Delta = as_it_lies(Delta, rows)
    backward(code, block, Delta, mine, slopes, record, update, theta)
    if update:
        settle_part(record, mine)


def _call(address, records, kind, *_):
    return types.none(types.int64, records, kind, *_INTEGERS), call_address


@lowers_to(_call)
def of_part(address, records, kind, X, Y, rows, columns, theta, gradient, update, part, parts):
    """Call what is done to a part of the hidden units at an address."""
    call_interpreted(
        address, records, kind, X, Y, rows, columns, theta, gradient, update, part, parts
    )  # fmt: skip


_INTEGERS = (types.int64,) * 9
_NAME = f"few-samples-{TARGET.name}"


@cache
def halves(dtype: np.dtype) -> dict[str, int]:
    """The addresses of both halves of an update, by their names in the records."""
    kinds = typeof(np.empty(1, CHUNK)), from_dtype(dtype), *_INTEGERS
    both = {"forward": _forward, "backward": _backward}
    return {
        name: address_of(jit(_NAME, fastmath=SUMS)(function), kinds)
        for name, function in both.items()
    }


def _update(records, X, Y, theta, gradient, update, parts):
    kind, rows, columns, first = X[0, 0], len(X), Y.shape[1], records[0]
    x, y, of_theta, of_gradient = (
        np.int64(X.ctypes.data), np.int64(Y.ctypes.data), np.int64(theta.ctypes.data),
        np.int64(gradient.ctypes.data),
    )  # fmt: skip
    for t in prange(parts):
        of_part(
            records[t]["forward"], records, kind, x, y, rows, columns, of_theta, of_gradient,
            update, t, parts,
        )  # fmt: skip
    for t in prange(parts):
        of_part(
            records[t]["backward"], records, kind, x, y, rows, columns, of_theta, of_gradient,
            update, t, parts,
        )  # fmt: skip
    return first["loss"] / rows


@cache
def update(parallel: bool) -> Any:
    """Compiled update(records, X, Y, theta, gradient, update, parts) -> L, over one block of rows.

    Where `update` is 1, not 0, it changes theta by the records' `Rule`, else it writes ∇L into
    gradient, which is written to in any case. In so many parts of the hidden units. The records
    hold `halves`.
    """
    return jit(_NAME, fastmath=SUMS, parallel=parallel)(_update)

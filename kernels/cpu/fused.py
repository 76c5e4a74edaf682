"""Epochs in cache-sized blocks of samples, on register-tiled products of our own.

Every array of a block is kept in panels (see `panels`): lanes run along the hidden units, so that
no product meets a ragged edge, and the outputs U are turned over once, so that the loss runs along
the samples. V and W stay packed from step to step, with padding that is 0. Each chunk of the
samples has a record (see `chunks`); the chunks' gradients are added in the order of their numbers.
"""

from __future__ import annotations

from functools import cache
from typing import Any, NamedTuple

import numpy as np

from ..compiler.address import array_at, item_size
from ..compiler.jit import jit, jitable
from ..compiler.target import TARGET
from . import epochs
from .blocks import apply, evaluate, losses_of
from .chunks import CHUNK, code_of, cut_of, room_of, weights_at
from .vectors.panels import Panel, Panels, clear, from_row, panel, panel_count
from .vectors.simd import (
    Operand,
    as_it_lies,
    as_spread,
    dots,
    from_column,
    product,
    rows_of,
    spread,
    spread_step,
    transpose,
    turned,
)  # fmt: skip
from .vectors.tiles import ADD, SCALE, WRITE


class Block(NamedTuple):
    """A block of samples: x as products read it; Z = σ(X Vᵀ) and S = σ′(X Vᵀ), then G."""

    x: Operand
    Z: Panels
    S: Panels


@jitable
def operand(code, x, room, spreads):
    """A block x (rows, d) as products read it.

    Where it is spread first, a tile reads consecutive memory in both products, and x itself is read
    once and in order.
    """
    kind, (rows, d) = code.kind, x.shape
    a = lying(kind, x, room, spreads)
    if spreads:
        spread(code.spread, kind, a.address, a.column_group, np.int64(x.ctypes.data), d, rows, d)
    return a


@jitable
def lying(kind, x, room, spreads):
    """A block x (rows, d) as products read it, once it is spread."""
    if spreads:
        return as_spread(room.X, spread_step(len(x), item_size(kind)))
    return as_it_lies(np.int64(x.ctypes.data), x.shape[1])


@jitable
def features(code, block, V, depth):
    """Z = σ(X Vᵀ), and S = σ′(X Vᵀ) where the code writes it."""
    Z, d, kind = block.Z, V.rows, code.kind
    for start in range(0, d, depth):
        inputs = min(depth, d - start)
        x = from_column(kind, block.x, start)
        for p in range(panel_count(Z.columns, Z.lanes)):
            z, v = panel(Z, p), from_row(kind, panel(V, p), start)
            product(code.product, kind, z, x, v, Z.rows, inputs, ADD if start > 0 else WRITE)
            if start + inputs == d:
                s = panel(block.S, p)
                apply(code.features, kind, z.address, s.address, Z.rows * z.lanes)


@jitable
def outputs(code, Z, theta, room, by_dots):
    """U (K, rows) = W Zᵀ."""
    W, Wt, kind = theta.W, theta.Wt, code.kind
    if by_dots:
        (of_Z, length), (of_W, _) = rows_of(Z), rows_of(W)
        dots(code.dots, kind, (room.U, Z.rows), of_Z, of_W, length, (Z.rows, W.rows), False)
        return
    for q in range(panel_count(Wt.columns, Wt.lanes)):
        w, first = panel(Wt, q), q * Wt.lanes
        u = Panel(room.U_panel, w.lanes, w.lanes)
        for p in range(panel_count(Z.columns, Z.lanes)):
            z, start = panel(Z, p), p * Z.lanes
            units = min(Z.lanes, Z.columns - start)
            of_z, of_w = as_it_lies(z.address, z.lanes), from_row(kind, w, theta.start + start)
            product(code.product, kind, u, of_z, of_w, Z.rows, units, ADD if p > 0 else WRITE)
        columns = room.U + item_size(kind) * (first * Z.rows)
        count = min(w.lanes, W.rows - first)
        transpose(code.transpose, kind, columns, Z.rows, u.address, u.step, Z.rows, count)


@jitable
def forward(code, x, theta, room, cut):
    """Z, S and U of the samples x (rows, d) into the room of a chunk."""
    block = block_of(operand(code, x, room, cut.spreads), len(x), theta.V, room)
    features(code, block, theta.V, cut.depth)
    outputs(code, block.Z, theta, room, cut.by_dots)
    return block


@jitable
def block_of(x, rows, V, room):
    """The block of so many samples in the room of a chunk; x, the operand."""
    Z = Panels(V.kind, room.Z, rows, V.columns, V.lanes)
    return Block(x, Z, Panels(V.kind, room.S, rows, V.columns, V.lanes))


@jitable
def judge(code, y, room, K):
    """Σ ℓ over a block with targets y (rows, K), or labels (rows, 1); U becomes Δ."""
    rows, columns = y.shape
    y_at = np.int64(y.ctypes.data)
    transpose(code.transpose, code.kind, room.Y, rows, y_at, columns, rows, columns)
    return evaluate(code.losses, code.kind, room.U, room.Y, room.sums, K, rows)


@jitable
def backward(code, block, Delta, W, gradient, depth, add):
    """gW [+]= Δᵀ Z, S becomes G = (Δ W) ⊙ S, gV [+]= Gᵀ X, for Δ (K, rows)."""
    Z, kind, d = block.Z, code.kind, gradient.V.rows
    how = ADD if add else WRITE
    for start in range(0, d, depth):
        inputs = min(depth, d - start)
        x = turned(from_column(kind, block.x, start))
        for p in range(panel_count(Z.columns, Z.lanes)):
            s = panel(block.S, p)
            if start == 0:
                gW, z = panel(gradient.W, p), panel(Z, p)
                product(code.product, kind, gW, Delta, z, W.rows, Z.rows, how)
                product(code.product, kind, s, turned(Delta), panel(W, p), Z.rows, W.rows, SCALE)
            gV = from_row(kind, panel(gradient.V, p), start)
            product(code.product, kind, gV, x, s, inputs, Z.rows, how)


def _chunk(record, kind, X, Y, rows, columns, theta, gradient):
    """Σ ℓ over the rows of X and Y; Σ ∂ℓ/∂θ."""
    room, cut = room_of(record), cut_of(record)
    code = code_of(record, kind, record["features"], losses_of(record, columns))
    weights, slopes = weights_at(record, kind, theta), weights_at(record, kind, gradient)
    X, Y = array_at(kind, X, (rows, weights.V.rows)), array_at(kind, Y, (rows, columns))
    total = 0.0
    for start in range(0, rows, cut.rows):
        x, y = X[start : start + cut.rows], Y[start : start + cut.rows]
        block = forward(code, x, weights, room, cut)
        total += judge(code, y, room, weights.W.rows)
        Delta = as_it_lies(room.U, len(x))
        backward(code, block, Delta, weights.W, slopes, cut.depth, start > 0)
    clear(slopes.W)  # Z is σ(0) there
    return total


def _chunk_loss(record, kind, X, Y, rows, columns, theta, gradient):
    """Σ ℓ over the rows of X and Y."""
    room, cut = room_of(record), cut_of(record)
    code = code_of(record, kind, record["values"], losses_of(record, columns))
    weights = weights_at(record, kind, theta)
    X, Y = array_at(kind, X, (rows, weights.V.rows)), array_at(kind, Y, (rows, columns))
    total = 0.0
    for start in range(0, rows, cut.rows):
        forward(code, X[start : start + cut.rows], weights, room, cut)
        total += judge(code, Y[start : start + cut.rows], room, weights.W.rows)
    return total


def _chunk_outputs(record, kind, X, F, rows, columns, theta, gradient):
    """F = h(σ(X Vᵀ) Wᵀ) for the rows of X."""
    room, cut = room_of(record), cut_of(record)
    code = code_of(record, kind, record["values"], record["links"])
    weights = weights_at(record, kind, theta)
    X, F = array_at(kind, X, (rows, weights.V.rows)), array_at(kind, F, (rows, columns))
    for start in range(0, rows, cut.rows):
        f = F[start : start + cut.rows]
        forward(code, X[start : start + cut.rows], weights, room, cut)
        answer(code, f, room)
    return 0.0


@jitable
def answer(code, f, room):
    """F (rows, K) of a block from its U."""
    kind, (rows, K) = code.kind, f.shape
    evaluate(code.losses, kind, room.U, room.Y, room.sums, K, rows)
    transpose(code.transpose, kind, np.int64(f.ctypes.data), K, room.U, rows, K, rows)


@jitable
def settle_part(record, weights):
    """Padding is 0 again and Wᵀ up to date after a change of the weights."""
    W, Wt, kind = weights.W, weights.Wt, weights.W.kind
    if not record["keeps_0"]:
        clear(weights.V)
    clear(W)
    if record["by_dots"]:
        return
    for q in range(panel_count(Wt.columns, Wt.lanes)):
        out, first = panel(Wt, q), q * Wt.lanes
        for p in range(panel_count(W.columns, W.lanes)):
            w, start = from_row(kind, panel(W, p), first), p * W.lanes
            place = from_row(kind, out, weights.start + start)
            rows, columns = min(out.lanes, W.rows - first), min(W.lanes, W.columns - start)
            transpose(
                record["transpose"], kind, place.address, out.step, w.address, w.step, rows,
                columns,
            )  # fmt: skip


def _settle(record, kind, theta):
    """Padding is 0 again and Wᵀ up to date after a change of θ, which lies at an address."""
    settle_part(record, weights_at(record, kind, theta))


def _restore(records, theta):
    record = records[0]
    weights = weights_at(record, theta[0], np.int64(theta.ctypes.data))
    clear(weights.V)
    settle_part(record, weights)
    if not record["by_dots"]:
        clear(weights.Wt)


@cache
def restore() -> Any:
    """Compiled restore(records, theta): padding 0 again and Wᵀ up to date after a change of θ."""
    return jit(f"fused-{TARGET.name}")(_restore)


_NAME = f"fused-{TARGET.name}"
KERNELS = epochs.Kernels(
    epochs.visitor(_NAME, CHUNK, _chunk),
    epochs.visitor(_NAME, CHUNK, _chunk_outputs),
    epochs.visitor(_NAME, CHUNK, _chunk_loss),
    epochs.follower(_NAME, CHUNK, _settle),
)

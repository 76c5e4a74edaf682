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
from numba import prange
from numba.extending import register_jitable

from ..compiler.address import array_at, item_size
from ..compiler.jit import SUMS, jit
from ..compiler.target import TARGET
from ..formulas.elementary import like
from .blocks import advance, apply, evaluate, turn
from .chunks import code_of, cut_of, room_of, weights_at, weights_size_of
from .panels import Panels, clear, from_row, panel, panel_count, transpose, view
from .records import add, mean_loss, multiply
from .simd import Operand, as_it_lies, as_spread, dots, from_column, product, spread, turned


class Block(NamedTuple):
    """A block of samples: x as products read it; Z = σ(X Vᵀ) and S = σ′(X Vᵀ), then G."""

    x: Operand
    Z: Panels
    S: Panels


@register_jitable
def operand(code, x, room, step):
    """A block x (rows, d) as products read it.

    Where `step` is not 0, x is spread first, one group of inputs every `step` elements: a tile then
    reads consecutive memory in both products, and x itself is read once and in order.
    """
    rows, d = x.shape
    if step != 0:
        spread(code.spread, code.kind, room.X, step, np.int64(x.ctypes.data), d, rows, d)
    return lying(x, room, step)


@register_jitable
def lying(x, room, step):
    """A block x (rows, d) as products read it, once it is spread."""
    if step == 0:
        return as_it_lies(np.int64(x.ctypes.data), x.shape[1])
    return as_spread(room.X, step)


@register_jitable
def features(code, block, V, depth):
    """Z = σ(X Vᵀ), and S = σ′(X Vᵀ) where the code writes it."""
    Z, d, kind = block.Z, V.rows, code.kind
    for start in range(0, d, depth):
        inputs = min(depth, d - start)
        x = from_column(kind, block.x, start)
        for p in range(panel_count(Z.columns, Z.lanes)):
            z, v = panel(Z, p), from_row(kind, panel(V, p), start)
            product(code.product, kind, z, x, v, Z.rows, inputs, start > 0)
            if start + inputs == d:
                s = panel(block.S, p)
                apply(code.features, kind, z.address, s.address, Z.rows * z.lanes)


@register_jitable
def outputs(code, Z, theta, room, by_dots):
    """U (K, rows) = W Zᵀ."""
    W, Wt, kind = theta.W, theta.Wt, code.kind
    if by_dots:
        for k in range(W.rows):
            dots(code.dots, room.U + item_size(kind) * k * Z.rows, Z, W, k)
        return
    U = array_at(kind, room.U, (W.rows, Z.rows))
    by_rows = Panels(kind, room.U_panels, Z.rows, Wt.columns, Wt.lanes)
    for q in range(panel_count(Wt.columns, Wt.lanes)):
        u, w = panel(by_rows, q), panel(Wt, q)
        for p in range(panel_count(Z.columns, Z.lanes)):
            z, first = panel(Z, p), p * Z.lanes
            units = min(Z.lanes, Z.columns - first)
            rows_of_w = from_row(kind, w, theta.start + first)
            product(
                code.product, kind, u, as_it_lies(z.address, z.lanes), rows_of_w, Z.rows, units,
                p > 0,
            )  # fmt: skip
        u_rows, first = view(by_rows, q), q * Wt.lanes
        for k in range(min(u.lanes, W.rows - first)):
            for i in range(Z.rows):
                U[first + k, i] = u_rows[i, k]


@register_jitable
def forward(code, x, theta, room, cut):
    """Z, S and U of the samples x (rows, d) into the room of a chunk."""
    block = block_of(operand(code, x, room, cut.step), len(x), theta.V, room)
    features(code, block, theta.V, cut.depth)
    outputs(code, block.Z, theta, room, cut.by_dots)
    return block


@register_jitable
def block_of(x, rows, V, room):
    """The block of so many samples in the room of a chunk; x, the operand."""
    Z = Panels(V.kind, room.Z, rows, V.columns, V.lanes)
    return Block(x, Z, Panels(V.kind, room.S, rows, V.columns, V.lanes))


@register_jitable
def judge(code, y, room):
    """Σ ℓ over a block with targets y (rows, K); U becomes Δ."""
    rows, K = y.shape
    turn(y, array_at(code.kind, room.Y, (K, rows)))
    return evaluate(code.losses, code.kind, room.U, room.Y, room.sums, K, rows)


@register_jitable
def backward(code, block, Delta, W, gradient, depth, add):
    """gW [+]= Δᵀ Z, S becomes G = (Δ W) ⊙ S, gV [+]= Gᵀ X, for Δ (K, rows)."""
    Z, kind, d = block.Z, code.kind, gradient.V.rows
    for start in range(0, d, depth):
        inputs = min(depth, d - start)
        x = turned(from_column(kind, block.x, start))
        for p in range(panel_count(Z.columns, Z.lanes)):
            s = panel(block.S, p)
            if start == 0:
                gW, z = panel(gradient.W, p), panel(Z, p)
                product(code.product, kind, gW, Delta, z, W.rows, Z.rows, add)
                product(code.scaled, kind, s, turned(Delta), panel(W, p), Z.rows, W.rows, False)
            gV = from_row(kind, panel(gradient.V, p), start)
            product(code.product, kind, gV, x, s, inputs, Z.rows, add)


@register_jitable
def chunk(code, X, Y, theta, gradient, room, cut):
    """Σ ℓ over the rows of X and Y; Σ ∂ℓ/∂V and Σ ∂ℓ/∂W into the gradient."""
    total = 0.0
    for start in range(0, len(X), cut.rows):
        x, y = X[start : start + cut.rows], Y[start : start + cut.rows]
        block = forward(code, x, theta, room, cut)
        total += judge(code, y, room)
        Delta = as_it_lies(room.U, len(x))
        backward(code, block, Delta, theta.W, gradient, cut.depth, start > 0)
    clear(gradient.W)  # Z is σ(0) there
    return total


@register_jitable
def chunk_loss(code, X, Y, theta, room, cut):
    """Σ ℓ over the rows of X and Y."""
    total = 0.0
    for start in range(0, len(X), cut.rows):
        forward(code, X[start : start + cut.rows], theta, room, cut)
        total += judge(code, Y[start : start + cut.rows], room)
    return total


@register_jitable
def chunk_outputs(code, X, F, theta, room, cut):
    """F = h(σ(X Vᵀ) Wᵀ) for the rows of X."""
    for start in range(0, len(X), cut.rows):
        f = F[start : start + cut.rows]
        forward(code, X[start : start + cut.rows], theta, room, cut)
        rows, K = f.shape
        evaluate(code.losses, code.kind, room.U, room.Y, room.sums, K, rows)
        turn(array_at(code.kind, room.U, (K, rows)), f)


@register_jitable
def add_up(records, gradient, first, last, chunks, scale):
    """Elements first to last of the gradient: the sum over the chunks, times scale."""
    total = gradient[first:last]
    for c in range(1, chunks):
        add(total, array_at(gradient[0], records[c]["gradient"], last)[first:])
    multiply(total, scale)


@register_jitable
def settle(weights, by_dots):
    """Padding is 0 again and Wᵀ up to date after a change of the weights."""
    clear(weights.V)
    clear(weights.W)
    if not by_dots:
        transpose(weights.W, weights.Wt, weights.start)


@register_jitable
def renew(theta, gradient, rule, first, last):
    """Elements first to last of θ, flat arrays, by the rule."""
    if rule.run != 0:
        w, g = theta[first:last], gradient[first:last]
        advance(
            rule.run, theta[0], np.int64(w.ctypes.data), np.int64(g.ctypes.data), rule.slots,
            rule.scalars, np.int64(first), np.int64(last - first),
        )  # fmt: skip


def _epoch(records, X, Y, theta, gradient, rule, chunks):
    n, kind = len(X), X[0, 0]
    for c in prange(chunks):
        record = records[c]
        start, stop = c * n // chunks, (c + 1) * n // chunks
        own = record["gradient"] if c > 0 else np.int64(gradient.ctypes.data)
        record["loss"] = chunk(
            code_of(record, kind, record["features"], record["losses"]), X[start:stop],
            Y[start:stop], weights_at(record, kind, np.int64(theta.ctypes.data)),
            weights_at(record, kind, own), room_of(record), cut_of(record),
        )  # fmt: skip
    scale = like(kind, 1.0 / n)
    size = weights_size_of(records[0])
    parts = 1 if records[0]["alone"] else chunks
    if parts == 1:
        add_up(records, gradient, 0, size, chunks, scale)
        renew(theta, gradient, rule, 0, size)
    else:
        for c in prange(parts):
            first, last = c * size // parts, (c + 1) * size // parts
            add_up(records, gradient, first, last, chunks, scale)
            renew(theta, gradient, rule, first, last)
    if rule.run != 0:
        settle(weights_at(records[0], kind, np.int64(theta.ctypes.data)), records[0]["by_dots"])
    return mean_loss(records, chunks, n)


@cache
def epoch(parallel: bool) -> Any:
    """Compiled epoch(records, X, Y, theta, gradient, rule, chunks) -> L.

    Writes ∇L into gradient and changes theta by the `Rule`, both packed; in `chunks` chunks of the
    samples, as many as there are records or fewer.
    """
    return jit(f"fused-{TARGET.name}", fastmath=SUMS, parallel=parallel)(_epoch)


def _loss(records, X, Y, theta, chunks):
    n, kind = len(X), X[0, 0]
    for c in prange(chunks):
        record = records[c]
        start, stop = c * n // chunks, (c + 1) * n // chunks
        record["loss"] = chunk_loss(
            code_of(record, kind, record["values"], record["losses"]), X[start:stop],
            Y[start:stop], weights_at(record, kind, np.int64(theta.ctypes.data)),
            room_of(record), cut_of(record),
        )  # fmt: skip
    return mean_loss(records, chunks, n)


@cache
def loss(parallel: bool) -> Any:
    """Compiled loss(records, X, Y, theta, chunks) -> L; see `epoch`."""
    return jit(f"fused-{TARGET.name}", fastmath=SUMS, parallel=parallel)(_loss)


def _predict(records, X, F, theta, chunks):
    n, kind = len(X), X[0, 0]
    for c in prange(chunks):
        record = records[c]
        start, stop = c * n // chunks, (c + 1) * n // chunks
        chunk_outputs(
            code_of(record, kind, record["values"], record["links"]), X[start:stop],
            F[start:stop], weights_at(record, kind, np.int64(theta.ctypes.data)),
            room_of(record), cut_of(record),
        )  # fmt: skip


@cache
def predict(parallel: bool) -> Any:
    """Compiled predict(records, X, F, theta, chunks): F = h(σ(X Vᵀ) Wᵀ); see `epoch`."""
    return jit(f"fused-{TARGET.name}", fastmath=SUMS, parallel=parallel)(_predict)


def _restore(records, theta):
    weights = weights_at(records[0], theta[0], np.int64(theta.ctypes.data))
    settle(weights, records[0]["by_dots"])
    if not records[0]["by_dots"]:
        clear(weights.Wt)


@cache
def restore() -> Any:
    """Compiled restore(records, theta): padding 0 again and Wᵀ up to date after a change of θ."""
    return jit(f"fused-{TARGET.name}")(_restore)

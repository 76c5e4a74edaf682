"""Epochs in cache-sized blocks of samples, on register-tiled products of our own.

Every array of a block is kept in panels (see `simd`): lanes run along the hidden units, so that no
product meets a ragged edge, and the outputs U are turned over once, so that the loss runs along the
samples. V and W stay packed from step to step. Chunk c of the samples has a workspace and gradients
of its own; the chunks' gradients are added in the order of their numbers.

Panels of a matrix with `rows` rows and M columns: panel p starts at p · rows · lanes and is (rows,
lanes); the last is `last_lanes(M, lanes)` wide. What lies beyond column M is padding, 0 in V and W.
"""

from __future__ import annotations

from functools import cache
from typing import Any

from numba import prange
from numba.extending import register_jitable

from ..compiler.jit import SUMS, jit
from ..compiler.target import TARGET
from ..formulas.elementary import like
from .blocks import apply, evaluate, turn
from .simd import HEIGHT, dots, product, spread

_SMALL = 1 << 15  # elements of V that one thread updates before a second would have begun


@register_jitable
def last_lanes(columns, lanes):
    """Lanes of the last panel: one vector where that holds the columns that are left, else two."""
    left = columns - (columns - 1) // lanes * lanes
    return lanes // 2 if left <= lanes // 2 else lanes


@register_jitable
def panel_count(columns, lanes):
    """Number of panels for that many columns."""
    return (columns + lanes - 1) // lanes


@register_jitable
def panel_size(rows, columns, lanes):
    """Elements of all panels of a (rows, columns) matrix."""
    return rows * ((panel_count(columns, lanes) - 1) * lanes + last_lanes(columns, lanes))


@register_jitable
def pack(matrix, panels, lanes):
    """Write matrix (rows, columns) into panels; padding becomes 0."""
    rows, columns = matrix.shape
    for p in range(panel_count(columns, lanes)):
        first = p * lanes
        width = lanes if first + lanes <= columns else last_lanes(columns, lanes)
        for r in range(rows):
            start = p * rows * lanes + r * width
            for lane in range(width):
                c = first + lane
                panels[start + lane] = matrix[r, c] if c < columns else like(panels[0], 0.0)


@register_jitable
def unpack(panels, matrix, lanes):
    """Write panels into matrix (rows, columns)."""
    rows, columns = matrix.shape
    for p in range(panel_count(columns, lanes)):
        first = p * lanes
        width = lanes if first + lanes <= columns else last_lanes(columns, lanes)
        for r in range(rows):
            start = p * rows * lanes + r * width
            for lane in range(min(width, columns - first)):
                matrix[r, first + lane] = panels[start + lane]


@register_jitable
def by_dots(M, K, lanes):
    """Whether U = Z Wᵀ is cheaper by dot products along M than by tiles with lanes along K.

    In cycles a sample: a dot product loads two vectors a multiply-add and ends in a sum of lanes.
    """
    width = lanes // 2
    return K * (M // width + 12) <= M * ((K + width - 1) // width) // 2


@register_jitable
def by_one_thread(size):
    """Whether V, with that many elements, is updated by one thread."""
    return size < _SMALL


@register_jitable
def features(simd, activation, kind, xp, Vp, Z, S, rows, d, M, lanes, depth):
    """Z = σ(X Vᵀ) and S = σ′(X Vᵀ) in panels (rows, M), for a block of X: see `operand`."""
    item = Z.itemsize
    x, x_rows, x_row, x_inputs, x_input = xp
    panels = panel_count(M, lanes)
    for start in range(0, d, depth):
        inputs = min(depth, d - start)
        for p in range(panels):
            width = lanes if p < panels - 1 else last_lanes(M, lanes)
            of_block = item * (p * rows * lanes)
            product(
                simd[0], kind, Z.ctypes.data + of_block, width,
                x + item * (start // HEIGHT * x_inputs), x_rows, x_row, x_inputs, x_input,
                Vp.ctypes.data + item * (p * d * lanes + start * width), width,
                inputs, start > 0, rows, width,
            )  # fmt: skip
            if start + inputs == d:
                apply(
                    activation, kind, Z.ctypes.data + of_block, S.ctypes.data + of_block,
                    rows * width,
                )  # fmt: skip


@register_jitable
def operand(simd, x, Xp, step):
    """A block x (rows, d) as products read it: address and strides of samples, then of inputs.

    Where `step` is not 0, x is spread to Xp first, one group of inputs every `step` elements: a
    tile then reads consecutive memory in both products, and x itself is read once and in order.
    """
    rows, d = x.shape
    if step == 0:
        return x.ctypes.data, HEIGHT * d, d, HEIGHT, 1
    spread(simd[3], x[0, 0], Xp.ctypes.data, step, x.ctypes.data, d, rows, d)
    return Xp.ctypes.data, HEIGHT * HEIGHT, HEIGHT, step, 1


@register_jitable
def outputs(simd, Z, Wp, Wt, U, U_rows, rows, M, K, lanes):
    """U (K, rows) = W Zᵀ for panels Z (rows, M). U_rows is room for panels (rows, K)."""
    item = Z.itemsize
    panels = panel_count(M, lanes)
    last = last_lanes(M, lanes)
    if by_dots(M, K, lanes):
        for k in range(K):
            dots(
                simd[2], Z[0], U.ctypes.data + item * k * rows, Z.ctypes.data, rows * lanes,
                Wp.ctypes.data + item * k * lanes, K * lanes,
                Wp.ctypes.data + item * ((panels - 1) * K * lanes + k * last),
                panels, lanes, last, rows,
            )  # fmt: skip
        return
    for q in range(panel_count(K, lanes)):
        width = lanes if (q + 1) * lanes <= K else last_lanes(K, lanes)
        for p in range(panels):
            product(
                simd[0], Z[0],
                U_rows.ctypes.data + item * (q * rows * lanes), width,
                Z.ctypes.data + item * (p * rows * lanes),
                HEIGHT * (lanes if p < panels - 1 else last),
                lanes if p < panels - 1 else last, HEIGHT, 1,
                Wt.ctypes.data + item * (q * M * lanes + p * lanes * width), width,
                min(lanes, M - p * lanes), p > 0, rows, width,
            )  # fmt: skip
        for k in range(min(width, K - q * lanes)):
            start = q * rows * lanes + k
            for i in range(rows):
                U[q * lanes + k, i] = U_rows[start + i * width]


@register_jitable
def gradients(simd, kind, xp, Delta, Z, S, Wp, gVp, gWp, rows, d, M, K, lanes, depth, add):
    """gW [+]= Δᵀ Z, S becomes G = (Δ W) ⊙ S, gV [+]= Gᵀ X, for Δ (K, rows) and panels."""
    item = Z.itemsize
    x, x_rows, x_row, x_inputs, x_input = xp
    panels = panel_count(M, lanes)
    for start in range(0, d, depth):
        inputs = min(depth, d - start)
        for p in range(panels):
            width = lanes if p < panels - 1 else last_lanes(M, lanes)
            of_block = item * (p * rows * lanes)
            if start == 0:
                of_W = item * (p * K * lanes)
                product(
                    simd[0], kind, gWp.ctypes.data + of_W, width,
                    Delta.ctypes.data, HEIGHT * rows, rows, HEIGHT, 1,
                    Z.ctypes.data + of_block, width, rows, add, K, width,
                )  # fmt: skip
                product(
                    simd[1], kind, S.ctypes.data + of_block, width,
                    Delta.ctypes.data, HEIGHT, 1, HEIGHT * rows, rows,
                    Wp.ctypes.data + of_W, width, K, False, rows, width,
                )  # fmt: skip
            product(
                simd[0], kind, gVp.ctypes.data + item * (p * d * lanes + start * width), width,
                x + item * (start // HEIGHT * x_inputs), x_inputs, x_input, x_rows, x_row,
                S.ctypes.data + of_block, width, rows, add, inputs, width,
            )  # fmt: skip


@register_jitable
def workspace_size(rows, d, M, K, lanes, step):
    """Elements of a chunk's workspace: X, Z, S, U by rows and by columns, Y by columns, sums."""
    X = (d + HEIGHT - 1) // HEIGHT * step
    return X + 2 * panel_size(rows, M, lanes) + panel_size(rows, K, lanes) + (2 * K + 4) * rows


@register_jitable
def split(work, rows, d, M, K, lanes, step):
    """A workspace's X, Z, S, U by rows, U and Y (K, rows) and four sums, for a block of rows."""
    size, by_rows = panel_size(rows, M, lanes), panel_size(rows, K, lanes)
    X_size = (d + HEIGHT - 1) // HEIGHT * step
    Xp, work = work[:X_size], work[X_size:]
    Z, S, work = work[:size], work[size : 2 * size], work[2 * size :]
    U_rows, work = work[:by_rows], work[by_rows:]
    U, work = work[: K * rows].reshape(K, rows), work[K * rows :]
    Y, work = work[: K * rows].reshape(K, rows), work[K * rows :]
    return Xp, Z, S, U_rows, U, Y, work


@register_jitable
def chunk(simd, formulas, X, Y, Vp, Wp, Wt, work, gVp, gWp, M, block, lanes, depth, step):
    """Σ ℓ over the rows of X and Y; Σ ∂ℓ/∂V and Σ ∂ℓ/∂W into gVp and gWp."""
    n, d = X.shape
    K = Y.shape[1]
    kind = X[0, 0]
    total = 0.0
    for start in range(0, n, block):
        x, y = X[start : start + block], Y[start : start + block]
        rows = len(x)
        Xp, Z, S, U_rows, U, y_columns, sums = split(work, rows, d, M, K, lanes, step)
        xp = operand(simd, x, Xp, step)
        features(simd, formulas[0], kind, xp, Vp, Z, S, rows, d, M, lanes, depth)
        outputs(simd, Z, Wp, Wt, U, U_rows, rows, M, K, lanes)
        turn(y, y_columns)
        total += evaluate(
            formulas[1], kind, U.ctypes.data, y_columns.ctypes.data, sums.ctypes.data, K, rows
        )
        gradients(simd, kind, xp, U, Z, S, Wp, gVp, gWp, rows, d, M, K, lanes, depth, start > 0)
    return total


@register_jitable
def finish(first, last, scale, mu, update, packed, gradient):
    """Elements first to last: gradient[0] = the chunks' sum times scale; θ −= μ ∇ if asked."""
    for i in range(first, last):
        total = gradient[0, i]
        for c in range(1, len(gradient)):
            total += gradient[c, i]
        total *= scale
        gradient[0, i] = total
        if update:
            packed[i] -= mu * total


@register_jitable
def finish_second_layer(scale, mu, update, Wp, Wt, gWp, M, K, lanes):
    """As `finish` for W, with the padding kept at 0 and the other packing brought up to date."""
    panels = panel_count(M, lanes)
    width = last_lanes(M, lanes)
    for c in range(len(gWp)):
        for k in range(K):
            for lane in range(M - (panels - 1) * lanes, width):
                gWp[c, (panels - 1) * K * lanes + k * width + lane] = like(Wp[0], 0.0)
    finish(0, len(Wp), scale, mu, update, Wp, gWp)
    if update and not by_dots(M, K, lanes):
        transpose_packed(Wp, Wt, M, K, lanes)


@register_jitable
def transpose_packed(Wp, Wt, M, K, lanes):
    """Wt, panels (M, K) of Wᵀ, from Wp, panels (K, M) of W."""
    for q in range(panel_count(K, lanes)):
        width_t = lanes if (q + 1) * lanes <= K else last_lanes(K, lanes)
        for m in range(M):
            p = m // lanes
            width = lanes if p < panel_count(M, lanes) - 1 else last_lanes(M, lanes)
            for k in range(width_t):
                column = q * lanes + k
                place = q * M * lanes + m * width_t + k
                if column < K:
                    Wt[place] = Wp[p * K * lanes + column * width + m - p * lanes]
                else:
                    Wt[place] = like(Wt[0], 0.0)


def _epoch(
    simd, formulas, X, Y, bounds, Vp, Wp, Wt, work, gVp, gWp, losses, M, block, lanes, depth, step,
    mu, update,
):  # fmt: skip
    chunks = len(bounds) - 1
    for c in prange(chunks):
        losses[c] = chunk(
            simd, formulas, X[bounds[c] : bounds[c + 1]], Y[bounds[c] : bounds[c + 1]], Vp, Wp, Wt,
            work[c], gVp[c], gWp[c], M, block, lanes, depth, step,
        )  # fmt: skip
    scale = like(Vp[0], 1.0 / len(X))
    rate = like(Vp[0], mu)
    gVp, gWp = gVp[:chunks], gWp[:chunks]
    if by_one_thread(len(Vp)):
        finish(0, len(Vp), scale, rate, update, Vp, gVp)
    else:
        for c in prange(chunks):
            first, last = c * len(Vp) // chunks, (c + 1) * len(Vp) // chunks
            finish(first, last, scale, rate, update, Vp, gVp)
    finish_second_layer(scale, rate, update, Wp, Wt, gWp, M, Y.shape[1], lanes)
    total = 0.0
    for c in range(chunks):
        total += losses[c]
    return total / len(X)


@cache
def epoch(parallel: bool) -> Any:
    """Compiled epoch(simd, formulas, X, Y, bounds, Vp, Wp, Wt, work, gVp, gWp, losses, M, block,
    lanes, depth, step, mu, update) -> L.

    simd, `simd.addresses` of the dtype; formulas, `blocks.gradient_formulas` of the network. Chunk
    c takes the rows bounds[c] to bounds[c + 1] in blocks of `block` rows, with work[c], gVp[c] and
    gWp[c]; step, see `operand`. Afterwards gVp[0] and gWp[0] hold ∇L; where `update` is set,
    θ ← θ − μ ∇L.
    """
    return jit(f"fused-{TARGET.name}", fastmath=SUMS, parallel=parallel)(_epoch)


def _predict(simd, formulas, X, Vp, Wp, Wt, bounds, work, F, M, block, lanes, depth, step):
    d, K = X.shape[1], F.shape[1]
    kind = X[0, 0]
    for c in prange(len(bounds) - 1):
        for start in range(bounds[c], bounds[c + 1], block):
            stop = min(start + block, bounds[c + 1])
            rows = stop - start
            Xp, Z, S, U_rows, U, f, sums = split(work[c], rows, d, M, K, lanes, step)
            xp = operand(simd, X[start:stop], Xp, step)
            features(simd, formulas[0], kind, xp, Vp, Z, S, rows, d, M, lanes, depth)
            outputs(simd, Z, Wp, Wt, U, U_rows, rows, M, K, lanes)
            evaluate(formulas[1], kind, U.ctypes.data, f.ctypes.data, sums.ctypes.data, K, rows)
            turn(U, F[start:stop])


@cache
def predict(parallel: bool) -> Any:
    """Compiled _predict, over chunks of samples in parallel or not; with `predict_formulas`."""
    return jit(f"fused-{TARGET.name}", fastmath=SUMS, parallel=parallel)(_predict)


@cache
def packers() -> tuple[Any, ...]:
    """Compiled pack(matrix, panels, lanes), unpack(panels, matrix, lanes) and transpose_packed."""
    return tuple(
        jit(f"fused-{TARGET.name}")(function) for function in (pack, unpack, transpose_packed)
    )

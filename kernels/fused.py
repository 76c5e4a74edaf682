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

from .blocks import apply, evaluate, turn
from .elementary import like
from .jit import SUMS, jit
from .simd import VECTOR_BYTES, dots, product

_DEPTH = 256  # inputs a product runs over at a time: a panel of V of that many rows fits in L1


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
def preactivations(simd, x, Vp, A, d, M, lanes):
    """A = X Vᵀ for a block of rows of X (rows, d), in panels (rows, M)."""
    rows = len(x)
    item = x.itemsize
    panels = panel_count(M, lanes)
    for start in range(0, d, _DEPTH):
        depth = min(_DEPTH, d - start)
        for p in range(panels):
            width = lanes if p < panels - 1 else last_lanes(M, lanes)
            product(
                simd[0], x[0, 0],
                A.ctypes.data + item * (p * rows * lanes), width,
                x.ctypes.data + item * start, d, 1,
                Vp.ctypes.data + item * (p * d * lanes + start * width), width,
                depth, start > 0, rows, width,
            )  # fmt: skip


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
                Z.ctypes.data + item * (p * rows * lanes), lanes if p < panels - 1 else last, 1,
                Wt.ctypes.data + item * (q * M * lanes + p * lanes * width), width,
                min(lanes, M - p * lanes), p > 0, rows, width,
            )  # fmt: skip
        for k in range(min(width, K - q * lanes)):
            start = q * rows * lanes + k
            for i in range(rows):
                U[q * lanes + k, i] = U_rows[start + i * width]


@register_jitable
def gradients(simd, x, Delta, Z, S, Wp, gVp, gWp, d, M, K, lanes, add):
    """gW [+]= Δᵀ Z, S becomes G = (Δ W) ⊙ S, gV [+]= Gᵀ X, for Δ (K, rows) and panels."""
    rows = len(x)
    item = x.itemsize
    panels = panel_count(M, lanes)
    for p in range(panels):
        width = lanes if p < panels - 1 else last_lanes(M, lanes)
        of_block = item * (p * rows * lanes)
        of_W = item * (p * K * lanes)
        product(
            simd[0], x[0, 0], gWp.ctypes.data + of_W, width,
            Delta.ctypes.data, rows, 1,
            Z.ctypes.data + of_block, width, rows, add, K, width,
        )  # fmt: skip
        product(
            simd[1], x[0, 0], S.ctypes.data + of_block, width,
            Delta.ctypes.data, 1, rows,
            Wp.ctypes.data + of_W, width, K, False, rows, width,
        )  # fmt: skip
        product(
            simd[0], x[0, 0], gVp.ctypes.data + item * (p * d * lanes), width,
            x.ctypes.data, 1, d,
            S.ctypes.data + of_block, width, rows, add, d, width,
        )  # fmt: skip


@register_jitable
def workspace_size(rows, M, K, lanes):
    """Elements of a chunk's workspace: Z, S, U by rows and by columns, Y by columns, four sums."""
    return 2 * panel_size(rows, M, lanes) + panel_size(rows, K, lanes) + (2 * K + 4) * rows


@register_jitable
def split(work, rows, M, K, lanes):
    """A workspace's Z, S, U by rows, U and Y (K, rows) and four sums, for a block of rows."""
    size, by_rows = panel_size(rows, M, lanes), panel_size(rows, K, lanes)
    Z, S, work = work[:size], work[size : 2 * size], work[2 * size :]
    U_rows, work = work[:by_rows], work[by_rows:]
    U, work = work[: K * rows].reshape(K, rows), work[K * rows :]
    Y, work = work[: K * rows].reshape(K, rows), work[K * rows :]
    return Z, S, U_rows, U, Y, work


@register_jitable
def chunk(simd, formulas, X, Y, Vp, Wp, Wt, work, gVp, gWp, M, block, lanes):
    """Σ ℓ over the rows of X and Y; Σ ∂ℓ/∂V and Σ ∂ℓ/∂W into gVp and gWp."""
    n, d = X.shape
    K = Y.shape[1]
    total = 0.0
    for start in range(0, n, block):
        x, y = X[start : start + block], Y[start : start + block]
        rows = len(x)
        Z, S, U_rows, U, y_columns, sums = split(work, rows, M, K, lanes)
        preactivations(simd, x, Vp, Z, d, M, lanes)
        apply(formulas[0], x[0, 0], Z.ctypes.data, S.ctypes.data, len(Z))
        outputs(simd, Z, Wp, Wt, U, U_rows, rows, M, K, lanes)
        turn(y, y_columns)
        total += evaluate(
            formulas[1], x[0, 0], U.ctypes.data, y_columns.ctypes.data, sums.ctypes.data, K, rows
        )
        gradients(simd, x, U, Z, S, Wp, gVp, gWp, d, M, K, lanes, start > 0)
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
    simd, formulas, X, Y, Vp, Wp, Wt, bounds, work, gVp, gWp, losses, mu, update, M, block, lanes
):  # fmt: skip
    for c in prange(len(bounds) - 1):
        losses[c] = chunk(
            simd, formulas, X[bounds[c] : bounds[c + 1]], Y[bounds[c] : bounds[c + 1]], Vp, Wp, Wt,
            work[c], gVp[c], gWp[c], M, block, lanes,
        )  # fmt: skip
    chunks = len(bounds) - 1
    scale = like(Vp[0], 1.0 / len(X))
    step = like(Vp[0], mu)
    for c in prange(chunks):
        first, last = c * len(Vp) // chunks, (c + 1) * len(Vp) // chunks
        finish(first, last, scale, step, update, Vp, gVp[:chunks])
    finish_second_layer(scale, step, update, Wp, Wt, gWp[:chunks], M, Y.shape[1], lanes)
    total = 0.0
    for c in range(chunks):
        total += losses[c]
    return total / len(X)


@cache
def epoch(parallel: bool) -> Any:
    """Compiled epoch(simd, formulas, X, Y, Vp, Wp, Wt, bounds, work, gVp, gWp, losses, mu, update,
    M, block, lanes) -> L.

    simd, `simd.addresses` of the dtype; formulas, `blocks.formulas` of the network. Chunk c takes
    the rows bounds[c] to bounds[c + 1] in blocks of `block` rows, with work[c], gVp[c] and gWp[c].
    Afterwards gVp[0] and gWp[0] hold ∇L; where `update` is set, θ ← θ − μ ∇L.
    """
    return jit(f"fused-{VECTOR_BYTES}", fastmath=SUMS, parallel=parallel)(_epoch)


def _predict(simd, formulas, X, Vp, Wp, Wt, bounds, work, F, M, block, lanes):
    K = F.shape[1]
    for c in prange(len(bounds) - 1):
        for start in range(bounds[c], bounds[c + 1], block):
            stop = min(start + block, bounds[c + 1])
            x = X[start:stop]
            rows = len(x)
            Z, S, U_rows, U, f, sums = split(work[c], rows, M, K, lanes)
            preactivations(simd, x, Vp, Z, X.shape[1], M, lanes)
            apply(formulas[2], x[0, 0], Z.ctypes.data, S.ctypes.data, len(Z))
            outputs(simd, Z, Wp, Wt, U, U_rows, rows, M, K, lanes)
            evaluate(formulas[3], x[0, 0], U.ctypes.data, f.ctypes.data, sums.ctypes.data, K, rows)
            turn(U, F[start:stop])


@cache
def predict(parallel: bool) -> Any:
    """Compiled predict(simd, formulas, X, Vp, Wp, Wt, bounds, work, F, M, block, lanes)."""
    return jit(f"fused-{VECTOR_BYTES}", fastmath=SUMS, parallel=parallel)(_predict)


@cache
def packers() -> tuple[Any, ...]:
    """Compiled pack(matrix, panels, lanes), unpack(panels, matrix, lanes) and transpose_packed."""
    return tuple(
        jit(f"fused-{VECTOR_BYTES}")(function) for function in (pack, unpack, transpose_packed)
    )

"""Epochs of few hidden units: what would fill a part of a vector there fills vectors elsewhere.

V and W lie as they are. Lanes run along the inputs where X is read, and along the samples for all
that there is of a hidden unit or an output: A, Z, S and G (M, rows), U and Δ (K, rows).
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from ..compiler.address import array_at, item_size
from ..compiler.jit import jitable
from ..compiler.target import TARGET
from . import epochs
from .blocks import apply, evaluate, losses_of
from .records import record_type
from .vectors.panels import Panel
from .vectors.simd import as_it_lies, dots, lying_rows, product, transpose, turned
from .vectors.tiles import ADD, SCALE, WRITE

_SIZES = ("d", "M", "K", "rows", *epochs.FIELDS)
_CODE = (
    "product", "dots", "transpose", "features", "values", "losses", "labels", "links",
)  # fmt: skip
_BUFFERS = ("Z", "S", "U", "Y", "sums", "gradient")
CHUNK = record_type((*_SIZES, *_CODE, *_BUFFERS))


class Matrix(NamedTuple):
    """A matrix whose rows begin `step` elements apart."""

    address: int
    step: int


def buffers(shape: Any, chunks: int, rows: int) -> dict[str, tuple[int, int]]:
    """How many chunks have each buffer, and its elements, for blocks of so many rows."""
    _, d, M, K = shape
    of_row = {"Z": M, "S": M, "U": K, "Y": K, "sums": 4}
    sizes = {name: (chunks, rows * size) for name, size in of_row.items()}
    return sizes | {"gradient": (chunks - 1, M * (d + K))}


@jitable
def along(address, kind, C, a, b, shape, how):
    """C =, += or ⊙= a b, for shape (rows, length, columns), along the columns."""
    rows, length, columns = shape
    width = TARGET.vector_bytes // item_size(kind)
    start = 0
    while start < columns:
        left = columns - start
        lanes = 2 * width if left >= 2 * width else min(width, left)
        shift = item_size(kind) * start
        product(
            address, kind, Panel(C.address + shift, C.step, lanes), a,
            Panel(b.address + shift, b.step, lanes), rows, length, how,
        )  # fmt: skip
        start += lanes


@jitable
def forward(record, x, theta, features):
    """Z, S and U of the samples x (rows, d)."""
    kind, (rows, d) = x[0, 0], x.shape
    M, K = record["M"], record["K"]
    (of_x, length), (of_V, _) = (
        lying_rows(kind, np.int64(x.ctypes.data), d), lying_rows(kind, theta, d)
    )  # fmt: skip
    dots(record["dots"], kind, (record["Z"], rows), of_x, of_V, length, (rows, M), False)
    apply(features, kind, record["Z"], record["S"], M * rows)
    W = as_it_lies(theta + item_size(kind) * (M * d), M)
    U, Z = Matrix(record["U"], rows), Matrix(record["Z"], rows)
    along(record["product"], kind, U, W, Z, (K, M, rows), WRITE)


@jitable
def judge(record, y, losses):
    """Σ ℓ over a block with targets y (rows, K), or labels (rows, 1); U becomes Δ."""
    kind, (rows, columns), K = y[0, 0], y.shape, record["K"]
    y_at = np.int64(y.ctypes.data)
    transpose(record["transpose"], kind, record["Y"], rows, y_at, columns, rows, columns)
    return evaluate(losses, kind, record["U"], record["Y"], record["sums"], K, rows)


@jitable
def backward(record, x, theta, gradient, add):
    """gW [+]= Δ Zᵀ, S becomes G = (Wᵀ Δ) ⊙ S, gV [+]= G X."""
    kind, (rows, d) = x[0, 0], x.shape
    M, K = record["M"], record["K"]
    skip = item_size(kind) * (M * d)
    if rows == 1:  # a dot product would be as long as one number
        gW, Z = Matrix(gradient + skip, M), Matrix(record["Z"], M)
        column, how = as_it_lies(record["U"], 1), ADD if add else WRITE
        along(record["product"], kind, gW, column, Z, (K, 1, M), how)
    else:
        (of_Z, length), (of_Delta, _) = (
            lying_rows(kind, record["Z"], rows), lying_rows(kind, record["U"], rows)
        )  # fmt: skip
        dots(record["dots"], kind, (gradient + skip, M), of_Z, of_Delta, length, (M, K), add)
    S, Delta = Matrix(record["S"], rows), Matrix(record["U"], rows)
    W = turned(as_it_lies(theta + skip, M))
    along(record["product"], kind, S, W, Delta, (M, K, rows), SCALE)
    X, G = Matrix(np.int64(x.ctypes.data), d), as_it_lies(record["S"], rows)
    along(record["product"], kind, Matrix(gradient, d), G, X, (M, rows, d), ADD if add else WRITE)


def _chunk(record, kind, X, Y, rows, columns, theta, gradient):
    """Σ ℓ over the rows of X and Y; Σ ∂ℓ/∂θ."""
    total, most = 0.0, record["rows"]
    X, Y = array_at(kind, X, (rows, record["d"])), array_at(kind, Y, (rows, columns))
    for start in range(0, rows, most):
        x, y = X[start : start + most], Y[start : start + most]
        forward(record, x, theta, record["features"])
        total += judge(record, y, losses_of(record, columns))
        backward(record, x, theta, gradient, start > 0)
    return total


def _chunk_loss(record, kind, X, Y, rows, columns, theta, gradient):
    """Σ ℓ over the rows of X and Y."""
    total, most = 0.0, record["rows"]
    X, Y = array_at(kind, X, (rows, record["d"])), array_at(kind, Y, (rows, columns))
    for start in range(0, rows, most):
        x, y = X[start : start + most], Y[start : start + most]
        forward(record, x, theta, record["values"])
        total += judge(record, y, losses_of(record, columns))
    return total


def _chunk_outputs(record, kind, X, F, rows, columns, theta, gradient):
    """F = h(σ(X Vᵀ) Wᵀ) for the rows of X."""
    most = record["rows"]
    X, F = array_at(kind, X, (rows, record["d"])), array_at(kind, F, (rows, columns))
    for start in range(0, rows, most):
        x, f = X[start : start + most], F[start : start + most]
        forward(record, x, theta, record["values"])
        of_f, K = f.shape
        evaluate(record["links"], kind, record["U"], record["Y"], record["sums"], K, of_f)
        f_at = np.int64(f.ctypes.data)
        transpose(record["transpose"], kind, f_at, K, record["U"], of_f, K, of_f)
    return 0.0


_NAME = f"few-units-{TARGET.name}"
KERNELS = epochs.Kernels(
    *(epochs.visitor(_NAME, CHUNK, one) for one in (_chunk, _chunk_outputs, _chunk_loss))
)

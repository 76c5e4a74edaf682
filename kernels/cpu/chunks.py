"""What a chunk of the samples works with in panels: its record, and the names of what is in it."""

from __future__ import annotations

from typing import Any, NamedTuple

from ..compiler.jit import jitable
from . import epochs
from .records import record_type
from .vectors.panels import Panels, after, panel_size, some

_SIZES = ("d", "M", "K", "lanes", "rows", "depth", "step", "by_dots", *epochs.FIELDS)
_CODE = (
    "product", "dots", "spread", "transpose", "features", "values", "losses", "labels",
    "links", "forward", "backward",
)  # fmt: skip
_BUFFERS = ("X", "Z", "S", "U_panel", "U", "total", "Y", "sums", "gradient")
CHUNK = record_type((*_SIZES, *_CODE, *_BUFFERS))


class Code(NamedTuple):
    """The addresses of what is called; kind, any number of the dtype."""

    kind: Any
    product: int
    dots: int
    spread: int
    transpose: int
    features: int  # σ's pass over a block, with or without slopes
    losses: int  # ℓ's pass, or h's


class Weights(NamedTuple):
    """θ or ∇L in panels: V by inputs (d, M), W (K, M), Wᵀ (M, K).

    V and W may be those of a part of the hidden units, of which `start` is the first.
    """

    V: Panels
    W: Panels
    Wt: Panels
    start: int


class Cut(NamedTuple):
    """How a chunk is cut: rows of a block, inputs of a part of d, whether X is spread."""

    rows: int
    depth: int
    spreads: bool  # or X is read as it lies
    by_dots: bool  # U by sums along the lanes, else by tiles


class Room(NamedTuple):
    """The addresses of a chunk's buffers: see `buffers`."""

    X: int
    Z: int
    S: int
    U_panel: int
    U: int
    Y: int
    sums: int


def buffers(shape: Any, cut: Any) -> dict[str, tuple[int, int]]:
    """How many chunks have each buffer, and its elements; cut, a `Blocking` of the shape.

    All other sizes follow from this table: views begin where a buffer does, and a block of fewer
    rows uses less of it.
    """
    _, d, M, K = shape
    rows, lanes = cut.most, cut.lanes
    sizes = {
        "X": -(-d // cut.height) * cut.step,  # spread
        "Z": panel_size(rows, M, lanes),
        "S": panel_size(rows, M, lanes),  # σ′(A), then G
        "U_panel": 0 if cut.by_dots else panel_size(rows, min(K, lanes), lanes),
        "U": K * rows,  # by columns, then Δ
        "total": K * cut.shared,  # of U, where threads share the hidden units; then Δ
        "Y": K * rows,  # by columns
        "sums": 4 * rows,
        "gradient": panel_size(d + K, M, lanes),  # of V and W
    }
    # The gradient of the first chunk is where the caller wants ∇L.
    counts = dict.fromkeys(sizes, max(cut.chunks, cut.parts)) | {"gradient": cut.chunks - 1}
    return {name: (counts[name], size) for name, size in sizes.items()}


def weights_size(shape: Any, cut: Any) -> int:
    """Elements of θ in panels; of them `panel_size(d + K, M, lanes)` are V and W."""
    _, d, M, K = shape
    turned = 0 if cut.by_dots else panel_size(M, K, cut.lanes)
    return panel_size(d + K, M, cut.lanes) + turned


@jitable
def cut_of(record):
    """The chunk's `Cut`."""
    return Cut(record["rows"], record["depth"], record["step"] != 0, record["by_dots"] != 0)


@jitable
def code_of(record, kind, features, losses):
    """The chunk's `Code`, with these passes over a block."""
    return Code(
        kind, record["product"], record["dots"], record["spread"],
        record["transpose"], features, losses,
    )  # fmt: skip


@jitable
def room_of(record):
    """The chunk's `Room`."""
    return Room(
        record["X"], record["Z"], record["S"], record["U_panel"], record["U"], record["Y"],
        record["sums"],
    )  # fmt: skip


@jitable
def weights_at(record, kind, address):
    """The weights at an address."""
    V = Panels(kind, address, record["d"], record["M"], record["lanes"])
    W = after(V, record["K"], record["M"])
    return Weights(V, W, after(W, record["M"], record["K"]), 0)


@jitable
def part_of(weights, first, last):
    """What panels first to last of the hidden units have of the weights."""
    V, W = some(weights.V, first, last), some(weights.W, first, last)
    return Weights(V, W, weights.Wt, first * V.lanes)

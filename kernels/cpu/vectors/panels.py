"""Matrices in panels: the form in which products in explicit vectors read and write.

A matrix (rows, columns) is cut into panels of `lanes` columns, two vectors; panel p starts at
p · rows · lanes and is a contiguous (rows, lanes). The last is one vector wide where that holds the
columns that are left. What lies beyond the last column is padding.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from ...compiler.address import array_at, item_size
from ...compiler.jit import jitable
from ...formulas.elementary import like


class Panels(NamedTuple):
    """A matrix (rows, columns) in panels at an address; kind, any number of its dtype."""

    kind: Any
    address: int
    rows: int
    columns: int
    lanes: int


class Panel(NamedTuple):
    """A panel: rows of `lanes` numbers that begin `step` elements apart."""

    address: int
    step: int
    lanes: int


@jitable
def last_lanes(columns, lanes):
    """Lanes of the last panel: one vector where that holds the columns that are left, else two."""
    left = columns - (columns - 1) // lanes * lanes
    return lanes // 2 if left <= lanes // 2 else lanes


@jitable
def panel_count(columns, lanes):
    """Number of panels for that many columns."""
    return (columns + lanes - 1) // lanes


@jitable
def panel_size(rows, columns, lanes):
    """Elements of all panels of a (rows, columns) matrix."""
    return rows * ((panel_count(columns, lanes) - 1) * lanes + last_lanes(columns, lanes))


@jitable
def panel(P, p):
    """Panel p."""
    lanes = P.lanes if (p + 1) * P.lanes <= P.columns else last_lanes(P.columns, P.lanes)
    return Panel(P.address + item_size(P.kind) * (p * P.rows * P.lanes), lanes, lanes)


@jitable
def from_row(kind, panel, row):
    """The panel without what lies before that row."""
    return Panel(panel.address + item_size(kind) * row * panel.step, panel.step, panel.lanes)


@jitable
def panels_of(array, rows, columns, lanes):
    """A flat array as the panels of a matrix (rows, columns)."""
    return Panels(array[0], np.int64(array.ctypes.data), rows, columns, lanes)


@jitable
def after(P, rows, columns):
    """The panels of a matrix (rows, columns) that begin where those of P end."""
    end = P.address + item_size(P.kind) * panel_size(P.rows, P.columns, P.lanes)
    return Panels(P.kind, end, rows, columns, P.lanes)


@jitable
def view(P, p):
    """Panel p as an array (rows, its lanes)."""
    at = panel(P, p)
    return array_at(P.kind, at.address, (P.rows, at.lanes))


@jitable
def some(P, first, last):
    """Panels first to last, as a matrix of their columns."""
    start = first * P.lanes
    address = P.address + item_size(P.kind) * (start * P.rows)
    return Panels(P.kind, address, P.rows, min(P.columns, last * P.lanes) - start, P.lanes)


@jitable
def clear(P):
    """Make the padding 0."""
    last = panel_count(P.columns, P.lanes) - 1
    left = P.columns - last * P.lanes
    out = view(P, last)
    for r in range(P.rows):
        for lane in range(left, out.shape[1]):
            out[r, lane] = like(P.kind, 0.0)


def pack(matrix: np.ndarray, flat: np.ndarray, lanes: int) -> None:
    """Write a matrix (rows, columns) into panels, a flat array; padding becomes 0."""
    full, last, before = _parts(flat, len(matrix), matrix.shape[1], lanes)
    full[...] = matrix[:, :before].reshape(len(matrix), -1, lanes).swapaxes(0, 1)
    left = matrix.shape[1] - before
    last[:, :left], last[:, left:] = matrix[:, before:], 0


def unpack(flat: np.ndarray, rows: int, columns: int, lanes: int) -> np.ndarray:
    """The matrix (rows, columns) that panels, a flat array, hold."""
    full, last, before = _parts(flat, rows, columns, lanes)
    return np.hstack([full.swapaxes(0, 1).reshape(rows, before), last[:, : columns - before]])


def _parts(flat: np.ndarray, rows: int, columns: int, lanes: int) -> tuple[Any, Any, int]:
    """All panels but the last (panels, rows, lanes), the last, and the columns before it."""
    count = panel_count(columns, lanes) - 1
    full, last = np.split(flat, [count * rows * lanes])
    return full.reshape(count, rows, lanes), last.reshape(rows, -1), count * lanes

"""Sums along the lanes and transposes: every ragged size, compiled and interpreted."""

import numpy as np
import pytest
from numba import njit

from twolayer.kernels.compiler.address import item_size
from twolayer.kernels.compiler.target import TARGET
from twolayer.kernels.cpu.vectors import simd
from twolayer.kernels.cpu.vectors.panels import pack, panel_size, panels_of
from twolayer.network import DTYPES

pytestmark = pytest.mark.compiled


def dots_of_rows(address, out, a, b, length, shape, add):
    """out[:columns, :rows] [+]= b aᵀ for contiguous a (rows, length) and b (columns, length)."""
    kind = out[0, 0]
    of_a, size = simd.lying_rows(kind, np.int64(a.ctypes.data), length)
    of_b, _ = simd.lying_rows(kind, np.int64(b.ctypes.data), length)
    place = np.int64(out.ctypes.data), out.shape[1]
    simd.dots(address, kind, place, of_a, of_b, size, shape, add)


def dots_of_panels(address, out, a, b, length, shape, add):
    """The same for a and b in panels."""
    kind = out[0, 0]
    lanes = 2 * TARGET.vector_bytes // item_size(kind)
    of_a, size = simd.rows_of(panels_of(a, shape[0], length, lanes))
    of_b, _ = simd.rows_of(panels_of(b, shape[1], length, lanes))
    place = np.int64(out.ctypes.data), out.shape[1]
    simd.dots(address, kind, place, of_a, of_b, size, shape, add)


def transpose(address, out, a, rows, columns):
    """out[:columns, :rows] = a[:rows, :columns]ᵀ."""
    to, source = np.int64(out.ctypes.data), np.int64(a.ctypes.data)
    simd.transpose(address, out[0, 0], to, out.shape[1], source, a.shape[1], rows, columns)


COMPILED = {function: njit(function) for function in (dots_of_rows, dots_of_panels, transpose)}
forms = pytest.mark.parametrize("form", ["compiled", "interpreted"])


def call(form, function, name, out, *arguments):
    """Call the code of that name, as it is compiled or as it stands."""
    if form == "compiled":
        address = getattr(simd.addresses(out.dtype), name)
        COMPILED[function](address, out, *arguments)
    else:
        function(simd._PLAIN, out, *arguments)


def bordered(dtype, *shape):
    """An array of NaN with room beside and behind a matrix of that shape."""
    return np.full((shape[0] + 1, shape[1] + 3), np.nan, dtype)


def only(out, inside):
    """Whether out holds that matrix, and nothing else was written."""
    found = out[: inside.shape[0], : inside.shape[1]] == inside
    return found.all() and np.isfinite(out).sum() == inside.size


def integers(random, dtype, *shape):
    """Numbers whose products and sums are exact, so that any order gives the same."""
    return random.integers(-8, 9, shape).astype(dtype)


def lying(matrix):
    """The rows without a gap, and NaN behind the last."""
    return np.append(matrix, np.full(64, np.nan, matrix.dtype))


def packed(matrix):
    lanes = 2 * TARGET.lanes(matrix.itemsize)
    flat = np.full(panel_size(*matrix.shape, lanes), np.nan, matrix.dtype)
    pack(matrix, flat, lanes)
    return lying(flat)


LAYOUTS = {"rows": (dots_of_rows, lying), "panels": (dots_of_panels, packed)}


@forms
@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("columns", range(1, 10))
@pytest.mark.parametrize("dtype", DTYPES)
def test_dots_of_any_number_of_rows_and_any_length(dtype, columns, layout, form):
    random, width = np.random.default_rng(columns), TARGET.lanes(np.dtype(dtype).itemsize)
    function, laid = LAYOUTS[layout]
    around = {k * width + more for k in (0, 1, 2, 4) for more in (-1, 0, 1, width // 2)}
    for length in sorted(size for size in around if size > 0):
        a, b = (integers(random, dtype, count, length) for count in (17, columns))
        of_b, before = laid(b), integers(random, dtype, columns, 17)
        for rows in range(1, 18):
            of_a, total = laid(a[:rows]), b @ a[:rows].T
            for add in (False, True):
                out = bordered(dtype, columns, rows)
                if add:
                    out[:columns, :rows] = before[:, :rows]
                call(form, function, "dots", out, of_a, of_b, length, (rows, columns), add)
                expected = before[:, :rows] + total if add else total
                assert only(out, expected), (rows, length, add)


@forms
@pytest.mark.parametrize("dtype", DTYPES)
def test_transposes_of_any_size(dtype, form):
    width = TARGET.lanes(np.dtype(dtype).itemsize)
    most = 2 * width + 2
    source = bordered(dtype, most, most)
    source[:most, :most] = np.arange(most * most).reshape(most, most)
    for rows in range(1, most + 1):
        for columns in range(1, most + 1):
            out = bordered(dtype, columns, rows)
            call(form, transpose, "transpose", out, source, rows, columns)
            assert only(out, source[:rows, :columns].T), (rows, columns)

"""Matrices as two float16 numbers an element, packed for tensor cores.

A packed matrix P (R, C), |p| < 2¹⁵, is a flat array of uint32, two float16 each, the lower half the
even column. R is filled up with zeros to a multiple of 128 rows, C to one of 64 columns. The block
of rows 128 r to 128 r + 127 and columns 64 c to 64 c + 63 begins at word (r C/64 + c) 8192: first
the plane of p rounded to float16, 4096 words, then the plane of what that leaves. Element (r, c) of
a plane is its half-word 64 r + 8 (⌊c/8⌋ ⊕ (r mod 8)) + c mod 8: 16 bytes of neighbouring columns
change places so that neither 8 rows of one column nor 8 columns of one row meet on a bank.

A is packed as P = A 2ˢʲ 2ʳⁱ, with an exponent s a column and r a row, which bring the largest |p|
of each row to [2¹⁴, 2¹⁵). Of p its two parts keep 2⁻²² |p|, or 2⁻²⁵ where that is more, which is
2⁻³⁹ of the largest. Products of packed matrices P and Q are made as p₂ q₁ + p₁ q₂ + p₁ q₁: what is
left out is within 3 · 2⁻²² |p q| + 2⁻³⁹ (|p| max |q| + max |p| |q|).
"""

from functools import cache

import numpy as np
from numba import cuda
from numba.extending import register_jitable

from ..driver.simulated import WARP
from .copies import copy
from .halves import LEAST, NOTHING, bits, exponent, i4, power, scaled, split, u4

ROWS, COLUMNS, WORDS = 128, 64, 8192  # of a block, both its planes
PLANE = WORDS // 2
THREADS = 128
# The largest exponent of a row: one of 2⁻⁹⁶ of the largest elements of its columns is lost in them
# anyway, and factors that are as far from 1 overflow in products with others.
MOST_ROW = 96

u8 = np.uint64


def padded_rows(rows: int) -> int:
    """Rows of a packed matrix."""
    return -(-rows // ROWS) * ROWS


def padded_columns(columns: int) -> int:
    """Columns of a packed matrix."""
    return -(-columns // COLUMNS) * COLUMNS


def words(rows: int, columns: int) -> int:
    """Words of a packed matrix: one an element."""
    return padded_rows(rows) * padded_columns(columns)


@register_jitable(forceinline=True)
def place(row, column, blocks):
    """The word of an even column's first part, `blocks` of 64 columns a row."""
    block = u8(row // u4(ROWS)) * u8(blocks) + u8(column // u4(COLUMNS))
    r, c = row % u4(ROWS), column % u4(COLUMNS)
    within = r * u4(32) + ((c // u4(8)) ^ (r % u4(8))) * u4(4) + c % u4(8) // u4(2)
    return block * u8(WORDS) + u8(within)


@cache
def column_maxima():
    """Kernel(A, maxima): the bits of max |A| of each column, A (n, ld); maxima (ld,) begin at 0.

    Block (x, y) takes 128 columns, and every gridDim.y-th row.
    """

    def kernel(A, maxima):
        j = u4(cuda.blockIdx.x) * u4(THREADS) + u4(cuda.threadIdx.x)
        if j < u4(A.shape[1]):
            largest = u4(0)
            for i in range(cuda.blockIdx.y, A.shape[0], cuda.gridDim.y):
                largest = max(largest, u4(bits(A[i, j]) & u4(0x7FFFFFFF)))
            cuda.atomic.max(maxima, j, largest)

    return cuda.jit(kernel)


def column_exponents(maxima: np.ndarray) -> np.ndarray:
    """Exponents that bring maxima to [2¹⁴, 2¹⁵), as far as float32 has such powers; 0 for 0."""
    largest = maxima.view(np.float32)
    exponents = 15 - np.frexp(largest)[1]
    return np.where(largest == 0, 0, np.clip(exponents, LEAST, -LEAST)).astype(np.int32)


@cache
def pack():
    """Kernel(A, shifts, planes, undo, rows, maximum): the first `rows` of A (R, ld), packed.

    shifts (padded columns,) are the columns' exponents; a warp takes a row, those beyond the rows
    fill up with zeros. undo (padded rows,) = 2⁻ʳ. The kernel sets maximum (1,) to 0, for one that
    follows.
    """

    @register_jitable(forceinline=True)
    def load(x, A, i, j, ld):
        """x = A[i, j : j + 8], zeros beyond the row."""
        for c in range(8):
            x[c] = np.float32(0)
        if j < ld:
            copy(x, 0, A, u8(i) * u8(ld) + u8(j))
        if j + u4(4) < ld:
            copy(x, 4, A, u8(i) * u8(ld) + u8(j + u4(4)))

    def kernel(A, shifts, planes, undo, rows, maximum):
        x = cuda.local.array(8, np.float32)
        shift = cuda.local.array(8, np.int32)
        first = cuda.local.array(4, np.uint32)
        second = cuda.local.array(4, np.uint32)
        lane = u4(cuda.threadIdx.x) % u4(WARP)
        i = u4(cuda.blockIdx.x) * u4(THREADS // WARP) + u4(cuda.threadIdx.x) // u4(WARP)
        width, end = u4(shifts.shape[0]), u4(0)
        e = i4(0)
        if i < u4(rows):
            end = u4(A.shape[1])
            largest = i4(NOTHING)
            j = lane * u4(8)
            while j < width:
                load(x, A, i, j, end)
                copy(shift, 0, shifts, j)
                copy(shift, 4, shifts, j + u4(4))
                for c in range(8):
                    largest = i4(max(largest, i4(exponent(x[c]) + shift[c])))
                j += u4(8 * WARP)
            for k in range(5):
                other = cuda.shfl_xor_sync(0xFFFFFFFF, largest, 1 << k)
                largest = i4(max(largest, other))
            if largest > i4(NOTHING // 2):
                e = i4(max(min(i4(i4(14) - largest), i4(MOST_ROW)), i4(LEAST)))
        if lane == u4(0):
            undo[i] = power(i4(-e))
            if i == u4(0):
                maximum[0] = u4(0)
        j = lane * u4(8)
        while j < width:
            load(x, A, i, j, end)
            copy(shift, 0, shifts, j)
            copy(shift, 4, shifts, j + u4(4))
            for c in range(4):
                first[c], second[c] = split(
                    scaled(x[2 * c], i4(shift[2 * c] + e)),
                    scaled(x[2 * c + 1], i4(shift[2 * c + 1] + e)),
                )
            at = place(i, j, width // u4(COLUMNS))
            copy(planes, at, first, 0)
            copy(planes, at + u8(PLANE), second, 0)
            j += u4(8 * WARP)

    return cuda.jit(kernel)


def pack_grid(rows: int) -> int:
    """Blocks that `pack` needs for so many rows."""
    return padded_rows(rows) // (THREADS // WARP)

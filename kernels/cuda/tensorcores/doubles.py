"""Products of float64 on tensor cores: fused multiply-adds that round as IEEE asks.

A warp multiplies 16 × 4 by 4 × 8 at a time (PTX ISA, mma.m16n8k4 with .f64): of a thread with
g = lane / 4 and q = lane mod 4, A's elements are (g, q) and (g + 8, q), B's (q, g), C's (g, 2 q),
(g, 2 q + 1), (g + 8, 2 q) and (g + 8, 2 q + 1). Before compute capability 9.0 each half of A and C
is a multiplication of its own, mma.m8n8k4.
"""

from functools import cache

import numpy as np
from llvmlite import ir
from numba import types
from numba.extending import register_jitable

from ...compiler.lowering import lowers_to
from ..driver.simulated import WARP, collective
from ..products import Engine, Tile, in_steps
from .tf32 import tile_for

__all__ = ["at_once", "in_halves", "tile_for"]

u4, u8 = np.uint32, np.uint64
_DEEP = 4  # k of a multiplication
_PAD = 4  # elements that keep the fragments' rows on different banks


def _multiplication(builder, shape: str, factors, sums):
    """The sums of a thread that mma.`shape` makes of its factors and sums."""
    made, given = len(sums), len(factors)
    names = [f"${i}" for i in range(2 * made + given)]
    groups = names[:made], names[made : made + given - 1], [names[made + given - 1]]
    operands = ", ".join("{" + ",".join(group) + "}" for group in (*groups, names[made + given :]))
    text = f"mma.sync.aligned.{shape}.row.col.f64.f64.f64.f64 {operands};"
    constraints = ",".join(["=d"] * made + ["d"] * (given + made))
    real = ir.DoubleType()
    kind = ir.FunctionType(ir.LiteralStructType([real] * made), [real] * (given + made))
    # Threads of a warp meet here: it may be neither moved into a branch nor left out.
    found = builder.call(ir.InlineAsm(kind, text, constraints, side_effect=True), [*factors, *sums])
    return [builder.extract_value(found, i) for i in range(made)]


def _multiply_add(a0, a1, b, c0, c1, c2, c3, wide):
    f8 = types.float64

    def codegen(context, builder, signature, args):
        a0, a1, b, *sums, _ = args
        if wide.literal_value:
            parts = _multiplication(builder, "m16n8k4", (a0, a1, b), sums)
        else:
            parts = _multiplication(builder, "m8n8k4", (a0, b), sums[:2])
            parts += _multiplication(builder, "m8n8k4", (a1, b), sums[2:])
        return context.make_tuple(builder, signature.return_type, parts)

    return types.UniTuple(f8, 4)(*[f8] * 7, wide), codegen


@lowers_to(_multiply_add, prefer_literal=True)
def multiply_add(a0, a1, b, c0, c1, c2, c3, wide):
    """The thread's elements of A B + C, all threads of the warp together, in one or in halves."""
    return collective("warp", (a0, a1, b, c0, c1, c2, c3), _whole_warp)


def _whole_warp(parts: list) -> list:
    A, B, C = np.zeros((16, 4)), np.zeros((4, 8)), np.zeros((16, 8))
    for lane, (a0, a1, b, *c) in enumerate(parts):
        g, q = divmod(lane, 4)
        A[g, q], A[g + 8, q], B[q, g] = a0, a1, b
        C[g, 2 * q : 2 * q + 2], C[g + 8, 2 * q : 2 * q + 2] = c[:2], c[2:]
    with np.errstate(all="ignore"):
        D = A @ B + C
    lanes = (divmod(lane, 4) for lane in range(WARP))
    return [(*D[g, 2 * q : 2 * q + 2], *D[g + 8, 2 * q : 2 * q + 2]) for g, q in lanes]


def in_halves(dtype: str, tile: Tile) -> Engine:
    """float64 from compute capability 8.0 on."""
    return _tensor_tile(tile, wide=0)


def at_once(dtype: str, tile: Tile) -> Engine:
    """float64 from compute capability 9.0 on."""
    return _tensor_tile(tile, wide=1)


@cache
def _tensor_tile(tile: Tile, wide: int) -> Engine:
    """Each warp makes 8 `height` × 4 `width` of the tile, 4 k a step."""
    rows, columns, depth, height, width = tile
    warps_down = rows // (8 * height)
    strideA, strideB = rows + _PAD, columns + _PAD
    blocksB = width // 2
    half = height + blocksB

    @register_jitable
    def corner(t):
        warp = u4(t // u4(WARP))
        i, j = u4(warp % u4(warps_down)), u4(warp // u4(warps_down))
        return u4(i * u4(8 * height)), u4(j * u4(4 * width))

    @register_jitable
    def read(fragments, at, As, Bs, placeA, placeB):
        for i in range(height):
            fragments[at + i] = As[placeA + u8(8 * i)]
        for j in range(blocksB):
            fragments[at + height + j] = Bs[placeB + u8(8 * j)]

    @register_jitable
    def add(sums, fragments, at):
        for i in range(0, height, 2):
            for j in range(blocksB):
                c = i * width + 2 * j
                below = c + width
                sums[c], sums[c + 1], sums[below], sums[below + 1] = multiply_add(
                    fragments[at + i], fragments[at + i + 1], fragments[at + height + j],
                    sums[c], sums[c + 1], sums[below], sums[below + 1], wide,
                )  # fmt: skip

    all_steps = in_steps(depth // _DEEP, half, _DEEP * strideA, _DEEP * strideB, read, add)

    @register_jitable
    def multiply(sums, fragments, As, Bs, startA, startB, t):
        row, column = corner(t)
        lane = u4(t % u4(WARP))
        g, q = u4(lane // u4(4)), u4(lane % u4(4))
        placeA = u4(u4(startA + u4(q * u4(strideA))) + u4(row + g))
        placeB = u4(u4(startB + u4(q * u4(strideB))) + u4(column + g))
        all_steps(sums, fragments, As, Bs, placeA, placeB)

    @register_jitable
    def last(sums, fragments):
        add(sums, fragments, half)

    @register_jitable
    def place(t, r, c):
        row, column = corner(t)
        lane = u4(t % u4(WARP))
        g, q = u4(lane // u4(4)), u4(lane % u4(4))
        return row + u4(8 * r) + g, column + u4(c // 2 * 8 + c % 2) + u4(2) * q

    return Engine(multiply, last, 2 * half, place, 2, _PAD, False, True)

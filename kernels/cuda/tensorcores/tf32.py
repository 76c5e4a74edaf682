"""Products on tensor cores: TF32, in one pass or in three.

TF32 has the exponent of float32 and 11 significant bits; of a float32 tensor cores ignore the other
13. One pass rounds both factors: each product a b is off by at most 2⁻¹⁰ |a b|, about. Three passes
split a = a₁ + a₂, a₁ rounded, and add a₁ b₁ + a₁ b₂ + a₂ b₁. a₂ has at most 12 significant bits, of
which the last is ignored, 2⁻²³ |a|, and a₂ b₂ is at most 2⁻²² |a b|: what is left out is within
3 · 2⁻²² |a b|. Tensor cores add in float32, and may cut where float32 would round: 2⁻²³ of the sum
for each addition. Factors that are infinite give NaN in three passes.

A warp multiplies 16 × 8 by 8 × 8 at a time (PTX ISA, mma.m16n8k8 with .tf32): of a thread with
g = lane / 4 and q = lane mod 4, A's elements are (g, q), (g + 8, q), (g, q + 4) and (g + 8, q + 4),
B's (q, g) and (q + 4, g), C's (g, 2 q), (g, 2 q + 1), (g + 8, 2 q) and (g + 8, 2 q + 1).
"""

from functools import cache

import numpy as np
from llvmlite import ir
from numba import cuda, types
from numba.extending import register_jitable

from ...compiler.lowering import lowers_to
from ..driver.simulated import WARP, collective
from ..products import Engine, Tile, nothing_left

u4 = np.uint32
_PAD = 8  # elements that keep the fragments' rows on different banks


_HALF, _KEPT = 0x1000, 0xFFFFE000  # half a unit in TF32's last place, and the bits that it keeps


def _rounded(x):
    def codegen(context, builder, signature, args):
        bits = ir.IntType(32)
        kind = ir.FunctionType(bits, [ir.FloatType()])
        assembly = ir.InlineAsm(kind, "cvt.rna.tf32.f32 $0, $1;", "=r,f")
        return builder.bitcast(builder.call(assembly, args), ir.FloatType())

    return types.float32(types.float32), codegen


@lowers_to(_rounded)
def rounded(x):
    """x in TF32, ties away from 0; NaN stays NaN."""
    return high(x) if x == x else x


def _high(x):
    def codegen(context, builder, signature, args):
        kind = ir.IntType(32)
        bits = builder.add(builder.bitcast(args[0], kind), kind(_HALF))
        return builder.bitcast(builder.and_(bits, kind(_KEPT)), ir.FloatType())

    return types.float32(types.float32), codegen


@lowers_to(_high)
def high(x):
    """x in TF32, ties away from 0, in half the instructions; NaN may become a number."""
    bits = int(np.asarray(x, np.float32).view(np.uint32))
    return np.uint32((bits + _HALF) & _KEPT).view(np.float32)


def _seen(x):
    """What tensor cores see of x."""
    return np.uint32(int(np.asarray(x, np.float32).view(np.uint32)) & _KEPT).view(np.float32)


def _multiply_add(a0, a1, a2, a3, b0, b1, c0, c1, c2, c3):
    f4 = types.float32

    def codegen(context, builder, signature, args):
        real, bits = ir.FloatType(), ir.IntType(32)
        result = ir.LiteralStructType([real] * 4)
        kind = ir.FunctionType(result, [bits] * 6 + [real] * 4)
        text = (
            "mma.sync.aligned.m16n8k8.row.col.f32.tf32.tf32.f32 "
            "{$0,$1,$2,$3}, {$4,$5,$6,$7}, {$8,$9}, {$10,$11,$12,$13};"
        )
        # Threads of a warp meet here: it may be neither moved into a branch nor left out.
        assembly = ir.InlineAsm(kind, text, "=f,=f,=f,=f,r,r,r,r,r,r,f,f,f,f", side_effect=True)
        factors = [builder.bitcast(argument, bits) for argument in args[:6]]
        found = builder.call(assembly, [*factors, *args[6:]])
        parts = [builder.extract_value(found, i) for i in range(4)]
        return context.make_tuple(builder, signature.return_type, parts)

    return types.UniTuple(f4, 4)(*[f4] * 10), codegen


@lowers_to(_multiply_add)
def multiply_add(a0, a1, a2, a3, b0, b1, c0, c1, c2, c3):
    """The thread's elements of A B + C, all threads of the warp together."""
    return collective("warp", ((a0, a1, a2, a3), (b0, b1), (c0, c1, c2, c3)), _whole_warp)


def _whole_warp(parts: list) -> list:
    A, B, C = np.zeros((16, 8)), np.zeros((8, 8)), np.zeros((16, 8))
    for lane, (a, b, c) in enumerate(parts):
        g, q = divmod(lane, 4)
        A[g, q], A[g + 8, q], A[g, q + 4], A[g + 8, q + 4] = map(_seen, a)
        B[q, g], B[q + 4, g] = map(_seen, b)
        C[g, 2 * q : 2 * q + 2], C[g + 8, 2 * q : 2 * q + 2] = c[:2], c[2:]
    with np.errstate(all="ignore"):
        D = (A @ B + C).astype(np.float32)
    lanes = (divmod(lane, 4) for lane in range(WARP))
    return [(*D[g, 2 * q : 2 * q + 2], *D[g + 8, 2 * q : 2 * q + 2]) for g, q in lanes]


def tile_for(rows: int, columns: int) -> Tile:
    """The tile of that size, its extents from 16, 32, 64 and 128."""
    return Tile(rows, columns, 8, {16: 2, 32: 4, 64: 4, 128: 8}[rows], 4 if columns == 16 else 8)


def one_pass(dtype: str, tile: Tile) -> Engine:
    """TF32: 11 significant bits of each factor."""
    return _tensor_tile(tile, three=False)


def three_passes(dtype: str, tile: Tile) -> Engine:
    """TF32 three times: 22 significant bits of each factor."""
    return _tensor_tile(tile, three=True)


@cache
def _tensor_tile(tile: Tile, three: bool) -> Engine:
    """Each warp makes 8 `height` × 4 `width` of the tile."""
    height, width = tile.height, tile.width
    across = tile.columns // (4 * width)  # warps
    strideA, strideB = tile.rows + _PAD, tile.columns + _PAD
    sizeA, sizeB, blocksA, blocksB = 2 * height, width, height // 2, width // 2

    @register_jitable
    def corner(t):
        warp = t // u4(WARP)
        return warp // u4(across) * u4(8 * height), warp % u4(across) * u4(4 * width)

    @register_jitable
    def split(first, rest, at, x):
        if three:
            first[at] = high(x)
            rest[at] = x - first[at]  # NaN where x is
        else:
            first[at] = rounded(x)

    @register_jitable
    def add(sums, at, a, i, b, j):
        sums[at], sums[at + 1], sums[at + width], sums[at + width + 1] = multiply_add(
            a[i], a[i + 1], a[i + 2], a[i + 3], b[j], b[j + 1],
            sums[at], sums[at + 1], sums[at + width], sums[at + width + 1],
        )  # fmt: skip

    @register_jitable
    def multiply(sums, fragments, As, Bs, startA, startB, t):
        a = cuda.local.array(sizeA, np.float32)
        b = cuda.local.array(sizeB, np.float32)
        a_low = cuda.local.array(sizeA, np.float32)
        b_low = cuda.local.array(sizeB, np.float32)
        g, q = t % u4(WARP) // u4(4), t % u4(4)
        row, column = corner(t)
        placeA = startA + q * u4(strideA) + row + g
        placeB = startB + q * u4(strideB) + column + g
        for i in range(blocksA):
            split(a, a_low, 4 * i, As[placeA + u4(16 * i)])
            split(a, a_low, 4 * i + 1, As[placeA + u4(16 * i + 8)])
            split(a, a_low, 4 * i + 2, As[placeA + u4(16 * i + 4 * strideA)])
            split(a, a_low, 4 * i + 3, As[placeA + u4(16 * i + 8 + 4 * strideA)])
        for j in range(blocksB):
            split(b, b_low, 2 * j, Bs[placeB + u4(8 * j)])
            split(b, b_low, 2 * j + 1, Bs[placeB + u4(8 * j + 4 * strideB)])
        for i in range(blocksA):
            for j in range(blocksB):
                at = 2 * i * width + 2 * j
                if three:  # the small terms first
                    add(sums, at, a_low, 4 * i, b, 2 * j)
                    add(sums, at, a, 4 * i, b_low, 2 * j)
                add(sums, at, a, 4 * i, b, 2 * j)

    @register_jitable
    def place(t, r, c):
        row, column = corner(t)
        g, q = t % u4(WARP) // u4(4), t % u4(4)
        return (
            row + u4(r // 2 * 16 + r % 2 * 8) + g,
            column + u4(c // 2 * 8 + c % 2) + u4(2) * q,
        )

    return Engine(multiply, nothing_left, 1, place, 2, _PAD, True, True)

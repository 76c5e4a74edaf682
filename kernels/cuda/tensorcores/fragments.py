"""Products of fp16 planes by a warp on tensor cores, 16 of the sum at a time.

A factor is hi + lo, two planes of fp16. Three passes lo hi + hi lo + hi hi, small terms first, go
into one float32 sum; what they leave out, lo lo, is within 2⁻²² of each product.

A stage in shared memory is uint32, two halves each: 128 rows of A's hi plane, its lo plane, then
B's. An operand lies `along` the sum, (row, k), or across it, (k, row):

- along, a row is 32 k: 4 chunks of 16 bytes, chunk c at c ^ (row / 2 mod 4);
- across, a warp's rows are a block, in it each of 32 k: 8 chunks, chunk c at c ^ (k mod 8).

A warp makes 64 rows × `width` columns of the results; across, its columns may be fewer than 64.

ldmatrix takes the address of one 16-byte row from each lane, and reads four 8 × 8 matrices: both
swizzles put 8 such rows on 8 different groups of banks. Of a lane with g = lane / 4, q = lane mod 4
the results (PTX ISA, mma.m16n8k16) are (g, 2 q), (g, 2 q + 1), (g + 8, 2 q) and (g + 8, 2 q + 1) of
each 16 × 8, which are sums[4 (width / 8 i + j) ...] for the i-th 16 rows, the j-th 8 columns.
"""

from collections.abc import Callable
from functools import cache
from typing import Any, NamedTuple

import numpy as np
from llvmlite import ir
from numba import types

from ...compiler.lowering import lowers_to
from ..driver.simulated import WARP, collective

EDGE = 64  # rows of a warp's tile, and at most as many columns
SIDE = 128  # rows of a block's tile, and at most as many columns
DEPTH = 32  # of the sum in a stage
PLANE = SIDE * DEPTH // 2  # uint32 of an operand's plane in a stage
STAGE = 4 * PLANE
_SHARED = 3  # the address space
_PASSES = ((1, 0), (0, 1), (0, 0))  # planes of A and B, 0 is hi
_TALL = EDGE // 16


def _place(at, i, plane, along):
    """Index of the i-th 16 rows, of the operand's plane, from the lane's index of the first."""
    return (at + i * 256 if along else at ^ (i * 8)) + plane * PLANE


def _read(stage, starts, across):
    """ldmatrix.x4: four 8 × 8 matrices of halves, from 32 indices of their rows."""
    starts = np.asarray(starts, np.int64)
    if (starts % 4).any() or (starts + 4 > stage.size).any():
        raise IndexError(f"matrices at {starts}: not aligned, or out of bounds")
    halves = stage.view(np.float16)[2 * starts[:, None] + np.arange(8)].reshape(4, 8, 8)
    return (halves.transpose(0, 2, 1) if across else halves).astype(np.float64)


def _whole_warp(parts, along, width):
    """Add to each lane's sums; parts are the lanes' arguments."""
    stage = parts[0][1]
    atA, atB = (np.array([int(part[which]) for part in parts]) for which in (2, 3))
    A, B = [], []  # their hi and lo planes, 64 × 16
    for plane in range(2):
        a = [_read(stage, _place(atA, i, plane, along), not along) for i in range(_TALL)]
        b = [_read(stage, _place(atB, i, plane, along), not along) for i in range(_TALL)]
        A.append(np.vstack([np.block([[x[0], x[2]], [x[1], x[3]]]) for x in a]))
        B.append(np.vstack([np.block([[x[0], x[1]], [x[2], x[3]]]) for x in b])[:width])
    lane, at = np.arange(WARP)[:, None], np.arange(EDGE * width // WARP)
    rows, columns = _row(at, width) + lane // 4, _column(at, width) + lane % 4 * 2
    C = np.zeros((EDGE, width), np.float32)
    C[rows, columns] = [part[0] for part in parts]
    with np.errstate(all="ignore"):
        for a, b in _PASSES:
            C = (A[a] @ B[b].T + C).astype(np.float32)
    for part, values in zip(parts, C[rows, columns], strict=True):
        part[0][:] = values
    return [None] * WARP


def _row(at, width):
    """Row in the warp's tile of result `at` of lane 0."""
    return at // (width // 2) * 16 + at // 2 % 2 * 8


def _column(at, width):
    return at // 4 % (width // 8) * 8 + at % 2


def _emit_multiply(builder, sums, base, atA, atB, along, width):
    """The instructions of a step: B's fragments stay, A's come 16 rows ahead of their use."""
    bits, real = ir.IntType(32), ir.FloatType()
    four = ir.LiteralStructType([bits] * 4)
    load_kind = ir.FunctionType(four, [bits])
    load_text = "ldmatrix.sync.aligned.m8n8.x4{}.shared.b16 {{$0,$1,$2,$3}}, [$4+{}];"
    product = ir.InlineAsm(
        ir.FunctionType(ir.LiteralStructType([real] * 4), [bits] * 6 + [real] * 4),
        "mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 "
        "{$0,$1,$2,$3}, {$4,$5,$6,$7}, {$8,$9}, {$10,$11,$12,$13};",
        "=f,=f,=f,=f,r,r,r,r,r,r,f,f,f,f",
        side_effect=True,
    )

    def load(at, i, plane):
        where, offset = at, 4 * _place(0, i, plane, along)
        if not along:  # the swizzle's part of the offset
            where, offset = builder.xor(at, bits(i * 8)), 4 * plane * PLANE
        address = builder.add(base, builder.shl(where, bits(2)))
        text = load_text.format("" if along else ".trans", offset)
        assembly = ir.InlineAsm(load_kind, text, "=r,=r,=r,=r,r,~{memory}", side_effect=True)
        found = builder.call(assembly, [address])
        return [builder.extract_value(found, e) for e in range(4)]

    def fragments_of(at, plane):
        pairs = -(-width // 16)
        return [value for i in range(pairs) for value in load(at, i, plane)]

    values = [builder.load(pointer) for pointer in sums]
    B = [fragments_of(atB, 0), None]
    A = [load(atA, 0, 0), load(atA, 0, 1)]
    B[1] = fragments_of(atB, 1)
    for i in range(_TALL):
        following = [load(atA, i + 1, 0), load(atA, i + 1, 1)] if i + 1 < _TALL else None
        for a, b in _PASSES:
            for j in range(width // 8):
                at = 4 * (width // 8 * i + j)
                factors = [*A[a], *B[b][2 * j : 2 * j + 2]]
                found = builder.call(product, [*factors, *values[at : at + 4]])
                values[at : at + 4] = [builder.extract_value(found, e) for e in range(4)]
        A = following
    for value, pointer in zip(values, sums, strict=True):
        builder.store(value, pointer)


class Warp(NamedTuple):
    """What a warp does with its tile, of which a lane has so many `results`."""

    results: int
    clear: Callable[..., Any]
    multiply: Callable[..., Any]
    put: Callable[..., Any]


@cache
def warp_tile(along: bool, width: int) -> Warp:
    """For operands that lie along the sum or across it, and `width` columns, a multiple of 8."""
    results = EDGE * width // WARP

    def pointers(context, builder, kind, array):
        data = context.make_array(kind)(context, builder, array).data
        return [builder.gep(data, [ir.IntType(32)(e)]) for e in range(results)]

    def emit_clear(sums):
        def codegen(context, builder, signature, args):
            for pointer in pointers(context, builder, signature.args[0], args[0]):
                builder.store(ir.FloatType()(0.0), pointer)

        return types.void(sums), codegen

    @lowers_to(emit_clear)
    def clear(sums):
        """Set all `sums` to 0."""
        sums[:] = 0

    def emit_multiply(sums, stage, atA, atB):
        def codegen(context, builder, signature, args):
            kinds = signature.args
            found = pointers(context, builder, kinds[0], args[0])
            data = context.make_array(kinds[1])(context, builder, args[1]).data
            shared = builder.addrspacecast(data, ir.PointerType(data.type.pointee, _SHARED))
            base = builder.ptrtoint(shared, ir.IntType(32))
            indices = [context.cast(builder, args[e], kinds[e], types.uint32) for e in (2, 3)]
            _emit_multiply(builder, found, base, *indices, along, width)

        return types.void(sums, stage, atA, atB), codegen

    @lowers_to(emit_multiply)
    def multiply(sums, stage, atA, atB):
        """Add 16 of the sum to `sums`, all threads of the warp together.

        atA and atB are where in `stage` the lane's first row for ldmatrix is.
        """
        return collective(
            "warp", (sums, stage, atA, atB), lambda parts: _whole_warp(parts, along, width)
        )

    def emit_put(sums, tile, start, column, moved):
        def codegen(context, builder, signature, args):
            kinds, bits, wide = signature.args, ir.IntType(32), ir.IntType(64)
            values = [builder.load(p) for p in pointers(context, builder, kinds[0], args[0])]
            data = context.make_array(kinds[1])(context, builder, args[1]).data
            start, column, moved = (
                context.cast(builder, args[e], kinds[e], types.uint32) for e in (2, 3, 4)
            )
            pair = ir.VectorType(ir.FloatType(), 2)
            for at in range(0, results, 2):
                there = builder.xor(builder.add(column, bits(_column(at, width))), moved)
                index = builder.zext(builder.add(start, there), wide)
                place = builder.gep(builder.gep(data, [index]), [wide(SIDE * _row(at, width))])
                both = builder.insert_element(pair(ir.Undefined), values[at], bits(0))
                both = builder.insert_element(both, values[at + 1], bits(1))
                builder.store(both, builder.bitcast(place, pair.as_pointer())).align = 8

        return types.void(sums, tile, start, column, moved), codegen

    @lowers_to(emit_put)
    def put(sums, tile, start, column, moved):
        """Store `sums` in `tile`, rows of 128: (r, c) at start + 128 r + ((column + c) ^ moved)."""
        at = np.arange(results)
        columns = (int(column) + _column(at, width)) ^ int(moved)
        tile[int(start) + SIDE * _row(at, width) + columns] = sums

    return Warp(results, clear, multiply, put)

"""The code of register-tiled products, emitted as LLVM's intermediate form in explicit vectors.

The sums of a tile of up to 12 × 2 vectors stay in registers. What is emitted, and how it is called,
stands in `simd`.
"""

from __future__ import annotations

from typing import Any

from llvmlite import ir
from numba.core import cgutils

from ...compiler.target import Target
from .emit import FLAG, INDEX, Emit, new_function, number

_INDEPENDENT = 8  # sums needed to keep two units of latency 4 busy


def _tile(emit: Emit, height: int, vectors: int, scaled: bool, a: Any, arguments: Any) -> None:
    """Emit C[:height] = … for the tile at c and a; several sums an entry where it is small."""
    builder = emit.builder
    c, cs, ar, ac, ak, b, bs, length, accumulate = arguments
    unroll = max(1, _INDEPENDENT // (height * vectors))
    sums = [
        [[cgutils.alloca_once(builder, emit.vector) for _ in range(vectors)] for _ in range(height)]
        for _ in range(unroll)
    ]
    for copy in sums:
        for row in copy:
            for slot in row:
                builder.store(emit.zero(), slot)
    a_rows = [emit.address(a, builder.mul(number(i), ar)) for i in range(height)]

    def multiply(part: int, offset: ir.Value, k: ir.Value) -> None:
        b_row = emit.address(b, builder.mul(k, bs))
        b_vectors = [emit.load(emit.address(b_row, v * emit.width)) for v in range(vectors)]
        for i in range(height):
            a_i = emit.broadcast(emit.address(a_rows[i], offset))
            for v in range(vectors):
                slot = sums[part][i][v]
                builder.store(emit.multiply_add(a_i, b_vectors[v], builder.load(slot)), slot)

    c_rows = [emit.address(c, builder.mul(number(i), cs)) for i in range(height)]
    for row in c_rows:
        for v in range(vectors):
            emit.prefetch(emit.address(row, v * emit.width))
    group = number(emit.height)
    whole = builder.udiv(length, group)
    with cgutils.for_range(builder, whole, intp=INDEX) as loop:
        start = builder.mul(loop.index, ac)
        first = builder.mul(loop.index, group)
        if unroll > 1:
            for j in range(emit.height):
                offset = builder.add(start, builder.mul(number(j), ak))
                multiply(j % unroll, offset, builder.add(first, number(j)))
        else:
            with cgutils.for_range(builder, group, intp=INDEX) as inner:
                offset = builder.add(start, builder.mul(inner.index, ak))
                multiply(0, offset, builder.add(first, inner.index))
    start, first = builder.mul(whole, ac), builder.mul(whole, group)
    with cgutils.for_range(builder, builder.sub(length, first), intp=INDEX) as loop:
        offset = builder.add(start, builder.mul(loop.index, ak))
        multiply(0, offset, builder.add(first, loop.index))
    totals = []
    for i in range(height):
        for v in range(vectors):
            total = builder.load(sums[0][i][v])
            for part in range(1, unroll):
                total = builder.fadd(total, builder.load(sums[part][i][v]))
            totals.append((total, emit.address(c_rows[i], v * emit.width)))
    if scaled:
        for total, place in totals:
            emit.store(builder.fmul(total, emit.load(place)), place)
        return
    with builder.if_else(accumulate) as (add, overwrite):
        with add:
            for total, place in totals:
                emit.store(builder.fadd(total, emit.load(place)), place)
        with overwrite:
            for total, place in totals:
                emit.store(total, place)


def _panel_product(
    module: ir.Module, real: ir.Type, target: Target, vectors: int, scaled: bool
) -> ir.Function:
    """The product for panels of two vectors, one, or, for 0, a part of one."""
    pointer = real.as_pointer()
    parameters = [pointer, INDEX, pointer, *[INDEX] * 4, pointer, INDEX, INDEX, FLAG, INDEX, INDEX]
    name = f"{'scaled' if scaled else 'product'}_{vectors}"
    function, builder = new_function(module, real, target, name, parameters, [0, 2, 7])
    if builder is None:
        return function
    emit = Emit(builder, real, target)
    c, cs, a, at, *arguments, rows, lanes = function.args
    ar = arguments[0]
    if vectors == 0:
        emit.mask = emit.first(lanes)
        vectors = 1
    c_place, a_place = (cgutils.alloca_once_value(builder, pointer) for pointer in (c, a))
    left = rows
    for height in target.heights:
        count = builder.udiv(left, number(height))
        with cgutils.for_range(builder, count, intp=INDEX):
            c, a = builder.load(c_place), builder.load(a_place)
            _tile(emit, height, vectors, scaled, a, (c, cs, *arguments))
            step = at if height == target.height else builder.mul(number(height), ar)
            builder.store(emit.address(a, step), a_place)
            builder.store(emit.address(c, builder.mul(number(height), cs)), c_place)
        left = builder.sub(left, builder.mul(count, number(height)))
    builder.ret_void()
    return function


def product_function(module: ir.Module, real: ir.Type, target: Target, scaled: bool) -> ir.Function:
    """The product for panels of any width: the last parameter is the number of lanes."""
    pointer = real.as_pointer()
    parameters = [
        pointer, INDEX, pointer, *[INDEX] * 4, pointer, INDEX, INDEX, FLAG, INDEX, INDEX
    ]  # fmt: skip
    name = "scaled" if scaled else "product"
    function, builder = new_function(module, real, target, name, parameters, [])
    if builder is None:
        return function
    width, lanes = number(Emit(builder, real, target).width), function.args[-1]

    def call(vectors: int) -> None:
        builder.call(_panel_product(module, real, target, vectors, scaled), function.args)

    with builder.if_else(builder.icmp_unsigned(">", lanes, width)) as (two, others):
        with two:
            call(2)
        with (
            others,
            builder.if_else(builder.icmp_unsigned("==", lanes, width)) as (one, some),
        ):
            with one:
                call(1)
            with some:
                call(0)
    builder.ret_void()
    return function

"""The code of register-tiled products, emitted as LLVM's intermediate form in explicit vectors.

The sums of a tile of up to 12 × 2 vectors stay in registers. What is emitted, and how it is called,
stands in `simd`.
"""

from __future__ import annotations

from typing import Any, NamedTuple

from llvmlite import ir
from numba.core import cgutils

from ...compiler.target import Target
from .emit import INDEX, Emit, new_function, number

WRITE, ADD, SCALE = 0, 1, 2  # how a product goes into C: C = …, C += …, C *= …
_INDEPENDENT = 8  # sums needed to keep two units of latency 4 busy
# Groups from the one whose numbers are fetched to the one in use: as far as the second-level cache
# takes to answer; further ones would drive b out of the first.
_AHEAD = 2


class _Form(NamedTuple):
    """Strides that tiles are made for: of a, from row to row and column to column, and of b."""

    row: ir.Value
    column: ir.Value
    step: ir.Value
    steps: int  # of a group that come one after another, without a loop
    ahead: bool  # a later group's numbers are fetched: no processor foresees where they lie


def _tile(emit: Emit, height: int, vectors: int, a: Any, arguments: Any, form: _Form) -> None:
    """Emit C[:height] =, += or *= … for the tile at c and a; a small one has several sums each."""
    builder = emit.builder
    c, cs, at, ac, b, length, how = arguments
    unroll = max(1, _INDEPENDENT // (height * vectors))
    sums = [
        [[cgutils.alloca_once(builder, emit.vector) for _ in range(vectors)] for _ in range(height)]
        for _ in range(unroll)
    ]
    for copy in sums:
        for row in copy:
            for slot in row:
                builder.store(emit.zero(), slot)
    a_rows = [emit.address(a, builder.mul(number(i), form.row)) for i in range(height)]

    def multiply(part: int, offset: ir.Value, k: ir.Value) -> None:
        b_row = emit.address(b, builder.mul(k, form.step))
        b_vectors = [emit.load(emit.address(b_row, v * emit.width)) for v in range(vectors)]
        for i in range(height):
            a_i = emit.broadcast(emit.address(a_rows[i], offset))
            for v in range(vectors):
                slot = sums[part][i][v]
                builder.store(emit.multiply_add(a_i, b_vectors[v], builder.load(slot)), slot)

    c_rows = [emit.address(c, builder.mul(number(i), cs)) for i in range(height)]
    for row in c_rows:
        for v in range(vectors):
            emit.prefetch(emit.address(row, v * emit.width), True)
    group = number(emit.height)
    whole = builder.udiv(length, group)
    with cgutils.for_range(builder, whole, intp=INDEX) as loop:
        start = builder.mul(loop.index, ac)
        first = builder.mul(loop.index, group)
        if form.ahead:
            later = builder.add(loop.index, number(_AHEAD))
            of_next = builder.add(at, builder.mul(builder.sub(later, whole), ac))
            in_next = builder.icmp_unsigned(">=", later, whole)
            ahead = emit.address(a, builder.select(in_next, of_next, builder.mul(later, ac)))
            line = 64 // emit.size
            for i in range(-(-(height * height) // line)):
                emit.prefetch(emit.address(ahead, i * line), False)
        steps = emit.height if unroll > 1 else form.steps
        with cgutils.for_range(builder, number(emit.height // steps), intp=INDEX) as inner:
            for j in range(steps):
                k = builder.add(builder.mul(inner.index, number(steps)), number(j))
                offset = builder.add(start, builder.mul(k, form.column))
                multiply(j % unroll, offset, builder.add(first, k))
    start, first = builder.mul(whole, ac), builder.mul(whole, group)
    with cgutils.for_range(builder, builder.sub(length, first), intp=INDEX) as loop:
        offset = builder.add(start, builder.mul(loop.index, form.column))
        multiply(0, offset, builder.add(first, loop.index))
    totals = []
    for i in range(height):
        for v in range(vectors):
            total = builder.load(sums[0][i][v])
            for part in range(1, unroll):
                total = builder.fadd(total, builder.load(sums[part][i][v]))
            totals.append((total, emit.address(c_rows[i], v * emit.width)))
    with builder.if_else(builder.icmp_unsigned("==", how, number(WRITE))) as (write, others):
        with write:
            for total, place in totals:
                emit.store(total, place)
        with (
            others,
            builder.if_else(builder.icmp_unsigned("==", how, number(ADD))) as (add, scale),
        ):
            with add:
                for total, place in totals:
                    emit.store(builder.fadd(total, emit.load(place)), place)
            with scale:
                for total, place in totals:
                    emit.store(builder.fmul(total, emit.load(place)), place)


def _forms(target: Target, lanes: int, ar: ir.Value, ak: ir.Value, bs: ir.Value) -> list[_Form]:
    """What tiles of the full height are made for, before that for any strides.

    Where one stride of a is known to be 1, or both are known, hardly an instruction goes into
    addresses. Those of 12 rows fit the registers where b is a panel of so many lanes; of more steps
    one after another LLVM would keep numbers of a on the stack, but for a turned one.
    """
    if target.vector_bytes <= 16:  # LLVM would gather numbers of several steps, and spill
        return []
    one, H = number(1), target.height
    step, steps = (number(lanes), 4) if target.registers >= 32 else (bs, H)
    spread, turned = _Form(number(H), one, step, steps, True), _Form(one, ak, bs, H, False)
    as_it_lies = _Form(ar, one, step, steps, False)
    return [spread, turned, as_it_lies]


def _parameters(real: ir.Type) -> list[ir.Type]:
    """C and its stride, a and its four, b and its own, length, how, rows, lanes."""
    pointer = real.as_pointer()
    return [pointer, INDEX, pointer, *[INDEX] * 4, pointer, *[INDEX] * 5]


def _panel_product(module: ir.Module, real: ir.Type, target: Target, vectors: int) -> ir.Function:
    """The product for panels of two vectors, one, or, for 0, a part of one."""
    function, builder = new_function(
        module, real, target, f"product_{vectors}", _parameters(real), [0, 2, 7]
    )
    if builder is None:
        return function
    emit = Emit(builder, real, target)
    c, cs, a, at, ar, ac, ak, b, bs, *others, rows, lanes = function.args
    if vectors == 0:
        emit.mask = emit.first(lanes)
        vectors = 1
    c_place, a_place = (cgutils.alloca_once_value(builder, place) for place in (c, a))

    def tiles(height: int, form: _Form) -> None:
        """All tiles of a height that are left."""
        count = builder.udiv(builder.load(left), number(height))
        with cgutils.for_range(builder, count, intp=INDEX):
            c, a = builder.load(c_place), builder.load(a_place)
            _tile(emit, height, vectors, a, (c, cs, at, ac, b, *others), form)
            step = at if height == target.height else builder.mul(number(height), form.row)
            builder.store(emit.address(a, step), a_place)
            builder.store(emit.address(c, builder.mul(number(height), cs)), c_place)
        done = builder.mul(count, number(height))
        builder.store(builder.sub(builder.load(left), done), left)

    left = cgutils.alloca_once_value(builder, rows)
    for form in () if emit.mask is not None else _forms(target, vectors * emit.width, ar, ak, bs):
        is_row = builder.icmp_unsigned("==", ar, form.row)
        is_column = builder.icmp_unsigned("==", ak, form.column)
        is_panel = builder.icmp_unsigned("==", bs, form.step)
        with builder.if_then(builder.and_(is_panel, builder.and_(is_row, is_column))):
            tiles(target.height, form)
    for height in target.heights:
        tiles(height, _Form(ar, ak, bs, 1, False))
    builder.ret_void()
    return function


def product_function(module: ir.Module, real: ir.Type, target: Target) -> ir.Function:
    """The product for panels of any width."""
    function, builder = new_function(module, real, target, "product", _parameters(real), [])
    if builder is None:
        return function
    width, lanes = number(Emit(builder, real, target).width), function.args[-1]

    def call(vectors: int) -> None:
        builder.call(_panel_product(module, real, target, vectors), function.args)

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

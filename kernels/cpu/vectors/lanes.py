"""The code that moves and sums what lies in lanes: dot products, transposes, copies in groups.

What is emitted, and how it is called, stands in `simd`.
"""

from __future__ import annotations

from llvmlite import ir
from numba.core import cgutils

from ...compiler.target import Target
from .emit import INDEX, Emit, new_function, number

_SUMS = 8  # dot products at a time: rows times columns of a tile


def _pairs(emit: Emit, a: ir.Value, b: ir.Value, segments: int, width: int) -> ir.Value:
    """The two halves of every segment of a, then of b, added: half as long, twice as many."""
    long = width // segments
    halves = [
        [v * width + s * long + half * (long // 2) + lane
         for v in range(2) for s in range(segments) for lane in range(long // 2)]
        for half in range(2)
    ]  # fmt: skip
    return emit.builder.fadd(*(emit.shuffle(a, b, lanes) for lanes in halves))


def _sums(emit: Emit, vectors: list[ir.Value]) -> list[ir.Value]:
    """The sum of each vector's lanes, as numbers."""
    width, segments = emit.width, 1
    while segments < width and len(vectors) > 1:
        vectors = [
            _pairs(emit, a, b, segments, width)
            for a, b in zip(vectors[::2], vectors[1::2], strict=True)
        ]
        segments *= 2
    while width > segments:  # more lanes than sums
        low, high = (
            [s * (width // segments) + half * (width // segments // 2) + lane
             for s in range(segments) for lane in range(width // segments // 2)]
            for half in range(2)
        )  # fmt: skip
        vectors = [
            emit.builder.fadd(emit.shuffle(v, v, low), emit.shuffle(v, v, high)) for v in vectors
        ]
        width //= 2
    index = ir.IntType(32)
    return [
        emit.builder.extract_element(vector, ir.Constant(index, lane))
        for vector in vectors
        for lane in range(segments)
    ]


def _dot_tile(emit: Emit, columns: int, arguments: tuple[ir.Value, ...]) -> None:
    """Emit out[c, r] = Σ … for so many columns and as many rows as make `_SUMS`."""
    builder = emit.builder
    out, cs, a, ar, at, a_rest, ar_rest, b, br, bt, b_rest, br_rest, *sizes = arguments
    panels, rest, tail, rows, add = sizes
    slots = _SUMS // {3: 4}.get(columns, columns)  # rows of a tile
    copies = 2 if emit.registers >= 32 else 1
    sums = [
        [[cgutils.alloca_once(builder, emit.vector) for _ in range(slots)] for _ in range(columns)]
        for _ in range(copies)
    ]
    last = builder.sub(rows, number(1))
    with cgutils.for_range_slice(builder, number(0), rows, number(slots), intp=INDEX) as (first, _):
        for copy in sums:
            for column in copy:
                for slot in column:
                    builder.store(emit.zero(), slot)
        places = []
        for r in range(slots):
            row = builder.add(first, number(r))
            inside = builder.icmp_unsigned("<", row, rows)
            places.append(builder.select(inside, row, last))

        def multiply(copy: int, of_a: ir.Value, step_a: ir.Value, of_b: ir.Value, step_b: ir.Value):
            of_b = [emit.load(emit.address(of_b, builder.mul(number(c), step_b)))
                    for c in range(columns)]  # fmt: skip
            for r, place in enumerate(places):
                of_row = emit.load(emit.address(of_a, builder.mul(place, step_a)))
                for c in range(columns):
                    slot = sums[copy][c][r]
                    builder.store(emit.multiply_add(of_row, of_b[c], builder.load(slot)), slot)

        with cgutils.for_range(builder, panels, intp=INDEX) as loop:
            of_a = emit.address(a, builder.mul(loop.index, at))
            of_b = emit.address(b, builder.mul(loop.index, bt))
            for vector in range(2):
                shift = vector * emit.width
                multiply(
                    vector % copies, emit.address(of_a, shift), ar, emit.address(of_b, shift), br
                )
        with cgutils.for_range(builder, rest, intp=INDEX):
            multiply(0, a_rest, ar_rest, b_rest, br_rest)
        with builder.if_then(builder.icmp_unsigned(">", tail, number(0))):
            emit.mask = emit.first(tail)
            skip = builder.mul(rest, number(emit.width))
            multiply(0, emit.address(a_rest, skip), ar_rest, emit.address(b_rest, skip), br_rest)
            emit.mask = None
        vectors = []
        for c in range(_SUMS // slots):
            for r in range(slots):
                total = emit.zero()
                if c < columns:
                    total = builder.load(sums[0][c][r])
                    for copy in sums[1:]:
                        total = builder.fadd(total, builder.load(copy[c][r]))
                vectors.append(total)
        totals = _sums(emit, vectors)
        for r in range(slots):
            row = builder.add(first, number(r))
            with builder.if_then(builder.icmp_unsigned("<", row, rows)):
                for c in range(columns):
                    place = emit.address(out, builder.mul(number(c), cs), row)
                    value = totals[c * slots + r]
                    before = builder.select(add, builder.load(place), ir.Constant(emit.real, 0.0))
                    builder.store(builder.fadd(value, before), place)


def dots_function(module: ir.Module, real: ir.Type, target: Target) -> ir.Function:
    """Sums along the lanes: see `simd.dots`."""
    pointer, flag = real.as_pointer(), ir.IntType(1)
    of_rows = [pointer, INDEX, INDEX, pointer, INDEX]
    parameters = [pointer, INDEX, *of_rows, *of_rows, *[INDEX] * 5, flag]
    function, builder = new_function(module, real, target, "dots", parameters, [0])
    if builder is None:
        return function
    emit = Emit(builder, real, target)
    out, cs, a, ar, at, a2, ar2, b, br, bt, b2, br2, panels, rest, tail, rows, columns, add = (
        function.args
    )
    done = cgutils.alloca_once_value(builder, number(0))
    for width in (4, 3, 2, 1):
        count = builder.udiv(builder.sub(columns, builder.load(done)), number(width))
        with cgutils.for_range(builder, count, intp=INDEX):
            start = builder.load(done)
            _dot_tile(
                emit, width, (
                    emit.address(out, builder.mul(start, cs)), cs, a, ar, at, a2, ar2,
                    emit.address(b, builder.mul(start, br)), br, bt,
                    emit.address(b2, builder.mul(start, br2)), br2, panels, rest, tail, rows, add,
                ),
            )  # fmt: skip
            builder.store(builder.add(start, number(width)), done)
    builder.ret_void()
    return function


def _interleaved(emit: Emit, rows: list[ir.Value]) -> list[ir.Value]:
    """The columns of a square whose rows these vectors are."""
    width = emit.width
    step = width // 2
    while step:
        new = list(rows)
        for i in range(width):
            if i & step == 0:
                a, b = rows[i], rows[i + step]
                low = [lane if lane & step == 0 else width + lane - step for lane in range(width)]
                high = [lane + step if lane & step == 0 else width + lane for lane in range(width)]
                new[i], new[i + step] = emit.shuffle(a, b, low), emit.shuffle(a, b, high)
        rows = new
        step //= 2
    return rows


def transpose_function(module: ir.Module, real: ir.Type, target: Target) -> ir.Function:
    """Squares of a vector's width turned in registers: see `simd.transpose`."""
    pointer = real.as_pointer()
    parameters = [pointer, INDEX, pointer, INDEX, INDEX, INDEX]
    function, builder = new_function(module, real, target, "transpose", parameters, [0, 2])
    if builder is None:
        return function
    out, step, a, a_step, rows, columns = function.args
    emit = Emit(builder, real, target)
    width = number(emit.width)

    def square(row: ir.Value, column: ir.Value, whole: bool) -> None:
        left = [builder.sub(rows, row), builder.sub(columns, column)]
        of_row, of_column = (None, None) if whole else map(emit.first, left)
        values = []
        for i in range(emit.width):
            at = builder.add(row, number(i))
            if not whole:  # rows beyond the last are read there
                inside = builder.icmp_unsigned("<", at, rows)
                at = builder.select(inside, at, builder.sub(rows, number(1)))
            emit.mask = of_column
            values.append(emit.load(emit.address(a, builder.mul(at, a_step), column)))
        emit.mask = of_row
        for i, value in enumerate(_interleaved(emit, values)):
            at = builder.add(column, number(i))
            place = emit.address(out, builder.mul(at, step), row)
            if whole:
                emit.store(value, place)
            else:
                with builder.if_then(builder.icmp_unsigned("<", at, columns)):
                    emit.store(value, place)
        emit.mask = None

    with (
        cgutils.for_range_slice(builder, number(0), columns, width, intp=INDEX) as (column, _),
        cgutils.for_range_slice(builder, number(0), rows, width, intp=INDEX) as (row, _),
    ):
        ends = (builder.add(row, width), rows), (builder.add(column, width), columns)
        fits = builder.and_(*(builder.icmp_unsigned("<=", end, size) for end, size in ends))
        with builder.if_else(fits) as (whole, some):
            with whole:
                square(row, column, True)
            with some:
                square(row, column, False)
    builder.ret_void()
    return function


def spread_function(module: ir.Module, real: ir.Type, target: Target) -> ir.Function:
    """A copy in groups of a tile's height: see `simd.spread`."""
    pointer = real.as_pointer()
    parameters = [pointer, INDEX, pointer, *[INDEX] * 3]
    function, builder = new_function(module, real, target, "spread", parameters, [0, 2])
    if builder is None:
        return function
    out, step, x, xs, rows, columns = function.args
    emit = Emit(builder, real, target, target.height)
    group = number(target.height)
    whole = builder.udiv(columns, group)
    first = builder.mul(whole, group)
    with cgutils.for_range(builder, rows, intp=INDEX) as row:
        x_row = emit.address(x, builder.mul(row.index, xs))
        out_row = emit.address(out, builder.mul(row.index, group))
        with cgutils.for_range(builder, whole, intp=INDEX) as part:
            value = emit.load(emit.address(x_row, builder.mul(part.index, group)))
            emit.store(value, emit.address(out_row, builder.mul(part.index, step)))
        out_row = emit.address(out_row, builder.mul(whole, step))
        x_row = emit.address(x_row, first)
        with cgutils.for_range(builder, builder.sub(columns, first), intp=INDEX) as column:
            value = builder.load(emit.address(x_row, column.index))
            builder.store(value, emit.address(out_row, column.index))
    builder.ret_void()
    return function

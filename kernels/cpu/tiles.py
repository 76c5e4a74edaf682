"""The code of register-tiled products, emitted as LLVM's intermediate form in explicit vectors.

The sums of a tile of up to 12 × 2 vectors stay in registers. What is emitted, and how it is called,
stands in `simd`.
"""

from __future__ import annotations

from typing import Any

from llvmlite import ir
from numba.core import cgutils

from ..compiler.target import Target

INDEX = ir.IntType(64)
FLAG = ir.IntType(1)

_INDEPENDENT = 8  # sums needed to keep two units of latency 4 busy


class _Emit:
    """A builder with the few operations that tiles are made of."""

    def __init__(
        self, builder: ir.IRBuilder, real: ir.Type, target: Target, width: int | None = None
    ) -> None:
        self.builder = builder
        self.real = real
        self.size = 8 if isinstance(real, ir.DoubleType) else 4
        self.height = target.height
        self.width = width or target.lanes(self.size)
        self.vector = ir.VectorType(real, self.width)

    def address(self, base: ir.Value, *offsets: ir.Value | int) -> ir.Value:
        """base + the sum of the offsets, in elements."""
        for offset in offsets:
            if isinstance(offset, int):
                offset = ir.Constant(INDEX, offset)
            base = self.builder.gep(base, [offset])
        return base

    def load(self, base: ir.Value) -> ir.Value:
        pointer = self.builder.bitcast(base, self.vector.as_pointer())
        value = self.builder.load(pointer)
        value.align = self.size
        return value

    def store(self, value: ir.Value, base: ir.Value) -> None:
        pointer = self.builder.bitcast(base, self.vector.as_pointer())
        self.builder.store(value, pointer).align = self.size

    def broadcast(self, base: ir.Value) -> ir.Value:
        scalar = self.builder.load(base)
        one = self.builder.insert_element(
            ir.Constant(self.vector, ir.Undefined), scalar, ir.Constant(ir.IntType(32), 0)
        )
        mask = ir.Constant(ir.VectorType(ir.IntType(32), self.width), [0] * self.width)
        return self.builder.shuffle_vector(one, one, mask)

    def _intrinsic(self, name: str, result: ir.Type, arguments: list[ir.Type]) -> ir.Function:
        function = ir.FunctionType(result, arguments)
        return cgutils.get_or_insert_function(self.builder.module, function, name)

    def multiply_add(self, a: ir.Value, b: ir.Value, c: ir.Value) -> ir.Value:
        letter = "f64" if self.size == 8 else "f32"
        name = f"llvm.fma.v{self.width}{letter}"
        return self.builder.call(self._intrinsic(name, self.vector, [self.vector] * 3), [a, b, c])

    def sum_of_lanes(self, a: ir.Value) -> ir.Value:
        letter = "f64" if self.size == 8 else "f32"
        name = f"llvm.vector.reduce.fadd.v{self.width}{letter}"
        add = self._intrinsic(name, self.real, [self.real, self.vector])
        return self.builder.call(add, [ir.Constant(self.real, 0.0), a], fastmath=("reassoc",))

    def prefetch(self, base: ir.Value) -> None:
        """Have the line at an address on its way to the first-level cache, to be written to."""
        byte, flag = ir.IntType(8).as_pointer(), ir.IntType(32)
        function = self._intrinsic("llvm.prefetch.p0", ir.VoidType(), [byte, flag, flag, flag])
        place = self.builder.bitcast(base, byte)
        self.builder.call(function, [place, *(ir.Constant(flag, i) for i in (1, 3, 1))])

    def zero(self) -> ir.Value:
        return ir.Constant(self.vector, [0.0] * self.width)


def _tile(emit: _Emit, height: int, vectors: int, scaled: bool, a: Any, arguments: Any) -> None:
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
    a_rows = [emit.address(a, builder.mul(_number(i), ar)) for i in range(height)]

    def multiply(part: int, offset: ir.Value, k: ir.Value) -> None:
        b_row = emit.address(b, builder.mul(k, bs))
        b_vectors = [emit.load(emit.address(b_row, v * emit.width)) for v in range(vectors)]
        for i in range(height):
            a_i = emit.broadcast(emit.address(a_rows[i], offset))
            for v in range(vectors):
                slot = sums[part][i][v]
                builder.store(emit.multiply_add(a_i, b_vectors[v], builder.load(slot)), slot)

    c_rows = [emit.address(c, builder.mul(_number(i), cs)) for i in range(height)]
    for row in c_rows:
        for v in range(vectors):
            emit.prefetch(emit.address(row, v * emit.width))
    group = _number(emit.height)
    whole = builder.udiv(length, group)
    with cgutils.for_range(builder, whole, intp=INDEX) as loop:
        start = builder.mul(loop.index, ac)
        first = builder.mul(loop.index, group)
        if unroll > 1:
            for j in range(emit.height):
                offset = builder.add(start, builder.mul(_number(j), ak))
                multiply(j % unroll, offset, builder.add(first, _number(j)))
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


def _number(value: int) -> ir.Constant:
    return ir.Constant(INDEX, value)


def _function(
    module: ir.Module, real: ir.Type, target: Target, name: str, parameters: list[ir.Type],
    references: list[int],
) -> tuple[ir.Function, ir.IRBuilder | None]:  # fmt: skip
    """A function of its own in the module; its builder, or None where it was there already."""
    kind = "f64" if isinstance(real, ir.DoubleType) else "f32"
    name = f"twolayer_{name}_{kind}_{target.name}"
    if name in module.globals:
        return module.globals[name], None
    function = ir.Function(module, ir.FunctionType(ir.VoidType(), parameters), name)
    function.linkage = "internal"
    function.attributes.add("noinline")
    function.attributes.add("optsize")  # unrolled, the sums of a tile would not fit the registers
    for argument in references:
        function.args[argument].add_attribute("noalias")
    return function, ir.IRBuilder(function.append_basic_block("entry"))


def _panel_product(
    module: ir.Module, real: ir.Type, target: Target, vectors: int, scaled: bool
) -> ir.Function:
    """The product for panels of one or two vectors."""
    pointer = real.as_pointer()
    parameters = [pointer, INDEX, pointer, *[INDEX] * 4, pointer, INDEX, INDEX, FLAG, INDEX]
    name = f"{'scaled' if scaled else 'product'}_{vectors}"
    function, builder = _function(module, real, target, name, parameters, [0, 2, 7])
    if builder is None:
        return function
    emit = _Emit(builder, real, target)
    c, cs, a, at, *arguments, rows = function.args
    ar = arguments[0]
    c_place, a_place = (cgutils.alloca_once_value(builder, pointer) for pointer in (c, a))
    left = rows
    for height in target.heights:
        count = builder.udiv(left, _number(height))
        with cgutils.for_range(builder, count, intp=INDEX):
            c, a = builder.load(c_place), builder.load(a_place)
            _tile(emit, height, vectors, scaled, a, (c, cs, *arguments))
            step = at if height == target.height else builder.mul(_number(height), ar)
            builder.store(emit.address(a, step), a_place)
            builder.store(emit.address(c, builder.mul(_number(height), cs)), c_place)
        left = builder.sub(left, builder.mul(count, _number(height)))
    builder.ret_void()
    return function


def product_function(module: ir.Module, real: ir.Type, target: Target, scaled: bool) -> ir.Function:
    """The product for panels of any width: the last parameter is the number of lanes."""
    pointer = real.as_pointer()
    parameters = [
        pointer, INDEX, pointer, *[INDEX] * 4, pointer, INDEX, INDEX, FLAG, INDEX, INDEX
    ]  # fmt: skip
    name = "scaled" if scaled else "product"
    function, builder = _function(module, real, target, name, parameters, [])
    if builder is None:
        return function
    *arguments, lanes = function.args
    wide = builder.icmp_unsigned(">", lanes, _number(_Emit(builder, real, target).width))
    with builder.if_else(wide) as (two, one):
        for branch, vectors in ((two, 2), (one, 1)):
            with branch:
                builder.call(_panel_product(module, real, target, vectors, scaled), arguments)
    builder.ret_void()
    return function


def dots_function(module: ir.Module, real: ir.Type, target: Target) -> ir.Function:
    """Sums along the lanes: see `simd.dots`."""
    pointer = real.as_pointer()
    parameters = [pointer, pointer, INDEX, pointer, INDEX, pointer, *[INDEX] * 4]
    function, builder = _function(module, real, target, "dots", parameters, [0])
    if builder is None:
        return function
    emit = _Emit(builder, real, target)
    out, z, z_step, w, w_step, w_last, panels, lanes, last, rows = function.args
    slots = [cgutils.alloca_once(builder, emit.vector) for _ in range(2)]
    wide = builder.icmp_unsigned(">", last, _number(emit.width))
    full = builder.select(wide, panels, builder.sub(panels, _number(1)))

    def multiply(slot: ir.Value, z_row: ir.Value, w_row: ir.Value, offset: int) -> None:
        z_vector, w_vector = (emit.load(emit.address(base, offset)) for base in (z_row, w_row))
        builder.store(emit.multiply_add(z_vector, w_vector, builder.load(slot)), slot)

    with cgutils.for_range(builder, rows, intp=INDEX) as row:
        for slot in slots:
            builder.store(emit.zero(), slot)
        with cgutils.for_range(builder, full, intp=INDEX) as panel:
            z_row = emit.address(z, builder.mul(panel.index, z_step), builder.mul(row.index, lanes))
            w_row = emit.address(w, builder.mul(panel.index, w_step))
            multiply(slots[0], z_row, w_row, 0)
            multiply(slots[1], z_row, w_row, emit.width)
        with builder.if_then(builder.not_(wide)):
            z_row = emit.address(z, builder.mul(full, z_step), builder.mul(row.index, last))
            multiply(slots[0], z_row, w_last, 0)
        total = builder.fadd(builder.load(slots[0]), builder.load(slots[1]))
        builder.store(emit.sum_of_lanes(total), emit.address(out, row.index))
    builder.ret_void()
    return function


def spread_function(module: ir.Module, real: ir.Type, target: Target) -> ir.Function:
    """A copy in groups of a tile's height: see `simd.spread`."""
    pointer = real.as_pointer()
    parameters = [pointer, INDEX, pointer, *[INDEX] * 3]
    function, builder = _function(module, real, target, "spread", parameters, [0, 2])
    if builder is None:
        return function
    out, step, x, xs, rows, columns = function.args
    emit = _Emit(builder, real, target, target.height)
    group = _number(target.height)
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

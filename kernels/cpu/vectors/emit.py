"""What code in explicit vectors is made of, as LLVM's intermediate form."""

from __future__ import annotations

from llvmlite import ir
from numba.core import cgutils

from ...compiler.target import Target

INDEX = ir.IntType(64)
FLAG = ir.IntType(1)


class Emit:
    """A builder with the few operations that tiles are made of."""

    def __init__(
        self, builder: ir.IRBuilder, real: ir.Type, target: Target, width: int | None = None
    ) -> None:
        self.builder = builder
        self.real = real
        self.size = 8 if isinstance(real, ir.DoubleType) else 4
        self.height, self.registers = target.height, target.registers
        self.width = width or target.lanes(self.size)
        self.vector = ir.VectorType(real, self.width)
        self.suffix = f"v{self.width}f{8 * self.size}"
        self.mask: ir.Value | None = None  # of the lanes that are read and written, where not all

    def address(self, base: ir.Value, *offsets: ir.Value | int) -> ir.Value:
        """base + the sum of the offsets, in elements."""
        for offset in offsets:
            if isinstance(offset, int):
                offset = ir.Constant(INDEX, offset)
            base = self.builder.gep(base, [offset])
        return base

    def load(self, base: ir.Value) -> ir.Value:
        """The vector at an address; 0 in lanes beyond the mask, which are not touched."""
        pointer = self.builder.bitcast(base, self.vector.as_pointer())
        if self.mask is None:
            value = self.builder.load(pointer)
            value.align = self.size
            return value
        kinds = [pointer.type, ir.IntType(32), self.mask.type, self.vector]
        load = self._intrinsic(f"llvm.masked.load.{self.suffix}.p0", self.vector, kinds)
        return self.builder.call(load, [pointer, self._align(), self.mask, self.zero()])

    def store(self, value: ir.Value, base: ir.Value) -> None:
        """Write the lanes of the mask, or all."""
        pointer = self.builder.bitcast(base, self.vector.as_pointer())
        if self.mask is None:
            self.builder.store(value, pointer).align = self.size
            return
        kinds = [self.vector, pointer.type, ir.IntType(32), self.mask.type]
        store = self._intrinsic(f"llvm.masked.store.{self.suffix}.p0", ir.VoidType(), kinds)
        self.builder.call(store, [value, pointer, self._align(), self.mask])

    def _align(self) -> ir.Constant:
        return ir.Constant(ir.IntType(32), self.size)

    def first(self, count: ir.Value) -> ir.Value:
        """The mask of the first lanes."""
        lanes = ir.VectorType(ir.IntType(32), self.width)
        counts = self._splat(self.builder.trunc(count, ir.IntType(32)), lanes)
        return self.builder.icmp_unsigned("<", ir.Constant(lanes, [*range(self.width)]), counts)

    def _splat(self, scalar: ir.Value, kind: ir.VectorType) -> ir.Value:
        zero = ir.Constant(ir.IntType(32), 0)
        one = self.builder.insert_element(ir.Constant(kind, ir.Undefined), scalar, zero)
        return self.shuffle(one, one, [0] * self.width)

    def shuffle(self, a: ir.Value, b: ir.Value, lanes: list[int]) -> ir.Value:
        """These lanes of a, then b."""
        mask = ir.Constant(ir.VectorType(ir.IntType(32), len(lanes)), lanes)
        return self.builder.shuffle_vector(a, b, mask)

    def broadcast(self, base: ir.Value) -> ir.Value:
        return self._splat(self.builder.load(base), self.vector)

    def _intrinsic(self, name: str, result: ir.Type, arguments: list[ir.Type]) -> ir.Function:
        function = ir.FunctionType(result, arguments)
        return cgutils.get_or_insert_function(self.builder.module, function, name)

    def multiply_add(self, a: ir.Value, b: ir.Value, c: ir.Value) -> ir.Value:
        name = f"llvm.fma.{self.suffix}"
        return self.builder.call(self._intrinsic(name, self.vector, [self.vector] * 3), [a, b, c])

    def prefetch(self, base: ir.Value, to_write: bool) -> None:
        """Have the line at an address on its way to the first-level cache."""
        byte, flag = ir.IntType(8).as_pointer(), ir.IntType(32)
        function = self._intrinsic("llvm.prefetch.p0", ir.VoidType(), [byte, flag, flag, flag])
        place = self.builder.bitcast(base, byte)
        self.builder.call(function, [place, *(ir.Constant(flag, i) for i in (int(to_write), 3, 1))])

    def zero(self) -> ir.Value:
        return ir.Constant(self.vector, [0.0] * self.width)


def number(value: int) -> ir.Constant:
    """An index."""
    return ir.Constant(INDEX, value)


def new_function(
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

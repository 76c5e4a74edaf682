"""Operations on the bits of floating-point numbers, and polynomials, for jitted code.

They are emitted as LLVM instructions, because Numba widens integers to 64 bits and literals to
float64, and because the flags of fast mathematics then depend on nothing.
"""

import math
import re

import numpy as np
from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.core.cpu import CPUContext
from numba.extending import intrinsic

from .tables import FLOAT32, FLOAT64, Table

TABLES = {types.float32: FLOAT32, types.float64: FLOAT64}


def _integer(table: Table) -> ir.IntType:
    return ir.IntType(table.mantissa + 1 + (8 if table.dtype is np.float32 else 11))


def _horner(builder, x, coefficients):
    """Emit the polynomial in x by Horner's rule."""
    value = ir.Constant(x.type, coefficients[-1])
    for coefficient in coefficients[-2::-1]:
        product = builder.fmul(value, x, flags=("contract",))
        value = builder.fadd(product, ir.Constant(x.type, coefficient), flags=("contract",))
    return value


def _halves(builder, x, coefficients):
    """Emit the polynomial in x by Horner's rule in x**2 for its even and for its odd powers.

    The operations that wait for one another are half as many. For x whose square does not
    underflow, or needs it anyway.
    """
    square = builder.fmul(x, x, flags=("contract",))
    even, odd = (_horner(builder, square, coefficients[first::2]) for first in (0, 1))
    return builder.fadd(builder.fmul(odd, x, flags=("contract",)), even, flags=("contract",))


def polynomial(coefficients, rule):
    """Return an intrinsic that evaluates the polynomial by a rule."""

    @intrinsic
    def evaluate(typingctx, x):
        def codegen(context, builder, signature, args):
            return rule(builder, args[0], coefficients)

        return x(x), codegen

    return evaluate


POLYNOMIALS = {
    (kind, name): polynomial([float(table.dtype(c)) for c in getattr(table, name)], rule)
    for kind, table in TABLES.items()
    for name, rule in (
        ("exp", _halves),
        ("log", _horner),
        ("log1p_exp", _horner),
        ("erf", _horner),
        ("erfc_tail", _halves),
        ("tanh_above", _horner),
        ("tanh_below", _horner),
    )
    if getattr(table, name)
}


@intrinsic
def select(typingctx, condition, x, y):
    """Return x where the condition holds and y elsewhere, without a branch."""
    kind = typingctx.unify_types(x, y)

    def codegen(context, builder, signature, args):
        truth = context.is_true(builder, condition, args[0])
        chosen = [context.cast(builder, a, t, kind) for a, t in zip(args[1:], (x, y), strict=True)]
        return builder.select(truth, *chosen)

    return kind(condition, x, y), codegen


def magic(table: Table) -> np.floating:
    """The number that leaves n + bias in the lowest bits of its sum with n."""
    return table.dtype(1.5 * 2.0**table.mantissa + table.bias)


def _bits(number: np.floating) -> int:
    return int(number.view(f"i{number.nbytes}"))


@intrinsic
def power(typingctx, shifted):
    """Return 2**n for ``shifted`` = n + magic, where that is a normal number."""
    table = TABLES[shifted]

    def codegen(context, builder, signature, args):
        integer = _integer(table)
        bits = builder.shl(builder.bitcast(args[0], integer), integer(table.mantissa))
        return builder.bitcast(bits, args[0].type)

    return shifted(shifted), codegen


@intrinsic
def powers(typingctx, shifted):
    """Return 2**i, 2**j and 2**-j, i + j = n, for ``shifted`` = n + magic.

    Two factors, because 2**n itself may be too large or too small where the product is not.
    """
    table = TABLES[shifted]
    start = 2 * table.bias - _bits(magic(table))

    def codegen(context, builder, signature, args):
        integer = _integer(table)

        def power(biased):
            bits = builder.shl(biased, integer(table.mantissa))
            return builder.bitcast(bits, args[0].type)

        # n + 2 bias is positive: a logical shift halves it, and every vector unit has one.
        biased = builder.add(builder.bitcast(args[0], integer), integer(start))
        i = builder.lshr(biased, integer(1))
        j = builder.sub(biased, i)
        results = power(i), power(j), power(builder.sub(integer(2 * table.bias), j))
        return context.make_tuple(builder, signature.return_type, results)

    return types.UniTuple(shifted, 3)(shifted), codegen


@intrinsic
def split(typingctx, u):
    """Return n and 2**(2 - n) such that u * 2**-n lies between sqrt(1/2) and sqrt(2), u > 0."""
    table = TABLES[u]
    plain = table.dtype(1.5 * 2.0**table.mantissa)
    start = _bits(table.dtype(math.sqrt(0.5)))
    one = table.bias << table.mantissa

    def codegen(context, builder, signature, args):
        integer = _integer(table)
        real = args[0].type
        bits = builder.add(builder.bitcast(args[0], integer), integer(one - start))
        biased = builder.lshr(bits, integer(table.mantissa))
        # Integers of 64 bits have no vector conversion before AVX-512: the magic number serves.
        shifted = builder.add(biased, integer(_bits(plain) - table.bias))
        n = builder.fsub(builder.bitcast(shifted, real), real(float(plain)))
        opposite = builder.sub(integer(2 * table.bias + 2), biased)
        power = builder.bitcast(builder.shl(opposite, integer(table.mantissa)), real)
        return context.make_tuple(builder, signature.return_type, (n, power))

    return types.UniTuple(u, 2)(u), codegen


@intrinsic
def square(typingctx, x):
    """Return x * x rounded, and what the rounding lost."""
    table = TABLES[x]
    low = (1 << (table.mantissa + 2) // 2) - 1

    def codegen(context, builder, signature, args):
        (x,) = args
        integer = _integer(table)
        # No flags: the rounded square may not be fused away where it is used.
        square = builder.fmul(x, x)
        head = builder.and_(builder.bitcast(x, integer), integer(~low))
        head = builder.bitcast(head, x.type)
        rest = builder.fsub(x, head)
        lost = builder.fsub(builder.fmul(head, head), square)
        lost = builder.fadd(lost, builder.fmul(builder.fadd(head, head), rest))
        lost = builder.fadd(lost, builder.fmul(rest, rest))
        return context.make_tuple(builder, signature.return_type, (square, lost))

    return types.UniTuple(x, 2)(x), codegen


@intrinsic
def rough_reciprocal(typingctx, x):
    """Return 1 / x for x > 0, up to 1/8 too large: the bits are nearly a logarithm."""
    table = TABLES[x]

    def codegen(context, builder, signature, args):
        integer = _integer(table)
        ones = integer(2 * table.bias << table.mantissa)
        bits = builder.sub(ones, builder.bitcast(args[0], integer))
        return builder.bitcast(bits, args[0].type)

    return x(x), codegen


def _has_fma(context):
    """Whether x * y + z is one instruction where the code will run."""
    if not isinstance(context, CPUContext):
        return True
    triple, _, features = context.codegen().magic_tuple()
    return not re.match(r"x86|i\d86|amd64", triple) or "+fma" in features.split(",")


@intrinsic
def fused(typingctx, power, p, z):
    """Return power * p + z for a power of 2 up to 1, with no number below the least normal one.

    One instruction, which LLVM does not make of a product that several sums share, or the same on
    larger numbers.
    """
    table = TABLES[power]
    up = 2.0 ** (table.bias // 2)

    def codegen(context, builder, signature, args):
        power, p, z = args
        if not _has_fma(context):
            larger, of_z = (builder.fmul(a, ir.Constant(a.type, up)) for a in (power, z))
            total = builder.fadd(builder.fmul(larger, p), of_z)
            return builder.fmul(total, ir.Constant(p.type, 1 / up))
        name = "llvm.fma." + {"float": "f32", "double": "f64"}[str(p.type)]
        kind = ir.FunctionType(p.type, [p.type] * 3)
        return builder.call(cgutils.get_or_insert_function(builder.module, kind, name), args)

    return power(power, p, z), codegen


@intrinsic
def signed(typingctx, x, sign):
    """Return x >= 0 with the sign of the other argument."""
    table = TABLES[x]

    def codegen(context, builder, signature, args):
        integer = _integer(table)
        magnitude, signed = (builder.bitcast(a, integer) for a in args)
        bits = builder.or_(magnitude, builder.and_(signed, integer(1 << (integer.width - 1))))
        return builder.bitcast(bits, args[0].type)

    return x(x, sign), codegen

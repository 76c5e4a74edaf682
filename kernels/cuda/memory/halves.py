"""Powers of two that scale exactly, and float32 as the sum of two float16 numbers.

Two float16 lie in one uint32, the first in its lower half.
"""

import numpy as np
from llvmlite import ir
from numba import types
from numba.extending import register_jitable

from ...compiler.lowering import lowers_to

u4, i4 = np.uint32, np.int32

NOTHING = -100_000  # what `exponent` returns for 0
LEAST, MOST = -126, 126  # exponents whose powers, and their inverses, are normal numbers


def _same_bits(result, argument):
    def codegen(context, builder, signature, args):
        return builder.bitcast(args[0], context.get_value_type(result))

    return lambda x: (result(argument), codegen)


@lowers_to(_same_bits(types.uint32, types.float32))
def bits(x):
    """The bits of a float32, as uint32."""
    return np.float32(x).view(np.uint32)


@lowers_to(_same_bits(types.float32, types.uint32))
def number(pattern):
    """The float32 that has these bits."""
    return np.uint32(pattern).view(np.float32)


def _halves(a, b):
    def codegen(context, builder, signature, args):
        kind = ir.FunctionType(ir.IntType(32), [ir.FloatType()] * 2)
        assembly = ir.InlineAsm(kind, "cvt.rn.f16x2.f32 $0, $2, $1;", "=r,f,f")
        return builder.call(assembly, args)

    return types.uint32(types.float32, types.float32), codegen


@lowers_to(_halves)
def halves(a, b):
    """a and b rounded to float16, to the nearest; infinite beyond its range."""
    with np.errstate(all="ignore"):
        pair = np.array([a, b], np.float32).astype(np.float16)
    return pair.view(np.uint32)[0]


def _half(shift):
    def codegen(context, builder, signature, args):
        bits = ir.IntType(32)
        word = builder.trunc(builder.lshr(args[0], bits(shift)), ir.IntType(16))
        return builder.fpext(builder.bitcast(word, ir.HalfType()), ir.FloatType())

    return lambda pair: (types.float32(types.uint32), codegen)


@lowers_to(_half(0))
def lower(pair):
    """The first of two float16, as float32."""
    return np.float32(np.uint32(pair).reshape(1).view(np.float16)[0])


@lowers_to(_half(16))
def upper(pair):
    """The second of two float16, as float32."""
    return np.float32(np.uint32(pair).reshape(1).view(np.float16)[1])


@register_jitable(forceinline=True)
def split(a, b):
    """a and b in float16, and what that leaves of each, in float16: together 22 significant bits.

    What remains is within 2⁻²² of each, or 2⁻²⁵ where that is more. NaN where a number is infinite.
    """
    high = halves(a, b)
    return high, halves(a - lower(high), b - upper(high))


@register_jitable(forceinline=True)
def _biased(x):
    return i4((bits(x) >> u4(23)) & u4(255))


@register_jitable(forceinline=True)
def exponent(x):
    """⌊log₂ |x|⌋; 128 for infinities and NaN, NOTHING for 0."""
    if x == np.float32(0):
        return i4(NOTHING)
    found = i4(_biased(x) - i4(127))
    if found == i4(-127):  # a subnormal number
        found = i4(_biased(x * np.float32(16777216)) - i4(151))
    return found


@register_jitable(forceinline=True)
def power(e):
    """2ᵉ, LEAST ≤ e ≤ MOST."""
    return number(u4(u4(e + i4(127)) << u4(23)))


@register_jitable(forceinline=True)
def scaled(x, e):
    """x 2ᵉ; the result is 0 where it lies far below float16's range."""
    e = i4(max(min(e, i4(2 * MOST)), i4(2 * LEAST)))
    first = i4(e >> i4(1))
    return x * power(first) * power(i4(e - first))

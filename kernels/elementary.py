"""Elementary functions that one formula can use on floats, on arrays and in jitted code.

Each takes a Python float (exact, by ``math``), a NumPy array (``np``) or, in jitted code, a float32
or float64. The jitted forms have neither branches, tables nor calls, so that LLVM vectorizes a loop
around them; ``ULP`` bounds their errors.
"""

import math

import numpy as np
from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic, overload

from .elementary_tables import FLOAT32, FLOAT64, Table

__all__ = ["ULP", "erfc", "exp", "expm1", "like", "log1p", "select", "tanh"]

ULP = {
    "exp": {"float32": 2.0, "float64": 2.0},
    "expm1": {"float32": 2.0, "float64": 2.0},
    "log1p": {"float32": 2.0, "float64": 2.0},
    "tanh": {"float32": 2.0, "float64": 2.0},
    "erfc": {"float32": 2.0, "float64": 2.0},
}

# Stated for each overload: a callee inherits its caller's flags otherwise, and ``reassoc`` would
# cancel the compensated steps. Nothing may assume the absence of NaN or infinity. A call that LLVM
# finds too long to inline would keep the loop around it scalar.
_JIT = {"fastmath": {"contract"}, "error_model": "numpy", "forceinline": True}

_TABLES = {types.float32: FLOAT32, types.float64: FLOAT64}


def exp(x):
    """e**x."""
    if not isinstance(x, float):
        return np.exp(x)
    try:
        return math.exp(x)
    except OverflowError:
        return math.inf


def expm1(x):
    """e**x - 1, without the cancellation near 0."""
    if not isinstance(x, float):
        return np.expm1(x)
    try:
        return math.expm1(x)
    except OverflowError:
        return math.inf


def log1p(x):
    """log(1 + x), without the cancellation near 0; -inf at -1 and NaN below."""
    if not isinstance(x, float):
        return np.log1p(x)
    if x <= -1.0:
        return -math.inf if x == -1.0 else math.nan
    return math.log1p(x)


def tanh(x):
    """Hyperbolic tangent."""
    return math.tanh(x) if isinstance(x, float) else np.tanh(x)


def erfc(x):
    """1 - erf(x), without the cancellation for large x."""
    if isinstance(x, float):
        return math.erfc(x)
    from scipy.special import erfc as array_erfc

    return array_erfc(x)


def select(condition, x, y):
    """Return x where the condition holds and y elsewhere; both are evaluated."""
    if isinstance(condition, bool | np.bool_):
        return x if condition else y
    return np.where(condition, x, y)


def like(x, value):
    """Return the constant in the precision of x, which a literal in jitted code would widen."""
    return float(value)


def _table(x: types.Type) -> Table | None:
    """Return the constants for a jitted argument's type; None refuses it."""
    return _TABLES.get(x)


def _integer(table: Table) -> ir.IntType:
    return ir.IntType(table.mantissa + 1 + (8 if table.dtype is np.float32 else 11))


def _polynomial(coefficients):
    """Return an intrinsic that evaluates the polynomial by Horner's rule."""

    @intrinsic
    def evaluate(typingctx, x):
        def codegen(context, builder, signature, args):
            real = args[0].type
            value = ir.Constant(real, coefficients[-1])
            for coefficient in coefficients[-2::-1]:
                product = builder.fmul(value, args[0], flags=("contract",))
                value = builder.fadd(product, ir.Constant(real, coefficient), flags=("contract",))
            return value

        return x(x), codegen

    return evaluate


_POLYNOMIALS = {
    (kind, name): _polynomial([float(table.dtype(c)) for c in getattr(table, name)])
    for kind, table in _TABLES.items()
    for name in ("exp", "log", "tanh", "erfc_tail")
}


@intrinsic
def _select(typingctx, condition, x, y):
    kind = typingctx.unify_types(x, y)

    def codegen(context, builder, signature, args):
        truth = context.is_true(builder, condition, args[0])
        chosen = [context.cast(builder, a, t, kind) for a, t in zip(args[1:], (x, y), strict=True)]
        return builder.select(truth, *chosen)

    return kind(condition, x, y), codegen


@intrinsic
def _powers(typingctx, shifted):
    """Return 2**i, 2**j and 2**-j, i + j = n, for n in the low bits of ``shifted``.

    Two factors, because 2**n itself may be too large or too small where the product is not.
    """
    table = _TABLES[shifted]
    magic_bits = int(table.dtype(1.5 * 2.0**table.mantissa).view(f"i{table.dtype().nbytes}"))

    def codegen(context, builder, signature, args):
        integer = _integer(table)

        def power(biased):
            bits = builder.shl(biased, integer(table.mantissa))
            return builder.bitcast(bits, args[0].type)

        # n + 2 bias is positive: a logical shift halves it, and every vector unit has one.
        biased = builder.add(
            builder.bitcast(args[0], integer), integer(2 * table.bias - magic_bits)
        )
        i = builder.lshr(biased, integer(1))
        j = builder.sub(biased, i)
        results = power(i), power(j), power(builder.sub(integer(2 * table.bias), j))
        return context.make_tuple(builder, signature.return_type, results)

    return types.UniTuple(shifted, 3)(shifted), codegen


@intrinsic
def _split(typingctx, u):
    """Return n and 2**(2 - n) such that u * 2**-n lies between sqrt(1/2) and sqrt(2), u > 0."""
    table = _TABLES[u]
    view = f"i{table.dtype().nbytes}"
    magic = table.dtype(1.5 * 2.0**table.mantissa)
    start = int(table.dtype(math.sqrt(0.5)).view(view))
    one = table.bias << table.mantissa

    def codegen(context, builder, signature, args):
        integer = _integer(table)
        real = args[0].type
        bits = builder.add(builder.bitcast(args[0], integer), integer(one - start))
        biased = builder.lshr(bits, integer(table.mantissa))
        # Integers of 64 bits have no vector conversion before AVX-512: the magic number serves.
        shifted = builder.add(biased, integer(int(magic.view(view)) - table.bias))
        n = builder.fsub(builder.bitcast(shifted, real), real(float(magic)))
        opposite = builder.sub(integer(2 * table.bias + 2), biased)
        power = builder.bitcast(builder.shl(opposite, integer(table.mantissa)), real)
        return context.make_tuple(builder, signature.return_type, (n, power))

    return types.UniTuple(u, 2)(u), codegen


@intrinsic
def _square(typingctx, x):
    """Return x * x rounded, and what the rounding lost."""
    table = _TABLES[x]
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
def _rough_reciprocal(typingctx, x):
    """Return 1 / x for x > 0, up to 1/8 too large: the bits are nearly a logarithm."""
    table = _TABLES[x]

    def codegen(context, builder, signature, args):
        integer = _integer(table)
        ones = integer(2 * table.bias << table.mantissa)
        bits = builder.sub(ones, builder.bitcast(args[0], integer))
        return builder.bitcast(bits, args[0].type)

    return x(x), codegen


@intrinsic
def _copysign(typingctx, x, sign):
    table = _TABLES[x]

    def codegen(context, builder, signature, args):
        integer = _integer(table)
        magnitude, signed = (builder.bitcast(a, integer) for a in args)
        sign_bit = integer(1 << (integer.width - 1))
        bits = builder.or_(
            builder.and_(magnitude, builder.not_(sign_bit)), builder.and_(signed, sign_bit)
        )
        return builder.bitcast(bits, args[0].type)

    return x(x, sign), codegen


@overload(select, jit_options=_JIT)
def _overload_select(condition, x, y):
    return lambda condition, x, y: _select(condition, x, y)


@overload(like, jit_options=_JIT)
def _overload_like(x, value):
    return lambda x, value: type(x)(value)


def _clamped(x):
    """Return x, moved to where e**x has just overflowed or just rounded to 0 if it is beyond."""
    raise NotImplementedError("only jitted code calls this")


def _reduced(x, rest):
    """Return p, q, (2**i, 2**j, 2**-j) such that e**(x + rest) = (1 + p + q) * 2**i * 2**j.

    q is what the rounding of p lost.
    """
    raise NotImplementedError("only jitted code calls this")


@overload(_clamped, jit_options=_JIT)
def _overload_clamped(x):
    table = _TABLES[x]
    low, high = table.dtype(table.exp_low), table.dtype(table.exp_high)

    def clamped(x):
        x = _select(x > high, high, x)
        return _select(x < low, low, x)

    return clamped


@overload(_reduced, jit_options=_JIT)
def _overload_reduced(x, rest):
    table = _TABLES[x]
    log2e, magic = table.dtype(1 / math.log(2)), table.dtype(1.5 * 2.0**table.mantissa)
    ln2_high, ln2_low = table.dtype(table.ln2_high), table.dtype(table.ln2_low)
    tail = _POLYNOMIALS[x, "exp"]

    def reduced(x, rest):
        shifted = x * log2e + magic
        n = shifted - magic
        head = x - n * ln2_high
        small = n * ln2_low - rest
        r = head - small
        lost = (head - r) - small
        addend = r * r * tail(r) + lost
        p = r + addend
        return p, addend - (p - r), _powers(shifted)

    return reduced


@overload(exp, jit_options=_JIT)
def _overload_exp(x):
    if _table(x) is None:
        return None
    zero = _TABLES[x].dtype(0.0)

    def jitted(x):
        p, _, (first, second, _) = _reduced(_clamped(x), zero)
        return (first + first * p) * second

    return jitted


@overload(expm1, jit_options=_JIT)
def _overload_expm1(x):
    if _table(x) is None:
        return None
    zero = _TABLES[x].dtype(0.0)

    def jitted(x):
        p, _, (first, second, inverse) = _reduced(_clamped(x), zero)
        return _copysign((first * p + (first - inverse)) * second, x)

    return jitted


@overload(log1p, jit_options=_JIT)
def _overload_log1p(x):
    table = _table(x)
    if table is None:
        return None
    zero, quarter, half, one, two = (table.dtype(c) for c in (0.0, 0.25, 0.5, 1.0, 2.0))
    infinity, nan = table.dtype(math.inf), table.dtype(math.nan)
    ln2_high, ln2_low = table.dtype(table.ln2_high), table.dtype(table.ln2_low)
    tail = _POLYNOMIALS[x, "log"]

    def jitted(x):
        u = one + x
        n, power = _split(u)
        f = x * power * quarter + (power * quarter - one)
        s = f / (two + f)
        square = s * s
        half_square = half * f * f
        y = n * ln2_low + s * (half_square + square * tail(square))
        y = n * ln2_high + (f - (half_square - y))
        y = _copysign(y, x)
        y = _select(x < infinity, y, x)
        y = _select(u > zero, y, _select(u == zero, -infinity, nan))
        return y

    return jitted


@overload(tanh, jit_options=_JIT)
def _overload_tanh(x):
    table = _table(x)
    if table is None:
        return None
    one, two = table.dtype(1.0), table.dtype(2.0)
    half_reached = table.dtype(math.log(3) / 2)
    tail = _POLYNOMIALS[x, "tanh"]

    def jitted(x):
        a = abs(x)
        e = exp(-two * a)
        square = x * x
        near = a + a * square * tail(square)
        return _copysign(_select(a < half_reached, near, one - two * e / (one + e)), x)

    return jitted


@overload(erfc, jit_options=_JIT)
def _overload_erfc(x):
    table = _table(x)
    if table is None:
        return None
    zero, one, two = (table.dtype(c) for c in (0.0, 1.0, 2.0))
    end, center = table.dtype(table.erfc_end), table.dtype(table.erfc_center)
    scaled, tail = table.dtype(table.erfc_center_value), _POLYNOMIALS[x, "erfc_tail"]

    def jitted(x):
        a = abs(x)
        a = _select(a > end, end, a)
        square, rest = _square(a)
        p, q, (first, second, _) = _reduced(-square, -rest)
        t = (a - center) / (a + center)
        offset = t * tail(t)
        y = scaled + offset
        d = one + a
        lost = a - (d - one)  # in the rounding of d
        small = (offset - (y - scaled)) - y * (lost * _rough_reciprocal(d))
        y = (y + (y * p + (y * q + (small + small * p)))) / d * first * second
        return _select(x < zero, two - y, y)

    return jitted

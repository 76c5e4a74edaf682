"""Elementary functions that one formula can use on floats, on arrays and in jitted code.

Each takes a Python float (exact, by ``math``), a NumPy array (``np``) or, in jitted code, a float32
or float64. The jitted forms have neither branches, tables nor calls, so that LLVM vectorizes a loop
around them. ``ULP`` bounds their errors in units of the last place. The docstrings state the
largest error met: in float32 over all inputs where nothing else is said, in float64 over samples.
"""

import math

import numpy as np
from numba.extending import overload

from ..compiler.jit import jitable
from .intrinsics import POLYNOMIALS, TABLES, magic
from .intrinsics import fused as _fused
from .intrinsics import power as _power
from .intrinsics import powers as _powers
from .intrinsics import rough_reciprocal as _rough_reciprocal
from .intrinsics import select as _select
from .intrinsics import signed as _signed
from .intrinsics import split as _split
from .intrinsics import square as _square
from .scalars import JIT as _JIT
from .scalars import like, positive, select

__all__ = [
    "ULP", "erf", "erfc", "exp", "exp_neg", "expm1", "expm1_neg", "gaussian", "like", "log1p",
    "log1p_exp", "logistic", "positive", "select", "tanh", "tanh_slope",
]  # fmt: skip

ULP = {
    name: {"float32": bound, "float64": bound}
    for name, bound in {
        "exp": 1.25, "expm1": 2.5, "log1p": 2.0, "tanh": 2.5, "erf": 2.0, "erfc": 2.25,
        "logistic": 3.0,
    }.items()
}  # fmt: skip
ULP["tanh"]["float32"] = 6.5


def exp(x):
    """e**x; jitted 1.09 ULP in float32, 1.01 in float64."""
    if not isinstance(x, float):
        return np.exp(x)
    try:
        return math.exp(x)
    except OverflowError:
        return math.inf


def expm1(x):
    """e**x - 1, without the cancellation near 0; jitted 1.76 ULP in float32, 2.05 in float64."""
    if not isinstance(x, float):
        return np.expm1(x)
    try:
        return math.expm1(x)
    except OverflowError:
        return math.inf


def log1p(x):
    """log(1 + x), without the cancellation near 0; -inf at -1 and NaN below.

    Jitted 1.40 ULP in float32, 1.40 in float64.
    """
    if not isinstance(x, float):
        return np.log1p(x)
    if x <= -1.0:
        return -math.inf if x == -1.0 else math.nan
    return math.log1p(x)


def exp_neg(x):
    """e**x for x <= 0 only, which costs less; jitted 0 below four times the least normal number."""
    return exp(x)


def expm1_neg(x):
    """e**x - 1 for x <= 0 only, which costs less; the sign of a zero is not kept."""
    return expm1(x)


def log1p_exp(x):
    """log(1 + e**x) for x <= 0 only."""
    return log1p(exp(x))


def tanh(x):
    """Hyperbolic tangent, at most 1 in size.

    Jitted 5.59 ULP in float32, 6.37 where a multiply-add is two instructions; 2.08 in float64.
    """
    return math.tanh(x) if isinstance(x, float) else np.tanh(x)


def tanh_slope(x):
    """1 - tanh(x)**2 without its cancellation for large x; jitted in float32 with it.

    There the error is that of tanh in units of the last place of 1.
    """
    s = like(x, 1.0) + tanh(abs(x))
    return exp_neg(like(x, -2.0) * abs(x)) * (s * s)


def erf(x):
    """Error function; jitted 1.44 ULP in float32 for 0.25 <= x <= 2.2, 1.23 in float64."""
    if isinstance(x, float):
        return math.erf(x)
    from scipy.special import erf as array_erf

    return array_erf(x)


def gaussian(x):
    """e**(-x**2); jitted 0 below 128 times the least normal number."""
    return exp(-x * x)


def erfc(x):
    """1 - erf(x), without the cancellation for large x.

    Jitted 2.07 ULP in float32, 1.97 in float64, and 0 below four times the least normal number.
    On arrays SciPy's, which loses x**2 ULP for large x and is 0 from 26.7 on.
    """
    if isinstance(x, float):
        return math.erfc(x)
    from scipy.special import erfc as array_erfc

    return array_erfc(x)


@jitable(**_JIT)
def logistic(x):
    """1 / (1 + e**-x), from e**-|x| so that neither tail overflows.

    Jitted 2.83 ULP in float32, 2.53 in float64, and 0 below four times the least normal number.
    """
    e, one = exp_neg(-abs(x)), like(x, 1.0)
    y = one / (one + e)
    return select(x < like(x, 0.0), e * y, y)


def _reduced(x, rest):
    """Return p, q, n + magic such that e**(x + rest) = (1 + p + q) * 2**n.

    q is what the rounding of p lost.
    """
    raise NotImplementedError("only jitted code calls this")


@overload(_reduced, jit_options=_JIT)
def _overload_reduced(x, rest):
    table = TABLES[x]
    log2e, start = table.dtype(1 / math.log(2)), magic(table)
    ln2_high, ln2_low = table.dtype(table.ln2_high), table.dtype(table.ln2_low)
    tail = POLYNOMIALS[x, "exp"]

    def reduced(x, rest):
        # x = n log(2) + r, with n * ln2_high exact
        shifted = x * log2e + start
        n = shifted - start
        r = (x - n * ln2_high) - (n * ln2_low - rest)
        addend = r * r * tail(r)
        p = r + addend
        return p, addend - (p - r), shifted

    return reduced


@overload(exp, jit_options=_JIT)
def _overload_exp(x):
    table = TABLES.get(x)
    if table is None:
        return None
    zero, low, high = (table.dtype(c) for c in (0.0, table.exp_low, table.exp_high))

    def jitted(x):
        # Rounded before the last factor, a power of 2, which alone may overflow or underflow
        x = _select(x > high, high, x)
        p, _, shifted = _reduced(_select(x < low, low, x), zero)
        first, second, _ = _powers(shifted)
        return (first + first * p) * second

    return jitted


@overload(expm1, jit_options=_JIT)
def _overload_expm1(x):
    table = TABLES.get(x)
    if table is None:
        return None
    zero, low, high = (table.dtype(c) for c in (0.0, table.exp_low, table.exp_high))

    def jitted(x):
        y = _select(x > high, high, x)
        p, _, shifted = _reduced(_select(y < low, low, y), zero)
        first, second, inverse = _powers(shifted)
        return _signed(abs((first * p + (first - inverse)) * second), x)

    return jitted


@overload(exp_neg, jit_options=_JIT)
def _overload_exp_neg(x):
    table = TABLES.get(x)
    if table is None:
        return None
    zero, low = table.dtype(0.0), table.exp_least

    def jitted(x):
        far = x < low
        p, _, shifted = _reduced(_select(far, low, x), zero)
        # Not the result: LLVM would choose anew after each step that follows.
        scale = _select(far, zero, _power(shifted))
        return _fused(scale, p, scale)

    return jitted


@overload(expm1_neg, jit_options=_JIT)
def _overload_expm1_neg(x):
    table = TABLES.get(x)
    if table is None:
        return None
    # From the same number on as exp_neg: a formula with both shares their work.
    zero, one, low = table.dtype(0.0), table.dtype(1.0), table.exp_least

    def jitted(x):
        p, _, shifted = _reduced(_select(x < low, low, x), zero)
        scale = _power(shifted)
        return _fused(scale, p, scale - one)

    return jitted


@overload(log1p_exp, jit_options=_JIT)
def _overload_log1p_exp(x):
    if x not in TABLES:
        return None
    tail = POLYNOMIALS[x, "log1p_exp"]

    def jitted(x):
        e = exp_neg(x)
        return e + e * (e * tail(e))

    return jitted


@overload(log1p, jit_options=_JIT)
def _overload_log1p(x):
    table = TABLES.get(x)
    if table is None:
        return None
    zero, quarter, half, one, two = (table.dtype(c) for c in (0.0, 0.25, 0.5, 1.0, 2.0))
    infinity, nan = table.dtype(math.inf), table.dtype(math.nan)
    ln2_high, ln2_low = table.dtype(table.ln2_high), table.dtype(table.ln2_low)
    tail = POLYNOMIALS[x, "log"]

    def jitted(x):
        # 1 + x = 2**n (1 + f); f comes from x itself, since u has lost the low bits of a small x.
        # log(1 + f) = f - f**2 / 2 + s (f**2 / 2 + R(s**2)), s = f / (2 + f), as in fdlibm's log.
        u = one + x
        n, power = _split(u)  # power = 2**(2 - n), which never underflows
        f = x * power * quarter + (power * quarter - one)
        s = f / (two + f)
        square = s * s
        half_square = half * f * f
        y = n * ln2_low + s * (half_square + square * tail(square))
        y = n * ln2_high + (f - (half_square - y))
        y = _signed(abs(y), x)
        y = _select(x < infinity, y, x)
        y = _select(u > zero, y, _select(u == zero, -infinity, nan))
        return y

    return jitted


@overload(tanh, jit_options=_JIT)
def _overload_tanh(x):
    table = TABLES.get(x)
    if table is None:
        return None
    if table.tanh_above:
        return _quotient(x, table)
    zero, one, two = (table.dtype(c) for c in (0.0, 1.0, 2.0))
    # The quotient stays a normal number, where it has long been nothing to 1.
    low = table.exp_least

    def jitted(x):
        # (1 - e) / (1 + e), e = e**(-2 |x|)
        a = -two * abs(x)
        p, _, shifted = _reduced(_select(a < low, low, a), zero)
        scale = _power(shifted)
        y = _fused(-scale, p, one - scale) / _fused(scale, p, one + scale)
        return _signed(y, x)

    return jitted


def _quotient(x, table):
    above, below = POLYNOMIALS[x, "tanh_above"], POLYNOMIALS[x, "tanh_below"]
    one, end = table.dtype(1.0), table.dtype(table.tanh_end)

    def jitted(x):
        x = _select(x > end, end, x)
        x = _select(x < -end, -end, x)
        y = x * above(x * x) / below(x * x)  # whose roundings may lead beyond 1
        y = _select(y > one, one, y)
        return _select(y < -one, -one, y)

    return jitted


@overload(tanh_slope, jit_options=_JIT)
def _overload_tanh_slope(x):
    table = TABLES.get(x)
    if table is None:
        return None
    if not table.tanh_above:
        return tanh_slope
    one = table.dtype(1.0)

    def jitted(x):
        y = tanh(x)
        return one - y * y

    return jitted


@overload(erf, jit_options=_JIT)
def _overload_erf(x):
    table = TABLES.get(x)
    if table is None:
        return None
    one, half_reached = table.dtype(1.0), table.dtype(0.47693628)
    tail = POLYNOMIALS[x, "erf"]

    def jitted(x):
        # From 1/2 on the error of erfc counts less the nearer erf is to 1.
        a = abs(x)
        y = _select(a < half_reached, a + a * tail(a * a), one - erfc(a))
        return _signed(y, x)

    return jitted


@overload(gaussian, jit_options=_JIT)
def _overload_gaussian(x):
    table = TABLES.get(x)
    if table is None:
        return None
    end, zero = table.dtype(table.erfc_end), table.dtype(0.0)
    least = table.normal(128)  # more than it is at the end

    def jitted(x):
        # What the rounding of x**2 lost would cost x**2 ULP.
        a = abs(x)
        square, rest = _square(_select(a > end, end, a))
        p, _, shifted = _reduced(-square, -rest)
        scale = _power(shifted)
        y = _fused(scale, p, scale)
        return _select(y < least, zero, y)

    return jitted


@overload(erfc, jit_options=_JIT)
def _overload_erfc(x):
    table = TABLES.get(x)
    if table is None:
        return None
    zero, one, two = (table.dtype(c) for c in (0.0, 1.0, 2.0))
    near, erf_tail = table.dtype(0.65), POLYNOMIALS[x, "erf"]
    end, center = table.dtype(table.erfc_end), table.dtype(table.erfc_center)
    scaled, tail = table.dtype(table.erfc_center_value), POLYNOMIALS[x, "erfc_tail"]
    least = table.normal(4)

    def jitted(x):
        # erfc(a) = e**(-a**2) h(t) / (1 + a): what each rounding of h, 1 + a and e**r loses is
        # gathered in ``small`` and q, since the three together would cost more than 1 ULP.
        a = abs(x)
        a = _select(a > end, end, a)
        square, rest = _square(a)
        p, q, shifted = _reduced(-square, -rest)
        t = (a - center) / (a + center)
        offset = t * tail(t)
        y = scaled + offset
        d = one + a
        lost = a - (d - one)  # in the rounding of d
        small = (offset - (y - scaled)) - y * (lost * _rough_reciprocal(d))
        y = (y + (y * p + (y * q + (small + small * p)))) / d * _power(shifted)
        y = _select(y < least, zero, y)
        # Below this 1 - erf(a) is nearer, as erf(a) - a is small.
        y = _select(a < near, (one - a) - a * erf_tail(a * a), y)
        return _select(x < zero, two - y, y)

    return jitted

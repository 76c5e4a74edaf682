"""Elementary functions in float32 by a GPU's own instructions, behind the names that formulas use.

Code compiled for a GPU gets these in the place of `elementary`'s; formulas, other targets and
float64 know nothing of it. A GPU has 2ˣ (ex2.approx, at most 2 ULP) and 1/x (rcp.approx, at most
1 ULP) as single instructions. Both flush to zero: a result below 2⁻¹²⁶, the smallest normal number,
is 0, so that e^x and the logistic function are 0 for x < −87.4, and the slope of tanh, twice what
is flushed, for |a| > 44. NaN passes on; all results are finite, of infinities too.

2ˣ of the rounded product x log₂e would be off by up to |x| / 2 ULP: what the rounding changed in
e^x is k = x − y ln 2, for two more instructions. A function and its slope share 2ˣ and 1/x, since
the compiler computes equal expressions once.

`ULP` states the errors, as the activations do; instructions that round to nearest keep them.
`WORST` bounds them with every instruction at its documented worst for the same input. Those of a
GPU are found by `accuracy.elementary_errors`. Results below 2⁻¹²⁵ are left out of both.
"""

import math

import numpy as np
from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import overload, register_jitable

from ..compiler.lowering import lowers_to
from ..formulas import activations, elementary

f4 = np.float32

ULP = {"exp_neg": 3.0, "logistic": 5.0, "logistic_slope": 5.0, "tanh": 2.0, "tanh_slope": 5.0}
WORST = {"exp_neg": 4.6, "logistic": 6.4, "logistic_slope": 6.4, "tanh": 3.4, "tanh_slope": 7.6}

_ZERO, _HALF, _ONE, _FOUR = f4(0), f4(0.5), f4(1), f4(4)
_LOG2E, _TWICE_LOG2E = f4(1 / math.log(2)), f4(2 / math.log(2))
_LN2, _HALF_LN2 = f4(math.log(2)), f4(0.5 * math.log(2))
_LN2_REST, _HALF_LN2_REST = f4(math.log(2) - float(_LN2)), f4(0.5 * (math.log(2) - float(_LN2)))
# Where e^x and 1 / (1 + e^x) are 0 already, and 2ˣ is finite.
_FAR, _HALF_FAR, _FAR_BELOW = f4(88.5), f4(44.25), f4(-104)
_NEAR = f4(0.6)  # from here on 1 − 2 / (1 + e^(2|a|)) is as accurate as the polynomial
_P0, _P1, _P2, _P3 = f4(-0.33332598), f4(0.13313116), f4(-0.052211806), f4(0.015612635)


def _compiled(codegen):
    return lambda *kinds: (types.float32(*[types.float32] * len(kinds)), codegen)


def _assembly(text: str, constraints: str):
    """What PTX on float32 is that touches no memory, so that equal ones are one."""

    def codegen(context, builder, signature, args):
        kind = ir.FunctionType(ir.FloatType(), [ir.FloatType()] * len(args))
        return builder.call(ir.InlineAsm(kind, text, constraints), args, attrs=("readnone",))

    return _compiled(codegen)


def _called(name: str):
    """What a function of LLVM on float32 is."""

    def codegen(context, builder, signature, args):
        kind = ir.FunctionType(ir.FloatType(), [ir.FloatType()] * len(args))
        return builder.call(cgutils.get_or_insert_function(builder.module, kind, name), args)

    return _compiled(codegen)


@lowers_to(_assembly("ex2.approx.ftz.f32 $0, $1;", "=f,f"))
def ex2(x):
    """2ˣ within 2 ULP, subnormal results 0."""
    with np.errstate(all="ignore"):
        return _flushed(np.exp2(np.float64(x)))


@lowers_to(_assembly("rcp.approx.ftz.f32 $0, $1;", "=f,f"))
def rcp(x):
    """1/x within 1 ULP, subnormal results 0 and 1/x of subnormal numbers infinite."""
    with np.errstate(all="ignore"):
        return _flushed(1 / np.float64(_flushed(x)))


def _flushed(x):
    x = f4(x)
    return np.where(abs(x) < np.finfo(f4).tiny, f4(0), x)


@lowers_to(_called("llvm.fma.f32"))
def fma(x, y, z):
    """x y + z, rounded once."""
    with np.errstate(all="ignore"):
        return f4(np.float64(x) * np.float64(y) + np.float64(z))


@lowers_to(_assembly("min.NaN.f32 $0, $1, $2;", "=f,f,f"))
def smaller(x, y):
    """The smaller of two numbers, NaN where one is."""
    return np.minimum(x, y)


@lowers_to(_called("llvm.copysign.f32"))
def with_sign(x, sign):
    """|x| with the sign of the other."""
    return np.copysign(x, sign)


_ADD_NEAR_ZERO = (
    "{ .reg .pred p; .reg .f32 b; abs.f32 b, $1; "
    f"setp.lt.f32 p, b, 0f{int(_NEAR.view(np.uint32)):08X}; @p fma.rn.f32 $0, $1, $2, $1; }}"
)


@lowers_to(_assembly(_ADD_NEAR_ZERO, "=f,f,f,0"))
def add_near_zero(a, q, far):
    """a + a q where |a| < _NEAR, else `far`; the sum takes the place of a choice."""
    return np.where(abs(a) < _NEAR, fma(a, q, a), far)


@register_jitable(forceinline=True)
def _share(b):
    """2 / (1 + e^(2 b)), b ≥ 0."""
    return rcp(fma(ex2(b * _TWICE_LOG2E), _HALF, _HALF))


@register_jitable(forceinline=True)
def tanh(a):
    """tanh a = 1 − 2 / (1 + e^(2|a|)) with the sign of a, near 0 a polynomial.

    The sign of a zero is not kept.
    """
    far = _ONE - _share(smaller(abs(a), _HALF_FAR))
    t = a * a
    q = t * fma(t, fma(t, fma(t, _P3, _P2), _P1), _P0)  # tanh a / a − 1
    return add_near_zero(a, q, with_sign(far, a))


@register_jitable(forceinline=True)
def tanh_slope(a):
    """σ′(a) = r (2 − r), r = 2 / (1 + e^(2|a|))."""
    b = smaller(abs(a), _HALF_FAR)
    r = _share(b)
    y = b * _TWICE_LOG2E
    k = fma(y, -_HALF_LN2_REST, fma(y, -_HALF_LN2, b))  # e^(2|a|) = 2ʸ (1 + 2 k)
    # r (2 − r) (1 − 2 k), with 4 k for 2 k (2 − r): where k counts r is near 0
    return fma(r, fma(k, -_FOUR, _ONE - r), r)


@register_jitable(forceinline=True)
def exp_neg(x):
    """eˣ for x ≤ 0."""
    b = smaller(-x, -_FAR_BELOW)
    y = b * -_LOG2E
    e = ex2(y)
    return fma(e, fma(y, -_LN2_REST, fma(y, -_LN2, -b)), e)


@register_jitable(forceinline=True)
def _tail(x):
    """1 / (1 + e^|x|), its reciprocal corrected by a step of Newton's."""
    b = smaller(abs(x), _FAR)
    y = b * _LOG2E
    d = ex2(y) + _ONE
    r = rcp(d)
    r = fma(r, fma(-d, r, _ONE), r)
    return fma(-r, fma(y, -_LN2_REST, fma(y, -_LN2, b)), r)


@register_jitable(forceinline=True)
def logistic(x):
    """1 / (1 + e^|x|) for x < 0, else 1 less that."""
    r = _tail(x)
    return elementary.select(x < _ZERO, r, _ONE - r)


@register_jitable(forceinline=True)
def logistic_slope(x):
    """r (1 − r), r = 1 / (1 + e^|x|)."""
    r = _tail(x)
    return fma(-r, r, r)


def _itself(x):
    return x  # a GPU masks nothing that it stores


def _take(function, form):
    """Compile calls of the function with float32 as that form, where the target is a GPU."""

    @overload(function, target="cuda", strict=False, jit_options={"forceinline": True})
    def chosen(x):
        return form if x == types.float32 else None

    return chosen


_take(elementary.tanh, tanh)
_take(elementary.exp_neg, exp_neg)
_take(elementary.logistic, logistic)
_take(elementary.positive, _itself)
_take(elementary.tanh_slope, tanh_slope)
_take(activations.sigmoid_slope, logistic_slope)

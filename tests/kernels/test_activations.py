"""σ and σ′ over their whole range, in ULP of extended precision."""

import ctypes
import math
import os
import platform
import subprocess
import sys
from functools import cache

import mpmath
import numpy as np
import pytest
from numba import njit
from test_oracle import SIGMA

from twolayer.kernels.compiler.target import TARGET
from twolayer.kernels.cpu import blocks
from twolayer.kernels.formulas.activations import ACTIVATIONS
from twolayer.network import DTYPES

mp = mpmath.mp

# The flags of <fenv.h> that say that a number below the least normal one came in or came out.
SLOW_NUMBERS = {"x86_64": 0x12, "aarch64": 0x88}


def width(dtype):
    return TARGET.lanes(np.dtype(dtype).itemsize)


@njit
def over_a_block(code, Z, S):
    blocks.apply(code, Z[0], Z.ctypes.data, S.ctypes.data, len(Z))


QUOTIENT = "tanh", "float32"  # jitted; its slope, 1 - tanh**2, is measured against the larger term
ULP = {name: entry.ulp for name, entry in ACTIVATIONS.items()} | {"tanh": (2.5, 5)}  # of others


def normal_distribution(a):
    return mp.erfc(-a / mp.sqrt(2)) / 2


def logistic(a):
    e = mp.exp(-abs(a))
    return (1 if a >= 0 else e) / (1 + e)


def logistic_slope(a):
    e = mp.exp(-abs(a))
    return e / (1 + e) ** 2


# σ and σ′ as lists of the terms that are added; |terms| is what the accuracy is measured against.
# Written so that 60 digits suffice in the tails as well.
TERMS = {
    "identity": (lambda a: [a], lambda a: [1]),
    "sigmoid": (lambda a: [logistic(a)], lambda a: [logistic_slope(a)]),
    "tanh": (lambda a: [mp.tanh(a)], lambda a: [4 * logistic_slope(2 * a)]),
    "relu": (lambda a: [max(a, 0)], lambda a: [1 if a > 0 else 0]),
    "leaky_relu": (
        lambda a: [a if a > 0 else a / 100],
        lambda a: [1 if a > 0 else mp.mpf(1) / 100],
    ),
    "silu": (
        lambda a: [a * logistic(a)],
        lambda a: [logistic(a), a * logistic_slope(a)],
    ),
    "gelu": (
        lambda a: [a * normal_distribution(a)],
        lambda a: [normal_distribution(a), a * mp.exp(-a * a / 2) / mp.sqrt(2 * mp.pi)],
    ),
    "softplus": (lambda a: [max(a, 0) + mp.log1p(mp.exp(-abs(a)))], lambda a: [logistic(a)]),
    "elu": (
        lambda a: [a if a > 0 else mp.expm1(a)],
        lambda a: [1 if a > 0 else mp.exp(a)],
    ),
}


def points(dtype):
    """Every exponent, both signs, three mantissas; subnormals and the largest number with them."""
    info = np.finfo(dtype)
    step = 1 if dtype == "float32" else 4
    near = set(range(-60, 15))  # every exponent where anything happens
    exponents = sorted(set(range(int(info.minexp) - info.nmant, info.maxexp, step)) | near)
    mantissas = [1.0, 1.2345, 1.789] if dtype == "float32" else [1.0, 1.6789]
    positive = [math.ldexp(m, e) for e in exponents for m in mantissas]
    positive += [float(info.max), float(info.smallest_subnormal), float(info.tiny)]
    values = np.unique(np.array(positive, np.float64).astype(dtype))
    dense = np.linspace(0.01, 110, 300).astype(dtype)  # the tails, up to underflow
    values = np.concatenate([values[np.isfinite(values)], dense])
    return np.concatenate([-values[::-1], [0], values]).astype(dtype)


@cache
def jitted(formula, dtype):
    @njit(error_model="numpy", fastmath={"contract"})
    def apply(a, out):
        for i in range(len(a)):
            out[i] = formula(a[i])

    def run(a):
        out = np.empty_like(a)
        apply(a, out)
        return out

    return run


def python_floats(formula, dtype):
    return lambda a: np.array([formula(float(entry)) for entry in a], dtype)


def arrays(formula, dtype):
    def run(a):
        with np.errstate(all="ignore"):
            return formula(a)

    return run


_exact = {}


def exact(name, which, dtype):
    """The values and the sizes of the largest terms at `points`, once for each."""
    key = name, which, dtype
    if key not in _exact:
        with mp.workdps(60):
            terms = [TERMS[name][which](mp.mpf(float(a))) for a in points(dtype)]
            values = np.array([sum(t) for t in terms], object)
            _exact[key] = values, np.array([max(map(abs, t)) for t in terms], object)
    return _exact[key]


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("form", [jitted, python_floats, arrays], ids=lambda form: form.__name__)
@pytest.mark.parametrize("which", [0, 1], ids=["value", "slope"])
@pytest.mark.parametrize("name", ACTIVATIONS)
def test_accuracy_over_the_whole_range(name, which, form, dtype):
    if form is python_floats and dtype == "float32":
        pytest.skip("Python floats are float64")
    entry = ACTIVATIONS[name]
    formula = (entry.value, entry.slope)[which]
    quotient = form is jitted and (name, dtype) == QUOTIENT
    bound = (entry.ulp if quotient else ULP[name])[which]
    a = points(dtype)
    found = form(formula, dtype)(a)
    assert found.dtype == dtype
    values, sizes = exact(name, which, dtype)
    info = np.finfo(dtype)
    tiny = float(info.smallest_subnormal)
    for x, got, value, size in zip(a, found, values, sizes, strict=True):
        assert math.isfinite(got), x
        size = 1.0 if quotient and which else abs(float(size))
        ulp = max(math.ldexp(float(info.eps), math.frexp(size)[1] - 1), tiny) if size else tiny
        x = abs(float(x))
        allowed = bound * ulp
        if name in ("silu", "gelu") or size < float(info.tiny):
            allowed += tiny * (1 + min(x, 1e4))  # where an exponential underflowed
        if form is jitted and size < 1e3 * float(info.tiny):
            least = 128 if name == "gelu" else 4  # below it times the least normal number e^… is 0
            allowed += 1.001 * least * float(info.tiny) * (1 + min(x, 1e4))
        if name == "gelu" and x < 60:
            allowed += 1.5 * x * x * ulp
        if name == "gelu" and size < 64 * float(info.tiny):
            allowed += size  # the C library's and SciPy's erfc have no subnormal results
        error = abs(float(mp.mpf(float(got)) - value))
        assert error <= allowed, (x, got, float(value), error / ulp)


LIMITS = {  # at −inf and +inf
    "identity": ((-math.inf, math.inf), (1, 1)),
    "sigmoid": ((0, 1), (0, 0)),
    "tanh": ((-1, 1), (0, 0)),
    "relu": ((0, math.inf), (0, 1)),
    "leaky_relu": ((-math.inf, math.inf), (0.01, 1)),
    "silu": ((0, math.inf), (0, 1)),
    "gelu": ((0, math.inf), (0, 1)),
    "softplus": ((0, math.inf), (0, 1)),
    "elu": ((-1, math.inf), (0, 1)),
}


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("form", [jitted, python_floats, arrays], ids=lambda form: form.__name__)
@pytest.mark.parametrize("name", ACTIVATIONS)
def test_infinities_and_nan(name, form, dtype):
    entry = ACTIVATIONS[name]
    a = np.array([-np.inf, np.inf, np.nan], dtype)
    for formula, limits in zip((entry.value, entry.slope), LIMITS[name], strict=True):
        found = form(formula, dtype)(a)
        assert found[:2].tolist() == np.array(limits, dtype).tolist()
        assert np.isnan(found[2])


def test_every_registered_activation_is_covered():
    assert set(TERMS) == set(LIMITS) == set(SIGMA) == set(ACTIVATIONS)


@pytest.mark.compiled
@pytest.mark.skipif(platform.machine() not in SLOW_NUMBERS, reason="flags are not known here")
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", ACTIVATIONS)
def test_saturated_units_meet_no_number_below_the_least_normal_one(name, dtype):
    """Processors take many times as long for them."""
    far = np.geomspace(1e-3, 2e4, 20_000 // width(dtype) * width(dtype)).astype(dtype)
    Z, S = np.concatenate([-far, far]), np.empty(2 * len(far), dtype)
    code = blocks.features(ACTIVATIONS[name], Z.dtype)
    over_a_block(code, Z, S)  # compiled
    Z[:] = np.concatenate([-far, far])
    flags = ctypes.CDLL(None)
    flags.feclearexcept(SLOW_NUMBERS[platform.machine()])
    over_a_block(code, Z, S)
    assert flags.fetestexcept(SLOW_NUMBERS[platform.machine()]) == 0


@pytest.mark.compiled
@pytest.mark.skipif(platform.machine() != "x86_64", reason="compiles for x86-64")
def test_the_same_holds_where_a_multiply_add_is_two_instructions():
    """Softplus is left out: its e² underflows there."""
    environment = os.environ | {
        "NUMBA_CPU_NAME": "nehalem", "NUMBA_CPU_FEATURES": "+sse4.1,+sse4.2",
        "TWOLAYER_VECTOR_BYTES": "16",
    }  # fmt: skip
    names = ["-k", "meet_no_number and not softplus"]
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *names, __file__]
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert not done.returncode, done.stdout
    assert " passed" in done.stdout

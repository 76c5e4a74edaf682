"""Elementary functions: errors in units of the last place, special values, machine code."""

import math
import platform
import re
from functools import cache

import llvmlite.binding
import mpmath
import numba
import numpy as np
import pytest
from mpmath import mp, mpf

from twolayer.kernels.formulas import elementary
from twolayer.kernels.formulas.elementary import ULP, exp, expm1, like, select

NAMES = sorted(ULP)
DTYPES = ["float32", "float64"]
STRICT = frozenset({"contract"})
REASSOCIATED = frozenset({"reassoc", "contract", "nsz", "arcp"})

EXACT = {
    "exp": mp.exp,
    "expm1": mp.expm1,
    "log1p": lambda x: mp.log1p(x) if x > -1 else (-mp.inf if x == -1 else mp.nan),
    "tanh": mp.tanh,
    "erf": mp.erf,
    "erfc": mp.erfc,
    "logistic": lambda x: 1 / (1 + mp.exp(-x)),
}

# Functions of x <= 0 or of any x that serve the activations only
PIECES = {
    "exp_neg": mp.exp,
    "expm1_neg": mp.expm1,
    "log1p_exp": lambda x: mp.log1p(mp.exp(x)),
    "gaussian": lambda x: mp.exp(-x * x),
}

each_name = pytest.mark.parametrize("name", NAMES)
each_dtype = pytest.mark.parametrize("dtype", DTYPES)


@cache
def jitted(name, fastmath=STRICT):
    """Return a compiled loop out[i] = f(x[i])."""
    f = getattr(elementary, name)

    @numba.njit(error_model="numpy", fastmath=set(fastmath))
    def run(x, out):
        for i in range(x.size):
            out[i] = f(x[i])

    return run


def apply(name, x, fastmath=STRICT):
    """Return the values of the compiled loop."""
    out = np.empty_like(x)
    jitted(name, fastmath)(x, out)
    return out


@cache
def points(dtype):
    """Exponents with both signs and several mantissas, dense ranges, edges, specials."""
    info = np.finfo(dtype)
    rng = np.random.default_rng(0)
    exponents = np.arange(info.minexp - info.nmant, info.maxexp)
    exponents = exponents[(exponents % 16 == 0) | (abs(exponents + 28) < 40)]  # 2^-67 to 2^11
    mantissas = np.concatenate([[1, 1 + info.eps, 1.5, 2 - info.eps], rng.uniform(1, 2, 2)])
    every = np.ldexp(mantissas.astype(dtype)[:, None], exponents.astype(np.int32)).ravel()
    dense = np.concatenate([rng.uniform(-r, r, 500) for r in (1, 4, 30)])
    far = rng.uniform(*(-104, 89) if dtype == "float32" else (-746, 710), 500)
    lowest, tiny = float(info.smallest_subnormal), float(info.tiny)
    edges = [math.log(float(info.max)), math.log(lowest), math.log(lowest) - math.log(2)]
    edges += [math.log(tiny), 0.5 * math.log(3), 1.0, -1.0, 2**-0.5 - 1, 2**0.5 - 1]
    edges += [math.log(2) * (k + 0.5) for k in range(-4, 5)]
    steps = np.arange(-20, 21) * info.eps
    around = (np.array(edges)[:, None] * (1 + steps)).ravel()
    roots = np.sqrt(-np.array(edges[1:4]))[:, None] * (1 + np.linspace(-0.02, 0.02, 200))
    specials = [0.0, math.inf, math.nan, float(info.max), tiny, lowest]
    x = np.concatenate([a.astype(dtype) for a in (every, dense, far, around, roots.ravel())])
    return np.concatenate([x, -x, specials, np.negative(specials)]).astype(dtype)


@cache
def exact(name, dtype):
    """Return the exact values at the points, saturated where no number format reaches."""
    with mp.workprec(140):
        reach = math.inf if name == "log1p" else 1000.0
        return [EXACT[name](mpf(min(max(float(x), -reach), reach))) for x in points(dtype)]


def ulps(values, exact_values, dtype):
    """Return the errors in units of the last place; infinite where NaN or a sign is wrong."""
    info = np.finfo(dtype)
    top = mpf(2) ** int(info.maxexp)
    errors = np.empty(len(values))
    with mp.workprec(140):
        for i, (value, true) in enumerate(zip(values.tolist(), exact_values, strict=True)):
            if mp.isnan(true) or math.isnan(value):
                errors[i] = 0.0 if mp.isnan(true) and math.isnan(value) else math.inf
                continue
            got, wanted = (max(min(mpf(v), top), -top) for v in (value, true))
            exponent = mpmath.frexp(wanted)[1] if wanted else -10000
            exponent = min(max(int(exponent), int(info.minexp) + 1), int(info.maxexp))
            unit = mpf(2) ** (exponent - 1 - int(info.nmant))
            errors[i] = float(abs(got - wanted) / unit)
            if wanted == -top and value != -math.inf:
                errors[i] = math.inf
    return errors


FLUSHED = ("logistic", "erfc")


def flushed(values, exact_values, dtype, times=4):
    """Where 0 stands for less than so many times the least normal number."""
    least = times * float(np.finfo(dtype).tiny) * 1.001
    return (values == 0) & [abs(true) < least for true in exact_values]


def check(name, dtype, values, bound, within=math.inf, flushes=False):
    """Assert that the values at the points are within the bound, up to x = within."""
    errors = ulps(values, exact(name, dtype), dtype)
    if flushes:
        errors[flushed(values, exact(name, dtype), dtype)] = 0.0
    errors[points(dtype) > within] = 0.0
    worst = int(np.argmax(errors))
    x = points(dtype)[worst]
    assert errors[worst] <= bound, f"{name}({x!r}) = {values[worst]!r}: {errors[worst]} ULP"


@pytest.mark.compiled
@each_name
@each_dtype
def test_jitted_error(name, dtype):
    strict, other = (apply(name, points(dtype), flags) for flags in (STRICT, REASSOCIATED))
    check(name, dtype, strict, ULP[name][dtype], flushes=name in FLUSHED)
    if not np.array_equal(strict, other, equal_nan=True):  # nearly all have the same bits
        check(name, dtype, other, ULP[name][dtype], flushes=name in FLUSHED)


@pytest.mark.compiled
@pytest.mark.parametrize("name", PIECES)
@each_dtype
def test_piece_error(name, dtype):
    x = points(dtype)
    x = x[(x <= 0) | np.isnan(x)]
    with mp.workprec(140):
        true = [PIECES[name](mpf(max(float(v), -1000.0))) for v in x]
    values = apply(name, x)
    errors = ulps(values, true, dtype)
    if name != "expm1_neg":
        errors[flushed(values, true, dtype, 128 if name == "gaussian" else 4)] = 0.0
    assert errors.max() <= 2.0, (x[errors.argmax()], errors.max())


@each_name
@each_dtype
def test_array_error(name, dtype):
    # NumPy documents 4 ULP. SciPy's erfc rounds x * x, which costs x * x ULP, and gives up early.
    with np.errstate(all="ignore"):
        values = getattr(elementary, name)(points(dtype))
    assert values.dtype == dtype
    if name == "erfc":
        check(name, dtype, values, 800, within=26.6)
    else:
        check(name, dtype, values, 4)


@each_name
def test_float_error(name):
    f = getattr(elementary, name)
    values = [f(x) for x in points("float64").tolist()]
    assert all(type(v) is float for v in values)
    check(name, "float64", np.array(values), 4)  # of the C library


@each_name
@each_dtype
@pytest.mark.parametrize("form", ["float", "array", "jitted"])
def test_signed_zero(name, dtype, form):
    x = np.array([0.0, -0.0], dtype)
    f = getattr(elementary, name)
    if form == "float":
        y = np.array([f(v) for v in x.tolist()])
    else:
        y = f(x) if form == "array" else apply(name, x)
    if name in ("exp", "erfc"):
        np.testing.assert_array_equal(y, 1.0)
    elif name == "logistic":
        np.testing.assert_array_equal(y, 0.5)
    else:
        np.testing.assert_array_equal(y, 0.0)
        np.testing.assert_array_equal(np.signbit(y), [False, True])


@pytest.mark.compiled
def test_tanh_stays_within_one():
    x = np.arange(*np.array([4, 16], "float32").view("int32")).astype("int32").view("float32")
    y = apply("tanh", x)
    assert y.min() > 0.999
    assert y.max() == 1
    np.testing.assert_array_equal(apply("tanh", -x), -y)
    assert apply("tanh_slope", x).min() == 0


@pytest.mark.compiled
def test_like_and_select_keep_the_type():
    @numba.njit
    def chosen(x):
        return select(x < like(x, 0.0), like(x, 2.5), x)

    assert numba.typeof(chosen(np.float32(-1))) == numba.float64  # unboxed as a Python float
    assert chosen.nopython_signatures[0].return_type == numba.float32
    assert type(like(1.0, 2)) is float
    assert like(np.float32(1), 0.5) == 0.5
    assert select(True, 1.0, 2.0) == 1.0
    assert select(np.float64(0.0) > 1.0, 1.0, 2.0) == 2.0
    y = select(np.array([True, False]), np.float32([1, 2]), like(np.float32([1, 2]), 3.0))
    np.testing.assert_array_equal(y, np.float32([1, 3]))
    assert y.dtype == np.float32


def llvm(run, dtype):
    """Return the optimized LLVM code of the compiled loop."""
    array = numba.types.Array(numba.from_dtype(np.dtype(dtype)), 1, "C")
    run.compile((array, array))
    return run.inspect_llvm((array, array))


@pytest.mark.compiled
@each_name
@each_dtype
def test_loop_is_vectorized(name, dtype):
    if platform.machine().lower() not in ("x86_64", "amd64"):
        pytest.skip(f"reads x86 instructions; this host is {platform.machine()}")
    llvm(jitted(name), dtype)
    array = numba.types.Array(numba.from_dtype(np.dtype(dtype)), 1, "C")
    assembly = jitted(name).inspect_asm((array, array))
    features = llvmlite.binding.get_host_cpu_features()
    register = "[yz]mm" if features.get("avx") else "xmm"
    suffix = {"float32": "ps", "float64": "pd"}[dtype]
    packed = rf"\bv?(?:mul|add|fn?m(?:add|sub)\d*){suffix}\b.*%{register}"
    assert len(re.findall(packed, assembly)) >= 10
    # What divides, divides whole vectors; the rest of an array is divided number by number.
    divisions = re.findall(rf"\bv?div{suffix}\b.*%{register}", assembly)
    assert len(divisions) >= (name not in ("exp", "expm1"))


@pytest.mark.compiled
@each_name
@each_dtype
def test_nothing_is_called(name, dtype):
    called = re.findall(r"\bcall\b[^@\n]*@([\w.$\"]+)", llvm(jitted(name), dtype))
    assert called  # the wrapper's calls at least
    mathematics = r"7kernels10elementary|^(llvm\.|numba_|np_)?(exp|log|tanh|erf|pow|ldexp)"
    assert not [symbol for symbol in called if re.search(mathematics, symbol)]


@pytest.mark.compiled
@each_name
def test_float32_stays_float32(name):
    assert not re.search(r"\bdouble\b|\.f64\b", llvm(jitted(name), "float32"))


@pytest.mark.compiled
@each_dtype
def test_exp_and_expm1_share_their_work(dtype):
    def loop(f):
        @numba.njit(error_model="numpy", fastmath={"contract"})
        def run(x, out):
            for i in range(x.size):
                out[i] = f(x[i])

        return len(re.findall(r"\bfmul\b", llvm(run, dtype)))

    both = numba.extending.register_jitable(lambda x: exp(x) * expm1(x))
    assert loop(both) < 0.75 * (loop(exp) + loop(expm1))


@numba.extending.register_jitable
def _logistic(x):
    return 1.0 / (1.0 + math.exp(-x))


@cache
def exhaustive(name):
    """Return a compiled loop over all float32 values that finds the largest error."""
    f, reference = getattr(elementary, name), getattr(math, name, _logistic)
    size, top = 2**20, 2.0**128
    least = 4.004 * float(np.finfo("float32").tiny) if name in FLUSHED else 0.0

    @numba.njit(parallel=True, error_model="numpy", fastmath={"contract"})
    def run():
        worst, where = np.zeros(2**12), np.zeros(2**12, np.uint32)
        for chunk in numba.prange(2**12):
            bits = np.arange(chunk * size, (chunk + 1) * size).astype(np.uint32)
            x = bits.view(np.float32)
            y = np.empty_like(x)
            for i in range(size):
                y[i] = f(x[i])
            for i in range(size):
                true, value = reference(np.float64(x[i])), np.float64(y[i])
                error = 0.0
                if value == 0.0 and abs(true) < least:
                    continue
                if math.isnan(true) or math.isnan(value):
                    error = 0.0 if math.isnan(true) and math.isnan(value) else math.inf
                elif math.copysign(1.0, true) != math.copysign(1.0, value):
                    error = math.inf
                else:
                    true, value = min(max(true, -top), top), min(max(value, -top), top)
                    exponent = math.frexp(min(abs(true), 0.75 * top))[1]
                    error = abs(value - true) / math.ldexp(1.0, max(exponent - 24, -149))
                if error > worst[chunk]:
                    worst[chunk], where[chunk] = error, bits[i]
        chunk = np.argmax(worst)
        return worst[chunk], where[chunk]

    return run


@pytest.mark.compiled
@pytest.mark.slow
@each_name
def test_every_float32(name):
    error, bits = exhaustive(name)()
    x = np.array([bits], np.uint32).view(np.float32)[0]
    print(f"{name}: {error} ULP at {x!r}")
    assert error <= ULP[name]["float32"]

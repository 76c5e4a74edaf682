"""Packed matrices, their exponents, and the head alone, in the simulator with our own checker."""

import itertools

import numpy as np
import pytest
from cuda_planes import unpacked

from twolayer.kernels.cuda import head
from twolayer.kernels.cuda.memory import halves, packing
from twolayer.kernels.formulas.activations import ACTIVATIONS
from twolayer.network import DTYPES

pytestmark = pytest.mark.filterwarnings("ignore::RuntimeWarning")  # a GPU knows none
f4 = np.float32


def packed(A, exponents=None):
    """A packed by the kernel, as two parts, with 2⁻ʳ and the columns' exponents."""
    rows, columns = A.shape
    device = np.zeros((rows, -(-columns // 4) * 4), f4)
    device[:, :columns] = A
    if exponents is None:
        maxima = np.zeros(device.shape[1], np.uint32)
        grid = (-(-device.shape[1] // packing.THREADS), 3)
        packing.column_maxima()[grid, packing.THREADS](device, maxima)
        exponents = np.zeros(packing.padded_columns(columns), np.int32)
        exponents[: device.shape[1]] = packing.column_exponents(maxima)
    words = np.full(packing.words(rows, columns), 0xFFFFFFFF, np.uint32)
    undo, maximum = np.full(packing.padded_rows(rows), np.nan, f4), np.ones(1, np.uint32)
    grid = packing.pack_grid(rows)
    packing.pack()[grid, packing.THREADS](device, exponents, words, undo, rows, maximum)
    assert maximum[0] == 0
    return *unpacked(words, rows, columns), undo, exponents


def exact(A, undo, exponents):
    """A 2ˢ 2ʳ in float64."""
    rows, columns = A.shape
    with np.errstate(all="ignore"):
        return A * 2.0 ** exponents[:columns] / undo[:rows, None].astype(float)


def check_packed(A, first, second, undo, exponents):
    rows, columns = A.shape
    P = exact(A.astype(float), undo, exponents)
    found = first.astype(float) + second
    assert (abs(found[:rows, :columns] - P) <= np.maximum(2.0**-22 * abs(P), 2.0**-25)).all()
    assert abs(P).max(initial=0) < 2**15
    padding = found.copy()
    padding[:rows, :columns] = 0
    assert not padding.any()
    assert (undo > 0).all()
    assert np.isin(np.frexp(undo)[0], [0.5]).all()
    return P


def test_float16_pairs_hold_22_bits():
    random = np.random.default_rng(0)
    x = random.uniform(-1, 1, 400) * 2.0 ** random.uniform(-30, 15, 400)
    x = np.append(x, [0, 2.0**-25, 2.0**-24, 1.5 * 2**-25, 32767.99]).astype(f4)
    for a, b in zip(x, x[::-1], strict=True):
        first, second = halves.split(a, b)
        for value, part in ((a, halves.lower), (b, halves.upper)):
            error = abs(float(part(first)) + float(part(second)) - float(value))
            assert error <= max(2.0**-22 * abs(float(value)), 2.0**-25)
    high, rest = halves.split(f4(np.inf), f4(np.nan))
    assert halves.lower(high) == np.inf
    assert np.isnan([halves.lower(rest), halves.upper(high), halves.upper(rest)]).all()


def test_exponents_and_powers():
    for x in (1, 1.999, 2, 0.7, 2.0**-126, 2.0**-127, 2.0**-149, 3e38, 5e-40):
        x = f4(x)
        assert halves.exponent(x) == halves.exponent(-x) == np.floor(np.log2(float(x)))
    assert halves.exponent(f4(0)) == halves.NOTHING
    assert halves.exponent(f4(np.nan)) == halves.exponent(f4(np.inf)) == 128
    for e in (-126, -1, 0, 126):
        assert halves.power(np.int32(e)) == 2.0**e
    assert halves.scaled(f4(2.0**-149), np.int32(163)) == 2**14
    assert halves.scaled(f4(2.0**127), np.int32(-113)) == 2**14
    assert halves.scaled(f4(1), np.int32(-1000)) == 0 == halves.scaled(f4(0), np.int32(1000))


@pytest.mark.parametrize("shape", [(3, 5), (130, 65), (2, 300)])
def test_packed_matrices_hold_what_they_should(shape):
    random = np.random.default_rng(1)
    A = random.standard_normal(shape).astype(f4)
    A *= 2.0 ** random.integers(-60, 61, shape[1]).astype(f4)
    P = check_packed(A, *packed(A))
    assert (abs(P).max(1) >= 2**14).all()


def test_scales_of_unusual_data():
    random = np.random.default_rng(2)
    A = random.standard_normal((9, 12)).astype(f4)
    A[3] *= f4(2.0**60)  # one huge sample
    A[:, 7] = 0
    A[:, 8] = random.standard_normal(9).astype(f4) * f4(2.0**-140)  # subnormal numbers
    A[6] *= f4(2.0**-130)
    A[:, 9] = 3e38
    A[5] = 0
    first, second, undo, exponents = packed(A)
    P = check_packed(A, first, second, undo, exponents)
    assert not P[5].any()
    assert exponents[7] == 0
    assert undo[3] == 1
    rows = abs(P).max(1)
    assert (rows[[0, 1, 2, 3, 4, 7, 8]] >= 2**14).all()


def test_rows_are_as_large_as_their_exponents_let_them():
    A = np.ones((4, 4), f4)
    A[1] = 2.0**-100
    A[2] = 2.0**-40
    A[3] = 0
    P = check_packed(A, *packed(A))
    np.testing.assert_array_equal(P, np.repeat([[2**14], [2**10], [2**14], [0]], 4, axis=1))


def test_new_rows_may_be_larger_than_the_columns_were():
    _, _, _, exponents = packed(np.ones((4, 4), f4))
    A = np.array([[1, 2.0**70, 3, 4], [0, 0, 0, 2.0**-70]], f4)
    first, second, undo, _ = packed(A, exponents)
    P = check_packed(A, first, second, undo, exponents)
    assert (abs(P).max(1) == 2**14).all()


def test_nan_stays_in_its_row():
    A = np.ones((4, 4), f4)
    A[1, 2], A[2, 3] = np.nan, np.inf
    first, second, *_ = packed(A, np.zeros(64, np.int32))
    bad = np.isnan(first + second)[:4, :4]
    assert bad[1, 2]
    assert bad[2, 3]
    assert not bad[[0, 3]].any()


@pytest.mark.parametrize("largest", [0, 1e-45, 1e-30, 1, 3e38])
@pytest.mark.parametrize("total", [0, 1e-44, 0.3, 17, 3e38])
def test_exponents_of_units(largest, total):
    g, undo = head.unit_exponent(f4(largest), f4(total))
    bound = float(f4(largest)) * float(f4(total)) * 1.13
    assert undo == 2.0**-g
    assert bound * 2.0**g < 2**15 or g == -126
    assert total * 2.0**g < 2.0**128
    most = min(126, 126 - halves.exponent(f4(total)))
    assert bound * 2.0**g >= 2**14 * (1 - 1e-6) or g == most or not bound


def test_bounds_that_are_no_number_show():
    for pair in ((np.inf, 1), (np.nan, 0), (0, np.nan), (1, np.inf)):
        assert np.isnan(head.unit_exponent(*map(f4, pair))[1])


def test_no_slope_is_steeper_than_the_bound_takes_it_for():
    a = np.linspace(-20, 20, 40_001)
    for activation in ACTIVATIONS.values():
        assert abs(activation.slope(a)).max() < 0.9995 * head.STEEPEST


PLAIN = [("tanh", "float32", 3, 69), ("tanh", "float64", 1, 69)]  # the second block ends early
PLAIN += [(name, dtype, 2, 5) for name, dtype in zip(ACTIVATIONS, itertools.cycle(DTYPES))]


@pytest.mark.parametrize(("name", "dtype", "outputs", "M"), PLAIN)
def test_plain_head(name, dtype, outputs, M):
    """G as it is, for plans that pack nothing; more than 64 units in two parts of the samples."""
    random = np.random.default_rng(4)
    activation, blocks = ACTIVATIONS[name], -(-M // 64)
    n, ld = 128 * blocks - 56, -(-M // 4) * 4
    sizes = (n, ld), (n, outputs), (outputs, ld)
    A, Delta, W = (random.standard_normal(size).astype(dtype) for size in sizes)
    gWs, G = np.full((blocks, outputs * ld), np.nan, dtype), np.full((n, ld), np.nan, dtype)
    kernel = head.head(activation, outputs, dtype)
    kernel[(blocks, blocks), head.THREADS](A, Delta, W, gWs, G, M, 128)
    tolerance = 1e-5 if dtype == "float32" else 1e-12
    value, slope = (
        np.vectorize(of, otypes=[float])(A.astype(float))
        for of in (activation.value, activation.slope)
    )
    expected = Delta.T @ value
    found = gWs.sum(0).reshape(outputs, ld)
    np.testing.assert_allclose(found[:, :M], expected[:, :M], rtol=tolerance, atol=tolerance)
    expected = Delta @ W * slope
    np.testing.assert_allclose(G[:, :M], expected[:, :M], rtol=tolerance, atol=tolerance)

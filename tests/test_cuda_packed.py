"""Packed matrices, the head and their plan, in numba-cuda's simulator with our own checker.

Run by make test-cuda: the simulator takes numba.cuda's place for a whole process.
"""

import gc
import itertools
import os
import weakref

import numpy as np
import pytest

if os.environ.get("NUMBA_ENABLE_CUDASIM") != "1":
    pytest.skip(
        "the simulator needs NUMBA_ENABLE_CUDASIM=1: make test-cuda", allow_module_level=True
    )
pytest.importorskip("numba_cuda")
pytest.importorskip("greenlet")

from numba import cuda
from numba.cuda.simulator.cudadrv import devices
from numba.cuda.simulator.kernel import FakeCUDAKernel

import twolayer as tl
from twolayer.checking import cases
from twolayer.checking.cuda.blocks import check_blocks
from twolayer.checking.verify import agreement
from twolayer.engines import planes, tuning
from twolayer.kernels.cuda import head
from twolayer.kernels.cuda.memory import halves, packing
from twolayer.kernels.formulas.activations import ACTIVATIONS
from twolayer.kernels.formulas.losses import LOSSES
from twolayer.kernels.formulas.updates import UPDATES
from twolayer.network import DTYPES

pytestmark = pytest.mark.filterwarnings("ignore::RuntimeWarning")  # a GPU knows none
f4 = np.float32
TENSOR = tl.variants.get("cuda-tensor")


@pytest.fixture(autouse=True)
def checked_blocks():
    with check_blocks():
        yield


def unpacked(words, rows, columns):
    """Both parts of a packed matrix with its padding, by the layout's own formula."""
    R, C = packing.padded_rows(rows), packing.padded_columns(columns)
    i, j = np.meshgrid(np.arange(R), np.arange(C), indexing="ij")
    r, c = i % 128, j % 64
    block = (i // 128 * (C // 64) + j // 64) * 16384
    at = block + r * 64 + (c // 8 ^ (r & 7)) * 8 + c % 8
    half_words = np.asarray(words)[: R * C].view(np.float16).astype(f4)
    return half_words[at], half_words[at + 8192]


def hidden(activation):
    """One block makes everything, in NumPy."""

    def kernel(Xp, Vp, xr, vr, W, A, Us, n, M, inputs):
        if cuda.blockIdx.x or cuda.threadIdx.x:
            return
        (X1, X2), (V1, V2) = unpacked(Xp, n, inputs), unpacked(Vp, M, inputs)
        sums = (X2 @ V1.T + X1 @ V2.T + X1 @ V1.T)[:n, :M] * xr[:n, None] * vr[:M]
        A[:, :M] = sums
        Z = np.array([activation.value(float(a)) for a in sums.flat], f4).reshape(sums.shape)
        for tile in range(Us.shape[0]):
            units = slice(128 * tile, min(128 * tile + 128, M))
            Us[tile] = Z[:, units] @ W[:, units].T

    return cuda.jit(kernel)


@cuda.jit
def sums(Gp, Xp, gr, xc, gVs, M, d, ld, share, rows):
    if cuda.blockIdx.x or cuda.threadIdx.x:
        return
    (G1, G2), (X1, X2) = unpacked(Gp, rows, M), unpacked(Xp, rows, d)
    part = slice(cuda.blockIdx.y * share, (cuda.blockIdx.y + 1) * share)
    G1, G2, X1, X2 = (array[part] for array in (G1, G2, X1, X2))
    found = gVs[cuda.blockIdx.y].reshape(M, ld)
    found[:, :d] = (G2.T @ X1 + G1.T @ X2 + G1.T @ X1)[:M, :d] * gr[:M, None] * xc[:d]


def in_numpy(sigma, shape):
    """The large products, for tests of all the rest."""
    return planes.Products(hidden(sigma), sums, (1, 1), (0, 0), 2, False, 128)


@pytest.fixture
def small(monkeypatch):
    """The plan for small problems too, its products by NumPy, and its memory full of NaN."""
    monkeypatch.setattr(planes, "_LEAST", tl.Shape(1, 1, 1, 1))
    engines = {"numpy": in_numpy, **planes.ENGINES}
    monkeypatch.setattr(planes, "ENGINES", engines)
    monkeypatch.setattr(planes.PlanesEngine, "candidates", lambda *_: [{"engine": "numpy"}])
    monkeypatch.setattr("twolayer.checking.verify.STEPS", 1)
    make = cuda.device_array

    def poisoned(*arguments, **options):
        array = make(*arguments, **options)
        array.view(np.uint8)[...] = 0xFF
        return array

    monkeypatch.setattr(cuda, "device_array", poisoned)


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


# σ is only in the head, below with each: here two that are not 0 at 0, and two that are.
QUICK = list(zip(("sigmoid", "tanh", "softplus", "gelu"), LOSSES, strict=True))


@pytest.mark.parametrize(
    "pair",
    [
        pytest.param(pair, id="-".join(pair), marks=() if pair in QUICK else pytest.mark.slow)
        for pair in itertools.product(ACTIVATIONS, LOSSES)
    ],
)
def test_agrees(pair, small):
    result = agreement(TENSOR, cases.problem(tl.Network(*pair), tl.Shape(37, 9, 21, 3), "float32"))
    assert result.agrees, result


@pytest.mark.parametrize(
    "shape", [(1, 1, 1, 1), (140, 66, 5, 1), (20, 66, 130, 2), (3, 2, 5, head.OUTPUTS)]
)
def test_ragged_shapes_agree(shape, small, monkeypatch):
    """Two blocks along each axis of X and V, and all outputs that the head takes."""
    monkeypatch.setattr("twolayer.checking.verify.STEPS", 0)
    net = tl.Network("sigmoid", "softmax" if shape[3] > 1 else "logistic")
    result = agreement(TENSOR, cases.problem(net, tl.Shape(*shape), "float32"))
    assert result.agrees, result


def test_hard_inputs_agree(small, monkeypatch):
    """Those whose sizes differ most: what packing may get wrong."""
    monkeypatch.setattr("twolayer.checking.verify.STEPS", 0)
    hard = ("logits of 1e4 in both signs", "saturated units", "dead units")  # zeros are below
    found = [c for c in cases.adversarial(tl.Network("tanh", "softmax"), "float32")
             if c.name in hard]  # fmt: skip
    assert len(found) == len(hard)
    for case in found:
        result = agreement(TENSOR, case)
        assert result.agrees, result


@pytest.mark.parametrize("kind", ["columns", "a sample", "zeros", "subnormal"])
def test_data_of_many_sizes_agree(kind, small, monkeypatch):
    monkeypatch.setattr("twolayer.checking.verify.STEPS", 0)
    net = tl.Network("sigmoid", "squared")
    case = cases.problem(net, tl.Shape(37, 13, 9, 3), "float32")
    X, V = case.X.copy(), case.theta.V.copy()
    if kind == "columns":
        sizes = 2.0 ** np.linspace(-60, 60, 13).round()
        X, V = (X * sizes).astype(f4), (V / sizes).astype(f4)
    elif kind == "a sample":
        X[5] *= f4(2.0**30)
    elif kind == "zeros":
        X[5], X[:, 3] = 0, 0
    else:
        X[:, 2] *= f4(2.0**-135)
    result = agreement(TENSOR, case._replace(X=X, theta=case.theta._replace(V=V)))
    assert result.agrees, result


def test_gradients_keep_their_digits(small):
    """Against float64, each product within what the planes hold."""
    net = tl.Network("tanh", "softmax")
    case = cases.problem(net, tl.Shape(130, 70, 66, 3), "float32")
    loss, gradient = TENSOR.plan(*case[1:]).gradient()
    wide = [a.astype(float) for a in (case.X, case.Y, *case.theta)]
    plan = tl.variants.get("numpy").plan(net, *wide[:2], tl.Parameters(*wide[2:]))
    expected_loss, expected = plan.gradient()
    assert loss == pytest.approx(expected_loss, rel=1e-6)
    for found, value in zip(gradient, expected, strict=True):
        assert abs(found - value).max() <= 1e-6 * abs(value).max()


def test_nan_reaches_the_user(small):
    net = tl.Network("tanh", "squared")
    case = cases.problem(net, tl.Shape(37, 13, 9, 3), "float32")
    plan = TENSOR.plan(*case[1:])
    W = case.theta.W * f4(1e38)
    plan.theta = case.theta._replace(W=W)  # Δ is infinite
    loss, gradient = plan.gradient()
    assert not np.isfinite(loss)
    assert np.isnan(gradient.V).all()
    plan.theta = case.theta
    assert np.isfinite(plan.gradient()[1].V).all()


def test_updates_over_rows(small):
    """All of them, and fewer and more than were packed before."""
    case = cases.problem(tl.Network("tanh", "softmax"), tl.Shape(150, 6, 5, 2), "float32")
    plans = [variant.plan(*case[1:]) for variant in (TENSOR, tl.variants.get("numpy"))]
    update = next(update for update in UPDATES.values() if update.slots == 1)
    scalars = (0.5,) * (update.formula.__code__.co_argcount - 2 - update.slots)
    for plan in plans:
        plan.slots = [plan.theta]
        for rows in (None, slice(2, 7), slice(10, 148), slice(140, 150)):
            plan.update(update, scalars, rows)
    for found, expected in zip(plans[0].theta, plans[1].theta, strict=True):
        np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("engine", planes.ENGINES)
def test_a_plan_with_each_engine_agrees(engine, small):
    case = cases.problem(tl.Network("tanh", "softmax"), tl.Shape(37, 9, 21, 3), "float32")
    with tuning.forced({"engine": engine}):
        result = agreement(TENSOR, case)
    assert result.agrees, result


def test_what_comes_again_is_bound_once(small, monkeypatch):
    case = cases.problem(tl.Network("relu", "squared"), tl.Shape(9, 3, 5, 2), "float32")
    plan = TENSOR.plan(*case[1:])
    assert isinstance(plan.engine, planes.PlanesEngine)
    found = plan.step(0.1), plan.loss(slice(0, 4)), plan.gradient(slice(0, 4))[0], plan.loss()
    assert found[1] == found[2]
    monkeypatch.setattr(FakeCUDAKernel, "__getitem__", None)
    assert found[0] > found[3] == plan.step(0.1) > plan.loss()
    assert plan.loss(slice(0, 4)) == plan.gradient(slice(0, 4))[0] < found[1]
    gone = weakref.ref(plan.engine)
    gc.disable()
    try:
        del plan
        assert gone() is None  # its memory on the device is free before anybody collects garbage
    finally:
        gc.enable()


def test_what_was_held_first_stays_packed(small):
    net = tl.Network("tanh", "squared")
    case, other = (cases.problem(net, tl.Shape(n, 3, 5, 2), "float32") for n in (9, 7))
    plan = TENSOR.plan(*case[1:])
    loss = plan.loss()
    assert isinstance(plan.engine.hold(100 * other.X, other.Y)[0], planes.PackedRows)
    assert plan.loss() == loss


def test_memory_that_is_not_free_is_refused(monkeypatch):
    free = devices._MemoryInfo(1 << 20, 1 << 30)
    monkeypatch.setattr(devices.FakeCUDAContext, "get_memory_info", lambda self: free)
    case = cases.problem(tl.Network(), tl.Shape(1100, 60, 60, 1), "float32")
    with pytest.raises(MemoryError, match=r"needs 0\.00 GiB of its memory, 0\.00 GiB are free"):
        TENSOR.plan(*case[1:])


def test_many_new_rows(small):
    case = cases.problem(tl.Network("elu", "softmax"), tl.Shape(130, 6, 5, 2), "float32")
    X = np.random.default_rng(3).standard_normal((300, 6)).astype(f4) * f4(1000)
    found, expected = (
        variant.plan(*case[1:]).predict(X) for variant in (TENSOR, tl.variants.get("numpy"))
    )
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)


def test_small_problems_and_many_outputs_take_tf32():
    assert planes.pays(tl.Shape(60_000, 784, 1024, 10), np.dtype("float32"))
    for shape, dtype in (
        ((60_000, 784, 1024, 17), "float32"), ((60_000, 8, 1024, 10), "float32"),
        ((100, 784, 1024, 10), "float32"), ((60_000, 784, 1024, 10), "float64"),
    ):  # fmt: skip
        assert not planes.pays(tl.Shape(*shape), np.dtype(dtype))


@pytest.mark.parametrize(
    ("rows", "tiles", "blocks", "parts"),
    [(60_000, 56, 264, 14), (60_000, 56, 132, 7), (100, 1, 264, 1), (1024, 1, 264, 8)],
)
def test_parts_fill_the_gpu(rows, tiles, blocks, parts):
    share = planes.share_of(rows, tiles, blocks, 64)
    assert share % 128 == 0
    assert -(-rows // share) == parts


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

"""The plan on packed matrices, in numba-cuda's simulator with our own checker."""

import gc
import itertools
import weakref

import numpy as np
import pytest
from cuda_planes import unpacked
from numba import cuda
from numba.cuda.simulator.cudadrv import devices
from numba.cuda.simulator.kernel import FakeCUDAKernel

import twolayer as tl
from twolayer.checking import cases
from twolayer.checking.verify import agreement
from twolayer.engines import planes, tuning
from twolayer.kernels.cuda import head
from twolayer.kernels.formulas.activations import ACTIVATIONS
from twolayer.kernels.formulas.losses import LOSSES
from twolayer.kernels.formulas.updates import UPDATES

pytestmark = pytest.mark.filterwarnings("ignore::RuntimeWarning")  # a GPU knows none
f4 = np.float32
TENSOR = tl.variants.get("cuda-tensor")


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
    monkeypatch.setattr(planes, "LEAST", tl.Shape(1, 1, 1, 1))
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


# σ is only in the head, tried with each alone: here one that is not 0 at 0, and one that is.
QUICK = [("tanh", "squared_logistic"), ("softplus", "softmax")]


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
    "shape",
    [
        (1, 1, 1, 1),
        pytest.param((140, 66, 5, 1), marks=pytest.mark.slow),
        pytest.param((3, 9, 130, 2), marks=pytest.mark.slow),
        (3, 2, 5, head.OUTPUTS),
    ],
)
def test_ragged_shapes_agree(shape, small, monkeypatch):
    """Two blocks along each axis of X, or over the units, and all outputs that the head takes."""
    monkeypatch.setattr("twolayer.checking.verify.STEPS", 0)
    net = tl.Network("sigmoid", "softmax" if shape[3] > 1 else "logistic")
    result = agreement(TENSOR, cases.problem(net, tl.Shape(*shape), "float32"))
    assert result.agrees, result


@pytest.mark.parametrize(
    "name",
    [
        "logits of 1e4 in both signs",  # zeros are below
        pytest.param("saturated units", marks=pytest.mark.slow),
        pytest.param("dead units", marks=pytest.mark.slow),
    ],
)
def test_hard_inputs_agree(name, small, monkeypatch):
    """Those whose sizes differ most: what packing may get wrong."""
    monkeypatch.setattr("twolayer.checking.verify.STEPS", 0)
    net = tl.Network("tanh", "softmax")
    (case,) = (case for case in cases.adversarial(net, "float32") if case.name == name)
    result = agreement(TENSOR, case)
    assert result.agrees, result


@pytest.mark.parametrize(
    "kind",
    [
        "columns",
        "subnormal",
        pytest.param("a sample", marks=pytest.mark.slow),
        pytest.param("zeros", marks=pytest.mark.slow),
    ],
)
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


@pytest.mark.parametrize(
    "engine",
    [
        pytest.param(name, marks=pytest.mark.slow if name == "wgmma in turns" else ())
        for name in planes.ENGINES
    ],
)
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

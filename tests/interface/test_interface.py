"""Every promise of the interface, held to by every variant."""

import gc

import numpy as np
import pytest
from numba.core.registry import CPUDispatcher

import twolayer as tl
from twolayer.checking import cases
from twolayer.checking.verify import ORACLE
from twolayer.machine.hardware import cpu_count

NET = tl.Network("tanh", "softmax")
SHAPE = tl.Shape(67, 5, 9, 3)
THREADS = [
    1,
    pytest.param(2, marks=pytest.mark.skipif(cpu_count() < 2, reason="needs two CPUs")),
]


def problem(net=NET, shape=SHAPE, dtype="float32"):
    return cases.problem(net, shape, dtype)


def results(variant, net, X, Y, theta, threads=1):
    """The bits of all that a plan gives."""
    plan = variant.plan(net, X, Y, theta, threads)
    loss, gradient = plan.gradient()
    losses = [plan.step(0.1) for _ in range(3)]
    arrays = [*gradient, *plan.theta, plan.predict(X)]
    return [loss, losses, *(array.tobytes() for array in arrays)]


def fortran(X, folder):
    return np.asfortranarray(X)


def strided(X, folder):
    wide = np.full((2 * len(X), 3 * X.shape[1]), np.nan, X.dtype)
    wide[::2, ::3] = X
    return wide[::2, ::3]


def reversed_rows(X, folder):
    return X[::-1].copy()[::-1]


def shifted(X, folder):
    """Aligned for its numbers, not for vectors of them."""
    buffer = np.empty(X.size + 1, X.dtype)[1:].reshape(X.shape)
    buffer[...] = X
    return buffer


def unaligned(X, folder):
    raw = np.empty(X.nbytes + 1, np.uint8)[1:]
    array = raw.view(X.dtype).reshape(X.shape)
    array[...] = X
    return array


def read_only(X, folder):
    X = X.copy()
    X.flags.writeable = False
    return X


def memory_mapped(X, folder):
    np.save(folder / "X.npy", X)
    return np.load(folder / "X.npy", mmap_mode="r")


def lists(X, folder):
    return X.tolist()


@pytest.mark.parametrize(
    "layout",
    [fortran, strided, reversed_rows, shifted, unaligned, read_only, memory_mapped, lists],
)
def test_layout_of_X_changes_no_bit(variant, layout, tmp_path):
    net, X, Y, theta = problem(dtype="float64" if layout is lists else "float32")[1:]
    expected = results(variant, net, X, Y, theta)
    assert results(variant, net, layout(X, tmp_path), Y, theta) == expected


def test_arguments_are_never_written_to(variant):
    _, net, X, Y, theta = problem()
    before = [array.tobytes() for array in (X, Y, *theta)]
    plan = variant.plan(net, X, Y, theta, 1)
    plan.step(0.1)
    plan.gradient(slice(3, 20))
    plan.predict(X)
    plan.theta = theta
    plan.step(0.1)
    assert [array.tobytes() for array in (X, Y, *theta)] == before


def test_arguments_may_be_read_only(variant):
    _, net, X, Y, theta = problem()
    expected = results(variant, net, X, Y, theta)
    for array in (X, Y, *theta):
        array.flags.writeable = False
    assert results(variant, net, X, Y, theta) == expected


def compiled():
    """The signatures of all kernels of the package that are compiled by now."""
    gc.unfreeze()  # what is frozen is not listed
    return sum(
        len(kernel.signatures)
        for kernel in gc.get_objects()
        if type(kernel) is CPUDispatcher  # faster than isinstance, which asks proxies, too
        and str(kernel.py_func.__module__).startswith("twolayer.")
    )


def test_a_kernel_is_compiled_once_and_in_plan(variant):
    _, net, X, Y, theta = problem()
    plan = variant.plan(net, X, Y, theta, 1)
    before = compiled()
    assert before > 0 or not variant.name.startswith("numba-")
    plan.step(0.1)
    plan.gradient(slice(1, 30))
    assert compiled() == before
    plan.predict(X)
    before = compiled()
    X.flags.writeable = Y.flags.writeable = False
    again = variant.plan(net, X, Y, theta, 1)
    again.step(np.float32(0.1))
    again.step(1)
    again.gradient()
    again.predict(X[::2])
    assert compiled() == before


def fitting_targets(Y, loss):
    """Every kind of array that says the same as Y (n, K) of small integers."""
    integers = np.rint(Y).astype(int)
    signed = ["int8", "int16", "int32", "int64", "float16", "float32", "float64", "longdouble"]
    unsigned = [] if loss == "logistic" else ["bool", "uint8", "uint64"]
    for dtype in (*signed, *unsigned):
        yield integers.astype(dtype)
    yield np.asfortranarray(integers)
    yield integers.tolist()
    yield integers.astype(">f4")
    if integers.shape[1] == 1:
        yield integers[:, 0]
    if loss == "softmax":
        labels = integers.argmax(axis=1)
        yield from (labels.astype(dtype) for dtype in ("int8", "uint8", "int64"))
        yield labels.tolist()


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("loss", ["squared", "squared_logistic", "logistic", "softmax"])
def test_targets_of_every_fitting_dtype(loss, dtype):
    net = tl.Network("tanh", loss)
    _, net, X, Y, theta = problem(net, SHAPE if loss == "softmax" else SHAPE._replace(K=1), dtype)
    if loss == "softmax":
        Y = np.eye(SHAPE.K)[Y.argmax(axis=1)]
    elif loss != "logistic":
        Y = (Y > 0).astype(dtype)
    numpy = tl.variants.get("numpy")
    expected = results(numpy, net, X, Y.astype(dtype), theta)
    for form in fitting_targets(Y, loss):
        assert results(numpy, net, X, form, theta) == expected, getattr(form, "dtype", "list")


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_results_have_the_dtype_of_X(variant, dtype):
    _, net, X, Y, theta = problem(dtype=dtype)
    plan = variant.plan(net, X, Y, theta, 1)
    loss, gradient = plan.gradient()
    assert type(loss) is float
    assert type(plan.step(0.1)) is float
    assert isinstance(gradient, tl.Parameters)
    assert isinstance(plan.theta, tl.Parameters)
    for array in (*gradient, *plan.theta, plan.predict(X)):
        assert array.dtype == dtype
    for array, like in zip((*gradient, *plan.theta), (*theta, *theta), strict=True):
        assert array.shape == like.shape


@pytest.mark.parametrize("threads", THREADS)
@pytest.mark.parametrize("loss", ["squared", "softmax"])
def test_the_same_call_returns_the_same_bits(variant, loss, threads):
    if not variant.reproducible:
        pytest.skip(f"{variant.name} adds in whatever order threads come")
    rows = 71 if variant.name == ORACLE else 701  # it has no blocks
    case = problem(tl.Network("sigmoid", loss), tl.Shape(rows, 33, 17, 5))[1:]
    first, second = (results(variant, *case, threads) for _ in range(2))
    assert first == second
    plan = variant.plan(*case, threads)
    one, two = plan.gradient(), plan.gradient()
    assert one[0] == two[0]
    assert [a.tobytes() for a in one[1]] == [a.tobytes() for a in two[1]]


def test_theta_is_copied_out_and_in(variant):
    _, net, X, Y, theta = problem()
    plan = variant.plan(net, X, Y, theta, 1)
    start = plan.theta
    for got, given in zip(start, theta, strict=True):
        np.testing.assert_array_equal(got, given)
        assert not np.shares_memory(got, given)
    first = plan.step(0.1)
    np.testing.assert_array_equal(start.V, theta.V)  # not a view of what changed
    assert (plan.theta.V != theta.V).any()
    plan.theta.V[...] = np.nan
    assert np.isfinite(plan.theta.V).all()
    new = tl.Parameters(*(np.asfortranarray(array) for array in start))
    plan.theta = new
    new.V[...] = new.W[...] = np.nan
    assert plan.step(0.1) == first


def test_step_descends_and_returns_the_loss_at_its_start(variant):
    _, net, X, Y, theta = problem(dtype="float64")
    plan = variant.plan(net, X, Y, theta, 1)
    loss, gradient = plan.gradient()
    assert plan.step(0.25) == loss
    for after, before, slope in zip(plan.theta, theta, gradient, strict=True):
        np.testing.assert_allclose(after, before - 0.25 * slope, rtol=1e-12, atol=1e-14)
    following = plan.gradient()[0]
    assert following < loss
    assert plan.step(0) == following
    assert plan.step(0) == following


@pytest.mark.parametrize("rows", [slice(0, 1), slice(13, 54), slice(60, None), slice(None, 17)])
def test_gradient_of_rows_is_that_of_the_sliced_problem(variant, rows):
    _, net, X, Y, theta = problem(dtype="float64")
    plan = variant.plan(net, X, Y, theta, 1)
    loss, gradient = plan.gradient(rows)
    expected_loss, expected = variant.plan(net, X[rows], Y[rows], theta, 1).gradient()
    assert loss == pytest.approx(expected_loss, rel=1e-13)
    for got, want in zip(gradient, expected, strict=True):
        np.testing.assert_allclose(got, want, rtol=1e-11, atol=1e-14)
    for got, want in zip(plan.theta, theta, strict=True):
        np.testing.assert_array_equal(got, want)


def test_gradients_belong_to_the_caller(variant):
    _, net, X, Y, theta = problem()
    plan = variant.plan(net, X, Y, theta, 1)
    loss, gradient = plan.gradient()
    kept = [array.copy() for array in gradient]
    plan.step(0.1)
    for array, copy in zip(gradient, kept, strict=True):
        np.testing.assert_array_equal(array, copy)
        array[...] = np.nan
    plan.theta = theta
    assert plan.gradient()[0] == loss


@pytest.mark.parametrize("n_new", [1, 66, 67, 68, 500])
@pytest.mark.parametrize("loss", ["squared_logistic", "softmax"])
def test_predict_takes_any_number_of_rows(variant, loss, n_new):
    net = tl.Network("tanh", loss)
    _, net, X, Y, theta = problem(net, dtype="float64")
    X_new = np.random.default_rng(5).standard_normal((n_new, SHAPE.d))
    F = variant.plan(net, X, Y, theta, 1).predict(X_new)
    U = np.tanh(X_new @ theta.V.T) @ theta.W.T
    expected = 1 / (1 + np.exp(-U))
    if loss == "softmax":
        expected = np.exp(U) / np.exp(U).sum(axis=1, keepdims=True)
    assert F.shape == (n_new, SHAPE.K)
    np.testing.assert_allclose(F, expected, rtol=1e-12)


def test_one_sample_one_input_one_unit_one_output(variant):
    _, net, X, Y, theta = problem(tl.Network("tanh", "squared"), tl.Shape(1, 1, 1, 1), "float64")
    plan = variant.plan(net, X, Y, theta)
    f = theta.W * np.tanh(theta.V * X)
    assert plan.predict(X) == pytest.approx(f, rel=1e-14)
    assert plan.step(0.1) == pytest.approx(float((f - Y).item() ** 2), rel=1e-13)


def test_a_descent_that_diverges_shows_it_and_warns_of_nothing(variant):
    net = tl.Network("relu", "squared")
    _, net, X, Y, theta = problem(net)
    plan = variant.plan(net, X, Y, theta, 1)
    losses = [plan.step(1e3) for _ in range(12)]
    assert not np.isfinite(losses[-1])
    assert not all(np.isfinite(array).all() for array in plan.theta)
    assert not np.isfinite(plan.predict(X)).all()


def test_the_one_line_form(variant):
    _, net, X, Y, theta = problem()
    loss, gradient = tl.loss_and_gradient(net, theta, X, Y, variant=variant.name, threads=1)
    expected_loss, expected = variant.plan(net, X, Y, theta, 1).gradient()
    assert loss == expected_loss
    assert [a.tobytes() for a in gradient] == [a.tobytes() for a in expected]


def test_a_variant_says_what_it_is():
    for name in tl.variants.names():
        found = tl.variants.get(name)
        assert found.name == name
        assert found.device in ("cpu", "cuda", "cluster", "any")
        assert found.summary
        if found.device == "cpu":
            alone = name in ("python-loops", "numpy-samples", "numba-loops")
            assert found.parallel is not alone
        assert "\n" not in found.summary
        assert found.unavailable() is None or isinstance(found.unavailable(), str)


def test_init_is_reproducible_and_scaled():
    theta, again = (NET.init(400, 300, 200, "float64", seed=3) for _ in range(2))
    assert theta.V.shape == (300, 400)
    assert theta.W.shape == (200, 300)
    np.testing.assert_array_equal(theta.V, again.V)
    assert (NET.init(400, 300, 200, "float64", seed=4).V != theta.V).all()
    assert theta.V.std() == pytest.approx(400**-0.5, rel=0.02)
    assert theta.W.std() == pytest.approx(300**-0.5, rel=0.02)
    assert NET.init(2, 2, 2).V.dtype == "float32"


def test_network_is_frozen():
    with pytest.raises(AttributeError):
        NET.loss = "squared"

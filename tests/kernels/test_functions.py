"""`tl.predict` needs no data: F as plans give it, for any rows, errors in one sentence."""

import numpy as np
import pytest

import twolayer as tl
from twolayer.checking import bounds, cases
from twolayer.kernels.formulas.losses import LOSSES
from twolayer.network import DTYPES

n, d, M, K = SHAPE = tl.Shape(50, 5, 7, 3)
NET = tl.Network("tanh", "softmax")
MANY = (1 << 14) + 3  # one block of an engine for predictions, and a few rows


def problem(loss="softmax", dtype="float32", rows=n, inputs=d):
    """The network, X and θ, in which Y has nothing to say."""
    shape = tl.Shape(rows, inputs, M, 1 if loss == "logistic" else K)
    _, net, X, Y, theta = cases.problem(tl.Network("tanh", loss), shape, dtype)
    return net, X, Y, theta


def takes(variant, X, theta):
    """Skip what a variant is not made for."""
    if refusal := variant.refuses(tl.Shape(*X.shape, *theta.W.shape[::-1]), X.dtype):
        pytest.skip(f"{variant.name} {refusal}")


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("loss", LOSSES)
def test_a_prediction_is_that_of_a_plan(variant, loss, dtype):
    net, X, Y, theta = problem(loss, dtype)
    takes(variant, X, theta)
    kept = [array.tobytes() for array in (X, *theta)]
    F = tl.predict(net, theta, X, variant.name, 1)
    right = bounds.evaluate(net, theta, X, Y, X.dtype)
    assert F.dtype == dtype
    assert (abs(F - right.F) <= right.F_bound).all()
    assert kept == [array.tobytes() for array in (X, *theta)]
    if variant.device == "cpu" and variant.reproducible:
        assert F.tobytes() == variant.plan(net, X, Y, theta, 1).predict(X).tobytes()


def test_there_may_be_more_rows_than_an_engine_is_made_for(variant):
    net, X, _, theta = problem(rows=MANY, inputs=2)
    F = tl.predict(net, theta, X, variant.name)
    right = bounds.evaluate(net, theta, X, np.full((MANY, K), 1 / K), X.dtype)
    assert (abs(F - right.F) <= right.F_bound).all()


def test_one_row_is_predicted_as_among_others(variant):
    net, X, _, theta = problem(dtype="float64")
    takes(variant, X, theta)
    F = tl.predict(net, theta, X, variant.name, 1)
    for row in (0, n - 1):
        alone = tl.predict(net, theta, X[row : row + 1], variant.name, 1)
        np.testing.assert_allclose(alone, F[row : row + 1], rtol=0, atol=1e-13)


def test_an_engine_for_predictions_is_made_for_a_block(monkeypatch):
    seen = []
    numpy = tl.variants.get("numpy")

    def make(problem):
        seen.append(problem.shape)
        return numpy.make(problem)

    net, X, _, theta = problem(rows=MANY, inputs=2)
    tl.Variant("mine", "cpu", "", make).predict(net, theta, X)
    assert seen == [tl.Shape(1 << 14, 2, M, K)]


def changed(theta, **arrays):
    return theta._replace(**arrays)


def spoiled(array):
    array = array.copy()
    array[-1, -1] = np.nan
    return array


_, X, _, THETA = problem()
WRONG = [
    ({"X": X[0]}, ValueError, "X: expected shape (n, d), got 1 axes (5,)"),
    ({"X": 1.0}, ValueError, "X: expected shape (n, d), got 0 axes ()"),
    ({"X": [[1.0], [1.0, 2.0]]}, ValueError, "X: expected an array, got what is none"),
    ({"X": X[:0]}, ValueError, "X: expected n >= 1, got shape (0, 5)"),
    ({"X": spoiled(X)}, ValueError, "X: expected finite numbers, got nan at [49, 4]"),
    ({"X": X[:, 1:]}, ValueError, "theta.V: expected shape (M, 4) to fit X (50, 4), got (7, 5)"),
    ({"X": X.astype("float64")}, TypeError, "theta.V: expected float64, the dtype of X, got flo"),
    ({"X": X.astype("int64")}, TypeError, "X: expected dtype float32 or float64, got int64"),
    ({"theta": THETA.V}, TypeError, "theta: expected Parameters(V, W), got ndarray"),
    (
        {"theta": changed(THETA, W=THETA.W[:, 1:])}, ValueError,
        "theta.W: expected shape (K, 7) to fit theta.V (7, 5), got (3, 6)",
    ),
    (
        {"theta": changed(THETA, V=spoiled(THETA.V))}, ValueError,
        "theta.V: expected finite numbers, got nan at [6, 4]",
    ),
    ({"net": "tanh"}, TypeError, "net: expected a Network, got str"),
    (
        {"net": tl.Network("tanh", "logistic")}, ValueError,
        "theta.W: the logistic loss has one output, expected shape (1, M), got (3, 7)",
    ),
    ({"threads": 0}, ValueError, "threads: expected"),
    ({"threads": 10**6}, ValueError, "threads: expected 1 to "),
    ({"variant": "nunpy"}, ValueError, "variant: expected one of "),
]  # fmt: skip


@pytest.mark.parametrize(("wrong", "kind", "message"), WRONG, ids=lambda value: str(value)[:30])
def test_what_cannot_be_is_refused_in_a_sentence(wrong, kind, message):
    for name in ("numpy", "auto"):
        given = {"net": NET, "theta": THETA, "X": X, "variant": name} | wrong
        with pytest.raises(kind) as error:
            tl.predict(**given)
        assert str(error.value).startswith(message)
        assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("options", "kind", "message"),
    [
        ({"requires": ("no_such",)}, RuntimeError, "variant mine cannot run here: needs the pack"),
        ({"refuses": lambda *_: "takes none"}, ValueError, "variant mine takes none"),
        ({"workspace": lambda *_: 1 << 60}, MemoryError, "variant mine with n=50"),
    ],
)
def test_what_a_variant_cannot_do_is_refused_before_anything_runs(options, kind, message):
    def make(problem):
        raise AssertionError

    with pytest.raises(kind, match=message):
        tl.Variant("mine", "cpu", "", make, **options).predict(NET, THETA, X)


def test_a_device_is_asked_for():
    numpy = tl.variants.get("numpy")
    assert (numpy.predict(NET, THETA, X, device="cpu") == numpy.predict(NET, THETA, X)).all()
    with pytest.raises(ValueError, match="device of variant numpy: expected one of cpu, got 'tpu'"):
        numpy.predict(NET, THETA, X, device="tpu")

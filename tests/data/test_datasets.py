import sys

import numpy as np
import pytest

import twolayer as tl
from twolayer.data import datasets
from twolayer.data.bundled import BUNDLED


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("name", BUNDLED)
def test_a_bundled_set_runs_as_it_is(name, dtype):
    data = datasets.load(name, dtype)
    loss, n, d, K = BUNDLED[name]
    assert (data.loss, data.X.shape, data.K) == (loss, (n, d), K)
    assert data.X.dtype == dtype
    np.testing.assert_array_equal(data.X[:, -1], 1)
    inputs = data.X[:, :-1].astype(np.float64)
    np.testing.assert_allclose(inputs.mean(axis=0), 0, atol=1e-6)
    deviations = inputs.std(axis=0)
    np.testing.assert_allclose(deviations[deviations > 0], 1, rtol=1e-5)
    net = tl.Network(loss=data.loss)
    theta = net.init(d, 5, data.K, dtype)
    loss, _ = tl.loss_and_gradient(net, theta, data.X, data.Y)
    assert np.isfinite(loss)


def test_regression_targets_are_standardized():
    Y = datasets.load("linnerud", "float64").Y
    assert Y.shape == (20, 3)
    np.testing.assert_allclose(Y.mean(axis=0), 0, atol=1e-12)
    np.testing.assert_allclose(Y.std(axis=0), 1)


def test_labels_are_those_of_the_loss():
    assert set(datasets.load("breast_cancer").Y) == {-1, 1}
    assert set(datasets.load("digits").Y) == set(range(10))


def test_an_unknown_set_is_answered_with_the_known_ones():
    with pytest.raises(ValueError, match=r"data set: expected one of diabetes, .* got 'iris'"):
        datasets.load("iris")


def test_without_scikit_learn_the_extra_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "sklearn", None)
    with pytest.raises(
        RuntimeError, match=r"^data set digits: .* `pip install --editable '\.\[bench\]'` in"
    ):
        datasets.load("digits")


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("loss", ["squared", "squared_logistic", "logistic", "softmax"])
def test_synthetic_data_fit_the_loss(loss, dtype):
    shape = tl.Shape(50, 7, 5, 1 if loss == "logistic" else 3)
    data = datasets.synthetic(shape, loss, dtype)
    assert data.X.shape == (50, 7)
    assert data.X.dtype == dtype
    net = tl.Network(loss=loss)
    tl.loss_and_gradient(net, net.init(7, 5, shape.K, dtype), data.X, data.Y)


def test_synthetic_data_follow_the_seed():
    shape = tl.Shape(5, 2, 3, 4)
    first, same, other = (datasets.synthetic(shape, "softmax", seed=seed) for seed in (1, 1, 2))
    np.testing.assert_array_equal(first.X, same.X)
    np.testing.assert_array_equal(first.Y, same.Y)
    assert not np.array_equal(first.X, other.X)


@pytest.mark.parametrize(
    ("shape", "loss", "error", "sentence"),
    [
        ((9, 1, 1, 2), "logistic", ValueError, "K: the logistic loss has one output"),
        ((9, 1, 1, 2), "hinge", ValueError, "loss: expected one of"),
        ((10**12, 10**3, 1, 1), "squared", MemoryError, "data with n=1000000000000"),
    ],
)
def test_synthetic_data_that_cannot_be(shape, loss, error, sentence):
    with pytest.raises(error, match=sentence):
        datasets.synthetic(tl.Shape(*shape), loss)


def test_a_constant_column_becomes_zeros():
    np.testing.assert_array_equal(datasets.standardize(np.full((3, 1), 5.0)), 0)

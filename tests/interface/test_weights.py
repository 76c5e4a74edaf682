"""Weights of every variant: what is put there is got, and updates follow their formulas."""

from inspect import signature

import numpy as np
import pytest

import twolayer as tl
from twolayer.interface import Problem
from twolayer.interface.weights import ForeignWeights
from twolayer.kernels.formulas.updates import UPDATES
from twolayer.network import DTYPES

n, d, M, K = SHAPE = tl.Shape(20, 19, 35, 11)


def numbers(dtype, seed):
    """As θ, without a zero."""
    random = np.random.default_rng(seed)
    return tl.Parameters(
        *(random.uniform(0.5, 1.5, shape).astype(dtype) for shape in ((M, d), (K, M)))
    )


def weights_of(variant, dtype):
    """Weights, and the engine, in whose buffers they may be."""
    engine = variant.make(Problem(tl.Network(), SHAPE, np.dtype(dtype), 1))
    return engine.weights(), engine


def same(one, other):
    return all((a == b).all() and a.dtype == b.dtype for a, b in zip(one, other, strict=True))


@pytest.fixture
def local(variant):
    """Each variant that has an engine of its own."""
    if variant.device not in ("cpu", "cuda"):
        pytest.skip("its weights are others'")
    return variant


@pytest.mark.parametrize("dtype", DTYPES)
def test_what_is_put_is_got_as_a_copy(local, dtype):
    weights, _engine = weights_of(local, dtype)
    arrays = (weights.theta, weights.gradient, weights.room(), weights.room())
    values = [numbers(dtype, seed) for seed in range(len(arrays))]
    for array, value in zip(arrays, values, strict=True):
        weights.put(value, array)
    for array, value in zip(arrays, values, strict=True):
        got = weights.get(array)
        assert same(got, value)
        for part in got:
            part[...] = 7
        assert same(weights.get(array), value)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", UPDATES)
def test_an_update_is_its_formula(local, name, dtype):
    update = UPDATES[name]
    weights, _engine = weights_of(local, dtype)
    theta, gradient, *slots = (numbers(dtype, seed) for seed in range(2 + update.slots))
    weights.put(theta, weights.theta)
    weights.put(gradient, weights.gradient)
    weights.slots = tuple(weights.room() for _ in slots)
    for arrays, values in zip(weights.slots, slots, strict=True):
        weights.put(values, arrays)
    count = len(signature(update.formula).parameters) - 2 - update.slots
    scalars = tuple(0.3 + 0.05 * i for i in range(count))
    weights.apply(update, scalars)
    found = [weights.get(arrays) for arrays in (weights.theta, *weights.slots)]
    for i in range(2):
        inputs = [np.asarray(one[i], np.float64) for one in (theta, gradient, *slots)]
        right = update.formula(*inputs, *scalars)
        for expected, value in zip(right, found, strict=True):
            assert value[i].dtype == dtype
            close = 32 * np.finfo(dtype).eps
            np.testing.assert_allclose(value[i], expected, rtol=close, atol=close)


@pytest.mark.parametrize("name", UPDATES)
def test_weights_that_a_library_keeps_are_updated_alike(name):
    """To the last bit, but for descent, which is plain NumPy on the host."""
    update, found = UPDATES[name], []
    for kind in (tl.Weights, ForeignWeights):
        weights = kind(SHAPE, np.dtype("float64"))
        weights.slots = tuple(weights.room() for _ in range(update.slots))
        for seed, arrays in enumerate((weights.theta, weights.gradient, *weights.slots)):
            weights.put(numbers("float64", seed), arrays)
        count = len(signature(update.formula).parameters) - 2 - update.slots
        weights.apply(update, (0.25,) * count)
        found.append([weights.theta, *weights.slots])
    for one, other in zip(*found, strict=True):
        for a, b in zip(one, other, strict=True):
            np.testing.assert_allclose(a, b, rtol=0, atol=0 if update.slots else 1e-15)

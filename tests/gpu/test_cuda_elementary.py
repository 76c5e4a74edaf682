"""The GPU's forms of elementary functions, its instructions as wrong as they are allowed to be."""

import itertools

import numpy as np
import pytest
from numba import njit

from twolayer.kernels.cuda import elementary
from twolayer.kernels.cuda.elementary import ULP, WORST
from twolayer.kernels.formulas.activations import ACTIVATIONS

SMALL = 2 * float(np.finfo(np.float32).tiny)  # what is flushed may be twice as much afterwards


def logistic(x):
    e = np.exp(-abs(x))
    return np.where(x < 0, e, 1) / (1 + e)


def logistic_slope(x):
    e = np.exp(-abs(x))
    return e / (1 + e) ** 2


EXACT = {
    "exp_neg": np.exp,
    "tanh": np.tanh,
    "tanh_slope": lambda x: 4 * logistic_slope(2 * x),
    "logistic": logistic,
    "logistic_slope": logistic_slope,
}


def points():
    """Dense where the functions bend and in their tails, and every exponent."""
    random = np.random.default_rng(0)
    parts = [random.uniform(0, end, 40_000) for end in (0.7, 2, 10, 45, 110)]
    parts += [np.ldexp(random.uniform(1, 2, 40), e) for e in range(-149, 128)]
    x = np.concatenate(parts).astype(np.float32)
    return np.concatenate([x, -x])


def errors(name, x):
    """In ULP, what is flushed left out."""
    with np.errstate(all="ignore"):
        got = getattr(elementary, name)(x)
        exact = EXACT[name](x.astype(np.float64))
    assert got.dtype == np.float32
    assert np.isfinite(got).all()
    excess = np.maximum(abs(got - exact) - SMALL, 0)
    return excess / np.ldexp(1.0, np.maximum(np.frexp(exact)[1] - 24, -149))


def shifted(function, ulps):
    """The function with so many ULP added to its results."""

    def wrong(x):
        y = function(x)
        moved = (y.view(np.int32) + np.int32(ulps)).view(np.float32)
        return np.where(np.isfinite(y) & (y != 0), moved, y)

    return wrong


def inputs(name):
    x = points()
    return x[x <= 0] if name == "exp_neg" else x


@pytest.mark.parametrize("name", ULP)
def test_rounded_instructions(name):
    assert errors(name, inputs(name)).max() <= ULP[name]


@pytest.mark.parametrize("name", WORST)
def test_instructions_as_wrong_as_they_may_be(name, monkeypatch):
    x, worst = inputs(name), 0.0
    ex2, rcp = elementary.ex2, elementary.rcp
    for by_ex2, by_rcp in itertools.product((-2, -1, 0, 1, 2), (-1, 0, 1)):
        monkeypatch.setattr(elementary, "ex2", shifted(ex2, by_ex2))
        monkeypatch.setattr(elementary, "rcp", shifted(rcp, by_rcp))
        worst = max(worst, errors(name, x).max())
    assert 0.9 * WORST[name] < worst <= WORST[name]


@pytest.mark.parametrize("name", ULP)
def test_special_values(name):
    x = np.array([0, -0.0, -np.inf, -3e38, np.inf, 3e38, np.nan], np.float32)
    with np.errstate(all="ignore"):
        got = getattr(elementary, name)(x)
        exact = EXACT[name](x.astype(np.float64)).astype(np.float32)
    made_for = x <= 0 if name == "exp_neg" else x == x
    np.testing.assert_array_equal(got[made_for], exact[made_for])
    assert np.isnan(got[-1])


def test_the_cpu_has_its_own_forms():
    value, slope = ACTIVATIONS["tanh"].value, ACTIVATIONS["tanh"].slope

    @njit
    def both(a):
        return value(a), slope(a)

    z, s = both(np.float32(-0.0))
    assert np.signbit(z)  # which the GPU's form does not keep
    assert s == 1
    assert both(np.float32(10))[1] == 0 < elementary.tanh_slope(np.float32(10))  # 1 − tanh² here

"""The oracle against extended precision: central differences of the definitions, and by hand."""

import math

import mpmath
import numpy as np
import pytest

import twolayer as tl
from twolayer.kernels.formulas.activations import ACTIVATIONS
from twolayer.kernels.formulas.losses import LOSSES

mp = mpmath.mp.clone() if hasattr(mpmath.mp, "clone") else mpmath.MPContext()
mp.dps = 60

# The definitions, as a textbook has them: in 60 digits no care is needed.
SIGMA = {
    "identity": lambda a: a,
    "sigmoid": lambda a: 1 / (1 + mp.exp(-a)),
    "tanh": mp.tanh,
    "relu": lambda a: max(a, mp.mpf(0)),
    "leaky_relu": lambda a: a if a > 0 else mp.mpf(0.01) * a,
    "silu": lambda a: a / (1 + mp.exp(-a)),
    "gelu": lambda a: a * (1 + mp.erf(a / mp.sqrt(2))) / 2,
    "softplus": lambda a: mp.log(1 + mp.exp(a)),
    "elu": lambda a: a if a > 0 else mp.exp(a) - 1,
}


def logistic(u):
    return 1 / (1 + mp.exp(-u))


def squared(u, y):
    return sum((a - b) ** 2 for a, b in zip(u, y, strict=True))


def softmax(u):
    e = [mp.exp(a) for a in u]
    return [a / sum(e) for a in e]


ELL = {
    "squared": squared,
    "squared_logistic": lambda u, y: squared([logistic(a) for a in u], y),
    "logistic": lambda u, y: -mp.log(logistic(y[0] * u[0])),
    "softmax": lambda u, y: -sum(b * mp.log(f) for f, b in zip(softmax(u), y, strict=True)),
}
LINK = {
    "squared": list,
    "squared_logistic": lambda u: [logistic(a) for a in u],
    "logistic": lambda u: [logistic(a) for a in u],
    "softmax": softmax,
}


def outputs(net, V, W, x):
    z = [SIGMA[net.activation](sum(v * b for v, b in zip(row, x, strict=True))) for row in V]
    return [sum(w * b for w, b in zip(row, z, strict=True)) for row in W]


def loss(net, V, W, X, Y):
    terms = [ELL[net.loss](outputs(net, V, W, x), y) for x, y in zip(X, Y, strict=True)]
    return sum(terms) / len(terms)


def extended(array):
    return [[mp.mpf(float(entry)) for entry in row] for row in array]


def central_difference(f, matrix, i, j):
    """f′ by fourth-order central differences in the entry (i, j)."""
    step = mp.mpf(10) ** -12
    at = matrix[i][j]
    values = {}
    for k in (-2, -1, 1, 2):
        matrix[i][j] = at + k * step
        values[k] = f()
    matrix[i][j] = at
    return (values[-2] - 8 * values[-1] + 8 * values[1] - values[2]) / (12 * step)


def test_every_registered_formula_has_a_definition_here():
    assert set(SIGMA) == set(ACTIVATIONS)
    assert set(ELL) == set(LINK) == set(LOSSES)


@pytest.mark.parametrize("loss_name", LOSSES)
@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_oracle_against_extended_precision(activation, loss_name):
    net = tl.Network(activation, loss_name)
    random = np.random.default_rng(5)
    n, d, M = 3, 2, 3
    K = 1 if net.objective.targets.single else 2
    X = random.standard_normal((n, d))
    V, W = random.standard_normal((M, d)), random.standard_normal((K, M))
    Y = {
        "real": random.standard_normal((n, K)),
        "sign": np.array([[1.0], [-1.0], [1.0]]),
        "distribution": np.array([[1.0, 0.0], [0.25, 0.75], [0.0, 1.0]]),
    }[net.objective.targets.name][:, :K]
    plan = tl.variants.get("python-loops").plan(net, X, Y, tl.Parameters(V, W))
    value, gradient = plan.gradient()
    mV, mW, mX, mY = (extended(array) for array in (V, W, X, Y))

    def exact():
        return loss(net, mV, mW, mX, mY)

    assert math.isclose(value, exact(), rel_tol=1e-14)
    for matrix, found in ((mV, gradient.V), (mW, gradient.W)):
        for i, row in enumerate(found):
            for j, entry in enumerate(row):
                expected = float(central_difference(exact, matrix, i, j))
                assert math.isclose(entry, expected, rel_tol=1e-12, abs_tol=1e-15)
    F = plan.predict(X)
    for found, x in zip(F, mX, strict=True):
        expected = LINK[net.loss](outputs(net, mV, mW, x))
        assert np.allclose(found, [float(f) for f in expected], rtol=1e-14, atol=1e-16)


def oracle(net, X, Y, V, W):
    X, V, W = (np.array(array, float) for array in (X, V, W))
    return tl.variants.get("python-loops").plan(net, X, np.array(Y), tl.Parameters(V, W))


def test_squared_by_hand():
    """x = 2, y = 1, v = 3, w = 5, σ = identity: u = 30, δ = 58, ∂W = 58·6, ∂V = 58·5·2."""
    plan = oracle(tl.Network("identity", "squared"), [[2]], [[1.0]], [[3]], [[5]])
    value, gradient = plan.gradient()
    assert value == 29.0**2
    assert gradient.W[0, 0] == 58 * 6
    assert gradient.V[0, 0] == 58 * 5 * 2
    assert plan.step(0.001) == 29.0**2
    assert plan.theta.W[0, 0] == pytest.approx(5 - 0.348, rel=1e-15)
    assert plan.theta.V[0, 0] == pytest.approx(3 - 0.58, rel=1e-15)


def test_squared_takes_the_mean_over_samples_and_the_sum_over_outputs():
    """u = (1, 1) for x = 1 and (−1, −1) for x = −1, targets 0: ℓ = 2 for each, L = 2."""
    net = tl.Network("identity", "squared")
    value, gradient = oracle(net, [[1], [-1]], np.zeros((2, 2)), [[1]], [[1], [1]]).gradient()
    assert value == 2
    assert gradient.W.tolist() == [[2], [2]]
    assert gradient.V.tolist() == [[4]]


def test_relu_by_hand():
    """A unit with a < 0 is dead: its row of ∂V and its column of ∂W are zero."""
    net = tl.Network("relu", "squared")
    value, gradient = oracle(net, [[1]], [[0.0]], [[2], [-2]], [[1, 1]]).gradient()
    assert value == 4
    assert gradient.W.tolist() == [[8, 0]]
    assert gradient.V.tolist() == [[4], [0]]


def test_logistic_by_hand():
    """u = 0: h = 1/2, ℓ = log 2, δ = −y/2."""
    net = tl.Network("identity", "logistic")
    for y in (1, -1):
        value, gradient = oracle(net, [[3]], [y], [[1]], [[0]]).gradient()
        assert value == pytest.approx(math.log(2), rel=1e-15)
        assert gradient.W[0, 0] == -y * 3 / 2
        assert gradient.V[0, 0] == 0


def test_squared_logistic_by_hand():
    """u = 0: f = 1/2, h′ = 1/4, δ = 2 (1/2 − 1) / 4 = −1/4."""
    net = tl.Network("identity", "squared_logistic")
    value, gradient = oracle(net, [[2]], [[1.0]], [[1]], [[0]]).gradient()
    assert value == 0.25
    assert gradient.W[0, 0] == -0.5


def test_softmax_by_hand():
    """Equal logits over K = 4: ℓ = log 4, δ = 1/4 − y."""
    net = tl.Network("identity", "softmax")
    value, gradient = oracle(net, [[1]], [2], [[1]], [[7]] * 4).gradient()
    assert value == pytest.approx(math.log(4), rel=1e-15)
    assert gradient.W[:, 0].tolist() == [0.25, 0.25, -0.75, 0.25]
    assert gradient.V[0, 0] == pytest.approx(0, abs=1e-15)


def test_softmax_of_huge_logits_by_hand():
    """Logits 10⁴ and −10⁴: f = (1, 0); the wrong label costs the difference of the logits."""
    net = tl.Network("identity", "softmax")
    plan = oracle(net, [[1], [1]], [0, 1], [[1]], [[1e4], [-1e4]])
    value, gradient = plan.gradient()
    assert value == 1e4
    assert gradient.W[:, 0].tolist() == [0.5, -0.5]
    assert plan.predict(np.ones((1, 1))).tolist() == [[1, 0]]

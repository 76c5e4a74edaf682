"""Every variant agrees with the oracle: every activation, loss and dtype, on inputs that tell."""

import numpy as np
import pytest

import twolayer as tl
from twolayer.checking import bounds, cases
from twolayer.checking.verify import ORACLE, agreement, verify
from twolayer.kernels.formulas.activations import ACTIVATIONS
from twolayer.kernels.formulas.losses import LOSSES
from twolayer.network import DTYPES

NETWORKS = [tl.Network(activation, loss) for activation in ACTIVATIONS for loss in LOSSES]

# torch.compile takes seconds for each shape, Dask milliseconds for each step.
SLOW = ("torch-compile", "dask")
# They take samples one by one or compile each network for a second; auto is one of them here.
LONG = ("python-loops", "numpy-samples", "numba-loops", "numba-parallel", "auto")
NAMES = [
    pytest.param(name, marks=pytest.mark.slow) if name in SLOW else name
    for name in tl.variants.names()
]


def combinations():
    """Networks, dtypes and variants; the variants vary first, so that the oracle is asked once."""
    # Of what takes long each σ is here once, each ℓ with both dtypes; slow tests have the rest.
    count = len(LOSSES)
    here = {
        (activation, [*LOSSES][number % count], DTYPES[(number + number // count) % 2])
        for number, activation in enumerate(ACTIVATIONS)
    }
    for net in NETWORKS:
        for dtype in DTYPES:
            rest = (net.activation, net.loss, dtype) not in here
            for name in tl.variants.names():
                slow = name in SLOW or (name in LONG and rest)
                marks = pytest.mark.slow if slow else ()
                about = f"{net.activation}-{net.loss}-{dtype}-{name}"
                yield pytest.param(net, dtype, name, marks=marks, id=about)


def runnable(name):
    variant = tl.variants.get(name)
    if variant.unavailable():
        pytest.skip(variant.unavailable())
    return variant


@pytest.mark.parametrize(("net", "dtype", "name"), [*combinations()])
def test_agrees_on_every_case(net, dtype, name):
    variant = runnable(name)
    for result in verify(variant, net, dtype):
        assert result.agrees, result


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("name", NAMES)
def test_agrees_for_shapes_around_block_sizes(name, threads):
    """More rows than blocks hold, wide layers, and one more or less than multiples of them."""
    variant = runnable(name)
    if threads > tl.machine.hardware.cpu_count():
        pytest.skip(f"{threads} threads need as many CPUs")
    net = tl.Network("tanh", "softmax")
    shapes = [(2049, 3, 17, 3), (130, 67, 33, 11), (40, 300, 131, 2), (257, 16, 64, 17)]
    for shape in [(40, 3, 17, 3), (5, 67, 33, 11)] if name == ORACLE else shapes:
        if variant.refuses(tl.Shape(*shape), np.dtype("float32")):
            continue
        result = agreement(variant, cases.problem(net, tl.Shape(*shape), "float32"), threads)
        assert result.agrees, result


@pytest.mark.parametrize("net", NETWORKS, ids=lambda net: f"{net.activation}-{net.loss}")
def test_float64_evaluation_is_the_oracle(net):
    """What stands in for the oracle on large problems is held to it on small ones."""
    for case in cases.all_cases(net, "float64"):
        oracle = tl.variants.get(ORACLE).plan(net, case.X, case.Y, case.theta)
        loss, gradient = oracle.gradient()
        found = bounds.evaluate(net, case.theta, case.X, case.Y, np.float64)
        assert abs(found.loss - loss) <= found.loss_bound
        for value, expected, bound in zip(
            found.gradient, gradient, found.gradient_bound, strict=True
        ):
            assert (abs(value - expected) <= bound).all()
        assert (abs(found.F - oracle.predict(case.X)) <= found.F_bound).all()


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("loss", LOSSES)
def test_bounds_are_sharp_enough_to_mean_something(loss, dtype):
    """For inputs of order 1 the bound is within some hundred units of the gradient's size."""
    eps = np.finfo(dtype).eps
    for case in cases.shaped(tl.Network("tanh", loss), dtype):
        if loss == "softmax" and case.shape.K == 1:
            continue  # L and ∇L are 0
        found = bounds.evaluate(case.net, case.theta, case.X, case.Y, dtype)
        sums = sum(case.shape)
        for value, bound in zip(found.gradient, found.gradient_bound, strict=True):
            assert np.median(bound) <= 40 * sums * eps * max(abs(value).max(), 0.01)
        assert found.loss_bound <= 100 * sums * eps * max(found.loss, 0.01)


def test_a_variant_that_fails_disagrees():
    class Broken(tl.Engine):
        pass

    broken = tl.Variant("broken", "cpu", "does nothing", Broken)
    case = cases.problem(tl.Network(), tl.Shape(3, 2, 2, 1), "float32")
    result = agreement(broken, case)
    assert not result.agrees
    assert "NotImplementedError" in str(result)

"""Updates inside compiled kernels give what formulas applied on the host give, in every layout."""

from inspect import signature

import numpy as np
import pytest

import twolayer as tl
from twolayer.checking import cases
from twolayer.interface.weights import Weights
from twolayer.kernels.formulas.updates import UPDATES
from twolayer.machine.hardware import cpu_count
from twolayer.network import DTYPES

pytestmark = pytest.mark.compiled

# θ in panels, on one thread and on several; few hidden units.
SHAPES = {
    "panels": tl.Shape(1100, 20, 35, 6),
    "parts": tl.Shape(1100, 150, 260, 3),
    "few units": tl.Shape(1100, 20, 3, 6),
}
SCALARS = (0.01, 0.9, 0.1, 0.99, 0.01, 1e-3, 1.0)
BATCHES = [slice(start, start + size) for start, size in ((3, 1), (9, 7), (20, 32), (600, 500))]


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("name", [n for n in tl.variants.names() if n.startswith("numba")])
def test_updates_are_those_of_the_host(name, shape, threads):
    if threads > cpu_count():
        pytest.skip("needs two CPUs")
    case = cases.problem(tl.Network("tanh", "squared"), SHAPES[shape], "float64")
    plan = tl.variants.get(name).plan(*case[1:], threads)
    for update in UPDATES.values():
        scalars = SCALARS[: len(signature(update.formula).parameters) - 2 - update.slots]
        plain = Weights(plan.shape, plan.dtype)
        plan.theta = case.theta
        plan.slots = [tl.Parameters(*(abs(w) for w in case.theta))] * update.slots
        plain.put(plan.theta, plain.theta)
        plain.slots = tuple(plan.slots)
        for rows in (*BATCHES, None):
            loss, gradient = plan.gradient(rows)
            assert plan.update(update, scalars, rows) == loss, update.name
            plain.put(gradient, plain.gradient)
            plain.apply(update, scalars)
            found, expected = (plan.theta, *plan.slots), (plain.theta, *plain.slots)
            for arrays, others in zip(found, expected, strict=True):
                for one, other in zip(arrays, others, strict=True):
                    np.testing.assert_allclose(
                        one, other, rtol=1e-12, atol=1e-14, err_msg=f"{update.name}, {rows}"
                    )


def test_after_an_interruption_an_update_has_its_own_scalars(monkeypatch):
    case = cases.problem(tl.Network("tanh", "squared"), SHAPES["panels"], "float64")
    descend, rows = UPDATES["descend"], np.array([[0, 32], [32, 40]])
    plan, other = (tl.variants.get("numba-fused").plan(*case[1:], 1) for _ in range(2))
    whole = plan.engine._run

    def interrupted(*arguments):
        monkeypatch.setattr(plan.engine, "_run", fail)
        return whole(*arguments)

    def fail(*arguments):
        raise KeyboardInterrupt

    monkeypatch.setattr(plan.engine, "_run", interrupted)
    with pytest.raises(KeyboardInterrupt):
        plan.updates(descend, [[0.01], [0.5]], rows)
    monkeypatch.setattr(plan.engine, "_run", whole)
    for one, scalars in ((plan, ()), (other, (0.01,))):
        for mu in (*scalars, 0.5):
            one.update(descend, (mu,), slice(0, 32))
    for one, expected in zip(plan.theta, other.theta, strict=True):
        np.testing.assert_array_equal(one, expected)


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", [n for n in tl.variants.names() if n.startswith("numba")])
def test_updates_in_one_call_have_the_bits_of_several(name, dtype, shape, threads):
    """Over batches that are cut in different ways, each way twice and again later."""
    if threads > cpu_count():
        pytest.skip("needs two CPUs")
    case = cases.problem(tl.Network("tanh", "softmax"), SHAPES[shape], dtype)
    one, together = (tl.variants.get(name).plan(*case[1:], threads) for _ in range(2))
    update = UPDATES["descend_with_momentum"]
    one.slots = together.slots = [tl.Parameters(*(0 * w for w in case.theta))]
    batches = [rows for rows in (*BATCHES, slice(0, 1100), *BATCHES) for _ in range(2)]
    scalars = [(0.1 / k, 0.9 - 0.01 * k) for k in range(1, len(batches) + 1)]
    expected = [one.update(update, *each) for each in zip(scalars, batches, strict=True)]
    rows = [(run.start, run.stop) for run in batches]
    assert together.updates(update, scalars, rows).tolist() == expected
    for mine, other in zip((one.theta, *one.slots), (together.theta, *together.slots), strict=True):
        assert all(map(np.array_equal, mine, other))
    assert together.updates(update, [], []).shape == (0,)
    last = scalars[0], batches[0]  # not with what the last call left behind
    assert together.update(update, *last) == one.update(update, *last)
    assert all(map(np.array_equal, together.theta, one.theta))

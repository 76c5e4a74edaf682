"""The answers of a problem: made in float64 once, for few rows, and every plan is held to them."""

import numpy as np
import pytest
from batch import DESCEND, Batch, copied

import twolayer as tl
from twolayer.checking import bounds
from twolayer.checking.answers import Answers, Disagreement
from twolayer.kernels.formulas.losses import LOSSES
from twolayer.network import DTYPES

NET = tl.Network("tanh", "squared")
SHAPE = tl.Shape(1100, 3, 5, 2)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("loss", LOSSES)
def test_rows_that_occur_again_are_counted(loss, dtype):
    """The evaluation of the distinct rows is that of all."""
    net = tl.Network("silu", loss)
    answers = Answers.drawn(net, tl.Shape(700, 4, 6, 1 if loss == "logistic" else 3), dtype)
    right = answers.epochs[0].right
    every = bounds.evaluate(net, answers.theta, answers.X, answers.Y, dtype)
    assert len(right.F) < len(every.F) == 700
    np.testing.assert_array_equal(right.F[answers._of], every.F)
    for one, other in (
        (right.loss, every.loss), (right.loss_bound, every.loss_bound),
        *zip(right.gradient, every.gradient, strict=True),
        *zip(right.gradient_bound, every.gradient_bound, strict=True),
    ):  # fmt: skip
        np.testing.assert_allclose(one, other, rtol=1e-12, atol=1e-14)


def test_what_shows_after_a_step_only_is_found():
    class Stale(Batch):
        """The first θ stays in use."""

        kept = None

        def step(self, X, Y, weights, mu):
            self.kept = self.kept or copied(weights.theta)
            loss = self.differentiate(X, Y, self.kept, weights.gradient)
            weights.apply(DESCEND, (mu,))
            return loss

    answers = Answers.drawn(NET, SHAPE, "float32")
    plan = tl.Variant("stale", "cpu", "", Stale).plan(*answers.problem)
    with pytest.raises(Disagreement, match=r"L returned by step after a step of all 1100 rows"):
        answers.hold(plan)


@pytest.mark.parametrize(
    "error", [MemoryError("for a moment"), RuntimeError("forked"), ZeroDivisionError("by zero")]
)
@pytest.mark.parametrize("method", ["backpropagate", "forward", "update"])
def test_what_a_plan_raises_is_no_disagreement(monkeypatch, method, error):
    answers = Answers.drawn(NET, SHAPE, "float32")
    plan = tl.variants.get("numpy").plan(*answers.problem)

    def fail(*arguments):
        raise error

    monkeypatch.setattr(plan.engine, method, fail)
    with pytest.raises(type(error)) as caught:
        answers.hold(plan)
    assert caught.value is error
    assert not isinstance(error, Disagreement)


def test_another_shape_is_a_disagreement(monkeypatch):
    answers = Answers.drawn(NET, SHAPE, "float32")
    plan = tl.variants.get("numpy").plan(*answers.problem)
    monkeypatch.setattr(tl.Plan, "predict", lambda self, X: np.zeros((3, 2)))
    with pytest.raises(Disagreement, match=r"the oracle: F has shape \(3, 2\), not \(1100, 2\)$"):
        answers.hold(plan)


@pytest.mark.parametrize("n", [1, 31, 257, 5000])
def test_what_is_right_is_held_at_any_size_and_keeps_its_parameters(n):
    for shape in (tl.Shape(n, 3, 5, 2), tl.Shape(n, 40, 300, 7)):
        answers = Answers.drawn(tl.Network("relu", "softmax"), shape, "float32")
        plan = tl.variants.get("numpy").plan(*answers.problem)
        plan.step(0.5)
        assert answers.hold(plan) <= 1
        for now, before in zip(plan.theta, answers.theta, strict=True):
            np.testing.assert_array_equal(now, before)


MEMORY = """
import sys
from twolayer import Network, Shape
from twolayer.checking.answers import Answers
from twolayer.measuring.timing import peak_memory
from twolayer import variants
small, large = (Answers.drawn(Network(), Shape(n, 8, 32, 2), "float32") for n in (1000, 1 << 20))
plan = variants.get("numba-loops").plan(*large.problem, threads=1)
small.hold(variants.get("numba-loops").plan(*small.problem, threads=1))  # compiles all of it
large.epochs
print(peak_memory(lambda: large.hold(plan))[0], large.X.nbytes)
"""


@pytest.mark.compiled
def test_a_check_of_many_rows_takes_little_memory(run_python):
    """Less than X has; a float64 copy of A alone would be four times as much."""
    needed, data = run_python(MEMORY).split()
    if needed != "None":
        assert int(needed) < int(data)

"""What can be copied and sent to another process, and what says why not."""

import copy
import pickle

import numpy as np
import pytest

import twolayer as tl
from twolayer.checking import cases
from twolayer.interface import checks

CASE = cases.problem(tl.Network("tanh", "softmax"), tl.Shape(70, 7, 9, 3), "float32")
WAYS = {
    "copied": copy.copy,
    "copied deeply": copy.deepcopy,
    "pickled": pickle.dumps,
    "pickled as of old": lambda plan: pickle.dumps(plan, protocol=0),
    "pickled inside of another": lambda plan: pickle.dumps({"of": [plan]}),
}


@pytest.mark.parametrize("way", WAYS)
def test_a_plan_says_what_to_send_instead(variant, way):
    plan = variant.plan(CASE.net, CASE.X, CASE.Y, CASE.theta, 1)
    with pytest.raises(TypeError, match=r"^plan: cannot be copied .* pass net, X, Y and plan\.the"):
        WAYS[way](plan)


def vars_of(variant):
    return {name: repr(value) for name, value in vars(variant).items()}


def test_what_a_plan_is_made_of_can_be_sent(variant):
    sent = CASE.net, CASE.X, CASE.Y, CASE.theta
    there, *arguments = pickle.loads(pickle.dumps((variant.name, *sent)))
    found = tl.variants.get(there).plan(*arguments, 1).step(0.1)
    assert found == variant.plan(*sent, 1).step(0.1)
    # As text, for two equal calls of `partial` differ.
    assert vars_of(pickle.loads(pickle.dumps(variant))) == vars_of(variant)


def test_what_was_checked_of_updates_cannot_change_any_more():
    rows, scalars = np.array([[0, 2]]), np.ones((1, 1))
    assert not np.shares_memory(checks.check_runs(rows, 2), rows)
    found = checks.check_table(scalars, 1, 1, np.dtype("float64"))
    assert not np.shares_memory(found, scalars)

"""The agreement tests can fail: every deliberately wrong variant is caught, by name."""

import pytest
from batch import Batch
from mistakes import MISTAKES

from twolayer import Network, Variant
from twolayer.checking.verify import verify
from twolayer.kernels.formulas.activations import ACTIVATIONS
from twolayer.kernels.formulas.losses import LOSSES

# One network for each loss, and one for each activation: a mistake shows in some of them.
NETWORKS = [Network("tanh", loss) for loss in LOSSES] + [
    Network(activation, "squared") for activation in ACTIVATIONS if activation != "tanh"
]


def disagreements(variant):
    for dtype in ("float64", "float32"):
        for net in NETWORKS:
            yield from (result for result in verify(variant, net, dtype) if not result.agrees)


@pytest.mark.parametrize("name", MISTAKES)
def test_every_mistake_is_caught(name):
    found = next(disagreements(MISTAKES[name]), None)
    assert found is not None, f"{name} was not caught"
    assert str(found).startswith(name)


def test_there_are_many_mistakes():
    assert len(MISTAKES) >= 20


@pytest.mark.parametrize("net", NETWORKS, ids=str)
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_what_the_mistakes_are_made_from_is_right(net, dtype):
    right = Variant("batch", "cpu", "right", Batch)
    for result in verify(right, net, dtype):
        assert result.agrees, result

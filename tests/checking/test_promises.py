"""`verify` holds variants to the whole interface: each fault is found, what is right passes."""

from itertools import chain

import numpy as np
import pytest
from batch import Batch
from size_faults import FAULTS

import twolayer as tl
from twolayer.checking.exact import exact
from twolayer.checking.promises import SHAPES, promises
from twolayer.kernels.formulas.losses import LOSSES
from twolayer.network import DTYPES

NETWORKS = [tl.Network("tanh", loss) for loss in ("squared", *LOSSES)]


def broken(variant):
    """What `twolayer verify` finds; what finds most faults, and soonest, comes first."""

    def kept(*networks):
        for dtype in DTYPES:
            for net in networks:
                yield from promises(variant, net, dtype)

    found = chain(kept(NETWORKS[0]), *(exact(variant, one) for one in DTYPES), kept(*NETWORKS[1:]))
    return (one for one in found if not one.agrees)


@pytest.mark.parametrize("name", FAULTS)
def test_every_fault_is_found(name):
    state = np.random.get_state()
    try:
        found = next(broken(FAULTS[name]), None)
    finally:
        np.random.set_state(state)
    assert found is not None, f"{name} was not found"
    assert str(found).startswith(f"{name}: ")


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("loss", LOSSES)
def test_what_is_right_keeps_every_promise(loss, dtype):
    right = tl.Variant("right", "cpu", "", Batch)
    found = list(promises(right, tl.Network("tanh", loss), dtype))
    assert len(found) > 15
    for result in found:
        assert result.agrees, result


# A promise holds for one loss as for another; L and ∇L of each are agreement's.
QUICK = ("softmax",)


@pytest.mark.parametrize(
    "net",
    [
        pytest.param(net, id=net.loss, marks=() if net.loss in QUICK else pytest.mark.slow)
        for net in NETWORKS[1:]
    ],
)
def test_every_variant_keeps_every_promise(variant, net):
    if variant.name in ("python-loops", "dask", "torch-compile"):
        pytest.skip("takes minutes")
    shapes = SHAPES
    if variant.name == "numpy-samples":
        shapes = [shape for shape in SHAPES if shape.n < 1000]  # many rows, which it takes singly
    keeps(variant, net, shapes)


@pytest.mark.slow
@pytest.mark.parametrize("net", NETWORKS[1:], ids=lambda net: net.loss)
def test_samples_one_by_one_keep_every_promise_over_many_rows(net):
    keeps(tl.variants.get("numpy-samples"), net, SHAPES)


def keeps(variant, net, shapes):
    for dtype in DTYPES:
        for result in promises(variant, net, dtype, shapes=shapes):
            assert result.agrees, result


def test_all_that_is_random_is_left_alone():
    before = np.geterr(), np.random.get_state()[1].tobytes()
    list(promises(FAULTS["changes_the_error_state"], tl.Network(), "float64"))
    assert before == (np.geterr(), np.random.get_state()[1].tobytes())

"""Updates over batches: loops of other libraries go where ours go, or are not timed."""

from contextlib import nullcontext
from dataclasses import replace

import numpy as np
import pytest

import twolayer as tl
from twolayer.checking.answers import Answers
from twolayer.measuring import peers, timing
from twolayer.measuring.race import Workload
from twolayer.training import updates

SHAPE = tl.Shape(70, 3, 5, 2)
BATCH = 16
NUMPY = tl.variants.get("numpy")
FUSED = tl.variants.get("numba-fused")
NESTEROV = "PyTorch has no nesterov with these settings"


def make_task(optimizer, dtype="float32", net=("tanh", "softmax"), shape=SHAPE):
    answers = Answers.drawn(tl.Network(*net), shape, dtype)
    return updates.task(answers, BATCH, optimizer, threads=1)


def held(loop, task):
    updates.hold(loop, task, updates.right(task))


@pytest.fixture(params=peers.PEERS, ids=lambda peer: peer.name)
def peer(request):
    if reason := tl.variants.get(request.param.variant).unavailable():
        pytest.skip(f"{request.param.name} {reason}")
    return request.param


@pytest.mark.filterwarnings("ignore")  # of torch.compile
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("optimizer", tl.optimizers.names())
def test_a_loop_of_others_goes_where_ours_goes(peer, optimizer, dtype):
    if peer.name == "torch.compile" and (optimizer, dtype) != ("adam", "float32"):
        pytest.skip("compiling takes seconds, and the rest of the loop is PyTorch's")
    task = make_task(optimizer, dtype)
    if peer.variant.startswith("torch") and optimizer == "nesterov":
        with pytest.raises(ValueError, match=NESTEROV):
            peer.make(task)
        return
    before = [weights.copy() for weights in task.theta]
    held(peer.make(task), task)
    assert all(map(np.array_equal, before, task.theta))  # for the next loop


@pytest.mark.parametrize(
    "net", [("relu", "squared"), ("identity", "squared"), ("gelu", "logistic")]
)
def test_so_it_does_with_other_networks(peer, net):
    if peer.name == "torch.compile":
        pytest.skip("compiling takes seconds, and the rest of the loop is PyTorch's")
    task = make_task("sgd", "float64", net, SHAPE._replace(K=1))
    held(peer.make(task), task)


@pytest.mark.parametrize("optimizer", tl.optimizers.names())
def test_a_variant_goes_there_by_its_plan(optimizer):
    task = make_task(optimizer)
    held(updates.own_loop(NUMPY, task), task)


@pytest.mark.parametrize("threads", [1, 2])
def test_pytorchs_loop_has_its_threads(threads):
    torch = pytest.importorskip("torch")
    loop = peers.torch_loop(make_task("gd")._replace(threads=threads))
    with loop.settings():
        assert torch.get_num_threads() == threads


def test_batches_are_neighbouring_rows_again_and_again():
    batches = make_task("gd").batches()
    rows = [next(batches) for _ in range(5)]
    assert [(r.start, r.stop) for r in rows] == [(0, 16), (16, 32), (32, 48), (48, 64), (0, 16)]


def forgets_momentum(task):
    return peers.numpy_loop(task._replace(settings={**task.settings, "momentum": 0.0}))


def forgets_a_batch(task):
    return peers.numpy_loop(task._replace(X=task.X[BATCH:], Y=task.Y[BATCH:]))


def forgets_the_mean(task):
    return peers.numpy_loop(task._replace(settings={**task.settings, "step": 0.01 * BATCH}))


def loses_theta(task):
    nan = peers.Parameters(*(np.full_like(weights, np.nan) for weights in task.theta))
    return peers.Loop(lambda count: None, lambda: nan, nullcontext)


WRONG = [forgets_momentum, forgets_a_batch, forgets_the_mean, loses_theta]


def run(optimizer, field, rivals, rounds=2, **progress):
    workload = Workload(tl.Network("tanh", "softmax"), SHAPE)
    result = updates.Result(workload, BATCH, optimizer)
    updates.race(result, workload.load(), field, rivals, 1, rounds, **progress)
    return result


@pytest.mark.parametrize("wrong", WRONG)
def test_a_wrong_loop_is_named_and_not_timed(wrong):
    result = run("sgd", [NUMPY], [peers.Peer("wrong", "numpy", wrong)])
    own, other = result.entries
    assert len(own.blocks) == 2
    assert other.wrong
    assert other.skipped.startswith("disagrees with the oracle: after 3 updates V is off by ")
    assert other.blocks == []
    assert result.best_peer is None


def test_a_wrong_variant_is_not_timed_either():
    class Wrong(NUMPY.make):
        def backpropagate(self, X, Y, theta, gradient):
            loss = super().backpropagate(X, Y, theta, gradient)
            gradient.W[...] *= 1.1
            return loss

    (entry,) = run("sgd", [tl.Variant("wrong", "cpu", "for a test", Wrong)], []).entries
    assert entry.wrong
    assert "W is off by 0.1 of its way" in entry.skipped


def test_what_is_missing_or_diverges_has_its_reason():
    absent = tl.Variant("absent", "cpu", "not here", None, requires=("no_such_package",))
    tl.variants.add(absent)

    def diverging(task):
        loop = peers.numpy_loop(task)
        thetas = iter([loop.theta, lambda: peers.Parameters(np.array([np.inf]), np.ones(1))])
        return loop._replace(theta=lambda: next(thetas)())

    rivals = [peers.Peer("Absent", "absent", None), peers.Peer("far", "numpy", diverging)]
    result = run("adam", [], rivals)
    assert [entry.skipped for entry in result.entries] == [
        "needs the package no_such_package",
        "θ is not finite after its updates",
    ]
    assert not any(entry.blocks or entry.wrong for entry in result.entries)


def test_an_optimizer_of_ones_own_is_raced_among_the_variants():
    tl.optimizers.add(replace(tl.optimizers.get("sgd"), name="mine"))
    own, other = run("mine", [NUMPY], peers.PEERS[:1]).entries
    assert own.blocks
    assert other.skipped.startswith("optimizer: expected one of gd, ")


def test_rounds_alternate_and_progress_adds_up():
    calls, told = [], []

    def recording(name):
        def make(task):
            loop = peers.numpy_loop(task)

            def run(count):
                calls.append(name)
                loop.run(count)

            return loop._replace(run=run)

        return peers.Peer(name, "numpy", make)

    run(
        "gd", [], [recording("a"), recording("b")], rounds=3,
        progress=lambda name, units: told.append(units),
    )  # fmt: skip
    blocks = calls[2:]  # after both were held to θ
    assert blocks[::2] == blocks[1::2]  # a warm-up and a block
    orders = timing.rounds("ab", 3, str(Workload(tl.Network("tanh", "softmax"), SHAPE)))
    assert blocks[::2] == [name for order in orders for name in order]
    assert sum(told) == 2 * (3 + 1)


def test_the_ratio_is_of_the_best_peer_to_numba_fused():
    def entry(name, peer, seconds):
        return updates.Entry(name, peer, blocks=[seconds])

    result = updates.Result(Workload(tl.Network(), SHAPE), BATCH, "sgd")
    result.entries = [entry("numpy", False, 1.0), entry("A", True, 6.0), entry("B", True, 4.0)]
    assert result.lead is None
    result.entries.append(entry(FUSED.name, False, 2.0))
    assert result.best_peer.name == "B"
    assert result.lead.value == 2.0

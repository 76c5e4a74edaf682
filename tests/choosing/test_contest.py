"""The race for a choice: who is timed, on how many rows, and in which order."""

import pytest

import twolayer as tl
from twolayer.choosing import contest, decide, known
from twolayer.choosing.choice import Question
from twolayer.machine.store import Store
from twolayer.measuring import timing

NET = tl.Network("tanh", "squared")
Q = Question("tanh", "squared", 3000, 3, 4, 2, "float32", 1)


@pytest.mark.parametrize("batch", [0, 7])
def test_a_race_times_what_agrees(monkeypatch, batch):
    numpy = tl.variants.get("numpy")

    class Wrong(numpy.make):
        def backpropagate(self, X, Y, theta, gradient):
            loss = super().backpropagate(X, Y, theta, gradient)
            gradient.W[...] *= 1.01
            return loss

    class Breaks(numpy.make):
        def __init__(self, problem):
            raise OSError("a disk")

    monkeypatch.setattr(contest, "_BEHIND", 1e9)
    variants = [tl.Variant(name, "cpu", "", make) for name, make in
                (("right", numpy.make), ("wrong", Wrong), ("breaks", Breaks))]  # fmt: skip
    progressed = []
    found, rows = contest.contest(
        NET, Q._replace(batch=batch), variants, lambda name, units: progressed.append(units)
    )
    right, wrong, breaks = found
    assert right.blocks
    assert right.plan > 0
    assert (wrong.wrong, wrong.passing) == (True, False)
    assert (breaks.skipped, breaks.passing) == ("OSError: a disk", True)
    assert rows == (224 if batch else 3000)
    assert sum(progressed) <= len(variants) * (len(contest.FAR) + 1)


def test_who_was_left_behind_by_one_that_turns_out_wrong_is_timed(monkeypatch):
    """It agrees at first, and not any more after many steps."""
    numpy = tl.variants.get("numpy")
    variants = [tl.Variant(name, "cpu", "", numpy.make) for name in ("wrong", "right")]
    raced = []

    def start(entry, result, answers, limit, *about, **more):
        if limit < float("inf"):
            entry.skipped, entry.estimate = contest.TOO_SLOW, 9.0
            return None
        return numpy.plan(*answers.problem, 1)

    def side_by_side(running, *about, **more):
        ((entry, _),) = running
        raced.append(entry.variant.name)
        if entry.variant.name == "wrong":
            entry.skipped = "disagrees with the oracle"
        else:
            entry.blocks = [1.0] * 5

    monkeypatch.setattr(contest, "start", start)
    monkeypatch.setattr(contest, "side_by_side", side_by_side)
    found, _ = contest.contest(NET, Q, variants, lambda name, units: None)
    assert raced == ["wrong", "right"]
    assert [bool(entry.blocks) for entry in found] == [False, True]


def test_who_seems_faster_than_the_one_that_left_it_behind_is_timed(monkeypatch):
    """The first is slower when it is timed than it was at a look."""
    numpy = tl.variants.get("numpy")
    variants = [tl.Variant(name, "cpu", "", numpy.make) for name in ("first", "near", "far")]
    looks, raced = {"first": 1.0, "near": 4.0, "far": 20.0}, []

    def side_by_side(running, *about, **more):
        raced.append([entry.variant.name for entry, _ in running])
        for entry, _ in running:
            entry.blocks = [8.0 if entry.variant.name == "first" else 4.0] * 5
        looks["first"] = 8.0

    monkeypatch.setattr(contest, "start", lambda entry, *about, **more: entry.variant)
    monkeypatch.setattr(contest, "epoch", lambda variant: variant)
    monkeypatch.setattr(timing, "warm_up", lambda variant, *_: looks[variant.name])
    monkeypatch.setattr(contest, "side_by_side", side_by_side)
    found, _ = contest.contest(NET, Q, variants, lambda name, units: None)
    assert raced == [["first"], ["first", "near"]]
    assert [len(entry.blocks) for entry in found] == [5, 5, 0]
    looks["first"] = 1.0
    raced.clear()
    contest.contest(NET, Q, variants[:2], lambda name, units: None)
    assert raced == [["first"]]  # none is raced for ever


def test_who_is_left_behind_has_an_estimate_alone(monkeypatch):
    monkeypatch.setattr(timing, "estimate", lambda make, n, *more: (make(n), 1.0)[1])
    slow, fast = (tl.variants.get(name) for name in ("numpy-samples", "numpy"))
    (first, second), _ = contest.contest(NET, Q, [fast, slow], lambda name, units: None)
    assert first.blocks
    assert not second.blocks
    assert second.skipped.startswith("would take 1 s an epoch")
    assert second.estimate == 1.0
    made = decide._candidate(second, Q, 1500)
    assert (made.seconds.median, made.blocks) == (2.0, 0)


def test_interpreted_loops_are_not_tried_where_they_would_take_minutes(monkeypatch):
    tried = []
    monkeypatch.setattr(contest.Answers, "drawn", lambda *_: None)

    def start(entry, *about, **more):
        tried.append(entry.variant.name)
        return 1

    monkeypatch.setattr(contest, "start", start)
    monkeypatch.setattr(timing, "warm_up", lambda *_: 0.1)
    monkeypatch.setattr(contest, "epoch", lambda plan: None)
    monkeypatch.setattr(contest, "side_by_side", lambda *_, **__: None)
    variants = [tl.variants.get(name) for name in ("numpy", "python-loops")]
    large = Question("tanh", "squared", 100, 3000, 3000, 3, "float32", 1)
    (_, loops), _ = contest.contest(NET, large, variants, lambda name, units: None)
    assert tried == ["numpy"]
    assert loops.estimate > 5  # seconds
    tried.clear()
    contest.contest(NET, Q, variants, lambda name, units: None)
    assert tried == ["numpy", "python-loops"]


@pytest.mark.parametrize(
    ("q", "least", "most"),
    [
        (Q, 3000, 3000),
        (Q._replace(n=10**9), 10**6, 10**8),
        (Q._replace(n=10**9, d=4000, M=4000), 10, 100),
        (Q._replace(batch=64), 64 * 32, 64 * 32),
        (Q._replace(n=1), 1, 1),
    ],
)
def test_long_epochs_run_on_fewer_rows(q, least, most):
    assert least <= contest.rows_of(q) <= most


def test_the_order_is_that_of_what_won_near_by(tmp_path):
    store = Store(tmp_path / "store.sqlite")
    for n, name in ((10, "numba-loops"), (10**5, "numpy"), (30, "numba-blas")):
        about = {"n": n, "d": 3, "M": 4, "K": 2}
        known.keep(store, known.ANSWER, {}, variant=name, **about)
    assert known.winners(store, Q._replace(n=12)) == ["numba-loops", "numba-blas", "numpy"]
    assert known.winners(store, Q._replace(n=10**6)) == ["numpy", "numba-blas", "numba-loops"]

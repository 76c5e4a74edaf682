"""Choosing by a race that nobody ran: no test here looks at a clock."""

import dataclasses
import json
import logging

import numpy as np
import pytest
from made_up import COLD, START, made_up_contest, make_up_times
from typer.testing import CliRunner

import twolayer as tl
from twolayer import choosing
from twolayer.checking import cases
from twolayer.choosing import decide, field
from twolayer.choosing.choice import Candidate, Choice, Span, break_even
from twolayer.cli import app
from twolayer.machine.calm import Calm

NET = tl.Network("tanh", "squared")
SMALL, LARGE = {"n": 5, "d": 3, "M": 4, "K": 2}, {"n": 3000, "d": 3, "M": 4, "K": 2}


def candidate(name, seconds, before, start=None):
    return Candidate(name, Span(seconds, seconds, seconds), 5, 0, before, None, start)


@pytest.mark.parametrize(
    ("lines", "expected"),
    [
        ([("a", 1.0, 0.0)], [(1, "a")]),
        ([("a", 1.0, 0.0), ("b", 0.5, 2.0)], [(1, "a"), (5, "b")]),
        ([("a", 1.0, 0.0), ("b", 0.5, 9.0), ("c", 0.25, 3.0)], [(1, "a"), (5, "c")]),
        ([("a", 4.0, 0.0), ("b", 2.0, 4.0), ("c", 1.0, 14.0)], [(1, "a"), (3, "b"), (11, "c")]),
        ([("a", 1.0, 1.0), ("b", 0.5, 0.0)], [(1, "b")]),
    ],
)
def test_break_even(lines, expected):
    made = [candidate(*line) for line in lines]
    found = break_even(made)
    assert [(turn.epochs, turn.variant) for turn in found] == expected
    for name, low, epochs, high in found:
        assert low == epochs == high
        assert min(made, key=lambda c: c.total(epochs)).variant == name
        if epochs > 1:
            assert min(made, key=lambda c: c.total(epochs - 1)).variant != name


def test_break_even_is_as_uncertain_as_the_starts():
    slow, fast = Span(1.0, 2.0, 3.0), Span(4.0, 5.0, 9.0)
    first, then = break_even([candidate("a", 1.0, 0.0, slow), candidate("b", 0.5, 0.0, fast)])
    assert first == ("a", 1, 1, 1)
    assert then == ("b", 3, 7, 17)  # (4 - 3), (5 - 2), (9 - 1) s later, 0.5 s an epoch


@pytest.mark.usefixtures("store")
def test_the_least_time_is_chosen():
    few, many = tl.choose(NET, **SMALL), tl.choose(NET, **LARGE)
    assert (few.variant, many.variant) == ("numba-loops", "numba-fused")
    assert few.seconds_per_epoch == pytest.approx(6e-6)
    assert few.interval[0] <= few.seconds_per_epoch <= few.interval[1]
    assert few.reason.startswith("numba-loops took the least time for an epoch")
    assert many.runners_up[0].variant == "numpy"
    assert many.runners_up[0].ratio.median == pytest.approx(1.52e-3 / 3.1e-4)
    assert {"torch", "jax", "auto"}.isdisjoint(c.variant for c in few.runners_up)


@pytest.mark.usefixtures("store")
def test_of_several_that_are_as_fast_the_one_with_the_least_memory_is_chosen(raced):
    raced(numba_fused=1.0e-3, numpy=0.99e-3, numba_loops=1.5e-3)
    shape = {"n": 100_000, "d": 3, "M": 400, "K": 2}  # for which numpy needs 300 MiB
    choice = tl.choose(NET, **shape)
    assert choice.variant == "numba-fused"
    assert "numba-fused and numpy take the same time" in choice.reason
    assert "has the least memory" in choice.reason


@pytest.mark.usefixtures("store")
def test_the_second_answer_comes_from_the_store(monkeypatch):
    first_answer = tl.choose(NET, **LARGE)
    monkeypatch.setattr(decide, "choose", None)
    assert tl.choose(NET, **LARGE) == first_answer
    choosing._answers.clear()  # as in another process
    again = tl.choose(NET, **LARGE)
    assert again == first_answer
    assert Choice.from_json(json.loads(json.dumps(again.to_json()))) == again


@pytest.mark.usefixtures("store")
def test_fresh_asks_again_whatever_is_kept(raced):
    assert tl.choose(NET, **LARGE).variant == "numba-fused"
    raced(numpy=1e-6)
    assert tl.choose(NET, **LARGE).variant == "numba-fused"
    assert tl.choose(NET, **LARGE, fresh=True).variant == "numpy"
    assert tl.choose(NET, **LARGE).variant == "numpy"


@pytest.mark.usefixtures("store")
def test_each_batch_is_a_question_of_its_own():
    all_rows, few = tl.choose(NET, **LARGE), tl.choose(NET, **LARGE, batch=6)
    assert (all_rows.variant, few.variant) == ("numba-fused", "numba-loops")
    assert few.seconds_per_epoch == pytest.approx(3000 / 6 * 7e-6)
    assert tl.choose(NET, **LARGE, batch=10**6) == all_rows  # of fewer rows than that


@pytest.mark.parametrize(
    "failure", [MemoryError("9 GiB"), OSError("no"), RuntimeError("a child"), ImportError("x")]
)
@pytest.mark.usefixtures("store")
def test_what_may_pass_is_told_and_tried_again(raced, caplog, failure):
    raced(numba_fused=failure)
    with caplog.at_level(logging.WARNING):
        choice = tl.choose(NET, **LARGE)
    assert choice.variant == "numpy"
    assert str(failure) in dict(choice.ruled_out)["numba-fused"]
    assert "numba-fused is left out this time" in caplog.text
    raced()
    assert tl.choose(NET, **LARGE).variant == "numba-fused"


@pytest.mark.usefixtures("store")
def test_a_variant_that_disagrees_is_never_chosen(raced):
    raced(numba_fused="disagrees with the oracle: dL/dV")
    choice = tl.choose(NET, **LARGE)
    assert choice.variant == "numpy"
    assert dict(choice.ruled_out)["numba-fused"] == "disagrees with the oracle: dL/dV"
    raced()
    assert tl.choose(NET, **LARGE) == choice  # that will not pass


@pytest.mark.usefixtures("store")
def test_what_others_disturbed_is_told_and_not_kept(monkeypatch, raced):
    class Watch:
        calm = staticmethod(lambda: Calm(others=1.0))

    with monkeypatch.context() as patch:
        patch.setattr(decide.calm, "Watch", Watch)
        choice = tl.choose(NET, **LARGE)
    assert choice.calm == "other programs kept 1.0 CPUs busy"
    raced(numpy=1e-6)
    assert tl.choose(NET, **LARGE).variant == "numpy"


# Terms


@pytest.mark.usefixtures("store")
def test_memory_rules_out():
    shape = {"n": 100_000, "d": 3, "M": 400, "K": 2}
    assert "numpy" in [c.variant for c in tl.choose(NET, **shape).runners_up]
    limited = tl.choose(NET, **shape, max_memory=64 << 20)
    assert limited.memory < 64 << 20
    assert dict(limited.ruled_out)["numpy"] == "needs 308 MiB of memory, 64 MiB are allowed"
    with pytest.raises(MemoryError, match="numpy needs 308 MiB of memory, 1 MiB are allowed"):
        tl.choose(NET, **shape, max_memory=1 << 20)


@pytest.mark.usefixtures("store")
def test_what_free_memory_ruled_out_is_asked_again(monkeypatch):
    shape = {"n": 100_000, "d": 3, "M": 400, "K": 2}
    with monkeypatch.context() as patch:
        patch.setattr(field, "available_memory", lambda: 64 << 20)
        assert "numpy" in dict(tl.choose(NET, **shape).ruled_out)
    assert "numpy" not in dict(tl.choose(NET, **shape).ruled_out)


@pytest.mark.usefixtures("store")
def test_named_variants_are_the_only_candidates():
    choice = tl.choose(NET, **LARGE, variants=["numpy", "numba-loops"])
    assert choice.variant == "numpy"
    assert [c.variant for c in choice.runners_up] == ["numba-loops"]
    with pytest.raises(RuntimeError, match=r"no variant is left .* numpy runs on cpu"):
        tl.choose(NET, **LARGE, variants=["numpy"], device="cuda")


@pytest.mark.usefixtures("store")
def test_a_variant_that_runs_elsewhere_too_is_looked_at_there(monkeypatch):
    numpy = tl.variants.get("numpy")
    other = dataclasses.replace(numpy, device="cuda")
    both = dataclasses.replace(numpy, elsewhere=(other,))
    monkeypatch.setitem(tl.variants.REGISTRY._entries, "numpy", both)
    asked = []

    def race(net, q, variants, progress):
        asked.append([(variant.name, variant.device) for variant in variants])
        return made_up_contest(net, q, variants, progress)

    monkeypatch.setattr(decide, "contest", race)
    there = tl.choose(NET, **SMALL, device="cuda", variants=["numpy", "numba-loops"])
    assert there.variant == "numpy"
    assert dict(there.ruled_out)["numba-loops"] == "runs on cpu"
    tl.choose(NET, **SMALL, variants=["numpy"])
    assert asked == [[("numpy", "cuda")], [("numpy", "cpu")]]


@pytest.mark.usefixtures("store")
def test_only_what_is_reproducible_is_deterministic(monkeypatch):
    fused = tl.variants.get("numba-fused")
    loose = tl.Variant("numba-fused", "cpu", "", fused.make, fused.workspace, reproducible=False)
    monkeypatch.setitem(tl.variants.REGISTRY._entries, "numba-fused", loose)
    assert tl.choose(NET, **LARGE).variant == "numba-fused"
    choice = tl.choose(NET, **LARGE, deterministic=True)
    assert choice.variant == "numpy"
    assert dict(choice.ruled_out)["numba-fused"] == "does not return the same bits each time"


@pytest.mark.usefixtures("store")
def test_few_epochs_reverse_the_answer(monkeypatch):
    make_up_times(monkeypatch, numpy=START / 2)
    many = {"n": 100_000, "d": 3, "M": 4, "K": 2}  # 0.01 s with numba-fused, 0.05 s with numpy
    few = tl.choose(NET, **many, epochs=2)
    assert few.variant == "numpy"
    first, then = few.break_even
    assert (first.variant, first.epochs) == ("numpy", 1)
    assert then.variant == "numba-fused"
    assert then.low <= then.epochs <= then.high
    assert tl.choose(NET, **many, epochs=2 * then.epochs).variant == "numba-fused"
    assert tl.choose(NET, **many, epochs=then.epochs - 1).variant == "numpy"
    assert few.total_seconds == pytest.approx(few.chosen.before + 2 * few.seconds_per_epoch)
    cold = tl.choose(NET, **many, epochs=10**6, cold=True)
    assert cold.chosen.start.median == COLD


@pytest.mark.usefixtures("store")
def test_starts_are_timed_of_those_that_can_win_and_kept(monkeypatch):
    asked = []

    def once(variant, workload, threads, cold):
        asked.append(variant.name)
        return START

    monkeypatch.setattr("twolayer.choosing.starts.startup.once", once)
    choice = tl.choose(NET, **LARGE, epochs=10**9)
    assert choice.variant == "numba-fused"
    assert asked == ["numba-fused"] * 6  # the first one compiles and does not count
    assert choice.reason.endswith("every other variant takes longer for the epochs alone")
    asked.clear()
    tl.choose(NET, **LARGE, epochs=10**8)
    assert asked == []
    tl.choose(NET, **LARGE, epochs=10**9, fresh=True)
    assert asked == ["numba-fused"] * 6


@pytest.mark.usefixtures("store")
def test_who_does_not_start_is_no_candidate(monkeypatch):
    def once(variant, *about):
        if variant.name == "numba-fused":
            raise RuntimeError("no such module")
        return START

    monkeypatch.setattr("twolayer.choosing.starts.startup.once", once)
    choice = tl.choose(NET, **LARGE, epochs=10**6)
    assert choice.variant == "numpy"
    why = "did not start in a new process: no such module"
    assert dict(choice.ruled_out)["numba-fused"] == why


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"n": 0}, "n: expected a positive integer, got 0"),
        ({"K": 1.5}, "K: expected a positive integer, got 1.5"),
        ({"dtype": "float16"}, "dtype: expected dtype float32 or float64, got float16"),
        ({"device": "tpu"}, "device: expected one of cpu, cuda, cluster, got 'tpu'"),
        ({"batch": 0}, "batch: expected a positive integer, got 0"),
        ({"epochs": 0}, "epochs: expected a positive integer, got 0"),
        ({"max_memory": -1}, "max_memory: expected a positive integer, got -1"),
        ({"threads": 0}, "threads: expected a positive integer, got 0"),
        (
            {"variants": ["numpyy"]},
            "variant: expected one of python-loops, .*, got 'numpyy': did you mean numpy\\?",
        ),
    ],
)
@pytest.mark.usefixtures("store")
def test_bad_arguments(change, message):
    with pytest.raises((ValueError, TypeError), match=f"^{message}$"):
        tl.choose(NET, **{**LARGE, **change})


def test_a_loss_with_one_output_is_held_to_it(store):
    with pytest.raises(ValueError, match="K: the logistic loss has one output"):
        tl.choose(tl.Network("tanh", "logistic"), **LARGE)


def plan_of_auto(n, dtype="float32"):
    case = cases.problem(NET, tl.Shape(n, 3, 4, 2), dtype)
    return case, tl.variants.get("auto").plan(*case[1:])


@pytest.mark.usefixtures("store")
def test_auto_is_the_chosen_variant_and_says_which():
    for n, name in ((5, "numba-loops"), (3000, "numba-fused")):
        case, plan = plan_of_auto(n)
        assert plan.variant == name
        own = tl.variants.get(name).plan(*case[1:])
        assert type(plan) is type(own)
        assert plan.step(0.1) == own.step(0.1)
        assert np.array_equal(plan.theta.V, own.theta.V)
    assert "auto" not in [c.variant for c in tl.choose(NET, **SMALL).runners_up]


@pytest.mark.usefixtures("store")
@pytest.mark.parametrize("streamed", [False, True])
def test_training_with_auto_is_training_with_the_chosen_variant(tmp_path, streamed):
    case = cases.problem(NET, tl.Shape(3000, 3, 4, 2), "float32")
    files = []
    for name, array in (("X", case[2]), ("Y", case[3])):
        np.save(tmp_path / f"{name}.npy", array)
        files += [f"--{name}", str(tmp_path / f"{name}.npy")]
    sizes = ["--M", "4", "--dtype", "float32", "--epochs", "3", *(["--stream"] if streamed else [])]
    said = [
        CliRunner().invoke(app, ["train", *files, *sizes, "--variant", variant])
        for variant in ("auto", "numba-fused")
    ]
    assert said[0].exit_code == 0, said[0].output
    assert said[0].stdout == said[1].stdout
    assert said[0].stdout.startswith("numba-fused on n=3000 ")

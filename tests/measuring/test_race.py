import numpy as np
import pytest
from faults import FAULTS

import twolayer as tl
from twolayer.machine.calm import Calm, Watch
from twolayer.machine.store import Store
from twolayer.measuring import race as races
from twolayer.measuring import timing
from twolayer.measuring.race import Entry, Result, Workload, race
from twolayer.measuring.roofline import Roofline

NUMPY = tl.variants.get("numpy")
ROOF = Roofline(flops=1e9, bandwidth=1e6)
WORKLOAD = Workload(tl.Network(), tl.Shape(300, 3, 5, 2))
called = []


class Recording(NUMPY.make):
    """NumPy, telling each step over all rows."""

    name = ""

    def update(self, *arguments):
        if self.shape.n == WORKLOAD.shape.n:
            called.append(self.name)
        return super().update(*arguments)


class Wrong(NUMPY.make):
    def backpropagate(self, X, Y, theta, gradient):
        loss = super().backpropagate(X, Y, theta, gradient)
        gradient.V[0, 0] += 1e-3
        return loss


class Interrupted(NUMPY.make):
    """Interrupted in the second round: a plan makes a first step, and four in each round."""

    steps = 0

    def update(self, *arguments):
        self.steps += self.shape.n == WORKLOAD.shape.n
        if self.steps == 8:
            raise KeyboardInterrupt
        return super().update(*arguments)


def variant(name, make=NUMPY.make, **changes):
    return tl.Variant(name, "cpu", "for a test", make, **changes)


def recording(name):
    return variant(name, type(name, (Recording,), {"name": name}))


@pytest.fixture(autouse=True)
def _brief(monkeypatch):
    monkeypatch.setattr(timing.warm_up, "__defaults__", (0, 3))


@pytest.fixture
def store(tmp_path):
    with Store(tmp_path / "store.sqlite") as made:
        yield made


def run(*field, workload=WORKLOAD, **options):
    result = Result(workload, 1, ROOF)
    race(result, field, **options)
    return result


def test_each_variant_gets_its_figures(store):
    result = run(NUMPY, tl.variants.get("numpy-samples"), rounds=3, store=store)
    assert [entry.variant.name for entry in result.entries] == ["numpy", "numpy-samples"]
    for entry in result.entries:
        assert not entry.skipped
        assert len(entry.blocks) == 3
        assert entry.first_call > 0
    kept = store.select(kind="epoch", variant="numpy", n=300, d=3, M=5, K=2, threads=1)
    assert len(kept) == 1
    assert kept[0].metrics["blocks"] == result.entries[0].blocks
    assert (kept[0].activation, kept[0].loss, kept[0].dtype) == ("tanh", "squared", "float32")


def test_the_order_is_drawn_by_the_workload():
    called.clear()
    run(*map(recording, "abc"), rounds=4)
    drawn = [name for order in timing.rounds("abc", 4, str(WORKLOAD)) for name in order]
    # The first steps before, and held to the answers at the end; who meets itself shows once.
    assert [*alone(called)] == [*alone([*"abc", *drawn, *"abc"])]


def alone(names):
    return (name for i, name in enumerate(names) if i == 0 or names[i - 1] != name)


def test_a_wrong_variant_is_not_timed(store):
    result = run(NUMPY, variant("wrong", Wrong), rounds=1, store=store)
    right, wrong = result.entries
    assert right.blocks
    assert wrong.skipped.startswith("disagrees with the oracle: dL/dV")
    assert wrong.blocks == []
    assert [kept.variant for kept in store.select()] == ["numpy"]


@pytest.fixture
def still(monkeypatch, clock):
    """A clock that a variant's `sleep` moves, and nothing else."""
    monkeypatch.setattr(timing, "time", clock)
    return clock


def test_a_slow_variant_is_skipped_with_its_estimate(still):
    class Slow(NUMPY.make):
        def update(self, *arguments):
            still.sleep(1e-3 * self.shape.n)
            return super().update(*arguments)

    result = run(NUMPY, variant("slow", Slow), rounds=1, limit=0.1)
    assert result.entries[0].blocks
    assert result.entries[1].skipped == "would take 0.3 s an epoch, the limit is 0.1 s"


def test_an_estimate_from_few_rows_does_not_mislead(still):
    class Constant(NUMPY.make):
        def update(self, *arguments):
            still.sleep(1e-3)
            return super().update(*arguments)

    # 8 rows in a millisecond would be 37 ms for 300.
    assert run(variant("constant", Constant), rounds=1, limit=0.025).entries[0].blocks


@pytest.mark.parametrize(("parallel", "fewest"), [(True, 300), (False, 8)])
def test_what_runs_other_code_over_few_rows_is_estimated_over_many(parallel, fewest):
    """Plans over few rows would compile code that is not timed."""
    made = []

    class Counting(NUMPY.make):
        def __init__(self, problem):
            made.append(problem.shape.n)
            super().__init__(problem)

    assert run(variant("counting", Counting, parallel=parallel), rounds=1).entries[0].blocks
    assert min(made) == fewest


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (MemoryError("needs 9 GiB"), "found too little memory: needs 9 GiB"),
        (RuntimeError(), "RuntimeError: no reason given"),
        (ZeroDivisionError("by zero"), "ZeroDivisionError: by zero"),
    ],
)
def test_whatever_a_variant_raises_ends_only_itself(error, reason):
    class Failing(NUMPY.make):
        def __init__(self, problem):
            raise error

    result = run(variant("failing", Failing), NUMPY, rounds=1)
    assert result.entries[0].skipped == reason
    assert result.entries[1].blocks


def test_an_unavailable_variant_is_skipped_with_its_reason():
    result = run(variant("absent", requires=("no_such_package",)), rounds=1)
    assert result.entries[0].skipped == "needs the package no_such_package"


def test_data_that_cannot_fit_skip_every_variant():
    result = run(NUMPY, workload=Workload(tl.Network(), tl.Shape(10**12, 1000, 1, 1)), rounds=1)
    assert "n=1000000000000" in result.entries[0].skipped


def test_an_interrupt_keeps_the_blocks_so_far(store):
    result = Result(WORKLOAD, 1, ROOF)
    field = [NUMPY, variant("interrupted", Interrupted)]
    with pytest.raises(KeyboardInterrupt):
        race(result, field, rounds=5, store=store)
    assert [len(entry.blocks) for entry in result.entries] == [1, 1]
    assert {kept.variant for kept in store.select()} == {"numpy", "interrupted"}


def test_progress_counts_to_the_end():
    units = []
    field = [NUMPY, variant("wrong", Wrong), variant("absent", requires=("no_such_package",))]
    run(*field, rounds=2, progress=lambda name, done: units.append(done))
    assert sum(units) == 3 * (2 + 1)


def test_figures_follow_from_the_blocks():
    fast, slow, gpu = (Entry(NUMPY, blocks=b) for b in ([1.0, 2.0, 3.0], [8.0], [4.0]))
    gpu.variant = tl.Variant("gpu", "cuda", "", NUMPY.make)
    shape = WORKLOAD.shape
    result = Result(WORKLOAD, 1, ROOF, [slow, fast, gpu, Entry(NUMPY, "skipped")])
    assert result.ranking == [fast, gpu, slow]
    assert result.least_seconds == shape.bytes("float32") / 1e6  # more than flops / 1e9
    figures = result.figures(fast)
    assert (figures["low"], figures["seconds"], figures["high"]) == (1.5, 2.0, 2.5)
    assert figures["gflops"] == pytest.approx(shape.flops() / 2e9)
    assert figures["roofline"] == pytest.approx(result.least_seconds / 2)
    assert result.figures(slow)["ratio"] == 4
    assert result.figures(gpu)["roofline"] is None


@pytest.mark.parametrize("name", ["linnerud", "digits"])
def test_bundled_data_are_loaded_as_the_workload_says(name):
    workload = Workload.bundled(name, 6, "relu", "float64")
    data = workload.load()
    assert data.X.dtype == data.Y.dtype == data.theta.V.dtype == np.float64
    assert (*data.X.shape, *data.theta.W.shape[::-1]) == workload.shape
    assert data.Y.shape == (len(data.X), workload.shape.K)


def test_a_slow_variant_gets_as_many_rounds_of_fewer_calls(still, monkeypatch):
    monkeypatch.setattr(timing.block, "__defaults__", (0.05,))
    monkeypatch.setattr(timing.warm_up, "__defaults__", (0.15, 1))
    steps = {"quick": 0, "slow": 0}

    def sleeping(name, seconds):
        class Sleeping(NUMPY.make):
            def update(self, *arguments):
                steps[name] += 1
                still.sleep(seconds)
                return super().update(*arguments)

        return variant(name, Sleeping)

    result = run(sleeping("quick", 0.002), sleeping("slow", 0.2), limit=2.0)
    assert [len(entry.blocks) for entry in result.entries] == [races.ROUNDS] * 2
    assert races.ROUNDS >= 5
    assert steps["slow"] < 40 < 600 < steps["quick"]


def blocks(name, *seconds):
    return Entry(variant(name), blocks=list(seconds))


def test_a_tie_has_no_winner():
    fast, near, far = [1.0] * 6, [1.1] * 5 + [0.9], [1.1] * 6
    entries = [blocks("fast", *fast), blocks("near", *near), blocks("far", *far)]
    tie = Result(WORKLOAD, 1, ROOF, entries)
    assert tie.winner is None
    assert tie.margin == (0.9, 1.1, 1.1)
    assert tie.figures(entries[1])["tie"]
    assert not tie.figures(entries[2])["tie"]
    assert tie.figures(entries[2])["ratio_interval"] == pytest.approx([1.1, 1.1])
    won = Result(WORKLOAD, 1, ROOF, entries[::2])
    assert won.winner is entries[0]
    assert Result(WORKLOAD, 1, ROOF, entries[:1]).winner is entries[0]
    assert Result(WORKLOAD, 1, ROOF).winner is None


def test_too_few_rounds_win_nothing():
    result = Result(WORKLOAD, 1, ROOF, [blocks("a", *[1.0] * 5), blocks("b", *[2.0] * 5)])
    assert result.winner is None
    assert result.figures(result.entries[1])["ratio_interval"] is None


def test_what_was_met_is_kept_with_the_figures(store, monkeypatch):
    met = Calm(3.0, others=0.5)
    monkeypatch.setattr(Watch, "calm", lambda watch: met)
    result = run(NUMPY, rounds=1, store=store)
    assert result.calm == met
    assert Calm(**store.select(kind="epoch")[0].metrics["calm"]) == met


def test_the_lead_is_the_fastest_others_time_over_the_references():
    def entry(name, *blocks):
        return Entry(variant(name), blocks=list(blocks))

    entries = [entry("torch", 6.0), entry(races.REFERENCE, 2.0), entry("jax", 5.0)]
    result = Result(WORKLOAD, 1, ROOF, entries)
    assert result.of("jax") is entries[2]
    assert result.lead.value == 2.5
    assert Result(WORKLOAD, 1, ROOF, entries[1:2]).lead is None
    assert Result(WORKLOAD, 1, ROOF, [entries[0], entry(races.REFERENCE)]).lead is None


def test_a_result_in_two_groups_is_one():
    one, two = Result(WORKLOAD, 1, ROOF), Result(WORKLOAD, 1, ROOF)
    assert list(map(id, races.distinct({"n": [one], "d": [one, two]}))) == [id(one), id(two)]


@pytest.mark.parametrize("name", ["rows_from_1032_left_out", "half_of_more_than_2000_rows"])
def test_what_is_wrong_beyond_some_rows_is_not_timed(name):
    result = Result(Workload(tl.Network(), tl.Shape(3000, 4, 5, 2)), 1, ROOF)
    race(result, [FAULTS[name], NUMPY], rounds=1, limit=10.0)
    wrong, right = result.entries
    assert wrong.wrong
    assert "of all 3000 rows" in wrong.skipped
    assert not wrong.blocks
    assert right.blocks, right.skipped

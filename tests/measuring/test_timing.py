import gc
import itertools
import random
import sys

import numpy as np
import pytest

from twolayer.measuring import timing

DEFAULTS = timing.block.__defaults__, timing.warm_up.__defaults__


@pytest.fixture(autouse=True)
def _as_for_users(monkeypatch):
    """As long as blocks and warm-ups last outside of tests."""
    monkeypatch.setattr(timing.block, "__defaults__", DEFAULTS[0])
    monkeypatch.setattr(timing.warm_up, "__defaults__", DEFAULTS[1])


class Clock:
    """A clock that only moves when the call that is timed moves it."""

    def __init__(self, durations):
        self.now = 0.0
        self.calls = 0
        self.durations = durations  # of the first calls; the last one holds for all others

    def perf_counter(self):
        return self.now

    def call(self):
        self.now += self.durations[min(self.calls, len(self.durations) - 1)]
        self.calls += 1


@pytest.fixture
def clock(monkeypatch):
    def make(*durations):
        made = Clock(durations)
        monkeypatch.setattr(timing, "time", made)
        return made

    return make


@pytest.mark.parametrize(("duration", "calls"), [(0.0625, 3), (0.03125, 5), (1.0, 1)])
def test_warm_up_lasts_long_enough(clock, duration, calls):
    made = clock(duration)
    assert timing.warm_up(made.call) == duration
    assert made.calls == calls


def test_warm_up_goes_on_until_a_call_is_no_slower_than_before(clock):
    made = clock(0.0625, 0.125, 0.125, 0.0625)
    assert timing.warm_up(made.call) == 0.0625
    assert made.calls == 4


def test_warm_up_waits_four_times_as_long_at_most(clock):
    made = clock(0.0625, 0.125)  # 0.6 s are 0.0625 + 5 × 0.125 at the latest
    assert timing.warm_up(made.call) == 0.0625
    assert made.calls == 6


def test_block_leaves_the_warm_up_out(clock):
    made = clock(0.125, 0.125, 0.0078125)
    assert timing.block(made.call) == 0.0078125


def test_block_of_a_short_call_has_several_and_of_a_long_one_has_one(clock):
    made = clock(0.0078125)
    timing.block(made.call)
    assert made.calls == 20 + 6  # 0.15 s and 0.05 s
    made = clock(2.0)
    assert timing.block(made.call) == 2.0
    assert made.calls == 1 + 1


@pytest.mark.parametrize("members", ["abcdefg", "ab", "a"])
def test_each_comes_before_each_other_as_often_as_after_it(members):
    orders = [*timing.rounds(members, 6, "seed")]
    for one, other in itertools.permutations(members, 2):
        assert sum(order.index(one) < order.index(other) for order in orders) == 3
    assert [*timing.rounds(members, 6, "seed")] == orders


def test_orders_are_drawn():
    orders = [*timing.rounds("abcdefg", 6, "seed")]
    assert len({tuple(order) for order in orders}) == 6
    assert [*timing.rounds("abcdefg", 6, "another")] != orders


def test_the_interval_of_a_ratio_holds_it_as_often_as_it_says():
    draw, held = random.Random(0), 0
    for _ in range(2000):
        count = draw.choice([6, 7, 9, 12, 30])
        a, b = ([size * draw.lognormvariate(0, 0.1) for _ in range(count)] for size in (1.2, 1.0))
        low, value, high = timing.ratio(a, b)
        held += low <= 1.2 <= high
        assert low <= value <= high
    assert 0.95 <= held / 2000 < 0.985


def test_a_ratio_is_of_rounds_and_one_that_was_disturbed_moves_nothing():
    found = timing.ratio([2.0, 20.0, 2.2, 2.0, 2.0, 2.0], [1.0, 10.0, 1.0, 1.0, 1.0, 1.0])
    assert found == (2.0, 2.0, 2.2)
    assert not found.tie
    assert timing.ratio([1.0] * 5, [2.0] * 5).report() == {
        "ratio": 0.5, "ratio_interval": None, "tie": True,
    }  # fmt: skip


def test_the_collector_rests_while_a_block_runs():
    seen = []
    timing.warm_up(lambda: seen.append(gc.isenabled()), seconds=0, calls=3)
    assert seen == [False] * 3
    assert gc.isenabled()


def test_a_collector_that_was_off_stays_off():
    gc.disable()
    try:
        timing.warm_up(lambda: None, seconds=0)
        assert not gc.isenabled()
    finally:
        gc.enable()


@pytest.mark.parametrize(
    ("seconds", "expected"),
    [([3.0], (3, 3, 3)), ([1.0, 3.0], (1.5, 2, 2.5)), ([5.0, 1.0, 2.0, 4.0, 3.0], (2, 3, 4))],
)
def test_quartiles(seconds, expected):
    assert timing.quartiles(seconds) == expected


def test_once_returns_what_the_call_returned(clock):
    made = clock(0.25)
    assert timing.once(lambda: made.call() or "result") == (0.25, "result")


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux says the peak")
def test_peak_memory_is_that_of_the_call():
    np.ones(96 << 20, np.uint8)  # an earlier peak does not count

    def call():
        np.ones(48 << 20, np.uint8)  # so large that malloc takes no pages that were freed before
        return "result"

    peak, result = timing.peak_memory(call)
    assert result == "result"
    if peak is None:
        pytest.skip("this system does not let a process reset its peak")
    assert 46 << 20 < peak < 56 << 20  # the kernel counts pages in batches
    assert timing.peak_memory(lambda: None)[0] < 4 << 20


@pytest.mark.parametrize("content", [None, ""])
def test_peak_memory_is_none_where_it_cannot_be_known(monkeypatch, tmp_path, content):
    path = tmp_path / "file" if content is not None else tmp_path / "no folder" / "file"
    monkeypatch.setattr(timing, "_CLEAR", path)
    monkeypatch.setattr(timing, "_STATUS", path)
    assert timing.peak_memory(lambda: 7) == (None, 7)

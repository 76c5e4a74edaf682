"""Levels are those that were kept, in the order of the commits, and steps in them are found."""

import random
import sqlite3
import sys
import types
from contextlib import closing

import numpy as np
import pytest
from past import BEGIN, COMMITS, DAY, NAMES, epoch, machine

import twolayer as tl
from twolayer import Network, Shape, history
from twolayer.history import Machine, Wanted
from twolayer.machine.calm import Calm
from twolayer.measuring import device_clock, race
from twolayer.measuring.roofline import Roofline
from twolayer.measuring.workloads import Workload


def find(store, **wanted):
    return history.find(store, Wanted(**wanted))


def test_a_series_for_each_problem_and_machine(full):
    found = find(full)
    assert {(one.problem.variant, one.machine.name) for one in found} == {
        (variant, f"{name}, 2 CPUs") for variant in ("numpy", "numba-fused") for name in NAMES
    }
    for one in found:
        assert [level.commit for level in one.levels] == COMMITS
        assert [step.level.commit for step in one.steps] == (
            [COMMITS[10]] if one.problem.variant == "numpy" else []
        )
    step = next(one for one in found if one.steps).steps[0]
    assert step.ratio == pytest.approx(1.2, rel=0.01)
    assert step.after == pytest.approx(1.2 * step.before, rel=0.01)


@pytest.mark.parametrize("dataset", [None, "digits"])
def test_what_a_race_keeps_is_what_is_read(dataset, store):
    workload = Workload(Network(), Shape(100, 8, 16, 2), "float32", dataset)
    raced = race.Result(workload, 2, Roofline(2e11, 2e10), calm=Calm(seconds=60.0))
    entry = race.Entry(tl.variants.get("numpy"), blocks=[3e-3, 1e-3, 2e-3], first_call=5.0)
    kept = race._measurement(raced, entry)
    assert kept.metrics.keys() == epoch(1.0).metrics.keys()
    store.add(kept, machine())
    (one,) = find(store)
    assert one.problem.data == (dataset or "synthetic")
    assert [level.seconds for level in one.levels] == [(2e-3,)]


@pytest.mark.parametrize(
    ("wanted", "count"),
    [
        ({"variants": ["numpy"]}, 40), ({"variants": ["numpy", "jax"]}, 40),
        ({"shape": [100, 8, 16, 2]}, 80), ({"shape": [100, 8, 16, 3]}, 0),
        ({"dtype": "float64"}, 0),
        ({"activation": "tanh", "loss": "squared", "threads": 2, "device": "cpu"}, 80),
        ({"data": "synthetic"}, 80), ({"data": "digits"}, 0), ({"machine": "abacus"}, 40),
        ({"commit": COMMITS[3][:7]}, 4), ({"commit": COMMITS[3] + "+"}, 0),
        ({"since": BEGIN + 15 * DAY}, 20), ({"before": BEGIN + 15 * DAY}, 60),
    ],
)  # fmt: skip
def test_what_is_wanted_is_found(full, wanted, count):
    assert sum(len(one.levels) for one in find(full, **wanted)) == count
    assert len(history.count(full, Wanted(**wanted))) == count


def test_a_machine_that_several_names_fit_is_asked_for(full):
    for text in ("2 CPUs", "toaster", ""):
        if text:
            with pytest.raises(ValueError, match=r"machine: expected .*a loom, 2 CPUs.*got '"):
                find(full, machine=text)
    key = Machine.of(machine("a loom")).key
    assert {one.machine.key for one in find(full, machine=key[:5])} == {key}


def test_a_machine_is_what_it_is_made_of():
    """Neither its libraries nor the sources: a change of these is what a history shows."""
    same = Machine.of(machine())
    assert Machine.of(machine(sources=7, libraries=[], python="CPython 4")) == same
    for other in (
        machine(cpus=3), machine("a loom"), machine(gpus=["H200"]),
        machine(variables=["NUMBA_OPT=0"]), machine(caches=["L1 1"]),
    ):  # fmt: skip
        assert Machine.of(other) != same
    detailed = [Machine.of(machine(gpus=[text])) for text in ("H200", "H200, 580.1, 143771 MiB")]
    assert detailed[0] == detailed[1]


def test_commits_come_as_git_has_them(store, logged):
    for commit, when in ((2, 1.0), (0, 2.0), (1, 3.0)):
        store.add(epoch(1.0, commit, time=when), machine(sources=commit))
    (one,) = find(store)
    assert [level.commit for level in one.levels] == [COMMITS[2], COMMITS[0], COMMITS[1]]
    logged(*COMMITS[:3])
    (one,) = find(store)
    assert [level.commit for level in one.levels] == COMMITS[:3]


def test_changed_sources_come_after_their_commit_and_apart_from_each_other(store):
    for sources, tree in ((0, "clean"), (1, "changed"), (2, "changed")):
        store.add(epoch(1.0, 0, tree=tree, time=5.0 - sources), machine(sources=sources))
    (one,) = find(store)
    assert [(level.state, level.sources) for level in one.levels] == [
        ("1010101", "0"), ("1010101+", "2"), ("1010101+", "1"),
    ]  # fmt: skip


def series(store, seconds, runs=1, noise=0.005, libraries=None):
    """The steps, by the number of their commit, of a series with those seconds."""
    draw = random.Random(1)
    for commit, value in enumerate(seconds):
        for run in range(runs):
            record = epoch(
                value * (1 + draw.gauss(0, noise)), commit, draw=draw, time=BEGIN + commit + run / 9
            )
            about = {} if libraries is None else {"libraries": [libraries(commit)]}
            store.add(record, machine(sources=commit, **about))
    (one,) = find(store)
    return {COMMITS.index(step.level.commit): step for step in one.steps}


@pytest.mark.parametrize(
    ("seconds", "runs", "steps"),
    [
        ([1.0] * 20, 1, []),
        ([1.0] * 10 + [1.1] * 10, 1, [10]),
        ([1.1] * 10 + [1.0] * 10, 1, [10]),
        ([1.0] * 6 + [1.2] * 7 + [1.0] * 7, 1, [6, 13]),
        ([1.0] * 5 + [1.2] * 5 + [1.4] * 5 + [1.0] * 5, 1, [5, 10, 15]),
        ([1.0] * 9 + [1.5] + [1.0] * 10, 1, []),  # one commit, measured once, is no level
        ([1.0] * 9 + [1.5] + [1.0] * 10, 3, [9, 10]),
        ([1.0] * 19 + [1.5], 1, []),
        ([1.0] * 19 + [1.5], 3, [19]),
        ([1.0] * 3 + [1.2] * 3, 1, [3]),
        ([1.0, 1.2], 1, []),
        ([1.0] * 10 + [1.01] * 10, 3, []),  # below the least step
    ],
)
def test_steps_of_the_level(store, seconds, runs, steps):
    found = series(store, seconds, runs)
    assert [*found] == steps
    for number, step in found.items():
        assert step.ratio == pytest.approx(seconds[number] / seconds[number - 1], rel=0.03)


def test_noise_has_no_steps():
    """Of a hundred series of twenty, of which each scatters by 3%, at most two have one."""
    draw = random.Random(2)
    level = history.Level(
        history.Problem(*"vdalt", 1, 1, 1, 1, 1), Machine("", ""), "", "", "", (), (0.0, 0.0),
        (1.0,),
    )  # fmt: skip
    found = 0
    for _ in range(100):
        levels = [
            history.Level(**vars(level) | {"seconds": (1 + draw.gauss(0, 0.03),)})
            for _ in range(20)
        ]
        found += bool(history.series(levels, {})[0].steps)
    assert found <= 2


def test_what_changed_besides_is_named(store):
    found = series(
        store, [1.0] * 10 + [1.2] * 10, libraries=lambda commit: f"numpy 2.{3 + (commit > 9)}"
    )
    assert found[10].also == ("numpy 2.3 → 2.4",)


def test_damaged_measurements_are_left_out(full):
    with closing(sqlite3.connect(full.path)) as db:
        for column, value, rest in (
            ("seconds", "'x,y'", 0), ("seconds", "9e999", 1), ("metrics", "'{\n'", 2),
            ("low", "'x'", 3), ("high", "'y'", 4), ("time", "'z'", 5),
        ):  # fmt: skip
            db.execute(f"UPDATE measurement SET {column} = {value} WHERE id % 7 = {rest}")
        db.execute("UPDATE machine SET fingerprint = '{' WHERE rowid = 4")
        db.commit()
    found = find(full)
    levels = [level for one in found for level in one.levels]
    assert 40 < len(levels) < 70
    assert all(0 < level.median < 0.01 for level in levels)
    assert history.records(found)


def test_what_older_versions_kept_among_the_metrics_is_found(full):
    def found():
        levels = [level for one in find(full, data="synthetic") for level in one.levels]
        figures = [(*level.times, *level.seconds, *level.quartiles) for level in levels]
        return [(level.problem, level.runs) for level in levels], np.array(figures)

    before = found()
    with closing(sqlite3.connect(full.path)) as db:
        db.execute(
            "UPDATE measurement SET metrics = substr(metrics, 1, length(metrics) - 1) || "
            "', \"data\": \"' || data || '\", \"seconds\": ' || seconds || '}', "
            "data = '', seconds = 0, low = 0, high = 0"
        )
        db.commit()
    after = found()
    assert after[0] == before[0]
    assert after[1] == pytest.approx(before[1], rel=1e-12)
    assert len(history.count(full, Wanted(data="synthetic"))) == 80
    assert find(full, data="digits") == []


def test_a_set_of_data_is_a_problem_of_its_own(store):
    for data, seconds in (("digits", 1.0), ("synthetic", 2.0), ("digits", 3.0)):
        store.add(epoch(seconds, data=data), machine())
    found = {one.problem.data: one.levels[0] for one in find(store)}
    assert len(found["digits"].seconds) == 2
    assert found["synthetic"].median == pytest.approx(2.0, rel=0.01)
    assert [len(one.levels) for one in find(store, data="digits")] == [1]


def test_what_a_gpu_took_is_found(store):
    shape, calm, roof = Shape(9, 3, 4, 2), Calm(seconds=1.0), Roofline(1e13, 1e12)
    record = {
        "variant": "cuda-fused", "activation": "tanh", "loss": "squared", "dtype": "float32",
        "all_seconds": [3e-6, 1e-6, 2e-6], "wall": 9e-6, "transfer": 1e-3, "memory": 0,
    }  # fmt: skip
    store.add(device_clock.measurement(record, shape, roof, calm), machine())
    ((found,),) = [one.levels for one in find(store, device="cuda", shape=[*shape])]
    assert (*found.quartiles, found.median) == pytest.approx((1.5e-6, 2.5e-6, 2e-6))
    assert found.problem.threads == 0
    assert str(found.problem) == "n=9 d=3 M=4 K=2 tanh squared float32, cuda"


def test_python_gets_records_or_a_data_frame(full, monkeypatch):
    import twolayer as tl

    monkeypatch.setitem(sys.modules, "pandas", None)
    made = tl.history.frame("numpy", (100, 8, 16, 2), machine="abacus", before="2100-01-01")
    assert [row["commit"] for row in made] == COMMITS
    assert [row["step"] is None for row in made] == [True] * 10 + [False] + [True] * 9
    assert made[0]["low"] < made[0]["seconds"] < made[0]["high"]
    pandas = types.SimpleNamespace(DataFrame=lambda rows: ("a frame", len(rows)))
    monkeypatch.setitem(sys.modules, "pandas", pandas)
    assert tl.history.frame(store=full) == ("a frame", 80)


@pytest.mark.parametrize(
    ("asked", "sentence"),
    [
        ({"dtype": np.float32}, r"^dtype: expected text, got <class 'numpy.float32'>$"),
        ({"variants": [3]}, r"^variants\[0\]: expected text, got 3$"),
        ({"threads": [2]}, r"^threads: expected integers, got \[2\]$"),
        ({"shape": (100, 8, 16, 2.0)}, r"^shape: expected integers"),
        ({"commit": 7}, "^commit: expected text, got 7$"),
    ],
)
def test_a_wrong_question_is_one_sentence_and_the_file_stays(full, asked, sentence):
    before = full.path.read_bytes()
    with pytest.raises(TypeError, match=sentence):
        tl.history.frame(store=full, **asked)
    assert full.path.read_bytes() == before


def test_sizes_may_be_numpys_integers(full, monkeypatch):
    monkeypatch.setitem(sys.modules, "pandas", None)
    shape = np.array([100, 8, 16, 2])
    found = tl.history.frame("numpy", shape, store=full, threads=np.int64(0), dtype=None)
    assert found == tl.history.frame("numpy", shape.tolist(), store=full)


@pytest.mark.parametrize("text", ["yesterday", "30", "-3d", "9999999d", "2026-13-01", ""])
def test_a_moment_is_a_date_or_some_days(text):
    with pytest.raises(ValueError, match=r"since: expected a date as 2026-11-28, or days as 30d"):
        history.moment("since", text)

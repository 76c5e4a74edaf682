"""Two sides have what they share with an interval, and the rest with a reason."""

import json
import math
import random

import pytest
from past import BEGIN, COMMITS, epoch, machine

import twolayer as tl
from twolayer.history import Wanted, levels, sides
from twolayer.machine.hardware import fingerprint
from twolayer.measuring.race import Entry, Result, Workload
from twolayer.measuring.roofline import Roofline
from twolayer.showing import tables


def compare(store, a, b, **wanted):
    known = levels.read(store, Wanted(**wanted))
    one, other = (sides.side(name, text, known) for name, text in (("A", a), ("B", b)))
    return sides.compare(one, other, known)


def test_two_commits_on_each_machine(full):
    found = compare(full, COMMITS[0][:8], COMMITS[15])
    assert not found.lacking
    assert len(found.pairs) == 4
    for pair in found.pairs:
        assert pair.a.machine == pair.b.machine
        assert (pair.a.commit, pair.b.commit) == (COMMITS[0], COMMITS[15])
        slower = pair.a.problem.variant == "numpy"
        assert pair.low < (1.2 if slower else 1.0) < pair.high
        assert pair.high / pair.low < 1.02
        assert pair.verdict == ("slower" if slower else "unclear")
        assert not pair.assumed
    back = compare(full, COMMITS[15], COMMITS[0])
    assert [pair.verdict for pair in back.pairs].count("faster") == 2


def test_two_machines_at_the_newest_sources_that_both_have(full):
    full.add(epoch(9.0, 19, time=BEGIN * 2), machine("a loom", sources=99))
    found = compare(full, "abacus", "loom")
    assert {(pair.a.commit, pair.b.commit) for pair in found.pairs} == {(COMMITS[19], COMMITS[19])}
    assert {pair.a.sources for pair in found.pairs} == {pair.b.sources for pair in found.pairs}
    assert all(pair.low < 2 < pair.high for pair in found.pairs)


@pytest.mark.parametrize(
    ("a", "b", "why"),
    [
        ({}, {"variant": "jax"}, "B has no figures of numpy"),
        ({}, {"dtype": "float64"}, "B has it with dtype=float64"),
        ({}, {"threads": 16}, "B has it with threads=16"),
        ({}, {"n": 5}, "B has it with n=5"),
        ({}, {"n": 5, "loss": "softmax"}, "B was not measured on it"),
        ({}, {"machine": "a loom"}, "no machine measured both"),
    ],
)
def test_what_cannot_be_compared_is_named_with_the_reason(store, a, b, why):
    for commit, about in enumerate((a, b)):
        name = about.pop("machine", "an abacus")
        store.add(epoch(1.0, commit, **about), machine(name, sources=commit))
        about.setdefault("machine", name)
    found = compare(store, COMMITS[0], COMMITS[1])
    assert not found.pairs
    assert why in [reason for _, reason in found.lacking]
    backwards = compare(store, COMMITS[1], COMMITS[0])
    assert {p for p, _ in backwards.lacking} == {p for p, _ in found.lacking}


def test_machines_that_never_had_the_same_sources(store):
    for number, name in enumerate(("an abacus", "a loom")):
        store.add(epoch(1.0, number), machine(name, sources=number))
    found = compare(store, "abacus", "loom")
    assert [why for _, why in found.lacking] == ["never on the same sources"]


def test_changed_sources_are_a_side(store):
    store.add(epoch(1.0), machine())
    store.add(epoch(1.5, tree="changed"), machine(sources=1))
    (pair,) = compare(store, "1010101", "1010101+").pairs
    assert pair.ratio == pytest.approx(1.5, rel=0.01)
    store.add(epoch(1.5, 1, tree="changed"), machine(sources=1))
    with pytest.raises(ValueError, match=r"B: expected a commit .* of which only 1111111\+ was"):
        compare(store, "1010101", "1111111")


def test_libraries_that_differ_are_named(store):
    store.add(epoch(1.0), machine())
    store.add(epoch(1.0, 1), machine(libraries=["numpy 2.4", "numba 0.62"], sources=1))
    (pair,) = compare(store, COMMITS[0], COMMITS[1]).pairs
    assert pair.also == ("numpy 2.3 → 2.4",)


@pytest.mark.parametrize("runs", [1, 3])
@pytest.mark.parametrize("apart", [0.0, 0.01])
def test_intervals_hold_what_they_promise(apart, runs):
    """Of two hundred pairs without a difference, whose runs scatter so, 95% contain 1."""
    draw, outside = random.Random(runs), 0
    problem = levels.Problem("numpy", "cpu", "tanh", "squared", "float32", 1, 1, 1, 1, 1)
    known = {(problem, levels.Machine("", "")): [draw.gauss(0, apart + 0.001) for _ in range(30)]}

    def made():
        blocks = [
            [math.exp(run + draw.gauss(0, 0.004)) for _ in range(9)]
            for run in [draw.gauss(0, apart) for _ in range(runs)]
        ]
        return levels.Level(
            problem, levels.Machine("", ""), "", "", "", (), (0.0, 0.0),
            tuple(sorted(one)[4] for one in blocks), given=blocks,
        )  # fmt: skip

    for _ in range(200):
        found = sides.pair(made(), made(), known)
        assert not found.assumed
        outside += not found.low <= 1 <= found.high
    assert outside <= 24


def test_a_machine_that_is_not_known_is_taken_to_scatter(store):
    for commit in (0, 1):
        store.add(epoch(1.0 + commit / 100, commit), machine(sources=commit))
    (pair,) = compare(store, COMMITS[0], COMMITS[1]).pairs
    assert pair.assumed
    assert pair.high / pair.low == pytest.approx(math.exp(2 * 1.96 * 0.02 * math.sqrt(2)))


def bench_file(path, seconds, **changed):
    """What `bench --json` writes of numpy, and of a variant that it left out."""
    workload = Workload(tl.Network(), tl.Shape(100, 8, 16, 2))
    result = Result(workload, 2, Roofline(1e11, 1e10))
    result.entries = [
        Entry(tl.variants.get("numpy"), blocks=[seconds, seconds * 1.01]),
        Entry(tl.variants.get("python-loops"), "would take 9 s an epoch"),
    ]
    report = {"date": "2026-11-01T00:00:00+00:00"} | tables.report(
        {"shapes": [result]}, result.roof, 2
    )
    path.write_text(json.dumps(report | changed))
    return str(path)


def test_files_of_bench(store, tmp_path):
    a, b = (bench_file(tmp_path / f"{name}.json", 1e-3 * name) for name in (1, 2))
    found = compare(store, a, b)
    (pair,) = found.pairs
    assert pair.ratio == pytest.approx(2)
    assert pair.verdict == "slower"
    assert pair.a.machine == levels.Machine.of(fingerprint())
    store.add(epoch(1e-3), machine())
    store.add(epoch(1e-3, variant="python-loops"), machine())
    found = compare(store, COMMITS[0], b)
    assert [why for _, why in found.lacking] == ["B left it out: would take 9 s an epoch"]
    assert [pair.ratio for pair in found.pairs] == [pytest.approx(2, rel=0.02)]


def test_a_file_of_a_gpu(store, tmp_path):
    one = {
        "shape": "n=9 d=2 M=4 K=1", "variant": "cuda-fused", "dtype": "float32", "skipped": "",
        "activation": "relu", "loss": "squared", "all_seconds": [1e-3, 1.1e-3],
    }  # fmt: skip
    report = {"machine": fingerprint(), "ceilings": {"flops": 1e12, "bandwidth": 1e11}}
    path = tmp_path / "gpu.json"
    path.write_text(json.dumps(report | {"results": [one]}))
    ((pair,), lacking) = (lambda c: (c.pairs, c.lacking))(compare(store, str(path), str(path)))
    assert (pair.ratio, lacking) == (1.0, [])
    assert str(pair.a.problem) == "n=9 d=2 M=4 K=1 relu squared float32, cuda"


@pytest.mark.parametrize(
    ("content", "told"),
    [
        ("{", "it is no JSON"), ("[]", "another kind"), ("{}", "lacks 'machine'"), ("7", "another"),
        ('{"machine": {}, "workloads": [{}], "threads": 1}', "lacks 'activation'"),
        ('{"machine": {}, "updates": []}', "lacks"), (None, "No such file"),
    ],
)  # fmt: skip
def test_other_files_are_refused_in_a_sentence(store, tmp_path, content, told):
    path = tmp_path / "other.json"
    if content is not None:
        path.write_text(content)
    with pytest.raises(ValueError, match=r"file: expected .*`bench --json`") as error:
        compare(store, str(path), str(path))
    assert told in str(error.value)


@pytest.mark.parametrize("text", ["zzz", "10", "", "abacus, loom", "2 CPUs", "-x"])
def test_what_is_no_side_is_refused_with_what_there_is(full, text):
    with pytest.raises(ValueError, match=r"^A: expected a file of .* got '") as error:
        compare(full, text, COMMITS[0])
    assert "2323232" in str(error.value)
    assert "(a loom, 2 CPUs)" in str(error.value)

"""What is planted in one of two revisions gets the right verdict and exit code."""

import dataclasses
import itertools
import json
import sys
from functools import partial

import numpy as np
import pytest
from planted import (
    DEFINITION,
    LOSSES_FILE,
    MEASURED,
    SHAPE,
    SQUARE,
    WRONG,
    body,
    edit,
    made_run,
    plant,
    regress,
)  # fmt: skip

import twolayer as tl
from twolayer.kernels.formulas.losses import LOSSES
from twolayer.machine import lines
from twolayer.network import DTYPES, Shape
from twolayer.regress import costs, dependency, run
from twolayer.regress.processes import sides


@pytest.fixture
def broken_base(here, commit):
    """A function that plants in the base, and leaves the head sound."""

    def make(old, new, path="variants/numpy.py"):
        edit(here, path, old, new)
        base = commit("planted")
        edit(here, path, new, old)
        return base

    return make


def test_a_head_that_is_far_too_slow_is_slower(here):
    plant(here, "import time", "time.sleep(0.2)")
    said = regress("sound", "--variants=numpy", code=1)
    assert f"numpy {SHAPE} is slower: an epoch takes about 0.2 s, and" in said
    assert said.count("1 too slow to be timed") == 1
    assert "accepted" in regress("sound", "--variants=numpy", "--accept=numpy", code=0)


def test_a_head_that_raises_is_a_failure_and_what_else_is_slower_is_told(here):
    plant(here, "1 / 0")
    edit(here, "variants/numpy_samples.py", DEFINITION, body("import time", "time.sleep(0.2)"))
    said = regress("sound", "--variants=numpy,numpy-samples", code=2)
    assert f"numpy {SHAPE} failed: ZeroDivisionError" in said
    assert f"numpy-samples {SHAPE} is slower" in said
    assert "A benchmark failed: 1 failed, 1 too slow to be timed" in said


@pytest.mark.parametrize("line", ["1 / 0", "import os; os.abort()", "return 1.0"])
def test_what_only_the_base_does_wrong_is_repaired(broken_base, line):
    base = broken_base(DEFINITION, body(line))
    said = regress(base, "--variants=numpy", code=0)
    assert f"numpy {SHAPE} is repaired: in the base: " in said
    assert "No regression: 1 repaired" in said


def test_a_base_that_cannot_be_imported_is_repaired(broken_base):
    base = broken_base("import numpy as np\n", "import no_such_module\n")
    said = regress(base, "--variants=numpy", code=0)
    assert f"numpy {SHAPE} is repaired: in the base: base: " in said
    assert "cannot be imported: ModuleNotFoundError" in said


def test_what_both_do_wrong_is_a_failure(here, commit):
    plant(here, "1 / 0")
    base = commit("planted")
    edit(here, "variants/numpy.py", "1 / 0", "1 / 0.0")
    said = regress(base, "--variants=numpy", code=2)
    assert f"numpy {SHAPE} failed: ZeroDivisionError: " in said
    assert "; base: ZeroDivisionError" in said


def test_a_wrong_gradient_of_the_base_alone_is_repaired(broken_base):
    base = broken_base(SQUARE, WRONG, LOSSES_FILE)
    assert "is repaired: in the base: RuntimeError: base disagrees with the oracle" in regress(
        base, "--variants=numpy", code=0
    )


def test_a_default_suite_has_what_only_the_base_has(here, brief, commit):
    """A variant whose registration is gone is lost, though nobody named it."""
    text = (here / "variants/numpy.py").read_text()
    (here / "variants/numpy.py").write_text(text.replace('"numpy",', '"numpy-gone",', 1))
    base = commit("another name")
    (here / "variants/numpy.py").write_text(text)
    made = made_run(here, here / "none", base)
    names = dict(made.names()[0])
    assert {"numpy-gone", "numpy"} <= names.keys()


def test_what_a_revision_prints_is_no_result(here, brief):
    plant(here, "print('[1, 2')", "import sys", "print('x', file=sys.stderr)")
    edit(here, "variants/numpy.py", "import numpy as np\n", "import numpy as np\nprint('[')\n")
    assert "numpy" in regress("sound", "--variants=numpy", code=MEASURED)


def test_what_hangs_is_ended_and_named(here, tmp_path):
    plant(here, "import time", "time.sleep(1000)")
    found = made_run(here, tmp_path / "results", "sound", patience=3.0).measure(costly=False)
    (note,) = found.notes
    assert (note.kind, note.benchmark) == ("failed", f"numpy {SHAPE}")
    assert note.sentence == "the trial did nothing for 3 s"
    assert found.exit_code == 2


def test_an_accepted_variant_may_compile_longer(here, tmp_path):
    made = made_run(here, tmp_path / "results", "sound", accepted=("numpy",))
    for number in range(costs.ROUNDS):
        assert made.outcome().exit_code != 1  # fewer rounds are a suspicion
        for side, seconds in (("base", 1.0), ("head", 9.0)):
            about = {"kind": "cold", "variant": "numpy", "problem": "any", "round": number}
            lines.append(made.path, about | {"side": side, "seconds": seconds})
    (cost,) = made.outcome().costs
    assert (cost.verdict, cost.excuse) == ("worse", "accepted")


@pytest.mark.slow
def test_of_processes_that_take_turns_what_hangs_is_ended_too(here, tmp_path):
    plant(here, "import time", "time.sleep(1000)")
    make = partial(dependency.Turns, pythons=dict.fromkeys(sides.SIDES, sys.executable))
    made = made_run(here, tmp_path / "results", "sound", make=make, patience=5.0)
    (note,) = made.measure(costly=False).notes
    assert (note.kind, note.sentence) == ("failed", "a process did nothing for 5 s")


@pytest.mark.slow
def test_an_interrupted_pair_goes_on_with_what_it_lacks(here, tmp_path, monkeypatch):
    monkeypatch.setattr(run, "PAIRS", 1)
    made = made_run(here, tmp_path / "results", "sound", names=("numpy", "numpy-samples"))
    made._missing(run.TRIAL, made.suite)
    about = {"kind": "start", "load": 1.0, "memory": 1, "pair": 0}
    for variant, side in (("numpy", "base"), ("numpy", "head"), ("numpy-samples", "base")):
        lines.append(made.path, about | {"variant": variant, "side": side})
    made._starts()
    found = sorted((r["variant"], r["side"]) for r in made._read("pair")[3:])
    assert found == [("numpy-samples", "base"), ("numpy-samples", "head")]


@pytest.mark.parametrize(("side", "tried", "code"), [
    ("head", True, 2),
    ("base", True, 3),
    ("head", False, 3),  # while it compiles: the trial says what is wrong, or that it is left out
])  # fmt: skip
def test_a_process_that_dies_while_costs_are_taken_is_told(here, tmp_path, side, tried, code):
    told = []
    made = made_run(here, tmp_path / "results", "sound", complain=told.append)
    name = made.suite[0].name
    if tried:
        about = {"benchmark": name, "process": run.TRIAL, "kind": "right"}
        lines.append(made.path, about | {"error": dict.fromkeys(("base", "head"), 1.0)})
    messages = iter([{"begin": name}, {"died": "died of signal 9"}])
    made._follow(side, messages, "", 1)
    lost = "costs of 1 of 1 benchmarks are not compared"
    assert told == [f"{side}: a process died of signal 9 at {name}: {lost}"]
    assert made.outcome().exit_code == code


@pytest.mark.compiled
def test_a_suspicion_of_slow_compiling_is_measured_again_without_code(here, tmp_path, monkeypatch):
    plant(here, "import time", "time.sleep(0.3)")
    rule = dataclasses.replace(costs.RULES["compile"], least=0.1)
    monkeypatch.setitem(costs.RULES, "compile", rule)
    monkeypatch.setattr(costs, "ROUNDS", 2)
    made = made_run(here, tmp_path / "results", "sound")
    said = []
    made.progress = lambda name, done, total: said.append(name)
    made._compile_times()
    rounds = sorted((r["round"], r["side"]) for r in made._read("round"))
    assert rounds == [*itertools.product((0, 1), ("base", "head"))]
    before = made.path.read_bytes()
    made._compile_times()
    assert made.path.read_bytes() == before
    assert said[-1] == f"compiling, base: numpy {SHAPE}"


@pytest.mark.slow
def test_costs_of_both_sides_are_measured_in_pairs(here, tmp_path, monkeypatch):
    monkeypatch.setattr(run, "PAIRS", 2)
    made = made_run(here, tmp_path / "results", "sound")
    outcome = made.measure()
    starts = sorted((r["pair"], r["side"]) for r in made._read("pair"))
    assert starts == [*itertools.product((0, 1), ("base", "head"))]
    assert {r["side"] for r in made._read("round")} == {"base", "head"}
    assert {d.kind for d in outcome.decisions} == {"time", "tail", "load", "memory"}
    again = made_run(here, tmp_path / "results", "sound")
    assert again.measure().decisions == outcome.decisions


def test_a_verdict_stays_that_of_the_look_where_it_was_made(here, tmp_path, monkeypatch):
    made = made_run(here, tmp_path / "results", "sound")
    made.looks, made.limit = (2, 3), 60
    monkeypatch.setattr(run, "decided", lambda decisions: {f"numpy {SHAPE}"})
    first = made.measure(costly=False)
    kept = {d.name: d for d in first.decisions}[f"numpy {SHAPE}"]
    assert kept.processes == 2
    assert len(made._read("look")) == 1


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("loss", LOSSES)
def test_every_loss_can_be_compared(loss, dtype):
    """The problem that both sides get fits the loss."""
    shape = SHAPE._replace(K=1) if loss == "logistic" else SHAPE
    benchmark = run.Benchmark("numpy", shape, "tanh", loss, dtype)
    X, Y, V, W = sides.problem(benchmark.request())
    net, theta = tl.Network("tanh", loss), tl.Parameters(V, W)
    assert np.isfinite(tl.variants.get("numpy").plan(net, X, Y, theta).step(sides.MU))


@pytest.mark.parametrize("text", ["-1%", "x", "100%", "2", ""])
def test_a_bad_tolerance_is_one_sentence(here, text):
    assert "--tolerance: expected a share from 0% to 100%" in regress(
        "sound", f"--tolerance={text}", code=2
    )


def test_files_are_there_before_anything_is_shown(here, brief, tmp_path, monkeypatch):
    def fail(*arguments):
        raise BrokenPipeError

    monkeypatch.setattr("twolayer.cli.commands.regress.revisions.show", fail)
    path = tmp_path / "json"
    regress("sound", "--variants=numpy", f"--json={path}", code=(1, 2))
    assert json.loads(path.read_text())["benchmarks"]


def test_a_slow_base_is_left_out_whatever_the_head_takes(here):
    shape = Shape(1_000_000, 5, 6, 2)
    said = regress("sound", "--variants=python-loops", code=3, shape=shape)
    assert "left out: python-loops" in said
    assert "the limit is 0.08 s" in said


# Costs that go by a rule


@pytest.mark.parametrize("kind", costs.RULES)
def test_costs_have_a_factor_and_a_least_difference(kind):
    rule = costs.RULES[kind]
    far = 100 * rule.least
    assert costs.judge(kind, "v", far, far * rule.factor * 0.99).verdict == "same"
    assert costs.judge(kind, "v", far, far * rule.factor * 1.01).verdict == "worse"
    assert costs.judge(kind, "v", far * rule.factor * 1.01, far).verdict == "better"
    assert costs.judge(kind, "v", rule.least / 100, rule.least).verdict == "same"


def cold(*rounds):
    """Records of compile times: (base, head) of each round."""
    return [
        {"variant": "v", "round": number, "side": side, "problem": problem, "seconds": seconds / 2}
        for number, pair in enumerate(rounds)
        for side, seconds in zip(("base", "head"), pair, strict=True)
        for problem in "ab"
    ]


@pytest.mark.parametrize(
    ("rounds", "figures", "verdict"),
    [
        ([(10, 10.5)], (10, 10.5), "same"),
        ([(10, 20), (10, 10)], (10, 10), "same"),  # a suspicion that the next round does not share
        ([(10, 20), (12, 20), (10, 10.5), (10, 20)], (10, 10.5), "same"),
        ([(10, 21), (12, 20), (10, 20), (11, 21)], (10, 20), "worse"),
        ([(20, 10), (20, 12), (21, 10), (20, 11)], (20, 10), "better"),
    ],
)
def test_compiling_is_slower_where_every_round_says_so(rounds, figures, verdict):
    (found,) = costs.compiled(cold(*rounds))
    assert (found.base, found.head, found.verdict) == (*figures, verdict)


def test_compiling_what_one_side_alone_has_is_no_cost():
    records = cold((10, 30))
    assert costs.compiled(records[:2]) == []  # nothing of the head
    (found,) = costs.compiled(records[:3])  # of the head, one of two problems
    assert (found.base, found.head) == (5, 15)

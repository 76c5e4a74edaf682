"""What is planted in one of two revisions gets the right verdict and exit code."""

import itertools
import json
import sys
from functools import partial

import numpy as np
import pytest
from planted import DEFINITION, LOSSES_FILE, MEASURED, SHAPE, SQUARE, edit, made_run, regress

import twolayer as tl
from twolayer.kernels.formulas.losses import LOSSES
from twolayer.machine import lines
from twolayer.network import DTYPES, Shape
from twolayer.regress import dependency, run, worker

WRONG = SQUARE + " * 3"


def body(*lines):
    """A `backpropagate` of numpy that begins with these lines."""
    text = "".join(f"        {line}\n" for line in lines)
    return (
        "    def backpropagate(self, *arguments):\n"
        f"{text}        return self._once(*arguments)\n\n    def _once(\n        self, X"
    )


def plant(folder, *lines):
    edit(folder, "variants/numpy.py", DEFINITION, body(*lines))


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
    for side, seconds in (("base", 1.0), ("head", 9.0)):
        about = {"kind": "cold", "variant": "numpy", "problem": "any", "round": 0}
        lines.append(made.path, about | {"side": side, "seconds": seconds})
    (cost,) = made.outcome().costs
    assert (cost.verdict, cost.excuse) == ("worse", "accepted")


@pytest.mark.slow
def test_of_processes_that_take_turns_what_hangs_is_ended_too(here, tmp_path):
    plant(here, "import time", "time.sleep(1000)")
    make = partial(dependency.Turns, pythons=dict.fromkeys(worker.SIDES, sys.executable))
    made = made_run(here, tmp_path / "results", "sound", make=make, patience=5.0)
    (note,) = made.measure(costly=False).notes
    assert (note.kind, note.sentence) == ("failed", "a process did nothing for 5 s")


@pytest.mark.slow
def test_an_interrupted_pair_goes_on_with_what_it_lacks(here, tmp_path, monkeypatch):
    monkeypatch.setattr(run, "PAIRS", 1)
    made = made_run(here, tmp_path / "results", "sound", names=("numpy", "numpy-samples"))
    made._missing(run.TRIAL, made.suite)
    about = {"kind": "start", "variant": "numpy", "load": 1.0, "memory": 1}
    lines.append(made.path, about | {"pair": 0, "side": "base"})
    made._starts()
    found = {(r["side"], r["variant"]) for r in made._read("pair")}
    assert found == {*itertools.product(("base", "head"), ("numpy", "numpy-samples"))}


@pytest.mark.slow
def test_costs_of_both_sides_are_measured_in_pairs(here, tmp_path, monkeypatch):
    monkeypatch.setattr(run, "PAIRS", 2)
    made = made_run(here, tmp_path / "results", "sound")
    outcome = made.measure()
    starts = {(r["pair"], r["side"]) for r in made._read("pair") if r["variant"] == "numpy"}
    assert starts == {*itertools.product((0, 1), ("base", "head"))}
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
    X, Y, V, W = worker.problem(benchmark.request())
    net, theta = tl.Network("tanh", loss), tl.Parameters(V, W)
    assert np.isfinite(tl.variants.get("numpy").plan(net, X, Y, theta).step(worker.MU))


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

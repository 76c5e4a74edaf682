"""Two revisions against each other: kept apart, compared, and interrupted without loss."""

import gc
import json
import os
import signal
import subprocess
import sys
import time
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from planted import (
    DEFINITION,
    MEASURED,
    QUICK,
    SHAPE,
    SLOW,
    edit,
    git,
    made_run,
    regress,
    shaped,
)  # fmt: skip

from twolayer.machine import lines
from twolayer.regress import decide, dependency, revisions, run, turns
from twolayer.regress.processes.messages import WORKER
from twolayer.regress.processes.sides import SIDES

# Compiled code


LOSSES = """
import json, sys
from pathlib import Path
sys.path.insert(0, sys.argv[1])
from sides import SIDES, Side
sys.modules["twolayer"] = None
benchmark = json.loads(sys.argv[2])
both = [Side(name, Path(folder), 1) for name, folder in zip(SIDES, sys.argv[3:])]
print([side.plan(benchmark).gradient()[0] for side in both])
"""


@pytest.mark.compiled
def test_compiled_code_of_one_revision_is_never_used_for_the_other(here, run_python, monkeypatch):
    """A kernel's constant changes; each revision computes its own loss, from disk as well."""
    monkeypatch.delenv("NUMBA_CACHE_DIR", raising=False)
    edit(
        here,
        "kernels/formulas/losses.py",
        "return (u - y) * (u - y)",
        "return (u - y) * (u - y) * 3",
    )
    about = json.dumps(run.Benchmark("numba-loops", SHAPE).request())
    sides = [revisions.export(*pair) for pair in zip(("sound", None), SIDES, strict=True)]
    for _ in range(2):  # compiled, then loaded
        printed = run_python(LOSSES, WORKER.parent, about, *(s.folder for s in sides))
        base, head = json.loads(printed)
        assert head == pytest.approx(3 * base, rel=1e-5)


# Turns


class Steps:
    """A side whose steps take so many seconds each by the clock of `turns`."""

    def __init__(self, name, clock, seconds, told):
        self.name, self.clock, self.seconds, self.told = name, clock, seconds, told

    def step(self, benchmark):
        self.told.append(f"plan {self.name}")

        def step():
            self.told.append(self.name)
            self.clock[0] += self.seconds(self.clock[0])

        return step


@pytest.fixture
def measured(monkeypatch):
    """measured(base, head): the record of two sides, and what they did in which order."""

    def make(*seconds, wanted=0.1):
        clock, told = [0.0], []
        monkeypatch.setattr(turns.time, "perf_counter", lambda: clock[0])
        sides = [Steps(*about, told) for about in zip(SIDES, (clock,) * 2, seconds, strict=True)]
        return turns.measured(sides, {}, wanted, 0), told

    yield make
    gc.unfreeze()


@pytest.mark.parametrize("step", [1e-6, 2e-5, 4.99e-4, 3e-3, 2e-2])
@pytest.mark.parametrize("change", [0.97, 1.0, 1.03])
def test_neighbouring_turns_tell_the_change_and_nothing_of_the_machine(measured, step, change):
    """Its speed swings by a factor of two within a second; the head's steps take `change`."""

    def taking(seconds):
        return lambda now: seconds * (1.5 + 0.5 * np.sin(2 * np.pi * now))

    record, told = measured(taking(step), taking(change * step))
    assert decide.effect(record).log == pytest.approx(np.log(change), abs=3e-3)
    assert len(record["base"]) >= turns.FEWEST
    assert all(len(turn) >= 2 * turns.ROUNDS for side in SIDES for turn in record[side])
    plans = [name for name in told if name.startswith("plan")][2:]
    assert plans[:4] == ["plan base", "plan head", "plan head", "plan base"]
    assert gc.isenabled()


def test_the_least_of_a_turn_is_of_as_many_blocks_on_either_side(measured):
    """The head's steps need 1% more, which is one block less in half a millisecond."""
    random = np.random.default_rng(0)
    record, _ = measured(
        lambda now: 0.000249 * (1 + random.exponential(0.1)),
        lambda now: 0.0002515 * (1 + random.exponential(0.1)), wanted=3.0,
    )  # fmt: skip
    assert decide.effect(record).log == pytest.approx(np.log(2515 / 2490), abs=5e-3)


def test_the_first_steps_after_the_other_side_are_no_slow_steps(measured):
    """A step right after one of the other side takes twice as long."""
    last = [None]

    def after(name):
        def seconds(now):
            switched, last[0] = last[0] != name, name
            return 1e-4 * (1 + switched)

        return seconds

    record, _ = measured(after("base"), after("head"))
    assert record["slow"] == pytest.approx({"base": 1e-4, "head": 1e-4})


def test_long_steps_end_after_a_few_pairs_of_plans(measured):
    record, _ = measured(lambda now: 0.08, lambda now: 0.08)
    assert len(record["base"]) == turns.FEWEST


# Whole runs


def test_the_report_has_every_benchmark(here, brief, tmp_path):
    files = [f"--{kind}={tmp_path / kind}" for kind in ("json", "markdown")]
    said = regress("sound", "--variants=numpy", *files, code=MEASURED)
    report = json.loads((tmp_path / "json").read_text())
    names = [f"numpy {SHAPE}", f"numpy {SHAPE}, slowest steps"]
    assert [b["name"] for b in report["benchmarks"]] == names
    assert report["benchmarks"][0]["processes"] == 2
    assert said.endswith(report["summary"])
    assert {cost["kind"] for cost in report["costs"]} == {"accuracy"}
    assert f"| numpy {SHAPE} |" in (tmp_path / "markdown").read_text()


@pytest.mark.slow  # test_decide has the decision, the others here how it is come to
def test_what_got_slower_and_what_got_faster_is_named(here):
    edit(here, "variants/numpy_samples.py", DEFINITION, SLOW)
    git(here, "commit", "--all", "--quiet", "--message=slow samples")
    git(here, "revert", "--no-commit", "HEAD")
    edit(here, "variants/numpy.py", DEFINITION, SLOW)
    said = regress("HEAD", "--variants=numpy,numpy-samples", code=1, limit=60)
    assert "Regression: 1 slower, 1 faster" in said
    assert said.index(f"numpy {SHAPE}") < said.index(f"numpy-samples {SHAPE}")


def test_a_wrong_revision_is_a_failure(here):
    edit(
        here,
        "kernels/formulas/losses.py",
        "return (u - y) * (u - y)",
        "return (u - y) * (u - y) * 3",
    )
    said = regress("sound", "--variants=numpy", code=2)
    assert (
        f"numpy {SHAPE} failed: RuntimeError: head disagrees with the oracle: L of all 40 rows"
        in said
    )


def test_what_raises_or_dies_is_a_failure_and_the_others_are_measured(here, brief):
    edit(here, "variants/numpy.py", DEFINITION, RAISES)
    edit(here, "variants/numpy_samples.py", DEFINITION, RAISES.replace("1 / 0", "os.abort()"))
    said = regress("sound", "--variants=numpy,numpy-samples,python-loops", code=2)
    assert f"numpy {SHAPE} failed: ZeroDivisionError: " in said
    assert f"numpy-samples {SHAPE} failed: the trial died of signal 6" in said
    assert "2 failed" in said
    assert f"python-loops {SHAPE} " in said


RAISES = """    def backpropagate(self, X, Y, theta, gradient):
        import os

        return 1 / 0

    def _once(
        self, X"""


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ("def broken(:", "SyntaxError"),
        ("import no_such_module", "ModuleNotFoundError: No module named 'no_such_module'"),
    ],
)
def test_a_revision_that_cannot_be_imported_is_one_sentence(here, line, reason):
    (here / "variants/numpy.py").write_text(line)
    said = regress("sound", "--variants=numpy", code=2)
    assert said.startswith("head: the working tree cannot be imported: ")
    assert reason in said


def test_a_variant_that_one_revision_lacks_is_lost_or_new(here):
    edit(here, "variants/numpy.py", '"numpy",', '"numpy-new",')
    said = regress("sound", "--variants=numpy-new,numpy", code=1)
    assert f"numpy-new {SHAPE} is new: " in said
    assert f"numpy {SHAPE} is lost: head has no such variant" in said
    assert said.endswith("s.")
    said = regress("sound", "--variants=numpy-new,numpy", "--accept=numpy", code=0)
    assert "head has no such variant, accepted" in said


def test_a_slow_benchmark_is_left_out(here):
    """Its epoch takes thousands of times the limit, on any machine."""
    shape = SHAPE._replace(n=1_000_000)
    said = regress("sound", "--variants=python-loops", code=3, shape=shape)
    assert "the limit is 0.08 s" in said


def test_outside_of_a_repository_is_one_sentence(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert "git rev-parse: fatal: not a git repository" in regress("main", code=2)


# Results on disk


def test_an_interrupted_run_goes_on_and_loses_nothing(here, tmp_path):
    path = tmp_path / "results"

    def interrupt(name, done, total):
        if done:
            raise KeyboardInterrupt

    two = {"names": ("numpy", "numpy-samples"), "base": "sound"}
    with pytest.raises(KeyboardInterrupt):
        made_run(here, path, progress=interrupt, **two).measure(costly=False)
    before = path.read_bytes()
    assert before.count(b"\n") >= 1
    again = made_run(here, path, **two).measure(costly=False)
    assert path.read_bytes().startswith(before)
    assert {decision.processes for decision in again.decisions} == {2}
    found = lines.read(path, pytest.fail)
    found = [r for r in found if "calm" not in r]
    assert len({(r["benchmark"], r["process"]) for r in found}) == len(found) == 6


@pytest.mark.slow  # the one before interrupts a run in this process
def test_a_killed_run_loses_nothing_and_goes_on(here, tmp_path, monkeypatch):
    monkeypatch.setenv("TWOLAYER_REGRESS", str(tmp_path))
    program = "from twolayer.cli import app; app()"
    options = ("--variants=numpy,numpy-samples", "--budget=1", shaped(SHAPE), *QUICK)
    command = [sys.executable, "-c", program, "regress", "sound", *options]

    def results():
        return b"".join(path.read_bytes() for path in (tmp_path / "results").glob("*"))

    with subprocess.Popen(command, start_new_session=True, stderr=subprocess.DEVNULL) as process:
        while not results() and process.poll() is None:
            time.sleep(0.01)
        os.killpg(process.pid, signal.SIGKILL)
    assert process.returncode == -signal.SIGKILL
    before = results()
    again = subprocess.run(command, capture_output=True, text=True, check=False)
    assert again.returncode in MEASURED, again.stderr
    assert results().startswith(before)
    (path,) = (tmp_path / "results").glob("*")
    found = [
        (r["benchmark"], r["process"]) for r in lines.read(path, pytest.fail) if "benchmark" in r
    ]
    assert len(set(found)) == len(found) == 2 * (1 + decide.LOOKS[0])


def test_a_run_that_ended_is_not_continued(tmp_path):
    first = revisions.newest(tmp_path, "key")
    lines.append(first, {"benchmark": "a"})
    assert revisions.newest(tmp_path, "key") == first
    lines.append(first, {"kind": "end"})
    assert revisions.newest(tmp_path, "key") != first


# Versions of a dependency


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (("1.0", "2.0", "--dep=flask"), "--dep: expected one of numpy, numba,"),
        (("1.0", "--dep=numba"), "--dep: expected two versions, BASE and HEAD"),
    ],
)
def test_a_bad_dependency_is_one_sentence(here, arguments, sentence):
    assert sentence in regress(*arguments, code=2)


def test_processes_that_take_turns_give_a_decision(here, tmp_path):
    pythons = dict.fromkeys(SIDES, Path(sys.executable))
    make = partial(dependency.Turns, pythons=pythons)
    names = ("numpy", "no-such")
    found = made_run(here, tmp_path / "results", "sound", names=names, make=make)
    found = found.measure(costly=False)
    assert {decision.processes for decision in found.decisions} == {2}
    assert [(n.benchmark, n.kind) for n in found.notes] == [(f"no-such {SHAPE}", "absent")]

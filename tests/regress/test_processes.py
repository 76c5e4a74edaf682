"""Processes that die, hang, leave others behind or spoil each other, and what is said of them."""

import os
import subprocess
import sys
from pathlib import Path

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
    git,
    made_run,
    plant,
    regress,
)  # fmt: skip

from twolayer.network import Network
from twolayer.regress import revisions, run, suite
from twolayer.regress.processes import messages
from twolayer.regress.processes.sides import FARTHEST, unpaired

FOLDER = str(messages.WORKER.parent)


@pytest.fixture
def began():
    """began(program): a process that runs it, in a group of its own; ended with the test."""
    processes = []

    def make(program, *arguments):
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
        command = [sys.executable, "-c", program, *arguments]
        processes.append(subprocess.Popen(command, text=True, process_group=0, **pipes))
        return processes[-1]

    yield make
    for process in processes:
        messages.end(process)


# Ends


def test_what_hangs_is_ended_with_what_it_started(began):
    """A forked child has the other end of the pipe too."""
    program = "import os, time; os.fork(); os.write(1, b'here' + bytes([10])); time.sleep(1000)"
    worker = began(program)
    assert messages.reply(worker, 60) == ("here\n", False)
    assert messages.reply(worker, 60) == ("here\n", False)
    assert messages.reply(worker, 0.5) == ("", True)


WAITING = "import sys, time; sys.path.insert(0, sys.argv[1]); import worker; "


def test_a_worker_ends_with_who_started_it(began):
    program = WAITING + "worker._end_with(0); print('here', flush=True); time.sleep(1000)"
    worker = began(program, FOLDER)
    assert messages.reply(worker, 60) == ("here\n", False)
    worker.stdin.close()
    assert worker.wait(60) == -9


def test_a_worker_that_nobody_hears_ends(began):
    worker = began(WAITING + "input(); worker.say(at=''); time.sleep(1000)", FOLDER)
    worker.stdout.close()
    worker.stdin.write("\n")
    worker.stdin.flush()
    assert worker.wait(60) == -9


def test_how_a_process_ends_after_its_work_is_no_matter(here, brief):
    """A thread that never ends, and a library that dies as the interpreter does."""
    plant(
        here, "import atexit, os, threading, time", "atexit.register(os.abort)",
        "threading.Thread(target=time.sleep, args=(1000,)).start()",
    )  # fmt: skip
    regress("sound", "--variants=numpy", code=MEASURED)


def test_the_watchdog_waits_for_all_turns_of_a_benchmark(here):
    assert made_run(here, Path("none")).patience == 180
    sides = made_run(here, Path("none"))
    assert run.Run(sides.base, sides.head, (), Path("none"), seconds=200.0).patience >= 4 * 200


# A side that spoils the other, or hides what it does


def test_a_base_that_fails_beside_the_head_only_is_not_repaired(here, commit):
    plant(here, "import os", "if 'POISON' in os.environ: raise ValueError('poisoned')")
    base = commit("sensitive")
    git(here, "checkout", "--quiet", "sound", "--", "variants/numpy.py")
    edit(here, "variants/numpy.py", "import numpy as np\n",
         "import os\n\nimport numpy as np\n\nos.environ['POISON'] = 'x'\n")  # fmt: skip
    said = regress(base, "--variants=numpy", code=2)
    assert "failed: the base fails beside the head, and does not alone" in said


def test_what_a_base_does_alone_is_tried_once(here, commit, tmp_path):
    """One variant raises, another one dies: both do so without the head too."""
    plant(here, "1 / 0")
    edit(here, "variants/numpy_samples.py", DEFINITION, body("import os", "os.abort()"))
    base = commit("broken")
    git(here, "checkout", "--quiet", "sound", "--", "variants")
    made = made_run(here, tmp_path / "results", base, names=("numpy", "numpy-samples"))
    made._missing(run.TRIAL, made.suite)
    made._alone()
    before = made.path.read_bytes()
    assert sorted(made._tried_alone().items()) == [
        (f"numpy {SHAPE}", "failed"), (f"numpy-samples {SHAPE}", "failed")
    ]  # fmt: skip
    made._alone()
    assert made.path.read_bytes() == before
    assert {note.kind for note in made.outcome().notes} == {"repaired"}


def test_a_wrong_base_hides_no_head_that_fails(here, commit, tmp_path):
    """The head is right on the few rows that compiling is measured on."""
    edit(here, LOSSES_FILE, SQUARE, WRONG)
    base = commit("wrong")
    edit(here, LOSSES_FILE, WRONG, SQUARE)
    plant(here, "if len(arguments[0]) > 512: 1 / 0")
    made = made_run(here, tmp_path / "results", base)
    made.suite = [run.Benchmark("numpy", SHAPE._replace(n=600))]
    made._compile_times()
    made._missing(run.TRIAL, made.suite)
    made._alone()
    (note,) = made.outcome().notes
    assert note.kind == "failed"
    assert note.sentence.startswith("ZeroDivisionError")
    assert "; base: RuntimeError: base disagrees" in note.sentence


def test_what_is_slow_in_the_base_and_gone_in_the_head_is_lost(here):
    edit(here, "variants/numpy_samples.py", '"numpy-samples"', '"numpy-gone"')
    shape = SHAPE._replace(n=1_000_000)
    said = regress("sound", "--variants=numpy-samples", code=1, shape=shape)
    assert f"numpy-samples {shape} is lost: head has no such variant" in said


def test_what_is_a_thousand_times_as_slow_needs_no_race():
    base = {"kind": "right", "seconds": 1e-6}
    for seconds, kind in ((2 * FARTHEST * 1e-6, "far"), (FARTHEST * 5e-7, None)):
        found = unpaired(base, {"kind": "right", "seconds": seconds})
        assert (found and found["kind"]) == kind


@pytest.mark.parametrize(
    "name",
    ["nump", "numpy, slowest steps", f"numpy {SHAPE}, memory", "numpy on all shapes, memory"],
)
def test_a_name_that_accepts_nothing_is_refused(here, name):
    said = regress("sound", "--variants=numpy", f"--accept={name}", code=2)
    assert f"--accept: expected a variant, a benchmark or a line of the table, got {name!r}" in said


def test_sides_with_the_same_files_are_told_of(here, brief):
    said = regress("sound", "--variants=numpy", code=MEASURED)
    assert "base and head have the same files: " in said


BOTH = """
import sys
from pathlib import Path
sys.path[:0] = sys.argv[1:3]
from sides import SIDES, Side
sys.modules["twolayer"] = None
both = [Side(name, Path(f), 1, ["mine.py"]) for name, f in zip(SIDES, sys.argv[3:])]
print([side.variants.get("mine").summary for side in both])
"""


def test_what_a_file_imports_knows_the_package_of_its_side(here, run_python, tmp_path):
    (tmp_path / "helping.py").write_text("from twolayer.network import Shape\n")
    (here / "mine.py").write_text(
        "import helping\nimport twolayer as tl\n"
        "VARIANT = tl.Variant('mine', 'cpu', helping.Shape.__module__, None)\n"
    )
    git(here, "add", "mine.py")
    sides = [revisions.export(None, side, files=[Path("mine.py")]) for side in ("base", "head")]
    said = run_python(BOTH, FOLDER, tmp_path, *(side.folder for side in sides))
    assert said.strip() == "['twolayer_base.network', 'twolayer_head.network']"
    git(here, "rm", "--quiet", "--force", "mine.py")


# Which variants are compared where nobody names them


@pytest.mark.parametrize(
    ("there", "device", "of_files", "compared"),
    [
        ([["cpu"]], None, False, True),
        ([["cuda"], ["cpu"]], None, False, True),  # the other revision has it on the CPU
        ([["cuda", "cpu"]], None, False, False),
        ([["cuda"]], None, True, True),
        ([["any"]], None, True, True),
        ([["any", "cpu"]], "cpu", True, True),
        ([["cuda"]], "cpu", True, False),
    ],
)
def test_a_variant_is_compared_wherever_a_revision_has_it(there, device, of_files, compared):
    def chosen(known):
        found = suite.benchmarks(Network(), "float32", (), None, device, known, of_files)
        return {benchmark.variant for benchmark in found}

    if compared:
        assert chosen([("mine", there)]) == {"mine"}
    else:
        sentence = rf"^device: expected one that variants run on, got {device!r}: mine on"
        with pytest.raises(ValueError, match=sentence):
            chosen([("mine", there)])
    assert chosen([("mine", there), ("other", [["cpu"]])]) == {"other"} | (
        {"mine"} if compared else set()
    )


def test_a_file_is_one_of_the_repository_by_any_path(here, tmp_path, monkeypatch):
    (tmp_path / "link").symlink_to(here)
    assert revisions.inside(tmp_path / "link" / "kernels" / "a.py") == Path("kernels/a.py")
    monkeypatch.chdir(here / "kernels")
    assert revisions.inside(Path("..", "variants", "a.py")) == Path("variants/a.py")
    assert os.fspath(revisions.inside(Path("a.py"))) == "kernels/a.py"

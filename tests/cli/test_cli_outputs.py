"""Files that a command writes: what cannot be written is refused first, what is no plain file is
written in place, and - is standard output.
"""

import io
import json
import os
import socket
import sys
import typing
from concurrent.futures import ThreadPoolExecutor
from importlib import import_module
from pathlib import Path

import numpy as np
import pytest
from command_runs import RUNS, call

from twolayer.cli import COMMANDS
from twolayer.regress.run import Run

INPUTS = {"variant_file", "X", "Y", "model", "source", "folder"}
# What each command needs beside its output to come so far.
NEEDED = {
    "choose": "--shape 5,3,4,2",
    "train": "data.csv",
    "predict": "net.npz x.csv",
    "regress": "HEAD",
    "bench": "--variants numpy",
    "peers": "--variants numpy",
    "updates": "--variants numpy",
    "report": "--variants numpy",
    "compare": "aaaaaaa bbbbbbb",
}


def outputs():
    """Each option of each command that is a path and none of those that are read."""
    for command, (module, function, _) in COMMANDS.items():
        made = getattr(import_module(f"twolayer.cli.commands.{module}"), function)
        for name, kind in typing.get_type_hints(made).items():
            if Path in (kind, *typing.get_args(kind)) and name not in INPUTS:
                yield command, name


# Paths that cannot be written.
BAD = {
    "no folder": "none/x",
    "a folder": ".",
    "a file for a folder": "data.csv/x",
    "too long": "x" * 300,
    "a link into no folder": "into",
    "a circle of links": "circle",
    "a folder that takes no file": "/proc/x",
    "a socket": "socket",
}


def text():
    return io.TextIOWrapper(io.BytesIO(), encoding="utf-8")


@pytest.mark.parametrize(("command", "name"), [*outputs()])
def test_what_cannot_be_written_is_refused_before_anything_is_done(brief, command, name):
    (brief / "into").symlink_to(brief / "none" / "x")
    (brief / "circle").symlink_to(brief / "circle")
    positional = (command, name) == ("report", "path")
    option, told = ("", "FILE") if positional else (f"--{name}", name)
    with socket.socket(socket.AF_UNIX) as bound:
        bound.bind("socket")
        for kind, path in BAD.items():
            if (name, kind) == ("plots", "a folder"):  # which is what it is
                continue
            stdout, stderr = text(), text()
            line = f"{command} {NEEDED.get(command, '')} {option} {path}"
            assert call(line, stdout, stderr) == 2, kind
            for stream in (stdout, stderr):
                stream.seek(0)
            said = stderr.read()
            assert said.startswith(f"{told}: expected "), (kind, said)
            assert said.count("\n") == 1
            assert stdout.read() == ""


def test_one_file_is_not_written_twice(brief):
    (brief / "link.json").symlink_to(brief / "a.npz")
    for line in ("--save a.npz --json a.npz", "--save a.npz --json link.json", "--json - --save -"):
        stderr = text()
        assert call(f"train data.csv {line}", text(), stderr) == 2
        stderr.seek(0)
        assert "expected a file of its own, got" in stderr.read()
    assert call("train data.csv --epochs 2 --json /dev/null --save /dev/null", text(), text()) == 0


OVER = {
    "train data.csv --epochs 2 --json data.csv": "json",
    "train data.csv --epochs 2 --json ./data.csv": "json",
    "train data.csv --epochs 2 --json link": "json",
    "train --X x.csv --Y y.csv --epochs 2 --json y.csv": "json",
    "train digits --epochs 2 --validation x.csv --json x.csv": "json",
    "train digits --epochs 2 --validation x.csv,y.csv --json y.csv": "json",
    "train digits --epochs 2 --variant-file own.py --json own.py": "json",
    "predict net.npz x.csv --save x.csv": "save",
    "predict link.csv x.csv --save link.csv": "save",
    "compare data.csv x.csv --json x.csv": "json",
    "list --variant-file own.py --json own.py": "json",
    "verify --variant-file own.py --json own.py": "json",
    "bench --variant-file own.py --json own.py": "json",
    "regress HEAD --variant-file own.py --json own.py": "json",
    "choose data.csv --json data.csv": "json",
}


@pytest.mark.parametrize("line", OVER)
def test_what_is_read_is_not_written_over(brief, line, monkeypatch):
    (brief / "own.py").write_text(
        "import twolayer as tl\n"
        "VARIANT = tl.Variant('own', 'cpu', '', tl.variants.get('numpy').make)\n"
    )
    (brief / "y.csv").write_text("1\n2\n")
    (brief / "link").symlink_to("data.csv")
    (brief / "link.csv").symlink_to("net.npz")
    before = {path.name: path.read_bytes() for path in brief.iterdir()}
    monkeypatch.setattr(sys, "dont_write_bytecode", True)  # of own.py
    stderr = text()
    assert call(line, text(), stderr) == 2
    stderr.seek(0)
    written = line.split()[-1].removeprefix("./")
    assert stderr.read() == f"{OVER[line]}: expected no file that is read, got {written!r}\n"
    assert {path.name: path.read_bytes() for path in brief.iterdir()} == before


def whole(ending, content):
    """Whether the bytes are a whole file of that kind."""
    if ending == ".json":
        return bool(json.loads(content))
    if ending == ".npz":
        with np.load(io.BytesIO(content)) as arrays:
            return set(arrays.files) >= {"V", "W"}
    if ending == ".csv":
        return np.loadtxt(io.BytesIO(content), delimiter=",").size == 2
    return content.startswith((b"<?xml", b"<!doctype", b"**"))


def through_a_pipe(line):
    """What a command writes into a pipe that it knows by name, as the shell's >(…) does."""
    reader, writer = os.pipe()
    stdout = text()
    with os.fdopen(reader, "rb") as end, ThreadPoolExecutor(1) as pool:
        content = pool.submit(end.read)  # meanwhile, for a pipe holds less than some pictures
        try:
            assert call(line.format(f"/dev/fd/{writer}"), stdout, text()) == 0
        finally:
            os.close(writer)
        return content.result(), stdout


@pytest.mark.parametrize("run", RUNS)
def test_a_pipe_gets_the_whole_file(brief, run):
    line, ending = RUNS[run]
    content, stdout = through_a_pipe(line)
    assert whole(ending, content)
    stdout.seek(0)
    assert stdout.read()


@pytest.mark.parametrize("run", [run for run in RUNS if RUNS[run][1] in (".json", ".csv", ".md")])
def test_standard_output_gets_the_file_and_nothing_else(brief, run):
    line, ending = RUNS[run]
    path = brief / "stdout"
    for name in ("-", str(path)):  # by its own name too, as /dev/stdout is
        with path.open("w", encoding="utf-8") as stdout:
            kept = os.dup(1)
            os.dup2(stdout.fileno(), 1)
            try:
                code = call(line.format(name), stdout, stderr := text())
            finally:
                os.dup2(kept, 1)
                os.close(kept)
        assert code == 0
        assert whole(ending, path.read_bytes())
        stderr.seek(0)
        assert "numpy" in stderr.read() or run.startswith("predict")


def test_what_is_to_go_to_a_closed_standard_output_is_refused(brief):
    stderr = text()
    assert call("train data.csv --json -", None, stderr) == 2
    stderr.seek(0)
    assert stderr.read().endswith("got '-': standard output is closed\n")


def test_a_checkpoint_is_a_plain_file(brief):
    stderr = text()
    assert call("train data.csv --checkpoint -", text(), stderr) == 2
    stderr.seek(0)
    assert stderr.read() == "checkpoint: expected a plain file, got '-'\n"


def test_a_comparison_of_revisions_ends_when_all_of_it_is_delivered(brief, monkeypatch):
    """What cannot be written keeps nothing else back, and the same command begins with the rest."""
    ended = []
    monkeypatch.setattr(Run, "end", lambda run: ended.append(run))
    line = "regress HEAD --variants numpy --markdown {} --json out.json"
    stdout, stderr = text(), text()
    assert call(line.format("/dev/full"), stdout, stderr) == 2
    stdout.seek(0)
    assert "numpy n=3" in stdout.read()
    assert json.loads((brief / "out.json").read_text())["benchmarks"]
    assert ended == []
    assert call(line.format("out.md"), text(), text()) == 0
    assert len(ended) == 1


def test_an_interrupted_comparison_shows_what_it_has(brief, monkeypatch):
    def interrupted(*arguments):
        raise KeyboardInterrupt

    monkeypatch.setattr(Run, "measure", interrupted)
    for stream in (text(), None):
        stderr = text()
        assert call("regress HEAD --variants numpy --json out.json", stream, stderr) == 130
        stderr.seek(0)
        assert "\ninterrupted: the same command goes on from here" in f"\n{stderr.read()}"
        assert not (brief / "out.json").exists()

"""Whatever becomes of what is printed, the work is done, and its files and exit code are right."""

import errno
import io
import json
import os
import subprocess
import sys

import pytest
from command_runs import RUNS, call

from twolayer import variants
from twolayer.cli import COMMANDS
from twolayer.showing import output, streams


def encoded(encoding):
    return io.TextIOWrapper(io.BytesIO(), encoding=encoding)


def full():
    return open("/dev/full", "w", encoding="utf-8")


def unread():
    reader, writer = os.pipe()
    os.close(reader)
    return os.fdopen(writer, "w", encoding="utf-8")


def closed():
    stream = encoded("utf-8")
    stream.close()
    return stream


# Streams, and the exit code where the work's is 0.
STREAMS = {
    "ascii": (lambda: encoded("ascii"), 0),
    "gbk": (lambda: encoded("gbk"), 0),
    "cp932": (lambda: encoded("cp932"), 0),
    "koi8-r": (lambda: encoded("koi8-r"), 0),
    "None": (lambda: None, 0),
    "unread": (unread, 0),
    "full": (full, 2),
    "closed": (closed, 2),
}


def test_every_command_that_writes_is_here():
    assert {name.split()[0] for name in RUNS} == COMMANDS.keys() - {"gpu"}  # which is in tests/cuda


QUICK = [
    (run, stream)
    for run in RUNS
    if not {"--plot", "--roofline"} & {*run.split()}
    for stream in ("ascii", "full")
]
QUICK += [("train --save", stream) for stream in STREAMS]


@pytest.mark.parametrize(
    ("run", "stream"),
    [
        pytest.param(run, stream, marks=[] if (run, stream) in QUICK else pytest.mark.slow)
        for run in RUNS
        for stream in STREAMS
    ],
)
def test_files_are_written_whatever_is_printed_to(brief, run, stream):
    make, code = STREAMS[stream]
    line, ending = RUNS[run]
    stdout, stderr = make(), encoded("ascii")
    assert call(line.format(f"out{ending}"), stdout, stderr) == code
    assert (brief / f"out{ending}").stat().st_size > 10
    stderr.seek(0)
    said = stderr.read()
    assert "Traceback" not in said
    assert ("standard output: " in said) == bool(code)


@pytest.mark.parametrize("stream", STREAMS)
def test_what_goes_to_stderr_ends_no_work(brief, stream):
    make, _ = STREAMS[stream]
    shown = encoded("utf-8")
    assert call("train data.csv --epochs 2 --json out.json", shown, make()) == 0
    assert call("bench --variants numpy --shape 9,2,4,1 --json o.json", shown, make()) == 0
    assert call("train no.csv", shown, make()) == 2


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (KeyError("x"), 2),
        (OverflowError("too large"), 2),
        (ImportError("no library"), 2),
        (AssertionError(), 2),
        (BrokenPipeError(errno.EPIPE, "Broken pipe"), 2),
        (EOFError(), 2),
        (SystemExit(1), 2),
        (KeyboardInterrupt(), 130),
        (ValueError("name: expected a, got b"), 2),
    ],
    ids=lambda value: type(value).__name__,
)
def test_no_exception_is_a_traceback_or_a_regression(monkeypatch, error, code):
    def fail(*arguments):
        raise error

    stderr = encoded("utf-8")
    monkeypatch.setattr("twolayer.cli.commands.list.add_files", fail)
    assert call("list", encoded("utf-8"), stderr) == code
    stderr.seek(0)
    said = stderr.read()
    assert "Traceback" not in said
    assert said.count("\n") == 1
    assert len(said) > 1


@pytest.mark.parametrize("command", COMMANDS)
def test_a_command_that_cannot_be_imported_ends_with_2(monkeypatch, command):
    monkeypatch.setitem(sys.modules, f"twolayer.cli.commands.{COMMANDS[command][0]}", None)
    stderr = encoded("utf-8")
    assert call(f"{command} --json x", encoded("utf-8"), stderr) == 2
    stderr.seek(0)
    assert stderr.read().startswith("ModuleNotFoundError: ")


def test_a_wrong_variant_is_still_wrong_where_nothing_can_be_printed(brief):
    (brief / "wrong.py").write_text(
        "import twolayer as tl\n"
        "class Wrong(tl.variants.get('numpy').make):\n"
        "    def forward(self, X, theta, F):\n"
        "        super().forward(X, theta, F)\n"
        "        F += 1\n"
        "VARIANT = tl.Variant('wrong', 'cpu', '', Wrong)\n"
    )
    line = "verify --variants wrong --variant-file wrong.py --loss squared --shape 5,3,4,2"
    for stream in (full(), unread(), None):
        assert call(f"{line} --activation tanh", stream, encoded("utf-8")) == 1
        del variants.REGISTRY._entries["wrong"]


def test_what_fails_keeps_nothing_else_from_being_delivered(tmp_path, capsys):
    def fail(path):
        raise OSError(errno.ENOSPC, "No space left on device", str(path))

    done = []
    with pytest.raises(OSError, match="No space left on device: 'b'"):
        output.deliver(
            lambda: done.append("shown"), ("a", fail), ("b", fail), (None, fail),
            ("c", done.append),
        )  # fmt: skip
    assert done == ["c", "shown"]
    assert "No space left on device: 'a'" in capsys.readouterr().err


def test_the_streams_are_given_back():
    before = sys.stdout, sys.stderr, sys.stdout.errors
    with streams.patient() as stdout:
        assert sys.stdout is stdout
    assert (sys.stdout, sys.stderr, sys.stdout.errors) == before


@pytest.mark.slow
@pytest.mark.parametrize("redirect", ["> /dev/full", "| true", ">&-", "2>&-", ">&- 2>&- <&-"])
def test_in_a_shell(brief, redirect):
    program = f"{sys.executable} -m twolayer train data.csv --epochs 2 --json out.json"
    done = subprocess.run(
        ["bash", "-o", "pipefail", "-c", f"{program} {redirect}"], capture_output=True, check=False
    )
    assert done.returncode == (2 if "full" in redirect else 0)
    assert json.loads((brief / "out.json").read_text())["epochs"] == 2
    assert b"Traceback" not in done.stderr
    assert b"Exception ignored" not in done.stderr

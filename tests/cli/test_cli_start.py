"""Before a command runs: odd sizes of a terminal, what cannot be loaded, an interrupt, warnings."""

import io
import runpy
import sys
import warnings

import pytest
from command_runs import call

from twolayer import cli


def said(line, code):
    """What a command that ends with that code says on both streams."""
    streams = [io.TextIOWrapper(io.BytesIO(), encoding="utf-8") for _ in range(2)]
    assert call(line, *streams) == code
    for stream in streams:
        stream.seek(0)
    return [stream.read() for stream in streams]


SIZES = ("0", "", "-5", "²", "9" * 9, "9" * 30, "9" * 5000)


@pytest.mark.parametrize("name", ["COLUMNS", "LINES"])
def test_a_size_that_no_terminal_has_is_none(brief, monkeypatch, name):
    monkeypatch.delenv(name, raising=False)
    lines = {"--help": 0, "list --nope": 2}
    usual = {line: said(line, code) for line, code in lines.items()}
    for size in SIZES:
        for line, code in lines.items():
            monkeypatch.setenv(name, size)
            assert said(line, code) == usual[line], (size[:9], line)


@pytest.mark.parametrize("error", [MemoryError(), ValueError("no help"), ZeroDivisionError("x")])
def test_what_fails_before_the_command_is_a_sentence_too(monkeypatch, error):
    def fail(*arguments, **settings):
        raise error

    monkeypatch.setattr(cli._Commands, "make_context", fail)
    shown, told = said("list", 2)
    assert (shown, told.count("\n")) == ("", 1)
    assert "Traceback" not in told


@pytest.mark.parametrize(
    ("error", "code", "told"),
    [(ImportError("no typer"), 2, "ImportError: no typer\n"), (KeyboardInterrupt(), 130, "")],
    ids=["cannot be loaded", "interrupted"],
)
def test_what_ends_while_the_command_line_is_loaded(monkeypatch, capsys, error, code, told):
    class Fails:
        @staticmethod
        def find_spec(name, path=None, target=None):
            if name == "twolayer.cli":
                raise error

    monkeypatch.delitem(sys.modules, "twolayer.cli")
    monkeypatch.setattr(sys, "meta_path", [Fails, *sys.meta_path])
    with pytest.raises(SystemExit) as end:
        runpy.run_module("twolayer", run_name="__main__")
    assert end.value.code == code
    assert capsys.readouterr().err == told


def test_a_warning_is_one_line_of_stderr(brief, monkeypatch):
    def warn(*arguments):
        text = "\nthe first line\nand a traceback"
        sys.stderr.write(warnings.formatwarning(text, RuntimeWarning, "file.py", 1))  # as Python

    monkeypatch.setattr("twolayer.cli.commands.list.add_files", warn)
    form = warnings.formatwarning
    _, told = said("list", 0)
    assert told == "twolayer: the first line\n"
    assert warnings.formatwarning is form

"""What people type first: help in any encoding and width, the version, misspelled names."""

import re
import runpy
import sys
import typing
from importlib import import_module
from pathlib import Path

import pytest
from typer.main import get_command
from typer.testing import CliRunner

import twolayer as tl
from twolayer.cli import COMMANDS, app, codes, options

ENCODINGS = ("utf-8", "ascii", "gbk", "cp932", "latin-1", "cp437", "koi8-r")


def run(*arguments, charset="utf-8", **settings):
    return CliRunner(charset=charset).invoke(app, [*arguments], prog_name="twolayer", **settings)


def named(command):
    """The options of a command, and the flags that turn one off."""
    found = get_command(app).get_command(None, command).params
    names = [name for param in found for name in (*param.opts, *param.secondary_opts)]
    return [name for name in names if name.startswith("--")]


@pytest.mark.parametrize("encoding", ENCODINGS)
@pytest.mark.parametrize("command", ["", *COMMANDS])
def test_help_is_shown_in_any_encoding(command, encoding):
    shown = run(*filter(None, [command]), "--help", charset=encoding)
    assert shown.exit_code == 0, shown.exception
    assert "�" not in shown.output
    for name in named(command) if command else COMMANDS:
        assert re.search(rf"(?<![\w-]){name}(?![\w-])", shown.output), name


def test_what_an_encoding_lacks_is_spelled():
    assert "h(W sigma(V x))" in run("--help", charset="ascii").output
    assert "h(W σ(V x))" in run("--help", charset="gbk").output


def test_a_narrow_terminal_and_the_c_locale(run_python):
    program = "from twolayer.cli import app; app(['regress', '--help'])"
    environment = {"COLUMNS": "40", "LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
    shown = run_python(program, **environment)
    assert "sigma by name" in " ".join(shown.split())
    for name in named("regress"):
        assert re.search(rf"(?<![\w-]){name}(?![\w-])", shown), name
    assert max(map(len, shown.splitlines())) <= 60


def test_h_is_help_and_the_version_is_told():
    for command in COMMANDS:
        assert run(command, "-h").output == run(command, "--help").output
    assert run("-h").output == run("--help").output
    assert run("--version").output == f"twolayer {tl.__version__}\n"


@pytest.mark.parametrize("command", COMMANDS)
def test_a_misspelled_command_is_answered_with_its_name(command):
    found = run(command[:-2] + command[-1])
    assert found.exit_code == 2
    assert f"Did you mean '{command}'" in found.stderr


@pytest.mark.parametrize("command", COMMANDS)
def test_a_misspelled_option_is_answered_with_its_name(command):
    for name in named(command):
        if len(name) < 7:
            continue
        typed = name[:-2] + "x"
        found = run(command, typed)
        assert found.exit_code == 2
        assert re.search(rf"No such option: {typed}.*{name[:-1]}", " ".join(found.stderr.split()))


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_commands_and_options_are_completed(shell):
    def complete(*words):
        line = " ".join(words)
        environment = {
            "_TWOLAYER_COMPLETE": f"complete_{shell}", "COMP_WORDS": line,
            "COMP_CWORD": str(len(words) - 1), "_TYPER_COMPLETE_ARGS": line,
            "_TYPER_COMPLETE_FISH_ACTION": "get-args",
        }  # fmt: skip
        return run(env=environment).stdout

    assert "verify" in complete("twolayer", "ver")
    assert "--epochs" in complete("twolayer", "train", "--ep")


def test_the_module_is_the_command(monkeypatch):
    monkeypatch.setattr(sys, "argv", ["twolayer", "--version"])
    with pytest.raises(SystemExit, match=r"^0$"):
        runpy.run_module("twolayer", run_name="__main__")


def test_nothing_is_advised_that_cannot_be_installed():
    root = Path(tl.__file__).parent
    folders = [root, root / "kernels", root / "variants"]
    for folder in folders:
        for file in folder.rglob("*.py"):
            assert "install 'twolayer[" not in file.read_text(encoding="utf-8"), file


@pytest.mark.parametrize("command", ["", *COMMANDS])
def test_help_has_two_examples_that_are_right(command):
    shown = run(*filter(None, [command]), "--help").output
    for line in codes.EXAMPLES[command]:
        assert f"twolayer {line}" in " ".join(shown.split()).replace("- ", "-"), line
        name, *arguments = line.split()
        assert name == (command or name)
        get_command(app).get_command(None, name).make_context(name, arguments)
    assert len(codes.EXAMPLES[command]) == 2


@pytest.mark.parametrize("command", COMMANDS)
def test_lines_end_where_the_terminal_does(command):
    found = get_command(app).get_command(None, command)
    assert found.help
    assert all("\n" not in text for text in found.help.split("\n\n"))


@pytest.mark.parametrize("command", COMMANDS)
def test_a_default_is_told_once(command):
    for param in get_command(app).get_command(None, command).params:
        if getattr(param, "show_default", False) and param.default not in (None, False):
            assert "by default" not in param.help, param.name


@pytest.mark.parametrize("command", COMMANDS)
def test_options_stand_in_panels(command):
    found = get_command(app).get_command(None, command)
    panels = {param.rich_help_panel for param in found.params if param.opts[0].startswith("--")}
    assert panels - {None, "Options"} <= {
        options.PROBLEM, options.VARIANTS, options.TRAINING, options.MEASURING, options.OUTPUT,
    }  # fmt: skip
    assert panels - {None}
    assert found.rich_help_panel


def test_one_name_is_one_thing_everywhere():
    """An option has the same kind in all commands; a shape is a list, or one in a question."""
    kinds = {}
    for module, function, _ in COMMANDS.values():
        made = getattr(import_module(f"twolayer.cli.commands.{module}"), function)
        for name, hint in typing.get_type_hints(made).items():
            kind = {*(typing.get_args(hint) or (hint,))} - {type(None)}
            assert kinds.setdefault(name, kind) == kind or name in ("data", "shape"), name

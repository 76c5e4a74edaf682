"""The examples run, draw, and show what they are there to show; those of the documents too."""

import code
import importlib.util
import io
import re
import shlex
from pathlib import Path

import pytest
import typer
from rich.console import Console

from twolayer.cli import app
from twolayer.regress.decide import Decision
from twolayer.regress.run import Outcome
from twolayer.showing import revisions

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / "examples"

pytest.importorskip("matplotlib")
pytest.importorskip("sklearn")


def load(path):
    spec = importlib.util.spec_from_file_location(path.stem, path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


printed = load(ROOT / "tools" / "documents" / "printed.py")
TEXTS = {
    path.relative_to(ROOT).as_posix(): path.read_text(encoding="utf-8") for path in printed.PAGES
}
SHOWN = [name for name, text in TEXTS.items() if printed.shown(text)]
SLOW = re.compile(r"twolayer bench .*--|--variant dask")  # all is compiled; processes are started
SNIPPETS = [
    pytest.param(found, id=name)
    for name, text in TEXTS.items()
    for found in re.findall(r"^```python\n(.*?)^```$", text, re.DOTALL | re.MULTILINE)
    if "Client(" not in found  # which needs a cluster
    and found not in dict(printed.FILE.findall(text)).values()
]


def run(name, path, **smaller):
    return load(FOLDER / f"{name}.py").main(path, **smaller)


def test_every_example_is_tested():
    tested = {name.removeprefix("test_") for name in globals()}
    assert {path.stem for path in FOLDER.glob("*.py")} <= tested


def test_approximation(tmp_path):
    errors = run("approximation", tmp_path / "a.svg", hidden=(1, 4, 16), epochs=1000)
    assert errors[1] > 2 * errors[4]
    assert errors[4] > errors[16]
    assert "<svg" in (tmp_path / "a.svg").read_text()


def test_problems(tmp_path):
    scores = run("problems", tmp_path / "a.svg")
    assert scores["digits"] > 0.9
    assert scores["breast_cancer"] > 0.9
    assert scores["diabetes"] > 0.3
    assert "<svg" in (tmp_path / "a.svg").read_text()


def test_methods(tmp_path):
    losses = run("methods", tmp_path / "a.svg", epochs=60, steps=[0.1, 10.0])
    assert min(losses.values()) > 0
    assert max(losses["nesterov"], losses["adam"]) < losses["gd"]
    assert "<svg" in (tmp_path / "a.svg").read_text()


def compare(name, which):
    """Run commands of a page, and compare the shapes of their outputs."""
    text = TEXTS[name]
    with printed.folder_of(text):
        for command, output in printed.shown(text):
            if which(command):
                assert printed.shape(printed.run(command)) == printed.shape(output), command


@pytest.mark.parametrize("name", SHOWN)
def test_documents_show_what_commands_print(name):
    compare(name, lambda command: not SLOW.search(command))


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name in SHOWN if SLOW.search(TEXTS[name])])
def test_documents_show_what_slow_commands_print(name):
    compare(name, SLOW.search)


@pytest.mark.parametrize(
    ("output", "other"),
    [
        ("numpy  1.5 ms  same", "numpy  1.5 ms  slower"),
        ("loss 0.5 after 3 epochs", "loss 0.5, 3 epochs"),
        ("variant  an epoch", "variant  an epoch  MiB"),
    ],
)
def test_another_shape_is_seen(output, other):
    assert printed.shape(output) == printed.shape(output.replace("1.5 ms", "88 µs"))
    assert printed.shape(output) != printed.shape(other)


ROW = re.compile(
    r"^((\S+) (?:n=.*?|on all shapes)) +(?:([\d.]+ .?s) +([\d.]+ .?s) +)?([\d.]+)  ([\d.]+) to "
    r"([\d.]+)  (\w+) +([\d.]+)%$",
    re.MULTILINE,
)
UNITS = {"s": 1, "ms": 1e-3, "µs": 1e-6}


def seconds(text):
    number, _, unit = text.partition(" ")
    return float(number) * UNITS[unit] if text else None


@pytest.mark.parametrize("name", ["README.md", "docs/regress.md"])
def test_documents_show_what_regress_prints(name):
    """The figures of the page, as that command shows them."""
    (shown,) = re.findall(r"^```text\n(base: .*?)^```$", TEXTS[name], re.DOTALL | re.MULTILINE)
    decisions = [
        Decision(
            name, variant, "time", 7, seconds(base), seconds(head), float(ratio), float(low),
            float(high), 0.0, 1.0, float(visible) / 100, verdict, True,
        )
        for name, variant, base, head, ratio, low, high, verdict, visible in ROW.findall(shown)
    ]  # fmt: skip
    base, head = re.match(r"base: (.*), head: (.*)\n", shown).groups()
    console = Console(width=100, record=True, file=io.StringIO())
    sides = [revisions.Revision(label, "", ROOT) for label in (base, head)]
    *table, last = shown.splitlines()
    took = float(re.search(r"(\d+) s\.", last)[1])
    revisions.show(console, Outcome(decisions[::-1], seconds=took), sides)
    found = [line.rstrip() for line in console.export_text().splitlines()]
    assert found[: len(table)] == table
    assert printed.shape("\n".join(found)) == printed.shape(shown)
    assert last.split(". ")[0] in found[-1]


@pytest.mark.parametrize("text", SNIPPETS)
def test_snippets_can_be_pasted_into_the_interpreter(text, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    console = code.InteractiveConsole({"__name__": "__main__"})
    waiting = False
    for line in [*text.splitlines(), ""]:
        waiting = console.push(line)
    assert not waiting
    assert capsys.readouterr().err == ""


COMMANDS = sorted(
    {
        command.partition(" #")[0].strip()
        for text in TEXTS.values()
        for block in re.findall(r"^```(?:sh|console)\n(.*?)^```$", text, re.DOTALL | re.MULTILINE)
        for command in re.findall(
            r"^(?:\$ |\.venv/bin/)?((?:twolayer|make) .*)$",
            block.replace("\\\n", " "),
            re.MULTILINE,
        )
    }
)


@pytest.mark.parametrize("text", COMMANDS)
def test_commands_have_the_options_that_are_shown(text):
    program, *arguments = shlex.split(text)
    if program == "make":
        rules = re.findall(r"^([a-z][a-z -]*):", (ROOT / "Makefile").read_text("utf-8"), re.M)
        targets = {target for rule in rules for target in rule.split()}
        assert {target for target in arguments if "=" not in target} <= targets
    else:
        name, *arguments = arguments
        group = typer.main.get_command(app)
        command = group.get_command(group.make_context(program, [name]), name)
        assert command.make_context(name, arguments).params

"""The commands `history` and `compare`, from a store and to files."""

import csv
import json
import sqlite3
import sys
import time
import types
from contextlib import closing
from functools import partial

import pytest
from past import COMMITS, fill
from typer.testing import CliRunner

from twolayer.cli import app
from twolayer.cli.commands.kept import history as commands
from twolayer.machine.store import Store


def run(*arguments, code=0, **settings):
    found = CliRunner().invoke(app, [*arguments], prog_name="twolayer", **settings)
    assert found.exit_code == code, found.stderr
    return found.stdout if code == 0 else found.stderr


def test_problems_and_one_problem(full):
    shown = run("history")
    assert shown.count("n=100 d=8 M=16 K=2 tanh squared float32, 2 threads") == 4
    assert "step at 1a1a1a1: numpy × 1.2" in shown
    shown = run("history", "--machine", "abacus")
    lines = [line for line in shown.splitlines() if line[:7] in {one[:7] for one in COMMITS}]
    assert [line[:7] for line in lines] == [commit[:7] for commit in COMMITS]
    assert ["▲1.2" in line for line in lines] == [commit == COMMITS[10] for commit in COMMITS]
    assert "an abacus, 2 CPUs" in shown


def test_files_have_a_line_for_each_commit(full, tmp_path, monkeypatch):
    frames = []
    frame = types.SimpleNamespace(
        to_parquet=lambda file: frames.append(file.write(b"PAR1")),
    )
    pandas = types.SimpleNamespace(DataFrame=lambda rows: frames.append(len(rows)) or frame)
    monkeypatch.setitem(sys.modules, "pandas", pandas)
    monkeypatch.setitem(sys.modules, "pyarrow", types.SimpleNamespace())
    run("history", "--variants", "numpy", "--json", "h.json", "--csv", "h.csv", "--plot", "h.svg",
        "--parquet", "h.parquet")  # fmt: skip
    records = json.loads((tmp_path / "h.json").read_text())["history"]
    with (tmp_path / "h.csv").open() as file:
        rows = [*csv.DictReader(file)]
    assert [row["commit"] for row in rows] == [one["commit"] for one in records] == COMMITS * 2
    assert [float(row["seconds"]) for row in rows] == [one["seconds"] for one in records]
    assert frames == [40, 4]
    assert (tmp_path / "h.parquet").read_bytes() == b"PAR1"
    drawn = (tmp_path / "h.svg").read_text()
    assert "<!-- × 1.2" in drawn
    assert "<!-- 2323232 -->" in drawn or "<!-- 2222222 -->" in drawn


@pytest.mark.parametrize("package", ["pandas", "pyarrow"])
def test_parquet_says_what_it_needs(store, monkeypatch, package):
    for name in ("pandas", "pyarrow"):
        module = None if name == package else types.SimpleNamespace()
        monkeypatch.setitem(sys.modules, name, module)
    said = run("history", "--parquet", "h.parquet", code=2)
    assert said.startswith(f"parquet: needs {package}, which is not installed: run `pip install ")


def test_an_empty_store_says_what_fills_it(store):
    found = CliRunner().invoke(app, ["history"])
    assert (found.exit_code, found.stdout) == (
        3, "nothing of that was measured: `twolayer bench` does\n",
    )  # fmt: skip
    assert "commit (none) or a machine (none)" in run("compare", "aaaa", "bbbb", code=2)


@pytest.mark.parametrize(
    ("choice", "count"),
    [
        (["--before", "2100-01-01"], 80), (["--commit", COMMITS[2]], 4),
        (["--machine", "loom"], 40),
        (["--variants", "numpy", "--machine", "loom"], 20), (["--commit", "ffff"], 0),
    ],
)  # fmt: skip
def test_pruning_says_how_much_and_asks(full, choice, count):
    everything = len(full.select())
    said = run("history", "--prune", *choice, code=2 if count else 0)
    if count:
        assert said == "prune: expected --yes where nobody can be asked, got none\n"
    assert len(full.select()) == everything
    said = run("history", "--prune", "--yes", *choice)
    assert said.startswith(f"{count} of 80 measurements of epochs, kept from ")
    assert len(full.select()) == everything - count
    assert len(full.select(kind="other")) == 1


@pytest.mark.parametrize(("answer", "left"), [("y\n", 0), ("n\n", 80)])
def test_pruning_on_a_terminal(full, monkeypatch, answer, left):
    terminal = types.SimpleNamespace(stdin=types.SimpleNamespace(isatty=lambda: True))
    monkeypatch.setattr(commands, "sys", terminal)
    run("history", "--prune", "--since", "2000-01-01", input=answer)
    assert len(full.select(kind="epoch")) == left


@pytest.mark.parametrize(
    ("line", "told"),
    [
        ("--prune", "prune: expected what to remove"),
        ("--yes", "yes: expected it with --prune only"),
        ("--prune --machine loom --json x.json", "json: expected none with --prune"),
        ("--shape 1,2", "shape: expected four sizes"),
        ("--machine toaster", "machine: expected a name or key of one of"),
        ("--since never", "since: expected a date"),
        ("--plot h.pdf", "plot: expected a file ending in .svg or .png"),
    ],
)
def test_what_makes_no_sense_is_refused(full, line, told):
    assert run("history", *line.split(), code=2).startswith(told)


def test_a_store_that_cannot_be_written_is_not_said_to_be_pruned(full, monkeypatch):
    def refuse(store, *_):
        raise OSError(f"the store {store.path} cannot be written, so nothing was removed")

    monkeypatch.setattr(Store, "remove", refuse)
    said = run("history", "--prune", "--yes", "--machine", "loom", code=2)
    assert "nothing was removed" in said


def test_compare_shows_ratios_and_the_rest(full, tmp_path):
    shown = run("compare", COMMITS[0], COMMITS[15][:9], "--json", "c.json")
    assert shown.count("slower") == 2 + 1  # and what that means
    pairs = json.loads((tmp_path / "c.json").read_text())["pairs"]
    for key in {pair["a"]["machine"] for pair in pairs}:
        assert shown.count(key) == 2 + 2  # of A, of B, and a row for each variant
    assert "numpy: B / A = 1.2" in shown
    found = json.loads((tmp_path / "c.json").read_text())
    assert [one["verdict"] for one in found["pairs"]].count("slower") == 2
    shown = run("compare", "abacus", "loom", "--variants", "numpy")
    assert "A and B are different machines" in shown
    assert run("compare", COMMITS[0], COMMITS[1], "--shape", "1,1,1,1", code=2).startswith("A: ")


def test_a_hundred_thousand_measurements_answer_at_once(store):
    """A few times as long as SQLite alone takes to look at all of the file and at its times."""
    shapes = [(100 * number, 8, 16, 2) for number in range(1, 6)]
    assert fill(store.path, [1.0] * 10 + [1.2] * 10, 250, shapes) == 100_000

    def seconds(work):
        begin = time.process_time()
        work()
        return time.process_time() - begin

    def alone():
        with closing(sqlite3.connect(store.path)) as db:
            db.execute("PRAGMA quick_check(1)").fetchall()
            db.execute("SELECT time FROM measurement").fetchall()

    for line in (
        ["history"], ["history", "--shape", "100,8,16,2", "--csv", "h.csv"],
        ["compare", COMMITS[0], COMMITS[15]], ["compare", "abacus", "loom"],
    ):  # fmt: skip
        ratios = (seconds(partial(run, *line)) / seconds(alone) for _ in range(3))
        assert any(ratio < 4 for ratio in ratios), line

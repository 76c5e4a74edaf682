"""No figure and no name of a table is ever cut, however narrow the place is."""

import io
import re
from pathlib import Path

import pytest
from rich.console import Console

import twolayer as tl
from twolayer.showing import output, units
from twolayer.showing.table import Table

NAMES = ["numba-parallel", "a-variant-with-a-very-long-name-of-somebody", "numpy"]


def shown(width, *, title="A title", wrapped="what it is, in a sentence that may be wrapped"):
    table = Table(title=title)
    table.add_column("variant", no_wrap=True)
    for heading in ("an epoch", "±", "GFLOP/s", "first call"):
        table.add_column(heading, justify="right", no_wrap=True)
    table.add_column("what it is")
    for place, name in enumerate(NAMES):
        table.add_row(name, f"{47.5 + place} µs", "12%", "123456.78", "12345 ms", wrapped)
    console = Console(file=io.StringIO(), width=width)
    console.print(table)
    return console.file.getvalue()


@pytest.mark.parametrize("width", [200, 120, 100, 80, 60, 40])
def test_every_cell_is_whole(width):
    text = shown(width)
    assert "…" not in text
    assert max(map(len, text.splitlines())) <= width
    whole = text if width >= 60 else re.sub(r"\s", "", text)  # longer than a line, it is folded
    for name in NAMES:
        assert name in whole
    for place in range(len(NAMES)):
        assert f"{47.5 + place} µs" in text
    assert text.count("12345 ms") == text.count("123456.78") == len(NAMES)
    assert " ".join(text.split()).count("wrapped") == len(NAMES)


@pytest.mark.parametrize("width", [1, 2, 5, 11])
def test_the_narrowest_terminal_loses_nothing(width):
    letters = re.sub(r"\s", "", shown(width))
    assert all(name in letters for name in NAMES)
    assert letters.count("12345ms") == letters.count("wrapped") == len(NAMES)


def test_what_goes_into_a_pipe_is_neither_cut_nor_wrapped(capsys):
    table = Table("variant", "what it is")
    table.add_row("x" * 300, "a word " * 200)
    output.stdout().print(table)
    output.stdout().print("a word " * 200 + "end")
    _, row, text = capsys.readouterr().out.splitlines()
    assert row.count("x") == 300
    assert row.count("word") == 200
    assert text.endswith("end")


def test_there_are_no_other_tables_and_consoles():
    sources = [*Path(tl.__file__).parent.rglob("*.py")]
    found = {
        name: {path.name for path in sources if name in path.read_text(encoding="utf-8")}
        for name in ("rich.table", "Console(")
    }
    assert found["rich.table"] == {"table.py"}
    assert found["Console("] == {"output.py", "progress.py"}


@pytest.mark.parametrize(
    ("value", "places", "text"),
    [
        (12.3, 2, "12.30"),
        (999999.4, 1, "999999.4"),
        (-1e300, 4, "-1e+300"),
        (1.5e6, 2, "1.5e+06"),
        (float("inf"), 2, "inf"),
        (float("nan"), 2, "nan"),
    ],
)
def test_a_number_has_no_more_digits_than_can_be_read(value, places, text):
    assert units.fixed(value, places) == text


@pytest.mark.parametrize("seconds", [1e-300, 1e-9, 1.0, 1e5, 1e9, 1e300, float("inf")])
def test_a_time_and_a_size_have_few_digits(seconds):
    assert len(units.duration(seconds)) <= 11
    assert len(units.memory(min(int(min(seconds, 1e30)), 10**30))) <= 11

"""What a notebook shows, and that the example runs from top to bottom."""

import ast
import json
import re
from pathlib import Path

import numpy as np
import pytest

import twolayer as tl
from twolayer.choosing.choice import Candidate, Choice, Span
from twolayer.measuring import roofline, timing
from twolayer.measuring.race import Entry, Result, Workload
from twolayer.measuring.roofline import Roofline
from twolayer.regress.decide import Decision
from twolayer.showing import notebook

EXAMPLE = Path(__file__).parents[2] / "docs" / "example.ipynb"
NET = tl.Network("tanh", "squared")


def choice():
    seconds = Span(1e-3, 2e-3, 3e-3)
    others = (Candidate("numpy", seconds, 0, 1 << 20, 0.0),)
    chosen = Candidate("numba-fused", seconds, 5, 1 << 20, 0.0)
    return Choice("numba-fused", "it <took> the least time", chosen, others, (), 10)


def race():
    made = Result(Workload(NET, tl.Shape(9, 3, 4, 2)), 1, Roofline(1e11, 1e10))
    made.entries = [Entry(tl.variants.get("numpy"), blocks=[1e-3] * 5, first_call=0.1)]
    return made


def decision():
    return Decision(
        "numpy n=9", "numpy", "time", 4, 1e-3, 2e-3, 2.0, 1.9, 2.1, 0.0, 1.0, 0.01, "slower", True
    )


def plan():
    X = np.ones((9, 3))
    return tl.variants.get("numpy").plan(NET, X, X[:, :2], NET.init(3, 4, 2, "float64"))


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (choice, ["numba-fused", "it &lt;took&gt; the least time", "about 2.00 ms"]),
        (race, ["numpy", "1.00 ms"]),
        (decision, ["numpy n=9", "slower", "2.0000"]),
        (plan, ["numpy on n=9 d=3 M=4 K=2, tanh, squared, float64, "]),
    ],
)
def test_what_a_notebook_shows(make, words):
    page = make()._repr_html_()
    assert page.startswith("<pre")
    assert max(map(len, re.sub("<[^>]*>", "", page).splitlines())) <= 120
    assert all(word in page for word in words), page


@pytest.mark.parametrize("variables", [{}, {"FORCE_COLOR": "1"}, {"NO_COLOR": "1"}])
def test_a_cell_shows_one_thing_once(monkeypatch, variables):
    shown = []
    monkeypatch.setattr("rich.console._is_jupyter", lambda: True)
    monkeypatch.setattr("rich.jupyter.display", lambda *_: shown.append(1))
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    page = choice()._repr_html_()
    assert page.count("it &lt;took&gt; the least time") == 1
    assert "font-family:monospace" in page  # of tables
    assert shown == []


def test_what_is_not_known_is_refused():
    with pytest.raises(TypeError, match="thing: expected a choice, a race, "):
        notebook.html(1)


@pytest.mark.usefixtures("made_up_times")
def test_the_example_runs(monkeypatch, tmp_path):
    """Cell by cell, and what a cell ends with shows itself."""
    monkeypatch.setattr(timing.block, "__defaults__", (0,))
    monkeypatch.setattr(roofline, "probe", lambda *_: Roofline(1e11, 1e10))
    monkeypatch.setenv("TWOLAYER_STORE", str(tmp_path / "store.sqlite"))
    cells = json.loads(EXAMPLE.read_text(encoding="utf-8"))["cells"]
    names, shown = {}, []
    for cell in cells:
        if cell["cell_type"] == "code":
            assert cell["outputs"] == []
            *body, last = ast.parse("".join(cell["source"])).body
            exec(compile(ast.Module(body, []), str(EXAMPLE), "exec"), names)
            value = eval(compile(ast.Expression(last.value), str(EXAMPLE), "eval"), names)
            shown.append(value._repr_html_() if hasattr(value, "_repr_html_") else repr(value))
    assert shown[0] == "(1797, 65, 10)"
    assert sum(page.startswith("<pre") for page in shown) == 3
    assert names["losses"][-1] < names["losses"][0]
    assert names["accuracy"] > 0.9

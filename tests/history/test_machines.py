"""The page of machines is what their files say, and anyone adds a file by one command."""

import json
import re
from html.parser import HTMLParser
from pathlib import Path

import pytest
from past import epoch, machine
from typer.testing import CliRunner

from twolayer.cli import app
from twolayer.history import machines
from twolayer.machine import hardware
from twolayer.machine.hardware import signature
from twolayer.showing import tables
from twolayer.showing.kept import machines as shown

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "machines.md"
MARKERS = "before\n<!-- machines:start -->\nold\n<!-- machines:end -->\nafter\n"


def run(*arguments, code=0):
    found = CliRunner().invoke(app, ["machines", *arguments], prog_name="twolayer")
    assert found.exit_code == code, found.stderr
    return found.stdout if code == 0 else found.stderr


def test_the_page_is_what_the_files_say():
    found = machines.load_all(ROOT / "docs" / "measured" / "machines")
    page = PAGE.read_text(encoding="utf-8")
    assert tables.between_markers(PAGE, shown.markdown(found), shown.MARKER) == page, (
        "run `twolayer machines --page docs/machines.md`"
    )


def test_without_machines_the_page_says_how_to_add_one():
    assert shown.markdown([]) == f"{shown.NONE}\n\n{shown.ADD}"
    assert shown.NONE in shown.page([])


@pytest.fixture
def here(store):
    """A store with a race of two variants on this machine, and an older one of other sources."""
    for commit, variant, seconds in (
        (0, "numba-fused", 1.0), (1, "numpy", 2e-5), (1, "numba-fused", 1e-5), (1, "numpy", 2e-5),
    ):  # fmt: skip
        store.add(
            epoch(seconds, commit, variant, noise=0.0), signature() | {"sources": f"{commit}"}
        )
    store.add(epoch(7.0), machine("a loom"))
    return store


def test_this_machine_is_added_by_one_command(here, tmp_path):
    page = tmp_path / "page.md"
    page.write_text(MARKERS)
    run("--add", "--folder", "m/n", "--page", "page.md", "--html", "page.html")
    (path,) = (tmp_path / "m" / "n").glob("*.json")
    ((task, (fused, numpy)),) = machines.load(path).races().items()
    assert (fused.problem.variant, numpy.problem.variant) == ("numba-fused", "numpy")
    assert fused.seconds == pytest.approx(1e-5)
    assert (fused.commit, task.n, fused.problem.threads) == ("1111111", 100, 2)
    flops, nbytes = 100 * 16 * (4 * 8 + 6 * 2), 100 * (8 + 2) * 4
    share = max(flops / 1e11, nbytes / 1e10) / 1e-5
    assert machines.load(path).share(fused) == pytest.approx(share)
    text = page.read_text()
    assert text.startswith("before\n")
    assert text.endswith("after\n")
    assert f"| numba-fused | 10.0 µs ± 0.0% | {share:.0%} | numpy 2.00 |" in text
    assert "a loom" not in text


def test_what_is_measured_anew_replaces_its_race_only(here, tmp_path):
    run("--add", "--folder", "m")
    here.add(epoch(3e-5, 2, "numpy"), signature() | {"sources": "2"})
    here.add(epoch(5e-5, 2, "numpy", n=7), signature() | {"sources": "2"})
    run("--add", "--folder", "m")
    (one,) = machines.load_all(tmp_path / "m")
    assert {(figure.problem.variant, figure.problem.n) for figure in one.figures} == {
        ("numpy", 100), ("numpy", 7),
    }  # fmt: skip


class Cells(HTMLParser):
    def __init__(self):
        super().__init__()
        self.open, self.cells = [], []

    def handle_starttag(self, tag, attrs):
        if tag not in ("meta", "link"):
            self.open.append(tag)
        if tag in ("th", "td"):
            self.cells.append("")

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if self.open and self.open[-1] in ("th", "td"):
            self.cells[-1] += data


def test_the_html_has_the_same_tables():
    found = machines.load_all(ROOT / "docs" / "measured" / "machines")
    parser = Cells()
    parser.feed(shown.page(found))
    assert parser.open == []
    lines = re.findall(r"^\| (.*) \|$", shown.markdown(found), re.MULTILINE)
    cells = [cell for line in lines if not line.startswith("---") for cell in line.split(" | ")]
    assert parser.cells == cells
    assert len(cells) > 20


@pytest.mark.parametrize(
    ("line", "told"),
    [
        ("--add --folder m", "machines: expected figures of this machine, got none: run `twolayer"),
        ("--folder none", "folder: expected an existing folder, got 'none'"),
        ("--from other.json", "file: expected epochs as `bench --json` writes them"),
        ("--from none.json", "file: expected one of `bench --json` or `gpu --json`, got 'none"),
        ("--page other.json", "page: expected the lines <!-- machines:start --> and"),
        ("--page new.md", "page: expected an existing file"),
        ("--folder .", "folder: expected files that `twolayer machines --add` wrote, got 'other."),
    ],
)
def test_what_cannot_be_shown_is_refused_in_a_sentence(store, tmp_path, line, told):
    (tmp_path / "other.json").write_text("{}")
    assert run(*line.split(), code=2).startswith(told)


def test_a_file_tells_no_more_than_the_page_needs(here, tmp_path):
    """What a machine is, and nothing that names who owns it."""
    run("--add", "--folder", "m")
    (path,) = (tmp_path / "m").glob("*.json")
    report = json.loads(path.read_text())
    assert report["machine"].keys() <= {
        "system", "cpu", "cpus", "cores", "caches", "gpus", "python", "libraries", "blas",
    }  # fmt: skip
    assert str(hardware.platform.node()) not in report["name"]

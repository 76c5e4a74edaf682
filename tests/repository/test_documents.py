"""The documents: links lead somewhere, each page can be reached, nothing is advised too early."""

import re
import tomllib
from pathlib import Path

import pytest

import twolayer as tl

ROOT = Path(__file__).parents[2]
PAGES = {
    path: path.read_text(encoding="utf-8")
    for path in sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")])
}
LINK = re.compile(r"\]\(([^)\s]+)\)")


def prose(text):
    """A page without its code."""
    return re.sub(r"^```.*?^```$|`[^`\n]*`", "", text, flags=re.DOTALL | re.MULTILINE)


def anchors(text):
    """The names that GitHub gives to a page's headings."""
    text = re.sub(r"^```.*?^```$", "", text, flags=re.DOTALL | re.MULTILINE)
    return {
        re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-")
        for heading in re.findall(r"^#+ (.*)$", text, re.MULTILINE)
    }


def links(page):
    """The files that a page links to, each with the heading or nothing."""
    for target in LINK.findall(prose(PAGES[page])):
        if not target.startswith(("https://", "http://")):
            path, _, anchor = target.partition("#")
            yield (page.parent / path).resolve() if path else page, anchor


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_links_lead_somewhere(page):
    for path, anchor in links(page):
        assert path.is_file(), path  # a folder has no page on the website
        assert not anchor or anchor in anchors(PAGES[path]), anchor


def test_every_page_can_be_reached_from_the_readme():
    reached, new = set(), {ROOT / "README.md"}
    while new:
        reached |= new
        new = {path for page in new for path, _ in links(page) if path in PAGES} - reached
    assert reached == set(PAGES)


def test_every_page_is_in_the_menu_of_the_website():
    menu = (ROOT / "docs/site/conf.py").read_text(encoding="utf-8").split()
    words = {word.strip('",') for word in menu}
    for page in set(PAGES) - {ROOT / "README.md"}:
        path = page.relative_to(ROOT / "docs" if "docs" in page.parts else ROOT)
        assert path.with_suffix("").as_posix() in words, path


def test_the_readme_shows_eight_rows_at_most():
    tables = re.findall(r"(?:^\|.*\n)+", PAGES[ROOT / "README.md"], re.MULTILINE)
    assert tables
    rows = [table.count("\n") - 2 for table in tables if "question" not in table]
    assert max(rows) <= 8


def test_a_name_that_is_not_ours_is_not_installed():
    """From an index: it could be anybody's. A checkout, `.[bench]`, is meant."""
    sources = [*(ROOT / "src").rglob("*.py"), *(ROOT / ".github").rglob("*.yml")]
    texts = PAGES | {path: path.read_text(encoding="utf-8") for path in sources}
    for path, text in texts.items():
        assert not re.search(r"pip3? install[^\n`]*\btwolayer\b(?! @)", text), path


def test_what_is_installed_stays_editable():
    """A copy would take no notice of edits any more."""
    found = [line for text in PAGES.values() for line in re.findall(r"pip install.*", text)]
    assert found
    assert not [line for line in found if "'.[" in line and "--editable" not in line]


def test_the_glossary_is_in_order_and_has_the_words_of_tables():
    words = re.findall(r"^\| (.*?) \|", PAGES[ROOT / "docs/glossary.md"], re.MULTILINE)[2:]
    latin = [word for word in words if word[0] < "Α"]
    assert latin == sorted(latin, key=str.lower)
    said = ", ".join(words)
    for word in ("epoch", "block", "round", "turn", "process", "visible", "plan", "variant"):
        assert word in said


def test_the_layers_are_those_that_are_held():
    """The picture in ARCHITECTURE.md, and what import-linter reads."""
    held = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    layers = held["tool"]["importlinter"]["contracts"][0]["layers"]
    (shown,) = re.findall(
        r"^```text\n(\w+\ncli\n.*?)^```$", PAGES[ROOT / "ARCHITECTURE.md"], re.S | re.M
    )
    assert [line.split() for line in shown.splitlines()] == [re.findall(r"\w+", s) for s in layers]


def test_public_names_are_documented():
    page = PAGES[ROOT / "docs/reference/python.md"]
    site = (ROOT / "docs/site/docstrings.rst").read_text(encoding="utf-8")
    for name in tl.__all__:
        assert re.search(rf"\b{name}\b", site), name
    assert {"Shape", "Problem", "Weights"} >= {
        name for name in tl.__all__ if not re.search(rf"`[^`]*\b{name}\b", page)
    } - {"Plan"}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_pages_name_no_folder_of_the_machine_they_were_written_on(page):
    """Commands that measured a table stand below it, with all that was typed."""
    assert re.findall(r"(?<![\w.~$}/-])/(?:tmp|home|root|work|Users)/\S*", PAGES[page]) == []

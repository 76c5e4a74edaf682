"""The website of the documents: the repository's Markdown as it stands, and the docstrings."""

import shutil
from pathlib import Path

from sphinx.application import Sphinx

import twolayer

ROOT = Path(__file__).parents[2]

project, version, copyright = "twolayer", twolayer.__version__, "the twolayer developers"
extensions = ["myst_parser", "sphinx.ext.autodoc"]
root_doc = "README"
include_patterns = ["*.md", "docs/*.md", "docs/*/*.md", "docs/site/*.rst"]
suppress_warnings = ["myst.header"]  # pages of a question have no level between
html_theme = "furo"
html_title = "twolayer"
html_static_path, html_css_files = ["site.css"], ["site.css"]
html_copy_source = html_show_sourcelink = False
myst_heading_anchors = 4  # as on GitHub
autodoc_member_order = "bysource"
autodoc_typehints_format = "short"

# The pages by what they are for. Who reads them on GitHub finds the same list in the README.
CONTENTS = {
    "Questions": "start choosing regress limit right training gpu cluster history machines own "
    "examples glossary",
    "Reference": "reference/commands reference/python reference/json site/docstrings math",
    "Lab book": "lab/measured lab/measuring lab/cpu lab/gpu lab/choosing lab/detector lab/history "
    "lab/mutation",
}
PROJECT = "ARCHITECTURE CONTRIBUTING CHANGELOG SECURITY"


def contents() -> str:
    """The menu, which no page shows itself."""
    menu = {
        **{title: [f"docs/{page}" for page in pages.split()] for title, pages in CONTENTS.items()},
        "Project": PROJECT.split(),
    }
    return "".join(
        f"\n```{{toctree}}\n:hidden:\n:caption: {title}\n\n" + "\n".join(pages) + "\n```\n"
        for title, pages in menu.items()
    )


def add_contents(app: Sphinx, name: str, source: list[str]) -> None:
    """The menu belongs to the front page."""
    if name == root_doc:
        source[0] += contents()


def add_front(app: Sphinx, error: Exception | None) -> None:
    """Servers look for index.html."""
    if error is None:
        shutil.copy(Path(app.outdir, f"{root_doc}.html"), Path(app.outdir, "index.html"))


def setup(app: Sphinx) -> None:
    """What Sphinx calls."""
    app.connect("source-read", add_contents)
    app.connect("build-finished", add_front)

"""A plugin of asv: `asv publish` makes docs/pages the first page, and its own page asv.html."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

from asv.publishing import OutputPublisher

PAGES = Path(__file__).resolve().parents[1] / "docs" / "pages"


class FirstPage(OutputPublisher):
    """The landing page, with links to asv's pages and from them."""

    name = "first-page"
    button_label = "Overview"
    description = "Latest figures, what changed, and the fastest variants"

    @classmethod
    def publish(cls, conf: Any, *_: object) -> None:
        """Put the files where asv writes its own."""
        html = Path(conf.html_dir)
        (html / "index.html").replace(html / "asv.html")
        shutil.copytree(PAGES, html, dirs_exist_ok=True)

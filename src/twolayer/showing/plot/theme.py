"""Figures whose colours follow the page that they stand in: light, dark or printed.

The text of an SVG stays text. In a page each colour of `style` becomes a CSS variable with a value
for light and one for dark grounds; a file keeps the light ones, which any viewer shows, and has
rules for dark grounds beside them.
"""

from __future__ import annotations

import io
import re
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

from ...machine.atomic import replacing
from .. import output
from . import style

T = TypeVar("T")

# CSS variable, colour on a light ground, colour on a dark ground.
COLOURS = (
    ("paper", "#ffffff", "#14171c"),
    ("ink", style.INK, "#e6e8eb"),
    ("muted", style.GREY, "#a9b1ba"),
    ("ground", style.GROUND, "#2a2f37"),
    ("edge", style.EDGE, "#737b85"),
    ("grid", style.GRID, "#2a2f37"),
    *(
        (f"v{i}", light, dark)
        for i, (light, dark) in enumerate(
            zip(
                style.COLOURS,
                ("#3b9be5", "#e8702a", "#17b890", "#e08fc0", "#f2b134", "#9ad7ff", "#f0f0f0",
                 "#7a7a7a"),
                strict=True,
            )
        )
    ),
)  # fmt: skip
LIGHT = ";".join(f"--{name}:{light}" for name, light, _ in COLOURS)
DARK = ";".join(f"--{name}:{dark}" for name, _, dark in COLOURS)
_NAMES = {light.lower(): name for name, light, _ in COLOURS}
# A rule for what an element's own style says, which it is stronger than.
_RULES = "@media screen and (prefers-color-scheme:dark){" + "".join(
    f'[style*="{kind}: {light.lower()}"]{{{kind}:{dark}!important}}'
    for _, light, dark in COLOURS for kind in ("fill", "stroke")
) + "}"  # fmt: skip


def inline(draw: Callable[[], Any], name: str, label: str) -> str:
    """A figure as an <svg> element for a page that defines the colours.

    Arguments: draw, which makes the matplotlib Figure; name, which no other figure of the page has;
    label, what it shows, for those who cannot see it.
    """

    def variable(match: re.Match[str]) -> str:
        name = _NAMES.get(match[0])
        return f"var(--{name})" if name else match[0]

    text = re.sub(r"(?<=: )#[0-9a-f]{6}\b", variable, _svg(draw, "none"))
    text = re.sub(r"\s*<metadata>.*?</metadata>", "", text, flags=re.DOTALL)
    text = re.sub(r' (width|height)="[\d.]+pt"', "", text, count=2)
    # Several figures share a page, but no two elements may share a name.
    text = re.sub(r'((?: id=|href=)"#?|url\(#)', rf"\g<1>{name}-", text)
    head = f'<svg role="img" aria-label="{label}" '
    return text[text.index("<svg ") :].replace("<svg ", head, 1)


def standalone(draw: Callable[[], Any], letters: str = "none") -> str:
    """The text of an SVG file that follows the reader's choice of light or dark; draw as above.

    letters: matplotlib's svg.fonttype, "none" for text in the viewer's font, "path" for outlines.
    """
    rules = f'<style type="text/css">{_RULES}</style>\n <defs>'
    return _svg(draw, letters).replace("<defs>", rules, 1)


def plot(figure: Callable[[T, str], Any], groups: T, path: Path, caption: str = "") -> None:
    """Draw the results into an SVG or PNG file.

    Arguments: figure, which makes a matplotlib Figure of groups and caption; groups, for the
    figures of this package results by the swept axis ("n", "d", "M", "K"), or by any other name
    for results that stand side by side, or the epochs of a training; path; caption, one line at
    the bottom. The same results make the same SVG file. Raises ValueError for another kind of file
    and where nothing was timed, RuntimeError without matplotlib.
    """
    style.check(plot=path)
    import matplotlib as mpl

    draw = partial(figure, groups, caption)
    if output.kind("plot", path, style.KINDS) == ".svg":
        output.write_text(path, standalone(draw, "path"))
        return
    with mpl.rc_context(style.STYLE):
        drawn = draw()
        with replacing(path) as file:
            drawn.savefig(file, format="png", dpi=160)


def _svg(draw: Callable[[], Any], letters: str) -> str:
    import matplotlib as mpl

    file = io.StringIO()
    with mpl.rc_context(style.STYLE | {"svg.fonttype": letters}):
        draw().savefig(file, format="svg", metadata={"Date": None})
    return file.getvalue()

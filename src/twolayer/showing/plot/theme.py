"""Figures whose colours follow the page that they stand in: light, dark or printed.

The text of an SVG stays text. In a page each colour of `style` becomes a CSS variable with a value
for light and one for dark grounds; a file keeps the light ones, which any viewer shows, and has
rules for dark grounds beside them.
"""

from __future__ import annotations

import io
import re
from collections.abc import Callable
from typing import Any

from . import style

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

    text = re.sub(r"(?<=: )#[0-9a-f]{6}\b", variable, _svg(draw))
    text = re.sub(r"\s*<metadata>.*?</metadata>", "", text, flags=re.DOTALL)
    text = re.sub(r' (width|height)="[\d.]+pt"', "", text, count=2)
    # Several figures share a page, but no two elements may share a name.
    text = re.sub(r'((?: id=|href=)"#?|url\(#)', rf"\g<1>{name}-", text)
    head = f'<svg role="img" aria-label="{label}" '
    return text[text.index("<svg ") :].replace("<svg ", head, 1)


def standalone(draw: Callable[[], Any]) -> str:
    """The text of an SVG file that follows the reader's choice of light or dark; draw as above."""
    return _svg(draw).replace("<defs>", f'<style type="text/css">{_RULES}</style>\n <defs>', 1)


def _svg(draw: Callable[[], Any]) -> str:
    import matplotlib as mpl

    file = io.StringIO()
    with mpl.rc_context(style.STYLE | {"svg.fonttype": "none"}):
        draw().savefig(file, format="svg", metadata={"Date": None})
    return file.getvalue()

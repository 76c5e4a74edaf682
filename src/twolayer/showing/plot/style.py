"""What all figures share: how variants look, how numbers read, and how files are written."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ... import variants
from ...measuring.race import Result
from ...texts import missing
from .. import output

Groups = Mapping[str, Sequence[Result]]

KINDS = (".svg", ".png")

GREY = "#666666"
GROUND = "#e4e4e4"
EDGE = "#9a9a9a"
GRID = "#e9e9e9"
INK = "#222222"
# Okabe and Ito's palette, distinct under all common forms of colour blindness, the darker first.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#111111", "#5a5a5a")
_MARKERS = "osD^vPXp"
# Colour and marker follow the place; the second eight are dashed, their markers hollow.
_VARIANTS = (
    "numba-fused", "numpy", "torch", "jax", "numba-blas", "numba-parallel", "numba-loops",
    "python-loops", "cuda-fused", "numpy-samples", "torch-compile", "cupy", "cuda-tensor",
    "cuda-tiled", "cuda-samples", "dask",
)  # fmt: skip
STYLE: Any = {
    "svg.hashsalt": "twolayer",
    "font.size": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "text.color": INK,
    "axes.edgecolor": GREY,
    "axes.labelcolor": INK,
    "axes.titlesize": 10,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "xtick.color": GREY,
    "ytick.color": GREY,
    "xtick.labelcolor": INK,
    "ytick.labelcolor": INK,
}


def check(**paths: Path | None) -> None:
    """Raise ValueError for a file neither .svg nor .png, RuntimeError without matplotlib."""
    for argument, path in paths.items():
        if path is None:
            continue
        output.kind(argument, path, KINDS)
        try:
            import matplotlib  # noqa: F401
        except ImportError:
            raise RuntimeError(missing(f"{argument}: needs", "matplotlib", "bench")) from None


def canvas(
    width: float,
    height: float,
    title: str,
    caption: str,
    rows: int = 1,
    columns: int = 1,
    widths: Sequence[float] | None = None,
) -> tuple[Any, list[Any]]:
    """A matplotlib Figure, inches wide and high, and its panels row by row.

    widths: of the columns, relative to one another.
    """
    import matplotlib as mpl
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    from matplotlib.layout_engine import ConstrainedLayoutEngine

    with mpl.rc_context(STYLE):
        layout = ConstrainedLayoutEngine(w_pad=0.1, h_pad=0.1)
        drawn = Figure(figsize=(width, height), layout=layout)
        FigureCanvasAgg(drawn)
        panels = list(drawn.subplots(rows, columns, squeeze=False, width_ratios=widths).flat)
        drawn.suptitle(title, x=0.012, ha="left", fontsize=12, fontweight="bold")
        drawn.supxlabel(caption, x=0.012, ha="left", fontsize=8, color=GREY)
    return drawn, panels


def timed(groups: Groups) -> dict[str, list[Result]]:
    """The results with figures. Raises ValueError where there are none."""
    found = {name: [r for r in results if r.ranking] for name, results in groups.items()}
    found = {name: results for name, results in found.items() if results}
    if not found:
        raise ValueError("plot: expected results of which at least one was timed")
    return found


def styles(results: Sequence[Result]) -> dict[str, dict[str, Any]]:
    """How each variant looks, the one that is fastest on the whole first."""
    ratios: dict[str, list[float]] = {}
    for result in results:
        for entry in result.ranking:
            ratio = math.log(entry.seconds.median / result.ranking[0].seconds.median)
            ratios.setdefault(entry.variant.name, []).append(ratio)
    return places(sorted(ratios, key=lambda name: sum(ratios[name]) / len(ratios[name])))


def places(order: Sequence[str]) -> dict[str, dict[str, Any]]:
    """How each of the variants looks, the first one thicker."""
    places = list(dict.fromkeys([*_VARIANTS, *variants.names(), *sorted(order)]))
    return {
        name: look(places.index(name)) | {"linewidth": 1.5 if i else 2.4, "zorder": 3 - i / 100}
        for i, name in enumerate(order)
    }


def look(place: int) -> dict[str, Any]:
    """Colour, marker and dashes of the variant in that place, the same in every picture."""
    round_of, place = divmod(place, len(COLOURS))
    return {
        "color": COLOURS[place],
        "marker": _MARKERS[place],
        "markersize": 5,
        "markerfacecolor": "white" if round_of else COLOURS[place],
        "markeredgecolor": COLOURS[place] if round_of else "white",
        "markeredgewidth": 1.0 if round_of else 0.5,
        "linestyle": ("-", "--", ":", "-.")[round_of % 4],
    }


def handles(looks: Mapping[str, Mapping[str, Any]], ground: str = "") -> list[Any]:
    """Entries of a legend: the variants, and what the shaded ground means."""
    from matplotlib.lines import Line2D
    from matplotlib.patches import Patch

    made: list[Any] = [Line2D([], [], label=name, **look) for name, look in looks.items()]
    if ground:
        made.append(Patch(facecolor=GROUND, edgecolor=EDGE, label=ground))
    return made

"""The figure of a benchmark: seconds an epoch over each swept axis, on a roofline's ground."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from .race import Result

SWEPT = {"n": "samples n", "d": "inputs d", "M": "hidden units M", "K": "outputs K"}
TITLES = {"data": "real data sets", "shapes": "shapes"}
# Okabe and Ito's palette, distinct under all common forms of colour blindness, the darker first.
_COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000", "#8a8a8a")
_MARKERS = "osD^vPXp"
_GROUND = "#e4e4e4"
_EDGE = "#9a9a9a"
_STYLE: Any = {
    "svg.hashsalt": "twolayer",
    "font.size": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.edgecolor": "#666666",
    "axes.titlesize": 10,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "xtick.color": "#444444",
    "ytick.color": "#444444",
}


def check(path: Path) -> None:
    """Raise ValueError for a file neither .svg nor .png, RuntimeError without matplotlib."""
    if path.suffix not in (".svg", ".png"):
        raise ValueError(f"plot: expected a file ending in .svg or .png, got {str(path)!r}")
    try:
        import matplotlib  # noqa: F401
    except ImportError:
        raise RuntimeError(
            "plot: needs matplotlib, which is not installed: pip install 'twolayer[bench]'"
        ) from None


def plot(groups: Mapping[str, Sequence[Result]], path: Path, caption: str = "") -> None:
    """Draw the results into an SVG or PNG file, one panel a group.

    Arguments: groups, results by the swept axis ("n", "d", "M", "K"), or by any other name for
    results that stand side by side; path; caption, one line at the bottom. The same results make
    the same SVG file. Raises ValueError for another kind of file and where nothing was timed,
    RuntimeError without matplotlib.
    """
    check(path)
    import matplotlib as mpl

    with mpl.rc_context(_STYLE):
        metadata = {"Date": None} if path.suffix == ".svg" else None
        figure(groups, caption).savefig(path, dpi=160, metadata=metadata)


def figure(groups: Mapping[str, Sequence[Result]], caption: str = "") -> Any:
    """The matplotlib Figure that `plot` saves. Raises ValueError where nothing was timed."""
    import matplotlib as mpl
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    from matplotlib.layout_engine import ConstrainedLayoutEngine

    groups = {name: found for name, results in groups.items() if (found := _timed(results))}
    if not groups:
        raise ValueError("plot: expected results of which at least one was timed")
    styles = _styles(groups)
    columns = min(3, len(groups) + 1)
    rows = math.ceil((len(groups) + 1) / columns)
    with mpl.rc_context(_STYLE):
        layout = ConstrainedLayoutEngine(w_pad=0.1, h_pad=0.1)
        drawn = Figure(figsize=(3.7 * columns, 3.1 * rows + 0.6), layout=layout)
        FigureCanvasAgg(drawn)
        panels = list(drawn.subplots(rows, columns, squeeze=False).flat)
        for panel, (name, results) in zip(panels, groups.items(), strict=False):
            draw = _lines if name in SWEPT else _dots
            draw(panel, name, results, styles)
        for panel in panels[len(groups) :]:
            panel.set_axis_off()
        _legend(panels[len(groups)], styles)
        title = "Time of one epoch of gradient descent"
        drawn.suptitle(title, x=0.012, ha="left", fontsize=12, fontweight="bold")
        drawn.supxlabel(caption, x=0.012, ha="left", fontsize=8, color="#666666")
    return drawn


def _timed(results: Sequence[Result]) -> list[Result]:
    return [result for result in results if result.ranking]


def _styles(groups: Mapping[str, Sequence[Result]]) -> dict[str, dict[str, Any]]:
    """Colour and marker of each variant, the one that is fastest on the whole first."""
    ratios: dict[str, list[float]] = {}
    for result in (result for results in groups.values() for result in results):
        for entry in result.ranking:
            ratio = math.log(entry.seconds.median / result.ranking[0].seconds.median)
            ratios.setdefault(entry.variant.name, []).append(ratio)
    order = sorted(ratios, key=lambda name: sum(ratios[name]) / len(ratios[name]))
    styles = {}
    for i, name in enumerate(order):
        again, colour = divmod(i, len(_COLOURS))  # a second round is dashed, its markers hollow
        styles[name] = {
            "color": _COLOURS[colour],
            "marker": _MARKERS[colour],
            "markersize": 5,
            "markerfacecolor": "white" if again else _COLOURS[colour],
            "markeredgecolor": _COLOURS[colour] if again else "white",
            "markeredgewidth": 1.0 if again else 0.5,
            "linestyle": "--" if again else "-",
            "linewidth": 1.5 if i else 2.4,
            "zorder": 3 - i / 100,
        }
    return styles


def _lines(panel: Any, axis: str, results: Sequence[Result], styles: dict[str, Any]) -> None:
    results = sorted(results, key=lambda result: getattr(result.workload.shape, axis))
    places = [getattr(result.workload.shape, axis) for result in results]
    panel.set_xscale("log")
    _time_axis(panel, results)
    _ground(panel, places, [result.least_seconds for result in results])
    for name, style in styles.items():
        points = [
            (place, entry.seconds)
            for place, result in zip(places, results, strict=True)
            for entry in result.ranking
            if entry.variant.name == name
        ]
        _draw(panel, points, style)
    panel.set_xticks(places, [_count(place) for place in places])
    panel.set_xticks([], minor=True)
    fixed = ", ".join(
        f"{name}={_count(size)}"
        for name, size in results[0].workload.shape._asdict().items()
        if name != axis
    )
    panel.set_title(SWEPT[axis])
    panel.set_xlabel(fixed, color="#666666")


def _dots(panel: Any, group: str, results: Sequence[Result], styles: dict[str, Any]) -> None:
    names = [
        re.sub("[ _]", "\n", result.workload.dataset or str(result.workload.shape))
        for result in results
    ]
    _time_axis(panel, results)
    for place, result in enumerate(results):
        _ground(panel, [place - 0.42, place + 0.42], [result.least_seconds] * 2)
    width = 0.7 / max(1, len(styles) - 1)
    for i, (name, style) in enumerate(styles.items()):
        offset = width * i - 0.35 if len(styles) > 1 else 0.0
        points = [
            (place + offset, entry.seconds)
            for place, result in enumerate(results)
            for entry in result.ranking
            if entry.variant.name == name
        ]
        _draw(panel, points, style | {"linestyle": "none"})
    panel.set_xticks(range(len(results)), names)
    panel.tick_params(axis="x", length=0)
    panel.set_title(TITLES.get(group, group))


def _draw(panel: Any, points: list[tuple[float, Any]], style: dict[str, Any]) -> None:
    if not points:
        return
    places = [place for place, _ in points]
    medians = [seconds.median for _, seconds in points]
    panel.vlines(
        places, [s.low for _, s in points], [s.high for _, s in points],
        color=style["color"], linewidth=0.8, zorder=2,
    )  # fmt: skip
    panel.plot(places, medians, **style)


def _time_axis(panel: Any, results: Sequence[Result]) -> None:
    """A logarithmic axis on which every figure and the roofline's edge can be seen."""
    from matplotlib.ticker import FuncFormatter, LogLocator, NullLocator

    seconds = [entry.seconds for result in results for entry in result.ranking]
    bottom = min(min(s.low for s in seconds), min(r.least_seconds for r in results))
    panel.set_yscale("log")
    panel.set_ylim(bottom / 2, max(s.high for s in seconds) * 1.7)
    panel.yaxis.set_major_locator(LogLocator(numticks=9))
    panel.yaxis.set_minor_locator(NullLocator())
    panel.yaxis.set_major_formatter(FuncFormatter(lambda value, _: _duration(value)))
    panel.grid(axis="y", color="#e9e9e9", linewidth=0.8)
    panel.set_axisbelow(True)


def _ground(panel: Any, places: Sequence[float], least: Sequence[float]) -> None:
    """Shade the times that the roofline rules out."""
    panel.fill_between(places, 1e-12, least, color=_GROUND, linewidth=0, zorder=0.5)
    panel.plot(places, least, color=_EDGE, linewidth=1, zorder=1)


def _legend(panel: Any, styles: dict[str, Any]) -> None:
    from matplotlib.lines import Line2D
    from matplotlib.patches import Patch

    handles: list[Any] = [Line2D([], [], label=name, **style) for name, style in styles.items()]
    handles.append(Patch(facecolor=_GROUND, edgecolor=_EDGE, label="ruled out by the roofline"))
    panel.legend(
        handles=handles, loc="upper left", frameon=False, borderaxespad=0, labelspacing=0.7,
        title="fastest on the whole first", alignment="left",
    )  # fmt: skip


def _count(value: int) -> str:
    for unit, size in (("M", 10**6), ("k", 10**3)):
        if value >= size and value % (size // 10) == 0:
            return f"{value / size:g}{unit}"
    return str(value)


def _duration(seconds: float) -> str:
    for unit, size in (("s", 1.0), ("ms", 1e-3), ("µs", 1e-6)):
        if seconds >= size * 0.999:
            return f"{seconds / size:g} {unit}"
    return f"{seconds / 1e-9:g} ns"

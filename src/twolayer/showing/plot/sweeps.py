"""Seconds an epoch over each swept axis, on a roofline's ground."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from typing import Any

from ...measuring.race import Result
from ..units import count, duration
from .style import EDGE, GREY, GRID, GROUND, Groups, canvas, handles, styles, timed

SWEPT = {"n": "samples n", "d": "inputs d", "M": "hidden units M", "K": "outputs K"}
TITLES = {"data": "real data sets", "shapes": "shapes"}


def figure(groups: Groups, caption: str = "") -> Any:
    """The matplotlib Figure, one panel a group. Raises ValueError where nothing was timed."""
    groups = timed(groups)
    looks = styles([result for results in groups.values() for result in results])
    columns = min(3, len(groups) + 1)
    rows = math.ceil((len(groups) + 1) / columns)
    title = "Time of one epoch of gradient descent"
    drawn, panels = canvas(3.7 * columns, 3.1 * rows + 0.6, title, caption, rows, columns)
    for panel, (name, results) in zip(panels, groups.items(), strict=False):
        draw = lines if name in SWEPT else _dots
        draw(panel, name, results, looks)
    for panel in panels[len(groups) :]:
        panel.set_axis_off()
    panels[len(groups)].legend(
        handles=handles(looks, "ruled out by the roofline"), loc="upper left", frameon=False,
        borderaxespad=0, labelspacing=0.7, title="fastest on the whole first", alignment="left",
    )  # fmt: skip
    return drawn


def lines(panel: Any, axis: str, results: Sequence[Result], styles: dict[str, Any]) -> None:
    """Draw the time of each variant over a swept axis, and the ground that nobody can reach."""
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
    panel.set_xticks(places, [count(place) for place in places])
    panel.set_xticks([], minor=True)
    fixed = ", ".join(
        f"{name}={count(size)}"
        for name, size in results[0].workload.shape._asdict().items()
        if name != axis
    )
    panel.set_title(SWEPT[axis])
    panel.set_xlabel(fixed, color=GREY)


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
    panel.yaxis.set_major_formatter(FuncFormatter(lambda value, _: duration(value, trim=True)))
    panel.grid(axis="y", color=GRID, linewidth=0.8)
    panel.set_axisbelow(True)


def _ground(panel: Any, places: Sequence[float], least: Sequence[float]) -> None:
    """Shade the times that the roofline rules out."""
    panel.fill_between(places, 1e-12, least, color=GROUND, linewidth=0, zorder=0.5)
    panel.plot(places, least, color=EDGE, linewidth=1, zorder=1)

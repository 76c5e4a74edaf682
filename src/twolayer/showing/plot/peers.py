"""Each variant's time relative to the reference's, a row a problem."""

from __future__ import annotations

from typing import Any

from ...measuring.race import REFERENCE, Result, distinct
from ..units import duration
from .style import EDGE, GREY, GRID, GROUND, Groups, canvas, handles, styles, timed


def figure(groups: Groups, caption: str = "") -> Any:
    """The matplotlib Figure. Raises ValueError where the reference was not timed."""
    results = [result for result in distinct(timed(groups)) if result.of(REFERENCE)]
    if not results:
        raise ValueError(f"plot: expected results of which {REFERENCE} was timed in at least one")
    looks = styles(results)
    title = f"Time of one epoch relative to {REFERENCE}"
    drawn, (panel,) = canvas(8.4, 0.5 * len(results) + 1.9, title, caption)
    for row, result in enumerate(results):
        _row(panel, row, result, looks)
    _axes(panel, results)
    points = {name: look | {"linestyle": "none"} for name, look in looks.items()}
    panel.legend(
        handles=handles(points, "out of reach"), loc="lower right", frameon=False,
        bbox_to_anchor=(1.1, 1.0), ncols=min(6, len(looks) + 1), columnspacing=1.2,
        handletextpad=0.3, borderaxespad=0.2,
    )  # fmt: skip
    return drawn


def _row(panel: Any, row: int, result: Result, looks: dict[str, dict[str, Any]]) -> None:
    entry = result.of(REFERENCE)
    assert entry is not None
    unit = entry.seconds.median
    least = result.least_seconds / unit
    panel.fill_betweenx([row - 0.4, row + 0.4], 1e-9, least, color=GROUND, linewidth=0, zorder=0.5)
    panel.vlines(least, row - 0.4, row + 0.4, color=EDGE, linewidth=1, zorder=1)
    names = list(looks)
    for entry in result.ranking:
        name = entry.variant.name
        look = looks[name]
        place = row + 0.5 * ((names.index(name) + 0.5) / len(names) - 0.5)  # none hides another
        low, median, high = (seconds / unit for seconds in entry.seconds)
        panel.hlines(place, low, high, color=look["color"], linewidth=1.2, zorder=2)
        larger = {"markersize": 9 if name == REFERENCE else 7}
        panel.plot([median], [place], **look | larger)


def _axes(panel: Any, results: list[Result]) -> None:
    """A logarithmic axis on which every figure can be seen; problems left, seconds right."""
    from matplotlib.ticker import FuncFormatter, LogLocator, NullLocator

    references = [entry for result in results if (entry := result.of(REFERENCE))]
    pairs = list(zip(results, references, strict=True))
    units = [entry.seconds.median for entry in references]
    ratios = [
        e.seconds.median / unit for r, unit in zip(results, units, strict=True) for e in r.ranking
    ]
    least = min(result.least_seconds / entry.seconds.median for result, entry in pairs)
    panel.set_xscale("log")
    panel.set_xlim(max(min(*ratios, least) / 1.25, 0.02), max(ratios) * 1.3)
    panel.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    panel.xaxis.set_minor_locator(NullLocator())
    panel.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}×"))
    panel.axvline(1, color=GREY, linewidth=0.8, zorder=1)
    panel.grid(axis="x", color=GRID, linewidth=0.8)
    panel.set_axisbelow(True)
    panel.set_yticks(range(len(results)), [_label(result) for result in results])
    panel.set_ylim(len(results) - 0.5, -0.5)  # the first above
    panel.tick_params(axis="y", length=0)
    for row, unit in enumerate(units):
        panel.annotate(
            duration(unit, trim=True), (1, row), xycoords=("axes fraction", "data"), xytext=(6, 0),
            textcoords="offset points", va="center", color=GREY,
        )  # fmt: skip
    panel.annotate(
        REFERENCE, (1, 0), xycoords="axes fraction", xytext=(6, -4), textcoords="offset points",
        va="top", color=GREY,
    )  # fmt: skip


def _label(result: Result) -> str:
    work = result.workload
    return f"{work.dataset or work.shape}\n{work.net.activation}, {work.net.loss}"

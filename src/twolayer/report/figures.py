"""The figures of a report, each small enough for a telephone."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any, NamedTuple

from ..measuring.race import Result
from ..showing.plot.roofline import below_the_roof
from ..showing.plot.style import EDGE, GREY, GRID, canvas, handles, styles
from ..showing.plot.sweeps import SWEPT, lines
from ..showing.units import count, duration
from . import fits
from .study import Study

_WIDTH = 3.9  # inches
_FACES = 0.3  # how much of its colour a cell of the winner map shows, so that text on it reads
_MOST_EPOCHS = 10**6

Looks = dict[str, dict[str, Any]]


class Named(NamedTuple):
    """A figure: its file's name, what it shows in words, and how to draw it."""

    name: str
    label: str
    draw: Callable[[], Any]


def figures(study: Study) -> Iterator[Named]:
    """Every figure for which there is something to show."""
    looks = styles(study.results)
    for axis, results in study.sweeps.items():
        if timed := [r for r in results if r.ranking]:
            yield Named(
                f"scaling-{axis}", f"Time of an epoch over {SWEPT[axis]}, a line a variant",
                partial(_scaling, axis, timed, looks),
            )  # fmt: skip
    for (x, y), results in study.maps.items():
        if any(result.ranking for result in results):
            yield Named(
                f"winners-{x}-{y}", f"The fastest variant over {SWEPT[x]} and {SWEPT[y]}",
                partial(_winners, x, y, results, looks),
            )  # fmt: skip
    if study.roofed:
        yield Named(
            "roofline", "GFLOP/s of every variant below the roofline",
            partial(_roofline, study.roofed, looks),
        )  # fmt: skip
    for cached, name in ((True, "total-cached"), (False, "total-cold")):
        if study.costs(cached):
            code = "from disk" if cached else "compiled first"
            yield Named(
                name, f"Total time over the number of epochs, code {code}",
                partial(_totals, study, cached, looks),
            )  # fmt: skip
    if any(study.agreements.values()):
        label = "Largest errors of every variant in units of the bound"
        yield Named("accuracy", label, partial(_accuracy, study))


def _key(drawn: Any, entries: Sequence[Any], title: str = "", columns: int = 2) -> None:
    """A legend below the panel."""
    drawn.legend(
        handles=entries, loc="outside lower left", ncols=columns, frameon=False, title=title,
        alignment="left", columnspacing=1, handlelength=1.8, handletextpad=0.6, fontsize=8,
        title_fontsize=8, borderpad=0, borderaxespad=0.2,
    )  # fmt: skip


def _timed(results: Sequence[Result], looks: Looks) -> Looks:
    """The looks of those that have a figure in one of the results."""
    names = {entry.variant.name for result in results for entry in result.ranking}
    return {name: look for name, look in looks.items() if name in names}


def _scaling(axis: str, results: Sequence[Result], looks: Looks) -> Any:
    drawn, (panel,) = canvas(_WIDTH, 4.4, f"Time of an epoch over {SWEPT[axis]}", "")
    lines(panel, axis, results, looks)
    panel.set_title("")
    found = fits.fits(axis, results)
    entries = handles(_timed(results, looks), "out of reach")
    for entry in entries[:-1]:
        fit = found.get(entry.get_label())
        entry.set_label(f"{entry.get_label()}  {f'{fit.exponent:.2f}' if fit else '–'}")
    _key(drawn, entries, f"exponent in {axis} where the line is straight")
    return drawn


def _winners(x: str, y: str, results: Sequence[Result], looks: Looks) -> Any:
    from matplotlib.patches import Patch, Rectangle

    drawn, (panel,) = canvas(_WIDTH, 4.6, f"Fastest over {x} and {y}, and its lead", "")
    columns, rows = (
        sorted({getattr(result.workload.shape, axis) for result in results}) for axis in (x, y)
    )
    winners = []
    for result in results:
        shape = result.workload.shape
        column, row = columns.index(getattr(shape, x)), rows.index(getattr(shape, y))
        name, text = lead(result)
        panel.text(column, row - (0.2 if name else 0), text, ha="center", va="center")
        if name:
            winners.append(name)
            colour = looks[name]["color"]
            panel.add_patch(
                Rectangle((column - 0.47, row - 0.47), 0.94, 0.94, color=colour, alpha=_FACES, lw=0)
            )
            panel.plot([column], [row + 0.24], **looks[name] | {"markersize": 6})
    panel.set_xlim(-0.5, len(columns) - 0.5)
    panel.set_ylim(-0.5, len(rows) - 0.5)
    panel.set_xticks(range(len(columns)), [count(size) for size in columns])
    panel.set_yticks(range(len(rows)), [count(size) for size in rows])
    panel.tick_params(length=0)
    for spine in panel.spines.values():
        spine.set_visible(False)
    sizes = results[0].workload.shape._asdict()
    others = ", ".join(f"{k}={count(v)}" for k, v in sizes.items() if k not in (x, y))
    panel.set_xlabel(f"{SWEPT[x]}   ({others})")
    panel.set_ylabel(SWEPT[y])
    entries: list[Any] = handles(
        {name: look | {"linestyle": "none"} for name, look in looks.items() if name in winners}
    )
    entries.append(Patch(facecolor="none", edgecolor="none", label="≈ a tie"))
    _key(drawn, entries, "times as fast as the second")
    return drawn


def lead(result: Result) -> tuple[str, str]:
    """The fastest variant by name, and the time of the second over its own as text.

    "≈" stands before a lead that is not shown, † behind what was measured while something
    disturbed; – where nobody or one alone was timed.
    """
    if not result.ranking:
        return "", "–"
    name, margin = result.ranking[0].variant.name, result.margin
    if margin is None:
        return name, "–"
    places = 2 if margin.value < 9.995 else 0
    return name, result.calm.mark(f"{'≈' if margin.tie else ''}{margin.value:.{places}f}")


def _roofline(results: Sequence[Result], looks: Looks) -> Any:
    from matplotlib.lines import Line2D

    drawn, (panel,) = canvas(_WIDTH, 5.0, "Every variant below the roofline", "")
    below_the_roof(panel, list(results), looks)
    shown = _timed(results, looks)
    entries = handles({name: look | {"linestyle": "none"} for name, look in shown.items()})
    for number, result in enumerate(results, 1):
        label, mark = f"M={count(result.workload.shape.M)}", f"${number}$"
        entries.append(
            Line2D([], [], linestyle="none", marker=mark, color=GREY, markersize=6, label=label)
        )
    sizes = results[0].workload.shape._asdict()
    others = ", ".join(f"{k}={count(v)}" for k, v in sizes.items() if k != "M")
    _key(drawn, entries, f"problems: {others} and M by number")
    return drawn


def _totals(study: Study, cached: bool, looks: Looks) -> Any:
    from matplotlib.ticker import FuncFormatter, LogLocator, NullLocator

    costs = study.costs(cached)
    reigns = study.reigns(cached)
    most = min(_MOST_EPOCHS, max(1000, 10 ** math.ceil(math.log10(reigns[-1].epochs) + 1)))
    epochs = [10 ** (k / 40) for k in range(round(40 * math.log10(most)) + 1)]
    title = f"Total time, code {'on disk' if cached else 'compiled first'}"
    drawn, (panel,) = canvas(_WIDTH, 4.2, title, "")
    panel.set_xscale("log")
    panel.set_yscale("log")
    for name, look in looks.items():
        if name in costs:
            first, further = costs[name]
            totals = [first + (epoch - 1) * further for epoch in epochs]
            panel.plot(epochs, totals, **look | {"markevery": 40, "zorder": 3})
    for number, reign in enumerate(reigns[1:]):
        panel.axvline(reign.epochs, color=EDGE, linewidth=1, linestyle=":", zorder=1)
        panel.annotate(
            f"{reign.epochs:,}".replace(",", " "), (reign.epochs, 1),
            xycoords=("data", "axes fraction"), xytext=(3, -2 - 11 * (number % 3)),
            textcoords="offset points", va="top", color=GREY,
        )  # fmt: skip
    panel.yaxis.set_major_locator(LogLocator(numticks=9))
    for axis in (panel.xaxis, panel.yaxis):
        axis.set_minor_locator(NullLocator())
    panel.xaxis.set_major_formatter(FuncFormatter(lambda value, _: count(round(value))))
    panel.yaxis.set_major_formatter(FuncFormatter(lambda value, _: duration(value, trim=True)))
    panel.set_xlabel("epochs")
    panel.grid(color=GRID, linewidth=0.8)
    panel.set_axisbelow(True)
    _key(drawn, handles({name: look for name, look in looks.items() if name in costs}))
    return drawn


def _accuracy(study: Study) -> Any:
    from matplotlib.lines import Line2D

    from ..network import DTYPES
    from ..showing.plot.style import COLOURS

    names = [name for name, found in study.agreements.items() if found][::-1]
    drawn, (panel,) = canvas(_WIDTH, 1.6 + 0.26 * len(names), "Error in units of its bound", "")
    panel.set_xscale("log")
    looks: Looks = {
        dtype: {"color": COLOURS[i], "marker": "os"[i], "linestyle": "none", "markersize": 4.5,
                "markerfacecolor": COLOURS[i] if i else "none"}
        for i, dtype in enumerate(DTYPES)
    }  # fmt: skip
    least = 1e-4  # what is nearer to the oracle, or equal to it, stands at the edge
    for row, name in enumerate(names):
        for dtype, look in looks.items():
            ratios = [a.ratio for a in study.agreements[name] if a.dtype == dtype]
            # What is far beyond the bound, or no number, stands at the other edge.
            places = [8.0 if math.isnan(r) else min(max(r, least), 8.0) for r in ratios]
            height = row + (0.14 if dtype == DTYPES[0] else -0.14)
            panel.plot(places, [height] * len(places), **look)
    panel.axvline(1, color=GREY, linewidth=1.4)
    panel.annotate(
        "wrong", (1, 1), xycoords=("data", "axes fraction"), xytext=(3, 0),
        textcoords="offset points", va="top", color=GREY,
    )  # fmt: skip
    panel.set_xlim(least / 1.5, 9)
    panel.set_ylim(-0.6, len(names) - 0.2)
    panel.set_yticks(range(len(names)), names)
    panel.set_xlabel("|value − oracle| / bound")
    panel.grid(axis="x", color=GRID, linewidth=0.8)
    panel.set_axisbelow(True)
    _key(drawn, [Line2D([], [], label=dtype, **look) for dtype, look in looks.items()])
    return drawn

"""The roofline: how fast each variant computes, and how fast the machine lets it.

Source: Williams, Waterman and Patterson 2009, doi:10.1145/1498765.1498785.
"""

from __future__ import annotations

import statistics
from typing import Any

from ...measuring.race import REFERENCE, Result, distinct
from .style import EDGE, GREY, GRID, GROUND, Groups, canvas, handles, styles, timed

_APART = 1.18  # ratio of intensities at which two problems do not cover each other


def figure(groups: Groups, caption: str = "") -> Any:
    """The matplotlib Figure: GFLOP/s over flop a byte of X and Y read once.

    Raises ValueError where nothing was timed on the CPU, whose roof it is.
    """
    on_cpu = {name: [result.on("cpu") for result in group] for name, group in groups.items()}
    results = distinct(timed(on_cpu))
    looks = styles(results)
    title = "One epoch below the roofline"
    drawn, (panel, key) = canvas(
        9.6, max(5.4, 2.6 + 0.3 * len(results)), title, caption, 1, 2, widths=(3, 1)
    )
    below_the_roof(panel, results, looks)
    _legend(key, results, looks)
    return drawn


def below_the_roof(panel: Any, results: list[Result], looks: dict[str, dict[str, Any]]) -> None:
    """Draw the roof, and below it every variant on every problem; the problems are numbered."""
    from matplotlib.ticker import FuncFormatter

    rates = [_rate(result, entry.seconds.median) for result in results for entry in result.ranking]
    intensities = _places(results)
    roof = results[0].roof
    panel.set_xscale("log")
    panel.set_yscale("log")
    panel.set_xlim(min(*intensities, roof.flops / roof.bandwidth) / 3, max(intensities) * 2)
    peak, least = roof.flops / 1e9, min(rates)
    panel.set_ylim(least / max(2, (peak / least) ** 0.1), peak * 2.2)  # the numbers stand below
    _ceilings(panel, roof.flops / 1e9, roof.bandwidth / 1e9)
    for number, (result, intensity) in enumerate(zip(results, intensities, strict=True), 1):
        rated = [(e.variant.name, _rate(result, e.seconds.median)) for e in result.ranking]
        panel.vlines(intensity, rated[-1][1], rated[0][1], color=EDGE, linewidth=0.6, zorder=1)
        for name, rate in rated:
            prominent: dict[str, Any] = {"markersize": 10, "zorder": 4} if name == REFERENCE else {}
            panel.plot([intensity], [rate], **looks[name] | {"linestyle": "none"} | prominent)
        panel.annotate(
            str(number), (intensity, 0), xycoords=("data", "axes fraction"), xytext=(0, 4),
            textcoords="offset points", ha="center", va="bottom", fontweight="bold",
        )  # fmt: skip
    for axis in (panel.xaxis, panel.yaxis):
        axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    panel.set_xlabel("flop a byte, X and Y read once")
    panel.set_ylabel("GFLOP/s")
    panel.grid(color=GRID, linewidth=0.8)
    panel.set_axisbelow(True)


def _intensity(result: Result) -> float:
    shape = result.workload.shape
    return shape.flops() / shape.bytes(result.workload.dtype)


def _rate(result: Result, seconds: float) -> float:
    return result.workload.shape.flops() / seconds / 1e9


def _ceilings(panel: Any, peak: float, bandwidth: float) -> None:
    """The roof, in GFLOP/s and GB/s, and the ground above it that nothing can reach."""
    left, right = panel.get_xlim()
    top = panel.get_ylim()[1]
    edge = [left, peak / bandwidth, right]
    roof = [min(peak, bandwidth * x) for x in edge]
    panel.fill_between(edge, roof, top, color=GROUND, linewidth=0, zorder=0.5)
    panel.plot(edge, roof, color=GREY, linewidth=1.6, zorder=2)
    panel.annotate(
        f"FMA peak {peak:.0f} GFLOP/s", (right, peak), xytext=(-4, 4), textcoords="offset points",
        ha="right", va="bottom", color=GREY,
    )  # fmt: skip
    panel.annotate(
        f"{bandwidth:.3g} GB/s", (left, peak), xytext=(4, 4), textcoords="offset points",
        ha="left", va="bottom", color=GREY,
    )  # fmt: skip


def _places(results: list[Result]) -> list[float]:
    """Where each problem stands: its intensity, moved by some percent where two would coincide."""
    found: dict[int, float] = {}
    group: list[int] = []
    for i in sorted(range(len(results)), key=lambda i: _intensity(results[i])):
        if group and _intensity(results[i]) >= _intensity(results[group[0]]) * _APART:
            group = []
        group.append(i)
        middle = statistics.geometric_mean(_intensity(results[k]) for k in group)
        if len(group) == 1:
            found[i] = middle
        else:
            for rank, k in enumerate(group):
                found[k] = middle * _APART ** (rank - (len(group) - 1) / 2)
    return [found[i] for i in range(len(results))]


def _legend(panel: Any, results: list[Result], looks: dict[str, dict[str, Any]]) -> None:
    panel.set_axis_off()
    points = {name: look | {"linestyle": "none"} for name, look in looks.items()}
    if REFERENCE in points:
        points[REFERENCE]["markersize"] = 10
    shown = panel.legend(
        handles=handles(points, "out of reach"), loc="upper left", frameon=False, borderaxespad=0,
        title="fastest on the whole first", alignment="left",
    )  # fmt: skip
    lines = []
    for number, result in enumerate(results, 1):
        work = result.workload
        lines.append(f"{number}  {work.dataset or ','.join(map(str, work.shape))}")
        lines.append(f"    {work.net.activation}, {work.net.loss}")
    panel.annotate(
        "\n".join(["n,d,M,K", *lines]), (0, 0), xycoords=shown, xytext=(0, -10),
        textcoords="offset points", va="top", fontsize=8,
    )  # fmt: skip

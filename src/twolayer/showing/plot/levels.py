"""Seconds an epoch over commits, a panel a problem and machine, a line a variant."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from ...history import Series
from ..kept.history import Task, order, tasks
from ..units import duration, fixed
from .style import GREY, GRID, canvas, handles, places

MOST = 12  # panels
_WIDE = 8  # times the least time, from which on the axis is logarithmic


def figure(found: Sequence[Series], caption: str = "") -> Any:
    """The matplotlib Figure, with the steps. Raises ValueError for nothing or too many panels."""
    groups = tasks(found)
    if not 1 <= len(groups) <= MOST:
        raise ValueError(
            f"plot: expected from 1 to {MOST} problems, got {len(groups)}: choose by --shape, "
            "--dtype, --threads, --machine and so on"
        )
    looks = places(list(dict.fromkeys(one.problem.variant for one in found)))
    columns = min(3, len(groups) + 1)
    rows = math.ceil((len(groups) + 1) / columns)
    title = "Time of an epoch over commits"
    drawn, panels = canvas(4.4 * columns, 3.2 * rows + 0.6, title, caption, rows, columns)
    for panel, (task, members) in zip(panels, groups.items(), strict=False):
        _draw(panel, task, members, looks)
    for panel in panels[len(groups) :]:
        panel.set_axis_off()
    panels[len(groups)].legend(handles=handles(looks), loc="upper left", frameon=False)
    return drawn


def _draw(panel: Any, task: Task, members: Sequence[Series], looks: dict[str, Any]) -> None:
    from matplotlib.ticker import FuncFormatter, NullLocator

    problem, machine = task
    states = [(level.state, level.sources) for level in order(members)]
    place = {state: number for number, state in enumerate(states)}
    for one in members:
        at = [place[level.state, level.sources] for level in one.levels]
        line = sorted(zip(at, one.levels, strict=True), key=lambda both: both[0])
        look = looks[one.problem.variant]
        quartiles = [level.quartiles for _, level in line]
        panel.vlines(
            [x for x, _ in line], [low for low, _ in quartiles], [high for _, high in quartiles],
            color=look["color"], linewidth=0.8,
        )  # fmt: skip
        panel.plot([x for x, _ in line], [level.median for _, level in line], **look)
        for step in one.steps:
            x = place[step.level.state, step.level.sources]
            panel.axvline(x - 0.5, color=look["color"], linewidth=0.8, linestyle=":")
            panel.annotate(
                f"× {fixed(step.ratio, 2)}", (x, step.after), xytext=(0, 7), ha="left",
                textcoords="offset points", color=look["color"], fontsize=8,
            )  # fmt: skip
    seconds = [level.median for one in members for level in one.levels]
    if max(seconds) > _WIDE * min(seconds):
        panel.set_yscale("log")
        panel.yaxis.set_minor_locator(NullLocator())
    panel.yaxis.set_major_formatter(FuncFormatter(lambda value, _: duration(value, trim=True)))
    panel.margins(y=0.15)
    panel.grid(axis="y", color=GRID, linewidth=0.8)
    panel.set_axisbelow(True)
    every = max(1, math.ceil(len(states) / 10))
    shown = [*range(0, len(states), every)]
    panel.set_xticks(shown, [states[i][0] for i in shown], rotation=60, fontsize=7)
    panel.set_title(str(problem).strip(), fontsize=8)
    panel.set_xlabel(machine.name, color=GREY)

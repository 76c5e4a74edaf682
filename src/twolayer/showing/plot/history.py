"""The loss of each epoch of a training."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from ...training.loop import Epoch
from .style import COLOURS, canvas


def figure(history: Sequence[Epoch], caption: str = "") -> Any:
    """The matplotlib Figure: the loss, and the validation loss where there is one."""
    drawn, (panel,) = canvas(6.0, 3.8, "Loss of each epoch", caption)
    numbers = [epoch.number for epoch in history]
    curves = {"training": [epoch.loss for epoch in history]}
    if not all(math.isnan(epoch.validation) for epoch in history):
        curves["validation"] = [epoch.validation for epoch in history]
    marker = "o" if len(history) == 1 else None
    for (name, values), colour in zip(curves.items(), COLOURS, strict=False):
        panel.plot(numbers, values, color=colour, label=name, linewidth=1.5, marker=marker)
    if all(value > 0 for values in curves.values() for value in values):
        panel.set_yscale("log")
    panel.grid(axis="y", color="#e9e9e9", linewidth=0.8)
    panel.set_axisbelow(True)
    panel.set_xlabel("epoch")
    panel.set_ylabel("L")
    panel.legend(frameon=False)
    return drawn

"""Figures: a benchmark's sweeps, its variants beside a reference or a roofline, a training."""

from .history import figure as history_figure
from .levels import figure as levels_figure
from .peers import figure as peers_figure
from .roofline import figure as roofline_figure
from .style import check
from .sweeps import figure
from .theme import plot

__all__ = [
    "check", "figure", "history_figure", "levels_figure", "peers_figure", "plot", "roofline_figure",
]  # fmt: skip

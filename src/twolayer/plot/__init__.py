"""Figures of a benchmark: sweeps of sizes, variants beside a reference, and the roofline."""

from .peers import figure as peers_figure
from .roofline import figure as roofline_figure
from .style import check, plot
from .sweeps import figure

__all__ = ["check", "figure", "peers_figure", "plot", "roofline_figure"]

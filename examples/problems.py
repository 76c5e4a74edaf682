"""The lecture's learning problems on real data: regression, and classes, two and ten.

python examples/problems.py docs/problems.svg
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.patches import Rectangle

import twolayer as tl
from twolayer.data import datasets
from twolayer.showing.plot import plot
from twolayer.showing.plot.style import COLOURS, GREY, canvas

HIDDEN = 16
EPOCHS = 500
# Step sizes for inputs of variance 1, and what each problem is.
PROBLEMS = {
    "diabetes": (0.01, "regression"),
    "linnerud": (0.005, "three outputs"),
    "breast_cancer": (0.1, "two classes"),
    "digits": (0.3, "ten classes"),
}


def train(name: str, epochs: int) -> tuple[tl.Network, np.ndarray, np.ndarray]:
    """The network, and F and Y on a quarter of the samples, trained on the others."""
    step, _ = PROBLEMS[name]
    data = datasets.load(name)
    order = np.random.default_rng(0).permutation(len(data.X))
    tested, trained = np.split(order, [len(order) // 4])
    net = tl.Network("tanh", data.loss)
    theta = net.init(data.X.shape[1], HIDDEN, data.K)
    plan = tl.variants.get("numba-fused").plan(net, data.X[trained], data.Y[trained], theta)
    for _ in range(epochs):
        plan.step(step)
    return net, plan.predict(data.X[tested]), data.Y[tested]


def main(path: Path, epochs: int = EPOCHS) -> dict[str, float]:
    """Draw predictions beside targets; returns each problem's score on samples held back."""
    found = {name: train(name, epochs) for name in PROBLEMS}
    caption = f"tanh, M = {HIDDEN}, {epochs} epochs of gradient descent on the other three quarters"
    plot(figure, found, path, caption)
    return {name: net.objective.score(F, Y)[1] for name, (net, F, Y) in found.items()}


def figure(found: dict[str, tuple], caption: str) -> Any:
    """A panel a problem."""
    title = "Predictions for the quarter of the samples that was held back"
    drawn, panels = canvas(9, 7.5, title, caption, rows=2, columns=2)
    draw = {"real": scatter, "sign": histogram, "distribution": confusion}
    for panel, (name, (net, F, Y)) in zip(panels, found.items(), strict=True):
        draw[net.objective.targets.name](panel, F, Y)
        kind, value = net.objective.score(F, Y)
        figures = f"{kind} {value:.2f}".replace("-", "−")
        panel.set_title(f"{name}, {PROBLEMS[name][1]}: {figures}")
    return drawn


def scatter(panel: Any, F: np.ndarray, Y: np.ndarray) -> None:
    """Each output against its target."""
    ends = [Y.min(), Y.max()]
    panel.plot(ends, ends, color=GREY, linewidth=1, zorder=1)
    for k, (f, y) in enumerate(zip(F.T, Y.T, strict=True)):
        label = f"output {k + 1}" if F.shape[1] > 1 else None
        panel.plot(y, f, "osD"[k], color=COLOURS[k], markersize=4, alpha=0.7, label=label)
    panel.set(xlabel="y, standardized", ylabel="f(x)")
    if F.shape[1] > 1:
        panel.legend(frameon=False)


def histogram(panel: Any, F: np.ndarray, Y: np.ndarray) -> None:
    """The probability of +1, for the samples of either class."""
    bins = np.linspace(0, 1, 21)
    groups = [F[Y < 0, 0], F[Y > 0, 0]]
    panel.hist(groups, bins, color=COLOURS[:2], label=["y = −1", "y = +1"], stacked=True)
    panel.axvline(0.5, color=GREY, linewidth=1)
    panel.set(xlabel="f(x), the probability of +1", ylabel="samples")
    panel.legend(frameon=False)


def confusion(panel: Any, F: np.ndarray, Y: np.ndarray) -> None:
    """How often each digit was taken for each."""
    counts = np.zeros((10, 10), int)
    np.add.at(counts, (Y, F.argmax(axis=1)), 1)
    for (row, column), count in np.ndenumerate(counts):
        if count:
            corner, share = (column - 0.5, row - 0.5), np.sqrt(count / counts.max())
            panel.add_patch(Rectangle(corner, 1, 1, facecolor=COLOURS[0], alpha=0.6 * share))
            panel.text(column, row, count, ha="center", va="center", fontsize=8)
    panel.set(aspect="equal", xlim=(-0.5, 9.5), ylim=(9.5, -0.5))
    panel.set(xlabel="predicted", ylabel="digit", xticks=range(10), yticks=range(10))


if __name__ == "__main__":
    main(Path(sys.argv[1]))

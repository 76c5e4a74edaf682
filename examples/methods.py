"""Gradient descent, accelerated and adaptive methods on the digits, a whole epoch an update.

python examples/methods.py docs/methods.svg
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np

import twolayer as tl
from twolayer.data import datasets
from twolayer.showing.plot import plot
from twolayer.showing.plot.style import COLOURS, canvas
from twolayer.training import optimizers

EPOCHS = 200
HIDDEN = 32
# Step sizes 10⁻³ … 300; for each method the one with the least loss at the end is drawn.
STEPS = [float(f"{m}e{e}") for e in range(-3, 3) for m in (1, 3)]
METHODS = {
    "gd": "gradient descent",
    "nesterov": "accelerated",
    "adagrad": "Adagrad",
    "rmsprop": "RMSprop",
    "adam": "Adam",
}


def descend(plan: tl.Plan, theta: tl.Parameters, method: str, step: float, epochs: int) -> list:
    """L before each epoch and after the last; infinite from the epoch on that diverged."""
    optimizer = optimizers.get(method)(step=step)
    plan.theta = theta
    plan.slots = optimizer.init(theta).slots
    losses = [optimizers.advance(optimizer, plan, k) for k in range(1, epochs + 1)]
    losses.append(plan.gradient()[0])
    return [loss if np.isfinite(loss) else np.inf for loss in losses]


def main(path: Path, epochs: int = EPOCHS, steps: list[float] = STEPS) -> dict[str, float]:
    """Draw the losses; returns each method's last one."""
    data = datasets.load("digits")
    net = tl.Network("tanh", "softmax")
    theta = net.init(data.X.shape[1], HIDDEN, data.K)
    plan = tl.variants.get("numba-fused").plan(net, data.X, data.Y, theta)
    best = {}
    for method in METHODS:
        runs = {step: descend(plan, theta, method, step, epochs) for step in steps}
        step = min(runs, key=lambda step: runs[step][-1])
        best[method] = (step, runs[step])
    caption = f"tanh, softmax, M = {HIDDEN}, all {len(data.X)} samples an update"
    plot(figure, best, path, caption)
    return {method: losses[-1] for method, (_, losses) in best.items()}


def figure(best: dict[str, tuple[float, list[float]]], caption: str) -> Any:
    """L over the epochs."""
    drawn, (panel,) = canvas(7.5, 4.5, "Training loss on the digits", caption)
    for (method, (step, losses)), colour in zip(best.items(), COLOURS, strict=False):
        label = f"{METHODS[method]}, μ = {step:g}"
        panel.semilogy(losses, color=colour, linewidth=1.8, label=label)
    panel.set_xlabel("epoch")
    panel.set_ylabel("L")
    panel.legend(frameon=False)
    return drawn


if __name__ == "__main__":
    main(Path(sys.argv[1]))

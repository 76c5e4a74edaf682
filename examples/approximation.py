"""Universal approximation: the more hidden units, the closer f comes to a function of one variable.

python examples/approximation.py docs/approximation.svg
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np

import twolayer as tl
from twolayer.showing.plot import plot
from twolayer.showing.plot.style import COLOURS, GREY, canvas
from twolayer.training import optimizers

HIDDEN = (1, 2, 4, 8, 16, 32, 64)
SHOWN = (2, 8, 64)
SEEDS = range(3)  # starts, of which the best counts: training may end in a poor place
EPOCHS = 20_000  # with fewer the error would be that of the training from M = 8 on


def target(x: np.ndarray) -> np.ndarray:
    """A smooth wave, a kink and a steep step."""
    return np.sin(5 * x) * (x < 0) + np.abs(x - 0.35) + 0.5 * np.tanh(20 * (x - 0.7))


def fit(x: np.ndarray, M: int, seed: int, epochs: int) -> np.ndarray:
    """f(x) after training on the target with M hidden units."""
    X = np.column_stack([x, np.ones_like(x)])  # the column of ones is the first layer's offset
    net = tl.Network("tanh", "squared")
    theta = net.init(d=2, M=M, K=1, dtype="float64", seed=seed)
    theta.V[:, 0] *= 20  # steps of all widths and places
    theta.V[:, 1] *= 10
    plan = tl.variants.get("numba-fused").plan(net, X, target(x)[:, None], theta)
    adam = optimizers.adam(step=0.3, rule="1/sqrtk")
    plan.slots = adam.init(theta).slots
    for k in range(1, epochs + 1):
        optimizers.advance(adam, plan, k)
    return plan.predict(X)[:, 0]


def main(path: Path, hidden: tuple[int, ...] = HIDDEN, epochs: int = EPOCHS) -> dict[int, float]:
    """Draw fits and errors; returns the root mean square error for each M."""
    x = np.linspace(-1, 1, 400)
    fits = {}
    for M in hidden:
        tried = [fit(x, M, seed, epochs) for seed in SEEDS]
        fits[M] = min(tried, key=lambda F: error(F, x))
    caption = f"tanh, {epochs} epochs of Adam with μ ~ 1/√k, the best of {len(SEEDS)} starts"
    plot(figure, (x, fits), path, caption)
    return {M: error(F, x) for M, F in fits.items()}


def error(F: np.ndarray, x: np.ndarray) -> float:
    """The root mean square of f − target."""
    return float(np.sqrt(np.square(F - target(x)).mean()))


def figure(results: tuple[np.ndarray, dict[int, np.ndarray]], caption: str) -> Any:
    """Fits left, errors right."""
    x, fits = results
    title = "A function of one variable by M hidden units"
    drawn, (left, right) = canvas(9, 3.8, title, caption, columns=2)
    left.plot(x, target(x), color=GREY, linewidth=5, alpha=0.4, label="target")
    for M, colour in zip([M for M in SHOWN if M in fits], COLOURS, strict=False):
        left.plot(x, fits[M], color=colour, linewidth=1.6, label=f"M = {M}")
    left.set_title("f(x)")
    left.set_xlabel("x")
    left.legend(frameon=False)
    errors = [error(F, x) for F in fits.values()]
    right.loglog(list(fits), errors, "o-", color=COLOURS[0])
    right.set_title("Root mean square error")
    right.set_xlabel("M")
    right.set_xticks(list(fits), [str(M) for M in fits])
    right.minorticks_off()
    decades = [10.0**k for k in range(-4, 2)]
    right.set_yticks(decades, [f"{decade:g}" for decade in decades])
    right.set_ylim(min(errors) / 1.5, max(errors) * 1.5)
    return drawn


if __name__ == "__main__":
    main(Path(sys.argv[1]))

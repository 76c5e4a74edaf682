"""One check of a mutant: its variants on small problems with corners, against stored references.

`mutants.py` runs it: first on the sources as they are, `mutants_check.py FILE references`, which
writes what is right and how far off it may be; then on each mutant, `mutants_check.py FILE
interpreted|compiled VARIANT ...`. So a mistake in a formula that the oracle shares is found too.
Ends with an exception at the first wrong number.
"""

from __future__ import annotations

import pickle
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

import twolayer as tl
from twolayer import bounds, cases, interface
from twolayer.kernels import fused, loops, tiles
from twolayer.kernels.activations import ACTIVATIONS
from twolayer.kernels.losses import LOSSES
from twolayer.kernels.updates import UPDATES
from twolayer.variants import numba_blas, numba_fused, numpy

STEPS, THREADS = 3, 4
SHAPES = {
    "tiny": [(1, 1, 1, 1), (5, 3, 17, 2), (2, 1, 3, 2), (23, 13, 12, 12)],
    # Several parts of d, panels of M and of K, blocks in a chunk and chunks, all with an edge; the
    # last two are for products by dots.
    "cut": [(35, 26, 21, 19), (49, 30, 50, 1), (19, 13, 53, 1)],
    # As the variants themselves decide: X spread, d in parts, an update on several threads.
    "own": [(70, 17, 33, 3), (3, 300, 5, 2), (1031, 3, 5, 2), (40, 300, 131, 2), (700, 33, 70, 35)],
}
NETWORKS = [
    *(("tanh", loss) for loss in LOSSES),
    *((activation, "squared") for activation in ACTIVATIONS if activation != "tanh"),
]
SCALARS = {  # of an update, in the order of its formula
    "descend": (0.1,),
    "descend_with_momentum": (0.1, 0.9),
    "accelerate": (0.1, 0.9, 0.8),
    "adagrad": (0.1, 0.3),
    "rmsprop": (0.1, 0.9, 0.2, 0.3),
    "adam": (0.1, 0.9, 0.15, 0.8, 0.25, 0.7, 0.3, 0.95),
}


def problems() -> Iterator[tuple[str, cases.Case]]:
    """Group and problem: every group with a few networks, and every network on small shapes."""
    for dtype in ("float64", "float32"):
        for group, shapes in SHAPES.items():
            for i, shape in enumerate(shapes):
                networks = NETWORKS if shape == (5, 3, 17, 2) else NETWORKS[i % 4 :: 5]
                if shape[3] == 1 and i:
                    networks = [("tanh", "logistic"), ("elu", "squared")]
                for net in networks if dtype == "float64" or group != "cut" else networks[:1]:
                    yield group, cases.problem(tl.Network(*net), tl.Shape(*shape), dtype, i)
        for net in NETWORKS:
            for case in cases.adversarial(tl.Network(*net), dtype):
                if dtype == "float64" or net[0] == "tanh":
                    yield "adversarial", case


def part_of(n: int) -> slice:
    """Rows that neither begin nor end with the data where there are enough."""
    return slice(n // 3, max(n // 3 + 1, n - n // 5))


def step_size(case: cases.Case) -> float:
    """A step size that keeps the bounds small on inputs that are made to be difficult."""
    return 0.05 if case.name == str(case.shape) else 1e-6


def reference(case: cases.Case) -> dict[str, tuple[Any, Any]]:
    """Value and bound of each quantity that has one: on wild inputs some have not after a step."""
    dtype, rows = case.X.dtype, part_of(len(case.X))
    X, Y = case.X.astype(np.float64), case.Y.astype(np.float64)
    theta = tl.Parameters(*(array.astype(np.float64) for array in case.theta))
    start = bounds.evaluate(case.net, theta, X, Y, dtype)
    part = bounds.evaluate(case.net, theta, X[rows], Y[rows], dtype)
    found = {}
    for label, one in (("", start), (" of rows", part)):
        found[f"L{label}"] = one.loss, one.loss_bound
        found[f"dL/dV{label}"] = one.gradient.V, one.gradient_bound.V
        found[f"dL/dW{label}"] = one.gradient.W, one.gradient_bound.W
    found["F"] = start.F, start.F_bound
    if case.X.dtype == np.float64:
        for name, update in UPDATES.items():
            arrays = [(w, g, np.full_like(w, 0.5), np.full_like(w, 0.25)) for w, g in zip(
                theta, part.gradient, strict=True)]  # fmt: skip
            new = [update.formula(*a[: 2 + update.slots], *SCALARS[name]) for a in arrays]
            for letter, values, bound in zip("VW", new, part.gradient_bound, strict=True):
                for i, value in enumerate(values):
                    found[f"{name} {letter} {i}"] = value, 1e-13 * (1 + abs(value)) + 99 * bound
    error, mu = tl.Parameters(*(np.zeros_like(array) for array in theta)), step_size(case)
    for i in range(STEPS):
        now = bounds.evaluate(case.net, theta, X, Y, dtype, error)
        found[f"L of step {i}"] = now.loss, now.loss_bound
        theta = tl.Parameters(*(w - mu * g for w, g in zip(theta, now.gradient, strict=True)))
        error = bounds.step_bound(theta, now, mu, dtype, error)
    now = bounds.evaluate(case.net, theta, X, Y, dtype, error)
    found |= {"V": (theta.V, error.V), "W": (theta.W, error.W), "F later": (now.F, now.F_bound)}
    return {name: pair for name, pair in found.items() if np.isfinite(pair[1]).all()}


def check(variant: interface.Variant, case: Any, expected: dict[str, tuple[Any, Any]]) -> None:
    """Assert that every quantity of a plan is within its bound, and that nothing else changes."""
    where = f"{variant.name}, {case.net}, {case.name} {case.X.dtype}"

    def compare(quantity: str, value: Any) -> None:
        right, bound = expected.get(quantity, (value, np.inf))
        assert np.shape(value) == np.shape(right), f"{where}: {quantity} has another shape"
        if isinstance(value, np.ndarray):
            assert value.dtype == case.X.dtype, f"{where}: {quantity} is {value.dtype}"
        wrong = ~(abs(np.asarray(value, np.float64) - right) <= bound) & np.isfinite(bound)
        assert not wrong.any(), f"{where}: {quantity} is wrong in {wrong.sum()} places"

    before = [array.copy() for array in (case.X, case.Y, *case.theta)]
    rows = part_of(len(case.X))
    plan = variant.plan(case.net, case.X, case.Y, case.theta, THREADS)
    for label, loss, gradient in (("", *plan.gradient()), (" of rows", *plan.gradient(rows))):
        compare(f"L{label}", loss)
        compare(f"dL/dV{label}", gradient.V)
        compare(f"dL/dW{label}", gradient.W)
    again = np.concatenate([case.X, case.X[:7]])
    F = plan.predict(again)
    assert (
        abs(F[len(case.X) :] - F[: len(again) - len(case.X)]) <= 1e-5 * (1 + abs(F).max())
    ).all()
    compare("F", F[: len(case.X)])
    assert (plan.predict(case.X[:1]).shape) == (1, F.shape[1]), f"{where}: F of one row"
    for i in range(STEPS):
        compare(f"L of step {i}", plan.step(step_size(case)))
    compare("V", plan.theta.V)
    compare("W", plan.theta.W)
    compare("F later", plan.predict(case.X))
    if case.X.dtype == np.float64:
        for name, update in UPDATES.items():
            plan.theta = case.theta
            values = (0.5, 0.25)[: update.slots]
            plan.slots = [tl.Parameters(*(np.full_like(w, v) for w in case.theta)) for v in values]
            plan.update(update, SCALARS[name], rows)
            for i, arrays in enumerate((plan.theta, *plan.slots)):
                compare(f"{name} V {i}", arrays.V)
                compare(f"{name} W {i}", arrays.W)
    plan.theta = case.theta
    for one, old in zip(
        (case.X, case.Y, *case.theta, *plan.theta), before + before[2:], strict=True
    ):
        assert (one == old).all(), f"{where}: what is the caller's has changed"


def cut(number: int) -> None:
    """Let the variants cut a problem into small blocks, parts and chunks, in one of three ways."""
    block, lanes, spread = [(5, 8, True), (13, 4, False), (24, 16, True)][number]
    groups = -(-block // 8) * 8 * tiles.HEIGHT
    numba_blas.block_rows = lambda shape, itemsize: min(block, shape.n)
    numba_fused.block_rows = lambda shape, itemsize: block
    numba_fused.product_depth = lambda d, itemsize: tiles.HEIGHT
    numba_fused.lane_count = lambda itemsize: lanes
    numba_fused.spread_step = lambda shape, rows, itemsize: groups * spread
    numba_fused._SMALL = 0
    loops._LEAST_ROWS = 4
    fused._SMALL = (0, 1 << 15, 0)[number]
    numpy.NumpyBatch.block = 40


def main(file: Path, stage: str, names: list[str]) -> None:
    """Run one stage of the checks on the named problems, with what `file` holds."""
    interface.cpu_count = lambda: THREADS  # so many chunks run on any machine
    if stage == "references":
        stored = [(group, *case, reference(case)) for group, case in problems()]
        file.write_bytes(pickle.dumps(stored))
        return
    stored = [
        (group, cases.Case(*case), right) for group, *case, right in pickle.loads(file.read_bytes())
    ]
    variants = [tl.variants.get(name) for name in names]

    def check_all(wanted: Any) -> None:
        for variant in variants:
            slow = variant.name in ("python-loops", "numba-loops", "numba-parallel")
            for group, case, right in stored:
                if wanted(group, case) and not (
                    stage == "interpreted" and slow and case.shape.flops() > 3e5
                ):
                    check(variant, case, right)

    if stage == "compiled":
        check_all(lambda group, case: group != "cut" and case.net.activation == "tanh")
        check_all(lambda group, case: group == "cut")
        return
    check_all(lambda group, case: group in ("tiny", "own", "adversarial"))
    for number in range(3):
        cut(number)
        check_all(lambda group, case: group in ("tiny", "cut"))


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2], sys.argv[3:])

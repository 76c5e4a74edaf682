"""The checks of a mutant: its variants on small problems with corners, against stored references.

`mutants_check.py FILE`, run on the sources as they are, writes to FILE what is right and how far
off it may be; so a mistake in a formula that the oracle shares is found too. `mutants_server.py`
calls `run` with that for each mutant. It ends with an exception at the first wrong number.
"""

from __future__ import annotations

import math
import pickle
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numba
import numpy as np

import twolayer as tl
from twolayer import interface
from twolayer.checking import bounds, cases
from twolayer.engines import blocking
from twolayer.kernels.compiler.target import TARGET
from twolayer.kernels.cpu import loops
from twolayer.kernels.formulas import elementary
from twolayer.kernels.formulas.activations import ACTIVATIONS
from twolayer.kernels.formulas.losses import LOSSES
from twolayer.kernels.formulas.updates import UPDATES
from twolayer.variants import numba_blas, numpy

STEPS, THREADS = 3, 4
SHAPES = {
    "tiny": [(1, 1, 1, 1), (5, 3, 17, 2), (2, 1, 3, 2), (23, 13, 12, 12)],
    # Several parts of d, panels of M and of K, blocks in a chunk and chunks, all with an edge; the
    # last two are for products by dots.
    "cut": [(35, 26, 21, 19), (37, 26, 37, 1), (19, 13, 53, 1)],
    # As the variants themselves decide: X spread, d in parts, an update on several threads.
    "own": [(70, 17, 33, 3), (3, 300, 5, 2), (1031, 3, 5, 2), (40, 300, 131, 2), (500, 33, 70, 35)],
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
                    networks = [("tanh", "logistic"), ("elu", "squared"), ("sigmoid", "squared")]
                few = (dtype == "float32" and group != "tiny") or min(shape[:3]) > 30
                for net in networks[:1] if few else networks:
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
        compare(f"L{label}", plan.loss(rows if label else None))
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


CUTS = [(5, 8, True), (13, 4, False), (24, 16, True)]  # rows of a block, lanes, whether X is spread


def ways() -> list[Any]:
    """As the variants decide themselves, then into small blocks, parts and chunks in three ways."""
    places = [
        (numba_blas, "block_rows"), (blocking, "block_rows"), (blocking, "product_depth"),
        (blocking, "lane_count"), (blocking, "spreads"), (blocking, "_FEW"), (blocking, "_MOST"),
        (loops, "_LEAST_ROWS"), (blocking, "SMALL"), (numpy.NumpyBatch, "block"),
    ]  # fmt: skip
    found = [[(place, name, getattr(place, name)) for place, name in places]]
    for number, (block, lanes, spread) in enumerate(CUTS):
        values = [
            lambda shape, itemsize, threads, block=block: min(block, shape.n),
            lambda shape, itemsize, threads, block=block: block,
            lambda d, itemsize, threads: TARGET.height,
            lambda itemsize, lanes=lanes: lanes,
            lambda shape, itemsize, spread=spread: spread,
            0, block, 4, (0, 1 << 15, 0)[number], 40,
        ]  # fmt: skip
        found.append([(*place, value) for place, value in zip(places, values, strict=True)])
    return found


def check_variants(stored: list[Any], compiled: bool, names: list[str]) -> None:
    """Check variants on the stored problems, the small ones first."""
    found = [
        (group, cases.Case(name, tl.Network(*net), X, Y, tl.Parameters(*theta)), right)
        for group, name, net, X, Y, theta, right in stored
    ]
    todo = []
    for group, case, right in found:
        for number in range(4):
            groups = ("tiny", "own", "adversarial") if number == 0 else ("tiny", "cut")
            if compiled:
                few = case.net.activation == "tanh" and case.net.loss != "squared_logistic"
                groups = {0: ("tiny", "cut"), 2: ("cut",)}.get(number, ()) if few else ()
            if group in groups:
                todo.append((case.shape.flops(), number, case, right))
    todo.sort(key=lambda one: one[:2])
    settings = ways()
    for flops, number, case, right in todo:
        for place, name, value in settings[number]:
            if not compiled or name == "block_rows":  # compiled panels are two vectors wide
                setattr(place, name, value)
        for name in names:
            slow = name in ("python-loops", "numba-loops", "numba-parallel")
            if compiled or not slow or flops <= 3e5:
                check(tl.variants.get(name), case, right)


def elementary_references() -> Iterator[tuple[Any, ...]]:
    """Name, dtype, x, the exact values as sums of two numbers, their last places, and the bound."""
    sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "tests/kernels"))
    from test_elementary import EXACT, PIECES, mp, mpf, points

    for name, exact in (EXACT | PIECES).items():
        for dtype in ("float64", "float32"):
            info = np.finfo(dtype)
            x = points(dtype)[:: 3 if name in EXACT else 7]
            x = x[(x <= 0) | (name in EXACT)]
            reach = math.inf if name == "log1p" else 1000.0
            with mp.workprec(140):
                true = [exact(mpf(min(max(v, -reach), reach))) for v in x.tolist()]
                high = np.array([float(v) for v in true])
                low = np.array([float(v - mpf(h)) for v, h in zip(true, high, strict=True)])
            exponents = np.maximum(np.frexp(high)[1] - 1, info.minexp) - info.nmant
            kept = ~np.isfinite(high) | (abs(high) < float(info.max))
            low, high = np.where(np.isfinite(low), low, 0.0), np.where(kept, high, np.inf)
            bound = elementary.ULP.get(name, {dtype: 2.0})[dtype]
            yield name, dtype, x, high, low, np.ldexp(1.0, exponents), bound


def check_elementary(stored: list[Any], function: str) -> None:
    """Check the elementary functions, compiled and not; first the one that `function` makes."""
    for name, dtype, x, high, low, unit, bound in sorted(
        stored, key=lambda one: not function.partition(".")[0].endswith(f"_{one[0]}")
    ):
        formula = getattr(elementary, name)

        @numba.njit(error_model="numpy", fastmath={"contract"})
        def apply(x, out, formula=formula):
            for i in range(x.size):
                out[i] = formula(x[i])

        found = {"compiled": (np.empty_like(x), bound)}
        apply(x, found["compiled"][0])
        with np.errstate(all="ignore"):
            if name not in ("erfc", "gaussian"):  # of arrays they lose x² ULP
                found["of arrays"] = formula(x), 4.0
            if dtype == "float64":
                most = 4.0 if name != "gaussian" else 1e3
                found["of floats"] = np.array([formula(v) for v in x.tolist()]), most
            for form, (values, most) in found.items():
                assert values.dtype == x.dtype
                y = values.astype(np.float64)
                far = abs((y - high) - low) > most * unit
                infinite = np.isinf(high) & (abs(x) < np.inf) & (y >= np.finfo(x.dtype).max)
                same = (y == high) | (np.isnan(y) & np.isnan(high)) | infinite
                wrong = ~same & (far | ~np.isfinite(y))
                assert not wrong.any(), (name, form, x[wrong][0], y[wrong][0], high[wrong][0])


def run(stored: dict[str, list[Any]], stage: str, *names: str) -> None:
    """Run one stage of the checks, with what `references` made."""
    interface.variant.cpu_count = lambda: THREADS  # so many chunks run on any machine
    if stage == "elementary":
        check_elementary(stored["elementary"], *names)
    else:
        check_variants(stored["problems"], stage == "compiled", list(names))


def references() -> dict[str, list[Any]]:
    """What is right, as arrays, numbers and names only: whoever loads it needs no package."""
    interface.variant.cpu_count = lambda: THREADS
    found = [
        (
            group, case.name, (case.net.activation, case.net.loss), case.X, case.Y,
            tuple(case.theta), reference(case),
        )
        for group, case in problems()
    ]  # fmt: skip
    return {"problems": found, "elementary": list(elementary_references())}


if __name__ == "__main__":
    Path(sys.argv[1]).write_bytes(pickle.dumps(references()))

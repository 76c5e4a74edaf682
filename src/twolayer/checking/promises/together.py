"""Several plans at once, used from one and from several Python threads; plans of one thread."""

from __future__ import annotations

import contextlib
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import numpy as np

from ...interface import check_threads
from ...kernels.formulas.updates import UPDATES
from ...network import DTYPES, Network, Parameters, Shape
from ...texts import counted
from .. import cases
from ..verify import ORACLE, Worst
from .state import one_update
from .trial import Trial

_CALLS = 20


def fewer_threads(trial: Trial) -> Iterator[Worst]:
    """Plans of one and of other numbers of threads give the same answers."""
    if not trial.variant.parallel:
        return
    most, n, adam = check_threads(trial.threads), trial.case.shape.n, UPDATES["adam"]
    counts = {1} | {2, 3, most - 1} & {*range(1, most)}
    for threads in [1] if trial.variant.device == "cluster" else sorted(counts):
        plan, what = trial.plan(threads=threads), f"on {counted(threads, 'thread')}"
        plan.slots = (trial.theta(1), Parameters(*map(abs, trial.theta(2))))
        yield from trial.gradient(what, plan)
        yield from trial.gradient(f"of rows {what}", plan, slice(n // 3, n - 2))
        yield from trial.loss(what, plan)
        yield from trial.predict(what, plan, trial.case.X)
        yield from trial.step(f"of a step {what}", plan, 0.1)
        yield from one_update(trial, plan, adam, None)
        for in_one_call in (False, True):
            yield from one_update(trial, plan, adam, slice(n // 3, n - 2), in_one_call)


def other_plans(trial: Trial) -> Iterator[Worst]:
    """A plan knows nothing of one that is made after it for another problem."""
    loss = "squared" if trial.case.net.loss != "squared" else "logistic"
    names = sorted(DTYPES, key=lambda name: name == trial.dtype.name)  # the other one first
    others = (
        trial.on(cases.problem(net, Shape(23, 6, 8, 2), name, seed=64))
        for net in (Network("sigmoid", loss), trial.case.net)
        for name in names
    )
    other = next(filter(_is_right, others), None)
    if other is None:
        return
    trials = trial, other
    plans = [one.plan() for one in trials]
    for number in (0, 1, 0):
        one, plan = trials[number], plans[number]
        what = "beside a plan of another problem"
        yield from one.gradient(what, plan)
        yield from one.loss(what, plan, slice(1, 9))
        yield from one.predict(what, plan, one.case.X)
        yield from one.step(f"of a step {what}", plan, 0.1)
        plan.slots = (one.theta(1),)
        yield from one_update(one, plan, UPDATES["descend_with_momentum"], None)


def _is_right(trial: Trial) -> bool:
    """Whether the variant is made for a case that nobody asked for."""
    case = trial.case
    if trial.variant.refusal(case.net, case.shape, trial.dtype):
        return False
    with contextlib.suppress(Exception):
        return all(one.ratio <= 1 for one in trial.gradient("", trial.plan()))
    return False


def several_plans(trial: Trial) -> Iterator[Worst]:
    """Plans of one problem know nothing of one another."""
    first, second = trial.plan(), trial.plan(theta=trial.theta(1))
    for plan, other in ((first, second), (second, first)):
        before = other.theta
        yield from trial.step("of a step of one of two plans", plan, 0.1)
        for name, old, new in zip("VW", before, other.theta, strict=True):
            yield trial.same(f"{name} after a step of another plan", old, new)
    for name, start, now in zip("VW", trial.case.theta, trial.plan().theta, strict=True):
        yield trial.same(f"{name} of a third plan", start, now)
    yield from trial.gradient("beside other plans", first)


def python_threads(trial: Trial) -> Iterator[Worst]:
    """Each of two Python threads uses a plan of its own and one that both share."""
    X = trial.case.X, trial.case.X + 1
    thetas = [trial.theta(seed) for seed in range(3)]
    plans = [trial.plan(theta=theta) for theta in thetas]
    right = [trial.at(theta) for theta in thetas]

    together = threading.Barrier(2)
    calls = _CALLS if trial.variant.name != ORACLE else 3

    def use(number: int) -> list[tuple[int, int, float, Parameters, np.ndarray]]:
        together.wait()
        return [
            (number, one, *plans[one].gradient(), plans[one].predict(X[number]))
            for _ in range(calls) for one in (number, 2)
        ]  # fmt: skip

    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)  # so that threads meet within a call
    try:
        with ThreadPoolExecutor(2) as pool:
            found = [one for run in pool.map(use, range(2)) for one in run]
    finally:
        sys.setswitchinterval(interval)
    there = [[trial.at(theta, X=rows) for theta in thetas] for rows in X]
    for number, one, loss, gradient, F in found:
        yield from trial.compare("in several Python threads", right[one], loss, gradient)
        answer = there[number][one]
        yield trial.worst("F in several Python threads", answer.F, answer.F_bound, F)

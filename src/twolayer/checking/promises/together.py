"""Several plans at once, used from one and from several Python threads; plans of one thread."""

from __future__ import annotations

import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import numpy as np

from ...network import Parameters
from ..verify import ORACLE, Worst
from .trial import Trial

_CALLS = 20


def one_thread(trial: Trial) -> Iterator[Worst]:
    """A plan of one thread gives the same answers."""
    if trial.variant.parallel:
        plan = trial.plan(threads=1)
        yield from trial.gradient("on one thread", plan)
        yield from trial.predict("on one thread", plan, trial.case.X)
        yield from trial.step("of a step on one thread", plan, 0.1)


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

"""An epoch in units of the frozen one, measured side by side in one process."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from contextlib import contextmanager

import numba
import numpy as np

from . import common
from .reference import Reference

_SECONDS = 2.0
_BLOCK = 0.015  # seconds of calls between two changes
_SHAPES = {
    "n=4096 d=64 M=64 K=8": common.BASE,
    "n=65536 d=16 M=32 K=1": common.BASE._replace(n=65536, d=16, M=32, K=1),
    "n=4096 d=128 M=256 K=8": common.BASE._replace(d=128, M=256),
}


@common.named("An epoch, in units of the frozen one")
class Ratio:
    """Median over blocks of candidate / reference, in the order ABBA; lower is better.

    Only for variants whose threads are Numba's, as the reference's are: two kinds of thread pools
    in one process disturb each other.
    """

    version = "1"
    unit = "candidate / reference"
    timeout = 120
    params = (["numba-parallel", "numba-blas", "numba-fused"], list(_SHAPES))
    param_names = ("variant", "shape")

    def setup(self, variant, shape):
        self.plan = common.plan(variant, _SHAPES[shape])

    def track_ratio_epoch(self, variant, shape):
        plan = self.plan
        _, X, Y, theta = common.problem(_SHAPES[shape])
        reference = Reference(X, Y, *theta, plan.threads)
        with _numba_threads(plan.threads):
            return side_by_side(
                lambda: plan.step(common.MU), lambda: reference.step(common.MU), _SECONDS, _BLOCK
            )


def side_by_side(
    candidate: Callable[[], object], reference: Callable[[], object], seconds: float, block: float
) -> float:
    """Median of candidate / reference over pairs of blocks in the order ABBA.

    Arguments: the two functions; seconds to measure in all; seconds a block, whole calls at least
    one. The call after a change is not timed: it finds the caches full of the other's data.
    """
    functions = (candidate, reference)
    for function in functions:  # compiled, and the thread pool started
        function()
    calls = [max(1, round(block / _each(function, 3))) for function in functions]
    logs: list[float] = []
    order = (0, 1)
    end = time.perf_counter() + seconds
    while time.perf_counter() < end or len(logs) < 2:
        spent = [0.0, 0.0]
        for which in order:
            functions[which]()
            spent[which] = _each(functions[which], calls[which])
        logs.append(float(np.log(spent[0] / spent[1])))
        order = order[::-1]
    return float(np.exp(statistics.median(logs)))


def _each(function: Callable[[], object], calls: int) -> float:
    start = time.perf_counter()
    for _ in range(calls):
        function()
    return (time.perf_counter() - start) / calls


@contextmanager
def _numba_threads(threads: int):
    before = numba.get_num_threads()
    numba.set_num_threads(threads)
    try:
        yield
    finally:
        numba.set_num_threads(before)

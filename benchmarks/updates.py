"""Seconds of an update over a mini-batch of n=4096 rows, for each optimizer."""

from __future__ import annotations

from itertools import cycle

from .common import BASE, MU, Timed, named, plan, problem

VARIANTS = ["numba-fused", "numba-blas", "numba-loops", "numpy"]
OPTIMIZERS = ["gd", "nesterov", "sgd", "adagrad", "rmsprop", "adam", "adamw"]
BATCHES = [1, 32, 256, 2048]
# One parameter, because the first page of asv's has a table of variants by one other.
UPDATES = {f"{name} batch={rows}": (name, rows) for rows in BATCHES for name in OPTIMIZERS}


class _Updates(Timed):  # the underscore hides it from asv
    params = (VARIANTS, list(UPDATES))
    param_names = ("variant", "update")
    shape = BASE

    def setup(self, variant, update):
        name, batch = UPDATES[update]
        try:
            from twolayer import optimizers

            self.advance, make = optimizers.advance, optimizers.get(name)
        except (ImportError, AttributeError, ValueError) as error:
            raise NotImplementedError(f"this revision has no {name}: {error}") from None
        self.plan, self.algorithm = plan(variant, self.shape), make(step=MU)
        self.plan.slots = self.algorithm.init(problem(self.shape).theta).slots
        starts = range(0, self.shape.n, batch)
        self.batches, self.k = cycle([slice(start, start + batch) for start in starts]), 0
        self.time_update(variant, update)

    def time_update(self, variant, update):
        self.k += 1
        self.advance(self.algorithm, self.plan, self.k, next(self.batches))


@named("An update of few weights; d=64 M=64 K=8")
class Few(_Updates):
    """Of 4608 weights, in a core's second-level cache with what an optimizer keeps for each."""


@named("An update of many weights; d=784 M=128 K=10")
class Many(_Updates):
    """Of 101632 weights, which are most of the work for few rows."""

    shape = BASE._replace(d=784, M=128, K=10)

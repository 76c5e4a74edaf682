"""Seconds an epoch of the variant dask, on worker processes of one thread each on this machine."""

from __future__ import annotations

from functools import lru_cache

import twolayer

from .common import BASE, MU, Timed, hold, named, problem, variant

WORKERS = [1, 2]


@lru_cache
def plan(workers: int, n: int) -> twolayer.Plan:
    """A plan on so many workers; NotImplementedError, asv's n/a, where it cannot run."""
    found, shape = variant("dask"), BASE._replace(n=n)
    try:
        made = found.plan(*problem(shape), threads=workers)
    except ValueError as error:  # more workers than CPUs
        raise NotImplementedError(str(error)) from None
    hold(made, shape)
    return made


@named("An epoch on a cluster over n and the number of workers")
class Cluster(Timed):
    """Over n, the number of samples, and the number of workers."""

    params = (WORKERS, [4096, 65536, 1048576])
    param_names = ("workers", "n")

    def setup(self, workers, n):
        self.plan = plan(workers, n)
        self.plan.step(MU)

    def time_epoch(self, workers, n):
        self.plan.step(MU)


@named("An epoch on a cluster with nothing to compute")
class Overhead(Timed):
    """With one sample in one chunk: what Dask costs."""

    params = (WORKERS,)
    param_names = ("workers",)

    def setup(self, workers):
        self.plan = plan(workers, 1)
        self.plan.step(MU)

    def time_epoch(self, workers):
        self.plan.step(MU)

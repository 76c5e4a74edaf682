"""Seconds an epoch: one axis swept at a time from n=4096 d=64 M=64 K=8, and four real data sets."""

from __future__ import annotations

from .common import BASE, DATA_SETS, MU, VARIANTS, Timed, named, plan


class _Epoch(Timed):  # the underscore hides it from asv
    def setup(self, variant, value):
        self.plan = plan(variant, BASE._replace(**{self.param_names[1]: value}))
        self.plan.step(MU)

    def time_epoch(self, variant, value):
        self.plan.step(MU)


@named(f"An epoch over n; d={BASE.d} M={BASE.M} K={BASE.K}")
class Samples(_Epoch):
    """Over n, the number of samples."""

    params = (VARIANTS, [256, BASE.n, 65536])
    param_names = ("variant", "n")


@named(f"An epoch over d; n={BASE.n} M={BASE.M} K={BASE.K}")
class Inputs(_Epoch):
    """Over d, the number of inputs."""

    params = (VARIANTS, [8, BASE.d, 512])
    param_names = ("variant", "d")


@named(f"An epoch over M; n={BASE.n} d={BASE.d} K={BASE.K}")
class Hidden(_Epoch):
    """Over M, the number of hidden units."""

    params = (VARIANTS, [8, BASE.M, 512])
    param_names = ("variant", "M")


@named(f"An epoch over K; n={BASE.n} d={BASE.d} M={BASE.M}")
class Outputs(_Epoch):
    """Over K, the number of outputs."""

    params = (VARIANTS, [1, BASE.K, 64])
    param_names = ("variant", "K")


@named("An epoch on real data")
class DataSets(_Epoch):
    """On data sets of scikit-learn, with 32 hidden units."""

    params = (VARIANTS, DATA_SETS)
    param_names = ("variant", "data")

    def setup(self, variant, value):
        self.plan = plan(variant, value)
        self.plan.step(MU)

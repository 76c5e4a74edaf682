"""Seconds of what an epoch is made of, at n=4096 d=64 M=64 K=8 and on one data set."""

from __future__ import annotations

from .common import BASE, VARIANTS, Timed, named, plan
from .common import problem as data


class _Part(Timed):  # the underscore hides it from asv
    params = (VARIANTS, ["base", "digits"])
    param_names = ("variant", "problem")

    def setup(self, variant, problem):
        key = BASE if problem == "base" else problem
        self.X, self.plan = data(key).X, plan(variant, key)


@named("The forward pass alone")
class Predict(_Part):
    """The forward pass alone, over X."""

    def setup(self, variant, problem):
        super().setup(variant, problem)
        self.time_predict(variant, problem)

    def time_predict(self, variant, problem):
        self.plan.predict(self.X)


@named("Loss and gradient, without the update")
class Gradient(_Part):
    """L and ∇L, without the update of θ."""

    def setup(self, variant, problem):
        super().setup(variant, problem)
        self.time_gradient(variant, problem)

    def time_gradient(self, variant, problem):
        self.plan.gradient()

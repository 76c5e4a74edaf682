"""Seconds of what an epoch is made of, at n=4096 d=64 M=64 K=8 and on one data set."""

from __future__ import annotations

from .common import BASE, VARIANTS, Timed, plan

_PROBLEMS = {"base": BASE, "digits": "digits"}


class Parts(Timed):
    """The forward pass, and the gradient without the update of θ."""

    params = (VARIANTS, list(_PROBLEMS))
    param_names = ("variant", "problem")

    def setup(self, variant, problem):
        self.plan = plan(variant, _PROBLEMS[problem])

    def time_predict(self, variant, problem):
        self.plan.predict(self.plan.X)

    def time_gradient(self, variant, problem):
        self.plan.gradient()

"""The largest error of a variant, in units of the bound on its difference from the oracle."""

from __future__ import annotations

from . import common


@common.named("Largest error, in units of its bound")
class Accuracy:
    """Losses, gradients, outputs and parameters on the data sets; 1 is the bound."""

    version = "1"
    unit = "bounds"
    timeout = 600
    params = (common.VARIANTS, common.DATA_SETS)
    param_names = ("variant", "data")

    def setup(self, variant, data):
        self.variant = common.variant(variant)
        try:
            from twolayer.checking import cases, verify
        except ImportError as error:
            raise NotImplementedError(f"this revision verifies nothing: {error}") from None
        self.agreement = verify.agreement
        self.case = cases.Case(data, *common.problem(data))

    def track_error(self, variant, data):
        found = self.agreement(self.variant, self.case)
        if found.failure:
            raise RuntimeError(found.failure)
        return found.ratio

"""Peak memory of one epoch over many samples: what grows with n shows."""

from __future__ import annotations

from . import common


@common.named("Peak memory of a process over an epoch")
class Memory:
    """Of the whole process; interpreter and libraries are about 150 MiB of it, X is 64 MiB."""

    version = "1"
    timeout = 120
    params = (common.VARIANTS, [1 << 18])
    param_names = ("variant", "n")

    def setup(self, variant, n):
        shape = common.BASE._replace(n=n)
        common.affordable(variant, shape)
        self.variant = common.variant(variant)
        self.problem = common.problem(shape)
        # Compiling and the check take more memory than the epoch: another process does them.
        common.first_epoch(variant, n=n)

    def peakmem_epoch(self, variant, n):
        self.variant.plan(*self.problem).step(common.MU)

"""Seconds until the first epoch is done, in a fresh process: what short runs pay."""

from __future__ import annotations

import statistics
import tempfile

from . import common


@common.named("import twolayer")
class Import:
    """`import twolayer`, the median of three processes."""

    version = "1"
    unit = "seconds"
    timeout = 120

    def track_import(self):
        return statistics.median(common.first_epoch("numpy")[0] for _ in range(3))


class FirstEpoch:
    """Plan and first epoch, with an empty and with a filled folder of compiled code."""

    version = "1"
    unit = "seconds"
    timeout = 600
    params = (common.VARIANTS,)
    param_names = ("variant",)

    def setup(self, variant):
        common.variant(variant)

    def track_cold(self, variant):
        with tempfile.TemporaryDirectory() as folder:
            return common.first_epoch(variant, folder)[1]

    track_cold.pretty_name = "Plan and first epoch, compiled"

    def track_cached(self, variant):
        common.first_epoch(variant)
        return statistics.median(common.first_epoch(variant)[1] for _ in range(3))

    track_cached.pretty_name = "Plan and first epoch, compiled code on disk"

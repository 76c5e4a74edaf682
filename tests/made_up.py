"""Models of what variants cost that nobody measured."""

import twolayer as tl
from twolayer.choosing import known
from twolayer.choosing.calibrate import by_default
from twolayer.machine.hardware import cpu_count
from twolayer.network import DTYPES


def make_up_models(store, failures=()):
    """A model for each variant that runs here without another library; all are certain."""
    # Who has the least overhead is the best for few samples, who does a sample fastest for many.
    made_up = {"numba-loops": (1e-6, 1e-6), "numba-fused": (1e-5, 1e-7), "numpy": (2e-5, 5e-7)}
    for variant in tl.variants.REGISTRY:
        if variant.device == "any" or variant.unavailable() or not by_default(variant):
            continue
        overhead, sample = made_up.get(variant.name, (1e-3, 1e-3))
        entry = {
            "source": "", "failure": dict(failures).get(variant.name, ""), "samples": 36,
            "coefficients": {"overhead": overhead, "samples": sample}, "spread": 0.0,
            "setup": [1e-4, 1e-11],
        }  # fmt: skip
        for dtype in DTYPES:
            for threads in range(1, cpu_count() + 1):
                known.keep(
                    store, known.MODEL, entry, variant=variant.name, device=variant.device,
                    dtype=dtype, threads=threads,
                )  # fmt: skip
        known.keep(
            store, known.START, {"cold": 9.0, "cached": 0.3}, variant=variant.name,
            device=variant.device,
        )  # fmt: skip

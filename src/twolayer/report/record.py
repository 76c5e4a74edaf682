"""The report's figures as JSON values; times in seconds, sizes in samples and units."""

from __future__ import annotations

import math
from typing import Any

from . import fits
from .study import Study


def record(study: Study) -> dict[str, Any]:
    """Exponents, winners, starts with break-even, and errors in units of the bound."""
    return {
        "exponents": {
            axis: {name: fit._asdict() for name, fit in fits.fits(axis, results).items()}
            for axis, results in study.sweeps.items()
        },
        "winners": [
            {
                "axes": list(axes),
                **result.workload.shape._asdict(),
                "variants": {e.variant.name: e.seconds._asdict() for e in result.ranking},
            }
            for axes, results in study.maps.items()
            for result in results
        ],
        "starts": {
            name: start._asdict() | {"calm": study.started[name].report()}
            for name, start in study.starts.items()
        },
        "least_in_all": {
            "problem": study.base.shape._asdict(),
            "cached": [reign._asdict() for reign in study.reigns(cached=True)],
            "cold": [reign._asdict() for reign in study.reigns(cached=False)],
        },
        "accuracy": [
            {
                "variant": name,
                "dtype": found.dtype,
                "case": found.case,
                "quantity": found.quantity,
                "ratio": found.ratio if math.isfinite(found.ratio) else None,
                "failure": found.failure,
            }
            for name, agreements in study.agreements.items()
            for found in agreements
        ],
    }

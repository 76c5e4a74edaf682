"""What a new process pays before its first epoch, measured in processes of their own."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from ..interface import Variant
from ..store import Store
from . import known
from .calibrate import Progress, source

_CODE = """
import importlib, sys, time
sys.path.insert(0, sys.argv[1])
package, name = sys.argv[2:]
cases, network, variants = (
    importlib.import_module(f"{package}.{module}") for module in ("cases", "network", "variants")
)
case = cases.problem(network.Network("tanh", "squared"), network.Shape(33, 17, 13, 1), "float32")
variant = variants.get(name)
start = time.perf_counter()
variant.plan(*case[1:]).step(1e-6)
print(time.perf_counter() - start)
"""


def missing(store: Store, variants: Sequence[Variant]) -> list[Variant]:
    """The variants whose first call is not known; those of a single file never are."""
    timed = known.first_calls(store)
    return [v for v in variants if v.name not in timed and not source(v)]


def time_first_calls(
    store: Store, variants: Sequence[Variant], progress: Progress = lambda name, done: None
) -> None:
    """Time the first plan and step of each variant, first with nothing compiled, then again.

    Two at a time where there are two CPUs: none of it uses more than one. progress(name, units) is
    called with one unit for each variant.
    """

    def run(variant: Variant) -> tuple[Variant, list[float | None]]:
        with tempfile.TemporaryDirectory() as folder:
            return variant, [_run(variant.name, folder) for _ in range(2)]

    with ThreadPoolExecutor(min(2, os.cpu_count() or 1)) as pool:
        for variant, (cold, loaded) in pool.map(run, variants):
            if cold is not None and loaded is not None:
                known.keep(
                    store, known.FIRST, {"cold": cold, "loaded": loaded}, variant=variant.name
                )
            progress(f"{variant.name}, first call", 1)


def _run(name: str, cache: str) -> float | None:
    """Seconds; None where it failed, which the calibration tells."""
    package = (__package__ or "").partition(".")[0]
    command = [sys.executable, "-c", _CODE, str(Path(__file__).parents[2]), package, name]
    environment = os.environ | {"NUMBA_CACHE_DIR": cache}
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    return float(done.stdout.split()[-1]) if done.returncode == 0 else None

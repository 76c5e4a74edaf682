"""What several tests share: every variant in turn, and programs in processes of their own."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

import twolayer as tl
from twolayer.choosing import known
from twolayer.choosing.calibrate import by_default
from twolayer.machine.hardware import cpu_count
from twolayer.machine.store import Store
from twolayer.network import DTYPES


@pytest.fixture(scope="session", autouse=True)
def made_up_models(tmp_path_factory):
    """A store of the tests' own, with models that nobody measured: nothing is timed in a test."""
    path = tmp_path_factory.mktemp("store") / "store.sqlite"
    with pytest.MonkeyPatch.context() as patch, Store(path) as store:
        patch.setenv("TWOLAYER_STORE", str(path))
        make_up_models(store)
        yield store


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


@pytest.fixture(params=tl.variants.names())
def variant(request):
    """Each variant in turn; one that cannot run here is skipped with its reason."""
    found = tl.variants.get(request.param)
    if reason := found.unavailable():
        pytest.skip(f"{found.name} {reason}")
    return found


@pytest.fixture
def run_python():
    """run_python(code, *arguments, folder=, **environment): what a Python program prints."""

    def run(code, *arguments, folder=None, **environment):
        source = folder or Path(tl.__file__).parents[1]
        path = os.pathsep.join([str(source), os.environ.get("PYTHONPATH", "")])
        done = subprocess.run(
            [sys.executable, "-W", "error", "-c", code, *map(str, arguments)],
            env=os.environ | {"PYTHONPATH": path} | environment,
            capture_output=True,
            text=True,
            check=False,
            timeout=300,
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    return run

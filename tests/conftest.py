"""What several tests share: every variant in turn, and programs in processes of their own."""

import gc
import importlib
import os
import subprocess
import sys
from pathlib import Path

import pytest
from made_up import make_up_times

import twolayer as tl
from twolayer.choosing import contest
from twolayer.machine import calm as machine_calm
from twolayer.machine import hardware
from twolayer.machine.calm import Calm
from twolayer.measuring import timing

# Folders whose tests need nearly all kernels.
COMPILING = {"checking", "interface", "kernels"}


def pytest_collection_modifyitems(items):
    """What compiles comes first: one of two workers compiles it, the other finds it on disk."""
    items.sort(key=lambda item: COMPILING.isdisjoint(item.path.parts))


@pytest.fixture(scope="session", autouse=True)
def made_up_times(tmp_path_factory):
    """A store of the tests' own, and times that nobody measured: nothing is timed in a test."""
    path = tmp_path_factory.mktemp("store") / "store.sqlite"
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TWOLAYER_STORE", str(path))
        make_up_times(patch)
        yield


@pytest.fixture(scope="module", autouse=True)
def nothing_old_is_searched():
    """What thousands of tests and compiled functions keep: no collection of garbage searches it."""
    gc.collect()
    gc.freeze()


@pytest.fixture(autouse=True)
def nothing_disturbs(monkeypatch):
    """A machine on which nothing disturbs, whatever else runs beside the tests."""
    none = Calm(1.0)
    monkeypatch.setattr(machine_calm, "look", lambda: none)
    monkeypatch.setattr(machine_calm.Watch, "calm", lambda watch: none)


@pytest.fixture(autouse=True)
def nothing_is_warmed_up(monkeypatch):
    """Blocks of a call after another: no test believes a time that this process measures."""
    monkeypatch.setattr(timing.block, "__defaults__", (0,))
    monkeypatch.setattr(timing.warm_up, "__defaults__", (0, 1))
    monkeypatch.setattr(timing, "WAKE_UP", 0.0)
    for name in ("_WAKE_UP", "_ROUSE", "_A_LOOK", "_AWAKE"):
        monkeypatch.setattr(contest, name, 0.0)


LISTS = (tl.activations, tl.losses, tl.optimizers, tl.variants)


@pytest.fixture(autouse=True)
def nothing_stays_registered():
    """What a test adds to the lists is taken out again: no other test may come to know it."""
    known = [{entry.name: entry for entry in module.REGISTRY} for module in LISTS]
    yield
    for module, entries in zip(LISTS, known, strict=True):
        module.REGISTRY._entries = entries


@pytest.fixture
def load_tool(monkeypatch):
    """load_tool(name): a program of tools/ as a module, which finds the others there."""
    monkeypatch.syspath_prepend(Path(__file__).parents[1] / "tools")
    return importlib.import_module


@pytest.fixture(params=tl.variants.names())
def variant(request):
    """Each variant in turn; one that cannot run here is skipped with its reason."""
    found = tl.variants.get(request.param)
    if reason := found.unavailable():
        pytest.skip(f"{found.name} {reason}")
    return found


class Clock:
    """Takes the place of the module `time`: nothing but its `sleep` takes any time."""

    def __init__(self):
        self.now = 0.0

    def perf_counter(self):
        return self.now

    def sleep(self, seconds):
        self.now += seconds


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def run_python():
    """run_python(code, *arguments, folder=, **environment): what a Python program prints."""

    def run(code, *arguments, folder=None, **environment):
        source = folder or Path(tl.__file__).parents[1]
        path = os.pathsep.join([str(source), os.environ.get("PYTHONPATH", "")])
        done = subprocess.run(
            [sys.executable, "-W", "error", "-c", code, *map(str, arguments)],
            env=hardware.environment() | {"PYTHONPATH": path} | environment,
            capture_output=True,
            text=True,
            check=False,
            timeout=300,
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    return run

"""What several tests share: every variant in turn, and programs in processes of their own."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

import twolayer as tl


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

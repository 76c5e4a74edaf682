"""What the tests of the compiler stand on."""

import pytest
from numba import config

from twolayer.kernels.compiler import jit


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """An empty folder in which compiled code is kept."""
    monkeypatch.setattr(config, "CACHE_DIR", str(tmp_path / "cache"))
    jit.cache_folders.cache_clear()
    yield tmp_path / "cache" / "twolayer"
    jit.cache_folders.cache_clear()

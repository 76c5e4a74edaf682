"""One place for the compile options, and for where compiled code is kept.

Numba's key of a file on disk holds neither the options nor the sources of the functions that a
kernel calls, nor the version of LLVM. Here each recipe of options has a folder of its own, inside a
folder named after the digest of this package's kernels and of the versions of the compilers: an
edit in any file, an upgrade, or two recipes that share a function never meet each other's machine
code.
"""

from __future__ import annotations

import hashlib
import platform
import shutil
import threading
import time
from collections.abc import Callable, Iterable
from functools import cache
from pathlib import Path
from typing import Any

import llvmlite
import numba
import numpy as np
import platformdirs
from numba.core import config

# `reassoc` lets sums run in vectors. Never nnan or ninf: NaN must reach the user.
STRICT = frozenset({"contract"})
SUMS = frozenset({"contract", "nsz", "reassoc"})

_PACKAGE = Path(__file__).parent.parent
_STALE = 30 * 24 * 3600  # seconds after which another digest's folder is removed
_lock = threading.Lock()


def digest(folders: Iterable[Path]) -> str:
    """Digest of the names and contents of all Python files below the folders."""
    result = hashlib.sha256()
    for folder in folders:
        for path in sorted(folder.rglob("*.py")):
            result.update(f"{path.relative_to(folder)}\0".encode())
            result.update(path.read_bytes())
    return result.hexdigest()


@cache
def cache_folder() -> Path:
    """The folder of this version's compiled code: beside the package, or in the user's cache."""
    versions = (platform.python_version(), numba.__version__, llvmlite.__version__, np.__version__)
    kernels = digest([_PACKAGE / "kernels", _PACKAGE / "variants"])
    name = hashlib.sha256("\0".join((*versions, kernels)).encode()).hexdigest()[:16]
    root = _cache_root()
    folder = root / name
    folder.mkdir(parents=True, exist_ok=True)
    folder.touch()
    for other in root.iterdir():
        if other.is_dir() and time.time() - other.stat().st_mtime > _STALE:
            shutil.rmtree(other, ignore_errors=True)
    return folder


def _cache_root() -> Path:
    if config.CACHE_DIR:
        return Path(config.CACHE_DIR) / "twolayer"
    beside = _PACKAGE / "__pycache__" / "numba"
    try:
        beside.mkdir(parents=True, exist_ok=True)
        probe = beside / ".writable"
        probe.touch()
    except OSError:
        return platformdirs.user_cache_path("twolayer") / "numba"
    return beside


def jit(
    recipe: str, *, fastmath: Iterable[str] = STRICT, parallel: bool = False
) -> Callable[[Callable[..., Any]], Any]:
    """Decorator: compile lazily without the GIL, and keep the machine code under the recipe's name.

    Arguments: recipe, a name for this set of options, and of the kernel's factory where two share a
    function; fastmath, LLVM's flags by name; parallel, whether `prange` runs on several threads.
    """
    options = {
        "error_model": "numpy",  # Python's division rule keeps loops from being vectorized
        "fastmath": set(fastmath),
        "parallel": parallel,
        "nogil": True,
        "cache": True,
    }

    def compile_lazily(function: Callable[..., Any]) -> Any:
        with _lock:  # Numba reads the folder from its global settings, once, right here
            previous, config.CACHE_DIR = config.CACHE_DIR, str(cache_folder() / recipe)
            try:
                return numba.njit(**options)(function)
            finally:
                config.CACHE_DIR = previous

    return compile_lazily

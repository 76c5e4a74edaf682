"""One place for the compile options, and for where compiled code is kept.

Numba's own files on disk serve neither several recipes of options, nor edits in a function that a
kernel calls, nor upgrades of LLVM; two processes that write at once can even swap two kernels'
code. Here each kernel's code is a file of its own, named after all that it depends on, inside a
folder named after the versions of the compilers: an edit compiles what imports the edited module,
and nothing else.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import pickle
import platform
import shutil
import time
import uuid
from collections.abc import Callable, Iterable
from functools import cache
from pathlib import Path
from typing import Any

import llvmlite
import numba
import numpy as np
import platformdirs
from numba.core import config
from numba.core.caching import FunctionCache
from numba.core.compiler import CompileResult
from numba.core.serialize import dumps
from numba.extending import register_jitable

from .contents import contents
from .digest import folder_of

# `reassoc` lets sums run in vectors. Never nnan or ninf: NaN must reach the user.
STRICT = frozenset({"contract"})
SUMS = frozenset({"contract", "nsz", "reassoc"})

NO_WRAPPER = {"no_cfunc_wrapper": True}  # for C, which calls none of it: takes long to compile

_PACKAGE = __package__.removesuffix(".kernels.compiler")
_DIGEST = hashlib.sha256().digest_size
_STALE = 30 * 24 * 3600  # seconds after which code that nobody used is removed
_DAY = 24 * 3600


@cache
def cache_folder() -> Path | None:
    """The folder of this version's compiled code, or None where nothing can be written.

    It lies in NUMBA_CACHE_DIR, beside the package or in the user's cache, whichever is there first.
    """
    versions = (platform.python_version(), numba.__version__, llvmlite.__version__, np.__version__)
    name = hashlib.sha256("\0".join(versions).encode()).hexdigest()[:16]
    try:
        root = _cache_root()
        folder = root / name
        folder.mkdir(parents=True, exist_ok=True)
        folder.touch()
    except OSError:
        return None
    for other in root.iterdir():
        with contextlib.suppress(OSError):  # another process may be removing it
            if other.is_dir() and _is_stale(other):
                shutil.rmtree(other, ignore_errors=True)
    return folder


def _is_stale(path: Path) -> bool:
    return time.time() - path.stat().st_mtime > _STALE


def _cache_root() -> Path:
    if config.CACHE_DIR:
        return Path(config.CACHE_DIR) / "twolayer"
    beside = folder_of(_PACKAGE) / "__pycache__" / "numba"
    try:
        beside.mkdir(parents=True, exist_ok=True)
        probe = beside / ".writable"
        probe.touch()
    except OSError:
        return platformdirs.user_cache_path("twolayer") / "numba"
    return beside


def jitable(function: Any = None, **options: Any) -> Any:
    """Decorator, with options of Numba or without: kernels can call the function."""
    register = register_jitable(**NO_WRAPPER | options)
    return register if function is None else register(function)


def jit(
    recipe: str, *, fastmath: Iterable[str] = STRICT, parallel: bool = False
) -> Callable[[Callable[..., Any]], Any]:
    """Decorator: compile lazily without the GIL, and keep the machine code under the recipe's name.

    Arguments: recipe, a name for this set of options, and of the kernel's factory where two share a
    function; fastmath, LLVM's flags by name; parallel, whether `prange` runs on several threads.
    """
    flags = sorted(fastmath)
    options = {
        "error_model": "numpy",  # Python's division rule keeps loops from being vectorized
        "fastmath": set(flags),
        "parallel": parallel,
        "nogil": True,
        **NO_WRAPPER,
    }

    def compile_lazily(function: Callable[..., Any]) -> Any:
        dispatcher = numba.njit(**options)(function)
        folder = cache_folder()
        if folder is not None and not config.DISABLE_JIT:
            key = f"{recipe} {flags} {parallel}"
            dispatcher._cache = _Cache(function, folder / recipe, key)
        return dispatcher

    return compile_lazily


class _Cache(FunctionCache):  # type: ignore[misc]
    """Machine code on disk: a file for each signature, closure, processor and set of options.

    A file starts with the digest of what follows: code that was damaged is compiled again.
    """

    def __init__(self, function: Callable[..., Any], folder: Path, options: str) -> None:
        self._py_func = function  # from here on what FunctionCache needs for its keys
        self._cache_path = str(folder)
        self._options = options
        self.enable()

    def flush(self) -> None:
        shutil.rmtree(self._cache_path, ignore_errors=True)

    def load_overload(self, signature: Any, target: Any) -> CompileResult | None:
        """The compiled function for a signature, or None where there is none to be used."""
        target.refresh()
        try:
            path = self._file(signature, target.codegen())
            stored = path.read_bytes()
            with contextlib.suppress(OSError):  # of another user
                if time.time() - path.stat().st_mtime > _DAY:
                    path.touch()
            data = stored[_DIGEST:]
            if not self._enabled or stored[:_DIGEST] != hashlib.sha256(data).digest():
                return None
            return CompileResult._rebuild(target, *pickle.loads(data))
        except OSError:
            return None

    def save_overload(self, signature: Any, compiled: CompileResult) -> None:
        """Keep a compiled function; whoever reads meanwhile sees all of it or nothing."""
        if not self._enabled or compiled.lifted or compiled.library.has_dynamic_globals:
            return
        data = dumps(compiled._reduce())
        with contextlib.suppress(OSError):  # a full disk costs time, not the result
            path = self._file(signature, compiled.codegen)
            path.parent.mkdir(parents=True, exist_ok=True)
            unfinished = path.with_suffix(f".{uuid.uuid4().hex}")
            try:
                unfinished.write_bytes(hashlib.sha256(data).digest() + data)
                os.replace(unfinished, path)
                for other in path.parent.iterdir():  # of sources that are gone
                    if _is_stale(other):
                        other.unlink(missing_ok=True)
            finally:
                unfinished.unlink(missing_ok=True)

    def _file(self, signature: Any, codegen: Any) -> Path:
        key = (self._options, contents(self._py_func), str(signature), codegen.magic_tuple())
        return Path(self._cache_path) / f"{hashlib.sha256(repr(key).encode()).hexdigest()}.code"

"""One place for the compile options, and for where compiled code is kept.

Numba's own files on disk serve neither several recipes of options, nor edits in a function that a
kernel calls, nor upgrades of LLVM; two processes that write at once can even swap two kernels'
code. Here each kernel's code is a file of its own, named after all that it depends on, inside a
folder named after the versions of the compilers: an edit compiles what imports the edited module,
and nothing else. Numba's settings count too.
"""

from __future__ import annotations

import contextlib
import hashlib
import pickle
import platform
import secrets
import shutil
import tempfile
import time
import warnings
from collections.abc import Callable, Iterable
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import llvmlite
import numba
import numpy as np
import platformdirs
from numba.core import config
from numba.core.caching import FunctionCache
from numba.core.compiler import CompileResult
from numba.core.cpu import ParallelOptions
from numba.core.serialize import dumps
from numba.extending import register_jitable

from .contents import contents
from .digest import folder_of
from .settings import of_compiler

# `reassoc` lets sums run in vectors. Never nnan or ninf: NaN must reach the user.
STRICT = frozenset({"contract"})
SUMS = frozenset({"contract", "nsz", "reassoc"})

NO_WRAPPER = {"no_cfunc_wrapper": True}  # for C, which calls none of it: takes long to compile

_PACKAGE = __package__.removesuffix(".kernels.compiler")
_DIGEST = hashlib.sha256().digest_size
_STALE = 30 * 24 * 3600  # seconds after which code that nobody used is removed
_DAY = 24 * 3600


class Folders(NamedTuple):
    """Where compiled code of these versions is looked for, and where it is kept, if anywhere."""

    read: tuple[Path, ...]
    write: Path | None
    why: str  # where it is not kept, or not where the user wants it


@cache
def cache_folders() -> Folders:
    """NUMBA_CACHE_DIR, beside the package, the user's cache: the first that can be written.

    What others compiled, who may write where this user may not, is read all the same.
    """
    versions = (platform.python_version(), numba.__version__, llvmlite.__version__, np.__version__)
    name = hashlib.sha256("\0".join(versions).encode()).hexdigest()[:16]
    read, why = [], []
    for root in _roots():
        try:
            folder = root() / name
            if folder.parts[0] == "~":
                raise RuntimeError("nobody knows a home folder")
            if folder.is_dir():
                read.append(folder)
            folder.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryFile(dir=folder):
                pass
        except (OSError, RuntimeError) as error:  # RuntimeError: nobody knows a home folder
            why.append(str(error))
            continue
        _prune(folder)
        told = ""
        if why and config.CACHE_DIR:
            told = f"compiled code is kept in {folder}, not in NUMBA_CACHE_DIR: {why[0]}"
        return Folders(tuple(dict.fromkeys([*read, folder])), folder, told)
    return Folders(tuple(read), None, f"compiled code is not kept: {'; '.join(why)}")


def cache_folder() -> Path | None:
    """The folder in which this version's code is kept, or None where nothing can be written."""
    return cache_folders().write


def _roots() -> list[Callable[[], Path]]:
    own: list[Callable[[], Path]] = [
        lambda: folder_of(_PACKAGE) / "__pycache__" / "numba",
        lambda: platformdirs.user_cache_path("twolayer") / "numba",
    ]
    if config.CACHE_DIR:
        own.insert(0, lambda: Path(config.CACHE_DIR) / "twolayer")
    return own


def _prune(folder: Path) -> None:
    """Say that the folder is used, and remove those of other versions that nobody used for long."""
    with contextlib.suppress(OSError):  # of another user
        folder.touch()
    with contextlib.suppress(OSError):  # that may not be listed
        for other in folder.parent.iterdir():
            with contextlib.suppress(OSError):  # another process may be removing it
                if other.is_dir() and _is_stale(other):
                    shutil.rmtree(other, ignore_errors=True)


def _is_stale(path: Path) -> bool:
    return time.time() - path.stat().st_mtime > _STALE


@cache
def _tell(why: str) -> None:
    """Say once that compiled code is not kept where it was to be."""
    warnings.warn(why, RuntimeWarning, stacklevel=2)


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
        # Numba takes loops for independent whose calls it cannot look into, and makes one of them.
        # No dict: Numba empties it, and would do so again for a second signature.
        "parallel": ParallelOptions({"fusion": False}) if parallel else False,
        "nogil": True,
        **NO_WRAPPER,
    }

    def compile_lazily(function: Callable[..., Any]) -> Any:
        dispatcher = numba.njit(**options)(function)
        if not config.DISABLE_JIT:
            key = f"{recipe} {flags} {parallel}"
            dispatcher._cache = _Cache(function, cache_folders(), recipe, key)
        return dispatcher

    return compile_lazily


class _Cache(FunctionCache):  # type: ignore[misc]
    """Machine code on disk: a file for each signature, closure, processor and set of options.

    A file starts with the digest of what follows: code that was damaged is compiled again.
    """

    def __init__(
        self, function: Callable[..., Any], folders: Folders, recipe: str, options: str
    ) -> None:
        self._py_func = function  # from here on what FunctionCache needs for its keys
        self._cache_path = str(folders.write or "")
        self._folders, self._recipe, self._options = folders, recipe, options
        self.enable()

    def flush(self) -> None:
        for path in Path(self._cache_path).glob(f"{self._recipe}-*") if self._cache_path else ():
            path.unlink(missing_ok=True)

    def load_overload(self, signature: Any, target: Any) -> CompileResult | None:
        """The compiled function for a signature, or None where there is none to be used."""
        target.refresh()
        name = self._name(signature, target.codegen())
        for folder in self._folders.read if self._enabled else ():
            with contextlib.suppress(OSError):
                path = folder / name
                stored = path.read_bytes()
                data = stored[_DIGEST:]
                if stored[:_DIGEST] != hashlib.sha256(data).digest():
                    continue
                with contextlib.suppress(OSError):  # of another user
                    if time.time() - path.stat().st_mtime > _DAY:
                        path.touch()
                return CompileResult._rebuild(target, *pickle.loads(data))
        return None

    def save_overload(self, signature: Any, compiled: CompileResult) -> None:
        """Keep a compiled function; whoever reads meanwhile sees all of it or nothing."""
        if not self._enabled or compiled.lifted or compiled.library.has_dynamic_globals:
            return
        folder, why = self._folders.write, self._folders.why
        if folder is not None:
            data = dumps(compiled._reduce())
            try:
                self._write(folder, self._name(signature, compiled.codegen), data)
            except OSError as error:  # a full disk costs time, not the result
                why = f"compiled code is not kept: {error}"
        if why:
            _tell(why)

    def _write(self, folder: Path, name: str, data: bytes) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        unfinished = folder / f".{secrets.token_hex(16)}"
        try:
            with unfinished.open("xb") as file:  # a new file under a name that nobody knows
                file.write(hashlib.sha256(data).digest() + data)
            unfinished.replace(folder / name)
        finally:
            unfinished.unlink(missing_ok=True)
        for other in folder.iterdir():  # of sources that are gone
            with contextlib.suppress(OSError):
                if _is_stale(other):
                    other.unlink(missing_ok=True)

    def _name(self, signature: Any, codegen: Any) -> str:
        key = (
            self._options, contents(self._py_func), str(signature), codegen.magic_tuple(),
            of_compiler(config),
        )  # fmt: skip
        return f"{self._recipe}-{hashlib.sha256(repr(key).encode()).hexdigest()}.code"

"""What a function's machine code depends on, in words that are the same in every process.

Of a function of this package its name says it, with the sources of its module and of those that it
imports; of any other it takes its code, its file and all that it refers to.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from types import CodeType, FunctionType, ModuleType
from typing import Any

from numba.core.serialize import dumps

from .digest import sources

_PACKAGE = __package__.removesuffix(".kernels.compiler")
_VERSIONED = ("numba", "numpy", "math")  # the folder of compiled code is named after these


def contents(function: Callable[..., Any]) -> str:
    """The function with what it closes over and refers to, and so on."""
    return repr(list(_of(function, set())))


def _of(value: Any, seen: set[int]) -> Iterator[Any]:
    value = getattr(value, "py_func", value)  # of what Numba compiles
    if isinstance(value, tuple):
        for entry in value:
            yield from _of(entry, seen)
    elif not isinstance(value, FunctionType):
        try:
            yield dumps(value)
        except Exception:  # what no pickle can hold, no machine code does
            yield type(value).__qualname__
    else:
        yield value.__module__, value.__qualname__, value.__code__.co_firstlineno
        if id(value) in seen:
            return
        seen.add(id(value))
        defaults = *(value.__defaults__ or ()), *sorted((value.__kwdefaults__ or {}).items())
        for held in (*defaults, *(cell.cell_contents for cell in value.__closure__ or ())):
            yield from _of(held, seen)
        if _is_in(_PACKAGE, value.__module__):
            yield sources(value.__module__)
        elif not _is_versioned(value.__module__):
            yield list(_code(value.__code__))
            with suppress(OSError):
                yield Path(value.__code__.co_filename).read_bytes()  # overloads stand there too
            for entry in _referred(value):
                yield from _of(entry, seen)


def _is_in(package: str, module: str) -> bool:
    return module == package or module.startswith(f"{package}.")


def _is_versioned(module: str) -> bool:
    return any(_is_in(name, module) for name in _VERSIONED)


def _code(code: CodeType) -> Iterator[Any]:
    yield code.co_code, code.co_names, code.co_varnames
    for constant in code.co_consts:
        yield list(_code(constant)) if isinstance(constant, CodeType) else constant


def _names(code: CodeType) -> Iterator[str]:
    yield from code.co_names
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            yield from _names(constant)


def _referred(function: FunctionType) -> Iterator[Any]:
    """What its globals hold whose names occur in it; of a module, what that has of such names."""
    names = list(_names(function.__code__))
    todo = [function.__globals__[name] for name in names if name in function.__globals__]
    modules = set()
    for value in todo:  # which grows by what modules hold
        if not isinstance(value, ModuleType):
            yield value
        elif not (
            id(value) in modules
            or _is_in(_PACKAGE, value.__name__)
            or _is_versioned(value.__name__)
        ):
            modules.add(id(value))
            todo += (getattr(value, name) for name in names if hasattr(value, name))

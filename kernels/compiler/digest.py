"""Digests of sources, apart from all that imports a compiler."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Container, Iterable
from functools import cache
from importlib.util import find_spec
from pathlib import Path

# A syntax tree would take as long as loading the code that it decides about.
_IMPORT = re.compile(
    r"^[ \t]*from[ \t]+(\.+)([\w.]*)[ \t]+import[ \t]+(\([^)]*\)|[^\n#]+)", re.MULTILINE
)


def folder_of(package: str) -> Path:
    """Where the sources of a package are that can be imported; only those above it are."""
    return _file_of(package).parent


def digest(folders: Iterable[Path], without: Container[str] = ()) -> str:
    """Digest of the names and contents of all Python files below the folders.

    without: names of folders in them that do not count.
    """
    result = hashlib.sha256()
    for folder in folders:
        for path in sorted(folder.rglob("*.py")):
            if path.relative_to(folder).parts[0] in without:
                continue
            result.update(f"{path.relative_to(folder)}\0".encode())
            result.update(path.read_bytes())
    return result.hexdigest()


@cache
def sources(module: str) -> str:
    """Digest of a module's file and of those that it imports from its package, and so on."""
    found, todo = {module}, [module]
    while todo:
        new = _imported(todo.pop()) - found
        found |= new
        todo += new
    result = hashlib.sha256()
    for name in sorted(found):
        result.update(f"{name.partition('.')[2]}\0".encode())
        result.update(_file_of(name).read_bytes())
    return result.hexdigest()


@cache
def _imported(module: str) -> frozenset[str]:
    """The modules of its package that a module imports, by relative imports."""
    file = _file_of(module)
    parts = module.split(".")
    if file.name != "__init__.py":
        parts = parts[:-1]
    found = set()
    for dots, below, names in _IMPORT.findall(file.read_text(encoding="utf-8")):
        above = parts[: len(parts) - len(dots) + 1]
        home = ".".join([*above, *filter(None, [below])])
        found.add(home)
        for name in re.findall(r"(\w+)(?:[ \t]+as[ \t]+\w+)?", names):
            if _is_module(f"{home}.{name}"):
                found.add(f"{home}.{name}")
    return frozenset(found)


def _is_module(name: str) -> bool:
    package, _, module = name.rpartition(".")
    file = _file_of(package)
    return file.name == "__init__.py" and (
        file.with_name(f"{module}.py").is_file() or (file.parent / module / "__init__.py").is_file()
    )


@cache
def _file_of(module: str) -> Path:
    spec = find_spec(module)
    assert spec is not None
    assert spec.origin is not None
    return Path(spec.origin)

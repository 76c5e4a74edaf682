"""Packages of several revisions in one process, each imported under a name of its own."""

from __future__ import annotations

import contextlib
import importlib
import importlib.metadata
import importlib.util
import sys
from collections.abc import Iterator, Sequence
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import ModuleType
from typing import Any

NAME = "twolayer"  # which no revision has


def load(package: Path, name: str) -> Any:
    """The package in that folder, imported under another name."""
    # The second is where kernels and variants are without the links to them.
    folders = [str(package), str(package.parents[1])]
    spec = importlib.util.spec_from_file_location(
        name, package / "__init__.py", submodule_search_locations=folders
    )
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module


class _Alias(MetaPathFinder, Loader):
    """Finds `twolayer` and its parts in the package of another name."""

    def __init__(self, name: str) -> None:
        self.name = name

    def find_spec(self, name: str, path: Any = None, target: Any = None) -> ModuleSpec | None:
        return ModuleSpec(name, self) if name.partition(".")[0] == NAME else None

    def exec_module(self, module: ModuleType) -> None:
        meant = self.name + module.__name__.removeprefix(NAME)
        sys.modules[module.__name__] = importlib.import_module(meant)


@contextlib.contextmanager
def meaning(name: str) -> Iterator[None]:
    """Within, `import twolayer` gives the package of that name; otherwise it fails."""
    finder = _Alias(name)
    sys.meta_path.insert(0, finder)
    sys.modules.pop(NAME, None)
    try:
        yield
    finally:
        sys.meta_path.remove(finder)
        for module in [m for m in sys.modules if m.partition(".")[0] == NAME]:
            del sys.modules[module]
        sys.modules[NAME] = None  # type: ignore[assignment]


def add(name: str, files: Sequence[Path]) -> list[Any]:
    """Register with the package of that name what installed packages offer, and these files.

    What the files define.
    """
    before = set(sys.modules)
    with meaning(name):
        importlib.import_module(f"{name}.variants").names()  # adds what is installed
        added = [
            entry
            for file in files
            for entry in importlib.import_module(f"{name}.registry").add_file(file)
        ]
    offered = {
        point.module.partition(".")[0]
        for point in importlib.metadata.entry_points(group=f"{NAME}.variants")
    }
    for module in set(sys.modules) - before:
        if module.partition(".")[0] in offered or _knows(sys.modules[module], name):
            del sys.modules[module]  # the other revision imports it with its own package
    return added


def _knows(module: ModuleType, name: str) -> bool:
    """Whether a module that is none of the package has something of it."""
    if module.__name__.partition(".")[0] in (name, NAME):
        return False
    held = [getattr(v, "__module__", None) or getattr(v, "__name__", "") for v in _values(module)]
    return any(isinstance(at, str) and at.partition(".")[0] == name for at in held)


def _values(module: ModuleType) -> list[Any]:
    return list(getattr(module, "__dict__", {}).values())

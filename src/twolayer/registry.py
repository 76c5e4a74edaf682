"""Lists of variants, activations, losses and optimizers by name, which others can add to."""

from __future__ import annotations

import hashlib
import importlib.metadata
import importlib.util
import os
import sys
import threading
import warnings
import zlib
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, Generic, Protocol, TypeVar

from .machine.forks import renewed
from .texts import meant, sentence


class _Named(Protocol):
    @property
    def name(self) -> str: ...


T = TypeVar("T", bound=_Named)


class Registry(Generic[T]):
    """Objects of one kind by name, in the order of their registration.

    Arguments: kind, their class; entries; later, functions that are called for more of them when
    the list is used first; group, of the entry points by which installed packages offer more.
    """

    def __init__(
        self,
        kind: type[T],
        entries: Iterable[T] = (),
        later: Iterable[Callable[[], Iterable[T]]] = (),
        group: str | None = None,
    ) -> None:
        self.kind = kind
        self.what = kind.__name__.lower()
        self._entries: dict[str, T] = {}
        self._later, self._group = list(later), group
        self._points: list[importlib.metadata.EntryPoint] | None = None  # still to be loaded
        self._complete = self._adding = False
        self._lock = renewed(self, "_lock", threading.RLock)
        for entry in entries:
            self.add(entry)

    def add(self, entry: T) -> T:
        """Register an entry. Raises ValueError for a name that is taken."""
        if not isinstance(entry, self.kind):
            raise TypeError(
                f"{self.what}: expected a twolayer.{self.kind.__name__}, got {type(entry).__name__}"
            )
        if entry.name in self._entries:
            raise ValueError(f"{self.what}: the name {entry.name!r} is taken")
        self._entries[entry.name] = entry
        return entry

    def names(self) -> list[str]:
        """The names of all entries."""
        return [entry.name for entry in self]

    def get(self, name: Any) -> T:
        """The entry of that name. Raises ValueError with the list of names if there is none."""
        self._add_later()
        if not isinstance(name, str) or name not in self._entries:
            raise ValueError(
                f"{self.what}: expected one of {', '.join(self._entries)}, got {name!r}"
                f"{meant(name, self._entries)}"
            )
        return self._entries[name]

    def __iter__(self) -> Iterator[T]:
        self._add_later()
        return iter(list(self._entries.values()))

    def _add_later(self) -> None:
        """Add `later` and what other installed packages offer; of those, one that fails is left out
        with a warning.
        """
        if self._complete:
            return
        with self._lock:  # another thread waits for the whole list
            if self._complete or self._adding:  # what is added asks for others of the list
                return
            self._adding = True
            try:
                self._add_all()
                self._complete = True
            finally:
                self._adding = False

    def _add_all(self) -> None:
        while self._later:
            found = list(self._later[0]())
            del self._later[0]  # not before: where it fails, the next use tries it again
            for entry in found:
                self.add(entry)
        if self._points is None:
            group = self._group
            self._points = list(importlib.metadata.entry_points(group=group)) if group else []
        while self._points:
            point = self._points[0]
            try:
                self.add(point.load())
            except Exception as error:
                warnings.warn(
                    f"{self.what} {point.name} of {point.value} is left out: {error}", stacklevel=2
                )
            del self._points[0]


LOADED = "__twolayer_source__"  # in a module of `add_file`: the digest of what was loaded

_lists: list[Registry[Any]] = []  # that `add_file` adds to


def listed(registry: Registry[T]) -> Registry[T]:
    """The registry, which files can add to from now on."""
    _lists.append(registry)
    return registry


def add_file(path: str | Path, lists: Iterable[Registry[Any]] = _lists) -> list[Any]:
    """Register every Variant, Activation, Loss and Optimizer at the top level of a Python file.

    Raises ValueError for a file that is missing, fails to run, defines none or takes a name again,
    and adds nothing then; whatever the file raised is the cause.
    """
    path = Path(path)
    if path.suffix != ".py" or not path.is_file():
        raise ValueError(f"variant file: expected an existing .py file, got {str(path)!r}")
    place = zlib.crc32(os.fsencode(path.resolve()))  # two folders may have files of one name
    name = f"twolayer_variant_{path.stem}_{place:08x}"
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    vars(module)[LOADED] = hashlib.sha256(path.read_bytes()).hexdigest()[:16]
    sys.modules[spec.name] = module  # dataclasses and pickles look it up there
    try:
        spec.loader.exec_module(module)
    except Exception as error:
        del sys.modules[spec.name]
        raise ValueError(f"variant file: {path} failed with {sentence(error)}") from error
    known = {id(entry) for registry in lists for entry in registry}  # that the file imported
    found = {
        id(value): (registry, value)
        for value in vars(module).values()
        for registry in lists
        if isinstance(value, registry.kind) and id(value) not in known
    }
    if not found:
        kinds = ", ".join(registry.kind.__name__ for registry in lists)
        raise ValueError(f"variant file: {path} defines none of {kinds} at its top level")
    for registry in lists:  # raises for a name that is taken
        mine = [entry for its, entry in found.values() if its is registry]
        Registry(registry.kind, [*registry, *mine])
    return [registry.add(entry) for registry, entry in found.values()]

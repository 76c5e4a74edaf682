"""The list of variants: the project's own, those of installed packages, those of single files."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import sys
import warnings
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

from .variant import Variant

ENTRY_POINTS = "twolayer.variants"


class Registry:
    """Variants by name, in the order of their registration."""

    def __init__(
        self,
        variants: Iterable[Variant] = (),
        later: Iterable[Callable[[], Iterable[Variant]]] = (),
    ) -> None:
        self._variants: dict[str, Variant] = {}
        self._later = later  # called when the list is used first
        self._complete = False
        for variant in variants:
            self.add(variant)

    def add(self, variant: Variant) -> Variant:
        """Register a variant. Raises ValueError for a name that is taken."""
        if not isinstance(variant, Variant):
            raise TypeError(f"variant: expected a twolayer.Variant, got {type(variant).__name__}")
        if variant.name in self._variants:
            raise ValueError(f"variant: the name {variant.name!r} is taken")
        self._variants[variant.name] = variant
        return variant

    def add_file(self, path: str | Path) -> list[Variant]:
        """Register every Variant that a Python file defines at its top level.

        Raises ValueError for a file that is missing, fails to run or defines none; whatever the
        file raised is the cause.
        """
        path = Path(path)
        if path.suffix != ".py" or not path.is_file():
            raise ValueError(f"variant file: expected an existing .py file, got {str(path)!r}")
        spec = importlib.util.spec_from_file_location(f"twolayer_variant_{path.stem}", path)
        assert spec is not None and spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        sys.modules[spec.name] = module  # dataclasses and pickles look it up there
        try:
            spec.loader.exec_module(module)
        except Exception as error:
            del sys.modules[spec.name]
            raise ValueError(
                f"variant file: {path} failed with {type(error).__name__}: {error}"
            ) from error
        known = {id(variant) for variant in self}  # that the file itself imported
        variants = [value for value in vars(module).values() if isinstance(value, Variant)]
        found = list({id(v): v for v in variants if id(v) not in known}.values())
        if not found:
            raise ValueError(f"variant file: {path} defines no twolayer.Variant at its top level")
        Registry([*self, *found])  # adds all of them or none
        return [self.add(variant) for variant in found]

    def names(self) -> list[str]:
        """The names of all variants, runnable here or not."""
        return [variant.name for variant in self]

    def get(self, name: str) -> Variant:
        """The variant of that name. Raises ValueError with the list of names if there is none."""
        self._add_later()
        if name not in self._variants:
            raise ValueError(f"variant: expected one of {', '.join(self._variants)}, got {name!r}")
        return self._variants[name]

    def __iter__(self) -> Iterator[Variant]:
        self._add_later()
        return iter(list(self._variants.values()))

    def _add_later(self) -> None:
        """Add `later` and what other installed packages offer; of those, one that fails is left out
        with a warning.
        """
        if self._complete:
            return
        self._complete = True
        for fetch in self._later:
            for variant in fetch():
                self.add(variant)
        for point in importlib.metadata.entry_points(group=ENTRY_POINTS):
            try:
                self.add(point.load())
            except Exception as error:
                warnings.warn(
                    f"variant {point.name} of {point.value} is left out: {error}", stacklevel=2
                )

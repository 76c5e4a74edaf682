"""Options that several commands have, and how their texts are read."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from ..interface import Variant

VariantFiles = Annotated[
    list[Path] | None,
    typer.Option("--variant-file", help="A Python file with variants of your own; repeatable."),
]
VariantNames = Annotated[
    str | None, typer.Option("--variants", help="Names with commas between; all by default.")
]
Dtype = Annotated[str, typer.Option(help="float32 or float64.")]
Activation = Annotated[str, typer.Option(help="σ by name.")]
Loss = Annotated[str, typer.Option(help="ℓ by name.")]
ActivationOrNone = Annotated[str | None, typer.Option(help="σ by name, by default tanh.")]
LossOrNone = Annotated[str | None, typer.Option(help="ℓ by name, by default squared.")]
Threads = Annotated[int | None, typer.Option(help="CPU threads, by default all there are.")]
JsonFile = Annotated[Path | None, typer.Option("--json", help="Write the figures to this file.")]


def select_variants(names: str | None, files: Sequence[Path] | None) -> list[Variant]:
    """The variants of those names and those of the files, or all where no names are given.

    All are those that are implementations: `auto` is one of them again. The files' variants are
    registered. Raises ValueError for an unknown name or a bad file.
    """
    from .. import variants

    added = add_files(files)
    if names is None:
        return [variant for variant in variants.REGISTRY if variant.device != "any"]
    named = [variants.get(name) for name in split(names)]
    return list({variant.name: variant for variant in named + added}.values())


def add_files(files: Sequence[Path] | None) -> list[Variant]:
    """Register the variants of the files. Raises ValueError for a bad file."""
    if not files:
        return []
    from .. import variants

    return [variant for file in files for variant in variants.add_file(file)]


def split(text: str) -> list[str]:
    """The parts between commas, without blanks around them."""
    return [part.strip() for part in text.split(",")]

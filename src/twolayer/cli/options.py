"""Options that several commands have, in what panel they stand, and how their texts are read."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ..texts import parts

if TYPE_CHECKING:
    from ..interface import Variant

# The panels of --help, in every command the same.
PROBLEM, VARIANTS, TRAINING = "Problem", "Variants", "Training"
MEASURING, OUTPUT = "Measuring", "Output"

Shapes = Annotated[
    list[str] | None,
    typer.Option(
        "--shape", metavar="n,d,M,K", help="A shape to run on; repeatable.",
        rich_help_panel=PROBLEM,
    ),
]  # fmt: skip
Quick = Annotated[
    bool, typer.Option("--quick", help="Fewer and smaller problems.", rich_help_panel=PROBLEM)
]
VariantFiles = Annotated[
    list[Path] | None,
    typer.Option(
        "--variant-file",
        help="A Python file with variants, σ, ℓ or optimizers of your own; repeatable.",
        rich_help_panel=VARIANTS,
    ),
]
VariantNames = Annotated[
    str | None,
    typer.Option(
        "--variants", help="Names with commas between; all by default.", rich_help_panel=VARIANTS
    ),
]
# Where the command has a list of its own, which its help shows.
VariantNamesOrOurs = Annotated[
    str | None,
    typer.Option("--variants", help="Names with commas between.", rich_help_panel=VARIANTS),
]
Dtype = Annotated[str, typer.Option(help="float32 or float64.", rich_help_panel=PROBLEM)]
Activation = Annotated[str, typer.Option(help="σ by name.", rich_help_panel=PROBLEM)]
Loss = Annotated[str, typer.Option(help="ℓ by name.", rich_help_panel=PROBLEM)]
ActivationOrNone = Annotated[
    str | None, typer.Option(help="σ by name, by default tanh.", rich_help_panel=PROBLEM)
]
LossOrNone = Annotated[
    str | None, typer.Option(help="ℓ by name, by default squared.", rich_help_panel=PROBLEM)
]
Threads = Annotated[
    int | None,
    typer.Option(help="CPU threads, by default all there are.", rich_help_panel=VARIANTS),
]
Scheduler = Annotated[
    str | None,
    typer.Option(
        metavar="ADDRESS",
        help="The Dask cluster for dask, as tcp://host:8786; by default processes on this machine.",
        rich_help_panel=VARIANTS,
    ),
]
SkipAbove = Annotated[
    float,
    typer.Option(
        "--skip-above",
        metavar="SECONDS",
        help="Leave a variant out whose epoch takes longer.",
        rich_help_panel=MEASURING,
    ),
]
WaitCalm = Annotated[
    float,
    typer.Option(
        "--wait-calm",
        metavar="SECONDS",
        help="Wait so long, in all, for other programs to leave the machine alone.",
        rich_help_panel=MEASURING,
    ),
]
Header = Annotated[
    bool | None,
    typer.Option(
        "--header/--no-header", help="Whether the first line of a .csv file names its columns.",
        rich_help_panel=PROBLEM,
    ),
]  # fmt: skip
Drop = Annotated[
    str | None,
    typer.Option(
        metavar="COLUMNS",
        help="Columns of a .csv file to leave out, names or numbers from 1, with commas between.",
        rich_help_panel=PROBLEM,
    ),
]
Device = Annotated[
    str | None,
    typer.Option(help="cpu or cuda, by default each variant's own.", rich_help_panel=VARIANTS),
]
JsonFile = Annotated[
    Path | None,
    typer.Option(
        "--json", help="Write the figures to this file, or - for standard output.",
        rich_help_panel=OUTPUT,
    ),
]  # fmt: skip
Plot = Annotated[
    Path | None, typer.Option(help="Draw the results, .svg or .png.", rich_help_panel=OUTPUT)
]
Roofline = Annotated[
    Path | None,
    typer.Option(help="Draw GFLOP/s below the roofline, .svg or .png.", rich_help_panel=OUTPUT),
]
Readme = Annotated[
    Path | None,
    typer.Option(help="Write the table between the markers in this file.", rich_help_panel=OUTPUT),
]


def refuse(where: str, **given: Any) -> None:
    """Raise ValueError for an argument that is given where nothing uses it."""
    for name, value in given.items():
        if value:
            got = "it" if value is True else value
            raise ValueError(f"{name.replace('_', '-')}: expected none {where}, got {got}")


def positive_seconds(argument: str, seconds: float) -> float:
    """The seconds. Raises ValueError where they are not positive."""
    if not seconds > 0:
        raise ValueError(f"{argument}: expected a positive number of seconds, got {seconds}")
    return seconds


def select_variants(
    names: str | None,
    files: Sequence[Path] | None,
    device: str | None = None,
    clustered: bool = True,
) -> list[Variant]:
    """The variants of those names and those of the files, or all where no names are given.

    All are those that are implementations: `auto` is one of them again. Those of a device only
    where one is given. clustered: whether all includes what runs on a cluster. The files' variants
    are registered. Raises ValueError for an unknown name, a bad file, or where none is left.
    """
    from .. import variants

    added = add_files(files)
    left_out = {"any"} if clustered else {"any", "cluster"}
    found = [variant for variant in variants.REGISTRY if variant.device not in left_out]
    if names is not None:
        named = [variants.get(name) for name in parts(names)]
        found = list({variant.name: variant for variant in named + added}.values())
    if device is None:
        return found
    there = [variant.on(device) for variant in found if device in variant.devices]
    if not there:
        known = list(dict.fromkeys(name for variant in found for name in variant.devices))
        raise ValueError(
            f"device: expected one that a variant runs on, {', '.join(known)}, got {device!r}"
        )
    return there


def connect(scheduler: str | None, chosen: Sequence[Variant]) -> None:
    """Let those of the variants that can run on the cluster of that scheduler.

    Raises ValueError where none of them can; further errors are those of `cluster.connect`.
    """
    if scheduler is None:
        return
    if all(variant.device != "cluster" for variant in chosen):
        names = ", ".join(variant.name for variant in chosen)
        raise ValueError(f"scheduler: expected a variant that runs on a cluster, got {names}")
    from ..composed import cluster

    cluster.connect(scheduler)


def add_files(files: Sequence[Path] | None) -> list[Variant]:
    """Register what the files define, and return the variants. Raises ValueError for a bad file."""
    if not files:
        return []
    from .. import variants
    from ..interface import Variant
    from ..showing import output

    output.check_unread(*files)
    found = [entry for file in files for entry in variants.add_file(file)]
    return [entry for entry in found if isinstance(entry, Variant)]

"""`twolayer choose`: which implementation to take, and why."""

from __future__ import annotations

import math
import re
from contextlib import ExitStack
from typing import Annotated

import typer

from ...choosing import Candidate, Choice, choose_by_name
from ...progress import Bar
from ...showing import output, units
from ...showing.table import Table
from ...texts import parts
from ..options import (
    Activation,
    Dtype,
    JsonFile,
    Loss,
    Threads,
    VariantFiles,
    VariantNames,
    add_files,
)

_EXPLAINED = 4  # variants whose terms fit beside each other
_UNITS = {"": 1, "K": 1 << 10, "M": 1 << 20, "G": 1 << 30, "T": 1 << 40}


def choose(
    n: Annotated[int, typer.Option("--n", help="Samples.")],
    d: Annotated[int, typer.Option("--d", help="Inputs.")],
    M: Annotated[int, typer.Option("--M", help="Hidden units.")],
    K: Annotated[int, typer.Option("--K", help="Outputs.")],
    activation: Activation = "tanh",
    loss: Loss = "squared",
    dtype: Dtype = "float32",
    epochs: Annotated[
        int | None,
        typer.Option(help="Count all that a new process pays for so many epochs, not one alone."),
    ] = None,
    cold: Annotated[
        bool, typer.Option("--cold", help="With --epochs: nothing is compiled yet.")
    ] = False,
    threads: Threads = None,
    device: Annotated[
        str | None, typer.Option(help="cpu, cuda or cluster; by default cpu and cuda.")
    ] = None,
    max_memory: Annotated[
        str | None, typer.Option(help="Bytes at most, as in 500M or 2G; by default what is free.")
    ] = None,
    deterministic: Annotated[
        bool, typer.Option("--deterministic", help="Only what returns the same bits each time.")
    ] = False,
    variants: VariantNames = None,
    variant_file: VariantFiles = None,
    explain: Annotated[
        bool, typer.Option("--explain", help="Show the terms of the model, and who was ruled out.")
    ] = False,
    fresh: Annotated[
        bool, typer.Option("--fresh", help="Measure anew, whatever is known of this machine.")
    ] = False,
    json: JsonFile = None,
) -> None:
    """Say which variant to take for a network and a shape on this machine.

    The first time on a machine every variant is timed on a few dozen shapes, which takes some
    seconds. --variants may name torch, torch-compile and jax too.
    """
    output.check_writable(json=json)
    add_files(variant_file)
    with ExitStack() as stack:
        bars: list[Bar] = []

        def progress(what: str, done: float, total: float) -> None:
            if not bars:  # most answers need none
                bars.append(stack.enter_context(Bar(total)))
            bars[0].show(what, done, total)

        choice = choose_by_name(
            activation, loss, n=n, d=d, M=M, K=K, dtype=dtype, epochs=epochs, device=device,
            threads=threads, max_memory=None if max_memory is None else _bytes(max_memory),
            deterministic=deterministic, variants=None if variants is None else parts(variants),
            cold=cold, fresh=fresh, progress=progress,
        )  # fmt: skip
    output.deliver(
        lambda: _show(choice, explain),
        (json, lambda file: output.write_json(file, choice.to_json())),
    )


def _bytes(text: str) -> int:
    found = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([KMGT]?)(?:i?B)?", text.strip(), re.IGNORECASE)
    if not found or math.isinf(float(found[1])):
        raise ValueError(f"max-memory: expected bytes, as in 500M or 2G, got {text!r}")
    return int(float(found[1]) * _UNITS[found[2].upper()])


def _show(choice: Choice, explain: bool) -> None:
    console = output.stdout()
    console.print(choice.variant, style="bold")
    console.print(f"{choice.reason}.", soft_wrap=True)
    if choice.total_seconds is not None:
        console.print(
            f"{choice.epochs} epochs take {units.duration(choice.total_seconds)} in a new "
            f"process, of which {units.duration(choice.chosen.before)} come before the first.",
            soft_wrap=True,
        )
        for epochs, variant in choice.break_even[1:]:
            console.print(f"From {epochs} epochs on it is {variant}.", soft_wrap=True)
    table = Table("variant")
    headings = ["an epoch", "from", "to", "MiB"]
    if choice.epochs is not None:
        headings += ["before", f"{choice.epochs} epochs"]
    for heading in headings:
        table.add_column(heading, justify="right", no_wrap=True)
    table.add_column("is")
    for candidate in (choice.chosen, *choice.runners_up):
        low, high = candidate.interval
        row = [
            candidate.variant, *map(units.duration, (candidate.seconds, low, high)),
            units.memory(candidate.memory),
        ]  # fmt: skip
        if choice.epochs is not None:
            total = candidate.total(choice.epochs)
            row += [units.duration(candidate.before), units.duration(total)]
        style = "bold" if candidate is choice.chosen else None
        table.add_row(*row, "measured" if candidate.measured else "predicted", style=style)
    console.print()
    console.print(table)
    if explain:
        console.print()
        console.print(_terms((choice.chosen, *choice.runners_up)[:_EXPLAINED]))
        for variant, reason in choice.ruled_out:
            console.print(f"ruled out: {variant} {reason}", style="dim", soft_wrap=True)


def _terms(candidates: tuple[Candidate, ...]) -> object:
    """The model's seconds by term: a column a variant."""
    table = Table()
    table.add_column("term of the model", no_wrap=True)
    for candidate in candidates:
        table.add_column(candidate.variant, justify="right", no_wrap=True)
    for term in candidates[0].terms:
        times = [candidate.terms[term] for candidate in candidates]
        if any(times):
            table.add_row(term, *(units.duration(t) if t else "–" for t in times))
    sums = (units.duration(sum(candidate.terms.values())) for candidate in candidates)
    table.add_row("in all", *sums, style="bold")
    return table

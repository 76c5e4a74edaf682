"""`twolayer history`: a problem over time and commits."""

from __future__ import annotations

import csv as tables
import io
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from .... import history as past
from ....history import Series, Wanted
from ....history.levels import day
from ....machine import revision
from ....machine.atomic import replacing
from ....machine.store import Store
from ....network import Shape
from ....showing import output
from ....showing import plot as plots
from ....showing.kept import history as shown
from ....texts import parts
from ... import codes, options

Machines = Annotated[
    str | None, typer.Option(help="A machine by a part of its name, or how its key begins.")
]


def history(
    shape: Annotated[str | None, typer.Option(metavar="n,d,M,K", help="This shape only.")] = None,
    variants: options.VariantNames = None,
    activation: Annotated[str | None, typer.Option(help="This σ only.")] = None,
    loss: Annotated[str | None, typer.Option(help="This ℓ only.")] = None,
    dtype: Annotated[str | None, typer.Option(help="float32 or float64, by default both.")] = None,
    threads: Annotated[int | None, typer.Option(help="So many threads only.")] = None,
    data: Annotated[
        str | None, typer.Option(help="A data set by name, or synthetic; by default all.")
    ] = None,
    machine: Machines = None,
    commit: Annotated[
        str | None,
        typer.Option(help="How its id begins, or HEAD; a plus means changed sources on it."),
    ] = None,
    since: Annotated[
        str | None, typer.Option(metavar="DATE", help="From 2026-11-01 on, or the last 30d.")
    ] = None,
    before: Annotated[
        str | None, typer.Option(metavar="DATE", help="Until that date, or so many days ago.")
    ] = None,
    prune: Annotated[
        bool, typer.Option("--prune", help="Remove what is chosen, after saying how much.")
    ] = False,
    yes: Annotated[bool, typer.Option("--yes", help="With --prune: do not ask.")] = False,
    json: options.JsonFile = None,
    csv: Annotated[Path | None, typer.Option(help="Write a line for each commit.")] = None,
    parquet: Annotated[Path | None, typer.Option(help="The same for pandas.")] = None,
    plot: Annotated[Path | None, typer.Option(help="Draw it, .svg or .png.")] = None,
) -> None:
    """Show what `twolayer bench` and `report` measured before, over time and commits.

    Where all that is chosen is one problem on one machine, a row a commit and a column a variant;
    else a row a problem. Steps are marked.
    """
    output.check_writable(json=json, csv=csv, parquet=parquet, plot=plot)
    plots.check(plot=plot)
    if parquet is not None:
        _check_parquet()
    wanted = Wanted(
        parts(variants) if variants else (), Shape.parse(shape) if shape else (), activation or "",
        loss or "", dtype or "", "", _threads(threads), data or "", machine or "", _commit(commit),
        past.moment("since", since), past.moment("before", before),
    )  # fmt: skip
    with Store() as store:
        if prune:
            for name, path in {"json": json, "csv": csv, "parquet": parquet, "plot": plot}.items():
                if path is not None:
                    raise ValueError(f"{name}: expected none with --prune, got {str(path)!r}")
            _prune(store, wanted, yes)
            return
        if yes:
            raise ValueError("yes: expected it with --prune only, got --yes")
        found = past.find(store, wanted)
    records = past.records(found)
    log = revision.log({level.commit for one in found for level in one.levels} - {""})
    output.deliver(
        lambda: shown.show(output.stdout(), found, log),
        (json, lambda file: output.write_json(file, {"history": records})),
        (csv, lambda file: output.write_text(file, _csv(records))),
        (parquet, lambda file: _parquet(file, records)),
        (plot, lambda file: _plot(file, found)),
    )
    if not found:
        raise typer.Exit(codes.TOO_LITTLE)


def _threads(threads: int | None) -> int:
    if threads is not None and not 0 < threads < 2**31:
        raise ValueError(f"threads: expected a positive number, got {threads}")
    return threads or 0


def _commit(commit: str | None) -> str:
    if not commit:
        return ""
    name = commit.removesuffix("+")
    return (revision.resolve(name) or name.lower()) + "+" * (name != commit)


def _csv(records: Sequence[dict[str, Any]]) -> str:
    text = io.StringIO()
    names = [*records[0]] if records else ["variant"]
    writer = tables.DictWriter(text, names, lineterminator="\n")
    writer.writeheader()
    writer.writerows(records)
    return text.getvalue()


def _check_parquet() -> None:
    for package in ("pandas", "pyarrow"):
        try:
            __import__(package)
        except ImportError:
            raise RuntimeError(
                f"parquet: needs {package}, which is not installed: run `pip install pandas "
                "pyarrow`, or take --csv"
            ) from None


def _parquet(path: Path, records: Sequence[dict[str, Any]]) -> None:
    import pandas

    with replacing(path) as file:
        pandas.DataFrame(records).to_parquet(file)


def _plot(path: Path, found: Sequence[Series]) -> None:
    plots.plot(plots.levels_figure, found, path, shown.RULE)


def _prune(store: Store, wanted: Wanted, yes: bool) -> None:
    """Say what is chosen, ask, and remove it."""
    if wanted == Wanted((), ()):
        raise ValueError("prune: expected what to remove, as --before 90d, --commit or --machine")
    chosen = past.count(store, wanted)
    (total, first, last), *_ = store.query(
        "SELECT count(*), min(time), max(time) FROM measurement WHERE kind = 'epoch'"
    )
    console = output.stdout()
    span = f", kept from {day(first)} to {day(last)}," if total else ""
    console.print(f"{len(chosen)} of {total} measurements of epochs{span} are chosen")
    if not chosen:
        return
    if not yes and not _confirmed():
        return
    store.remove(chosen)
    console.print(f"{len(chosen)} removed")


def _confirmed() -> bool:
    if not sys.stdin.isatty():
        raise ValueError("prune: expected --yes where nobody can be asked, got none")
    return typer.confirm("Remove them?", err=True)

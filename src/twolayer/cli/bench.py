"""`twolayer bench`: the variants side by side on real data and over swept shapes."""

from __future__ import annotations

import datetime
import shlex
import sys
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from .. import plot as plots
from .. import race as races
from .. import roofline
from ..interface import Variant, check_threads
from ..network import Network, float_type
from ..race import Result, Workload
from ..store import Store
from . import options, output, tables
from .workloads import workloads

_QUICK_ROUNDS = 3
_INTERRUPTED = 130  # what shells report of a program that Ctrl-C ended


def bench(
    shape: Annotated[
        list[str] | None, typer.Option(metavar="n,d,M,K", help="A shape to run on; repeatable.")
    ] = None,
    sweep: Annotated[
        list[str] | None,
        typer.Option(metavar="AXIS=SIZES", help="As in n=100,1000,10000; repeatable."),
    ] = None,
    variants: options.VariantNames = None,
    variant_file: options.VariantFiles = None,
    dtype: options.Dtype = "float32",
    activation: options.Activation = "tanh",
    loss: options.Loss = "squared",
    threads: options.Threads = None,
    limit: Annotated[
        float, typer.Option(help="Seconds an epoch beyond which a variant is skipped.")
    ] = races.LIMIT,
    quick: Annotated[bool, typer.Option("--quick", help="Fewer and smaller problems.")] = False,
    json: options.JsonFile = None,
    plot: Annotated[Path | None, typer.Option(help="Draw the results, .svg or .png.")] = None,
    readme: Annotated[
        Path | None, typer.Option(help="Write the table between the markers in this file.")
    ] = None,
) -> None:
    """Time the variants side by side, each after it was checked.

    Without --shape and --sweep: real data sets, and sweeps of n, d, M and K from one base point.
    Sweeps have the squared loss unless another is named, so that K = 1 is a problem too.
    """
    field = options.select_variants(variants, variant_file)
    dtype = float_type("dtype", dtype).name
    threads = check_threads(threads)
    if not limit > 0:
        raise ValueError(f"limit: expected a positive number of seconds, got {limit}")
    _check_outputs(json, plot, readme)
    groups = workloads(Network(activation, loss), dtype, shape or (), sweep or (), quick)
    roof = roofline.probe(dtype, threads)
    results = {
        workload: Result(workload, threads, roof)
        for workload in dict.fromkeys(w for members in groups.values() for w in members)
    }
    interrupted = False
    try:
        _run(list(results.values()), field, _QUICK_ROUNDS if quick else races.ROUNDS, limit)
    except KeyboardInterrupt:
        interrupted = True
        output.complain("interrupted: what was measured until now follows")
    finished = {
        name: begun
        for name, members in groups.items()
        if (begun := [results[workload] for workload in members if results[workload].entries])
    }
    roof = next(iter(results.values())).roof
    tables.show(output.stdout(), finished, roof, threads)
    _write(finished, roof, threads, dtype, interrupted, json, plot, readme)
    if interrupted:
        raise typer.Exit(_INTERRUPTED)


def _check_outputs(json: Path | None, plot: Path | None, readme: Path | None) -> None:
    """Refuse what could not be written at the end before anything is measured."""
    for name, path in (("json", json), ("plot", plot), ("readme", readme)):
        if path is not None:
            output.check_writable(name, path)
    if plot is not None:
        plots.check(plot)
    if readme is not None:
        if not readme.is_file():
            raise ValueError(f"readme: expected an existing file, got {str(readme)!r}")
        tables.between_markers(readme, readme.read_text(encoding="utf-8"), "")


def _run(results: list[Result], field: list[Variant], rounds: int, limit: float) -> None:
    """Fill the results in, one race after the other, with a progress bar if somebody looks."""
    console = output.stderr()
    bar = Progress(
        TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn(),
        console=console, transient=True, disable=not console.is_terminal,
    )  # fmt: skip
    units = len(field) * (rounds + 1)
    with bar, Store() as store:
        task = bar.add_task("", total=len(results) * units)
        for number, result in enumerate(results):

            def progress(name: str, done: int, workload: Workload = result.workload) -> None:
                bar.update(task, advance=done, description=f"{workload}  {name}")

            _raise_roof(results, result)
            races.race(result, field, rounds=rounds, limit=limit, store=store, progress=progress)
            bar.update(task, completed=(number + 1) * units)
            if not console.is_terminal:
                console.print(f"{number + 1}/{len(results)} {_summary(result)}", soft_wrap=True)


def _raise_roof(results: list[Result], current: Result) -> None:
    """Probe again: what disturbs one probe on a shared machine must not hide what it can do."""
    found = roofline.probe(current.workload.dtype, current.threads, seconds=0.1)
    best = roofline.Roofline(*map(max, current.roof, found))
    for result in results:
        result.roof = best


def _summary(result: Result) -> str:
    if not result.ranking:
        return f"{result.workload}: nothing was timed"
    best = result.ranking[0]
    return (
        f"{result.workload}: {len(result.ranking)} variants timed, the fastest is "
        f"{best.variant.name} with {output.duration(best.seconds.median)} an epoch"
    )


def _write(
    groups: dict[str, list[Result]],
    roof: roofline.Roofline,
    threads: int,
    dtype: str,
    interrupted: bool,
    json: Path | None,
    plot: Path | None,
    readme: Path | None,
) -> None:
    """Write the files asked for; a run that was interrupted leaves the figure and README alone."""
    date = datetime.datetime.now().astimezone().isoformat(timespec="seconds")
    command = shlex.join(["twolayer", *sys.argv[1:]])
    if json is not None:
        head: dict[str, Any] = {"date": date, "command": command, "interrupted": interrupted}
        output.write_json(json, head | tables.report(groups, roof, threads))
    if interrupted or not (plot or readme):
        return
    if not any(result.ranking for members in groups.values() for result in members):
        raise ValueError("nothing was timed, so the plot and the README are left as they are")
    machine = tables.describe_machine(threads, dtype)
    if plot is not None:
        plots.plot(groups, plot, machine)
    if readme is not None:
        results = {id(result): result for members in groups.values() for result in members}
        table = tables.markdown(results.values(), machine, date[:10], command)
        text = readme.read_text(encoding="utf-8")
        output.write_text(readme, tables.between_markers(readme, text, table))

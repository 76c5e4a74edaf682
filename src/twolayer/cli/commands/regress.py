"""`twolayer regress`: two revisions against each other, benchmark by benchmark."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Annotated

import typer
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from ... import variants
from ...interface import check_threads
from ...network import Network, float_type, one_of
from ...regress.dependency import Turns, environment
from ...regress.revisions import WORKING_TREE, Revision, export
from ...regress.run import LIMIT, SECONDS, Benchmark, Run, results_file
from ...showing import output, revisions
from .. import codes, options
from ..workloads import parse_shape, workloads

_FOR_READING = ("python-loops", "numpy-samples", "cuda-samples")


def regress(
    base: Annotated[str, typer.Argument(help="The revision to compare with.")],
    head: Annotated[
        str | None, typer.Argument(help="The revision to judge, by default the working tree.")
    ] = None,
    shape: Annotated[
        list[str] | None, typer.Option(metavar="n,d,M,K", help="A shape to run on; repeatable.")
    ] = None,
    variants: Annotated[
        str | None,
        typer.Option(help="Names with commas between; by default our own for the device."),
    ] = None,
    device: Annotated[
        str | None, typer.Option(help="cpu or cuda, by default cpu, or each named one's own.")
    ] = None,
    dtype: options.Dtype = "float32",
    activation: options.Activation = "tanh",
    loss: options.Loss = "squared",
    threads: options.Threads = None,
    seconds: Annotated[
        float, typer.Option(help="Seconds of blocks for a benchmark in each process.")
    ] = SECONDS,
    limit: Annotated[
        float, typer.Option(help="Seconds for all processes; four are run in any case.")
    ] = LIMIT,
    dep: Annotated[
        str | None,
        typer.Option(help="A package, whose versions BASE and HEAD are; on the working tree."),
    ] = None,
    compiling: Annotated[
        bool, typer.Option("--compile/--no-compile", help="Compare compile times, too.")
    ] = True,
    markdown: Annotated[
        Path | None, typer.Option(help="Write the table to this file, for a pull request.")
    ] = None,
    json: options.JsonFile = None,
) -> None:
    """Compare two revisions: exit code 0 no regression, 1 a regression, 2 a failure, 3 too little.

    Both are loaded into one process under two names, checked, and take turns on the same problems,
    in several fresh processes. A run that was interrupted goes on where it was.
    """
    for name, path in (("--markdown", markdown), ("--json", json)):
        if path is not None:
            output.check_writable(name, path)
    for name, value in (("--seconds", seconds), ("--limit", limit)):
        if not value > 0:
            raise ValueError(f"{name}: expected a positive number of seconds, got {value}")
    net = Network(activation, loss)
    suite = benchmarks(net, float_type("dtype", dtype).name, shape or (), variants, device)
    if threads is not None:
        check_threads(threads)
    pythons: dict[str, Path] = {}
    if dep is None:
        sides = export(base, "base"), export(head, "head")
    elif head is None:
        raise ValueError("--dep: expected two versions, BASE and HEAD")
    else:
        pairs = {"base": base, "head": head}
        pythons = {side: environment(dep, version, side) for side, version in pairs.items()}
        sides = tuple(  # type: ignore[assignment]
            export(None, side)._replace(label=f"{dep} {version}") for side, version in pairs.items()
        )
    key = (sides[0].tree, sides[1].tree, *suite, threads, seconds, *pythons.values())
    with _bar() as progress:
        task = progress.add_task("")
        kind = partial(Turns, pythons=pythons) if pythons else Run
        run = kind(
            *sides, suite, results_file(key), threads, seconds, limit,
            progress=lambda name, done, total: progress.update(
                task, description=name, completed=done, total=total
            ),
            complain=output.complain,
        )  # fmt: skip
        _report(run, sides, compiling and not pythons, markdown, json)


def _report(
    run: Run,
    sides: tuple[Revision, Revision],
    compiling: bool,
    markdown: Path | None,
    json: Path | None,
) -> None:
    """Measure, show, write, and end with the exit code that says what was found."""
    try:
        outcome = run.measure(compiling)
    except KeyboardInterrupt:
        output.complain("interrupted: the same command goes on from here; until now:")
        revisions.show(output.stdout(), run.outcome(), sides)
        raise typer.Exit(codes.INTERRUPTED) from None
    run.end()
    revisions.show(output.stdout(), outcome, sides)
    if markdown is not None:
        output.write_text(markdown, revisions.markdown(outcome, sides) + "\n")
    if json is not None:
        output.write_json(json, revisions.report(outcome, sides))
    raise typer.Exit(outcome.exit_code)


def benchmarks(
    net: Network, dtype: str, shapes: list[str] | tuple[str, ...] = (), names: str | None = None,
    device: str | None = None,
) -> list[Benchmark]:  # fmt: skip
    """Our own compiled variants and numpy, or those named, on the quick profile's shapes or others.

    What is made for reading is left out: it takes the interpreter's time, which none here changes,
    or, on a GPU, that of atomic additions.
    Raises ValueError where none of those by default runs on the device here.
    """
    if device is not None:
        one_of("device", device, ("cpu", "cuda"))
    if names is None:
        ours = [
            variant
            for variant in variants.REGISTRY
            if variant.device == (device or "cpu")
            and not variant.requires
            and variant.name not in _FOR_READING
        ]
        reasons = {variant.name: variant.unavailable() for variant in ours}
        if all(reasons.values()):
            why = "; ".join(f"{name}: {reason}" for name, reason in reasons.items())
            raise ValueError(f"device: expected a device that is here, got {device!r}: {why}")
        chosen = list(reasons)
    else:
        # Only one of the revisions may know a variant, so the names are not looked up here.
        chosen = list(dict.fromkeys(options.split(names)))
    if shapes:
        sizes = [parse_shape(text) for text in shapes]
    else:
        groups = workloads(net, dtype, quick=True).values()
        sizes = [workload.shape for group in groups for workload in group]
    return [
        Benchmark(name, size, net.activation, net.loss, dtype, device)
        for name in chosen
        for size in dict.fromkeys(sizes)
    ]


def _bar() -> Progress:
    console = output.stderr()
    return Progress(
        TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(),
        console=console, transient=True, disable=not console.is_terminal,
    )  # fmt: skip


__all__ = ["WORKING_TREE", "benchmarks", "regress"]

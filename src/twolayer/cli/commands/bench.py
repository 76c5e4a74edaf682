"""`twolayer bench`: the variants side by side on real data and over swept shapes."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import typer

from ...checking.answers import DISAGREES
from ...interface import Variant, check_threads
from ...machine.store import Store
from ...measuring import device_clock
from ...measuring import race as races
from ...measuring import roofline as rooflines
from ...measuring.race import Result, Workload
from ...measuring.workloads import peers as listed_peers
from ...measuring.workloads import workloads
from ...network import Network, Shape, float_type, one_of
from ...progress import Bar
from ...showing import output, tables, units
from ...showing import peers as peers_table
from ...showing import plot as plots
from .. import calm, codes, options
from .. import updates as over_batches
from . import calibrate as calibration
from . import gpu as on_gpu


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
    activation: options.ActivationOrNone = None,
    loss: options.LossOrNone = None,
    threads: options.Threads = None,
    scheduler: options.Scheduler = None,
    limit: Annotated[
        float | None,
        typer.Option(
            help=f"Seconds an epoch beyond which a variant is skipped, by default {races.LIMIT:g}, "
            f"with --peers {peers_table.LIMIT:g}."
        ),
    ] = None,
    peers: Annotated[
        bool, typer.Option("--peers", help="PyTorch, JAX and NumPy against numba-fused.")
    ] = False,
    updates: Annotated[
        bool,
        typer.Option("--updates", help="Updates over batches; with --peers their loops too."),
    ] = False,
    batches: Annotated[
        str | None, typer.Option(help="With --updates: rows, as 1,32,256,2048, the default.")
    ] = None,
    optimizers: Annotated[
        str | None, typer.Option(help="With --updates: names, by default sgd,adam.")
    ] = None,
    device: Annotated[
        str, typer.Option(help="cpu, or cuda for the variants on a GPU, by its own clock.")
    ] = "cpu",
    tune: Annotated[
        bool,
        typer.Option("--tune", help="With --device cuda: find the kernels' parameters first."),
    ] = False,
    calibrate: Annotated[
        bool, typer.Option("--calibrate", help="Fit the cost models that `twolayer choose` uses.")
    ] = False,
    fresh: Annotated[
        bool, typer.Option("--fresh", help="With --calibrate: all models, known or not.")
    ] = False,
    quick: Annotated[bool, typer.Option("--quick", help="Fewer and smaller problems.")] = False,
    wait_calm: calm.Wait = 0.0,
    json: options.JsonFile = None,
    plot: Annotated[Path | None, typer.Option(help="Draw the results, .svg or .png.")] = None,
    roofline: Annotated[
        Path | None, typer.Option(help="Draw GFLOP/s below the roofline, .svg or .png.")
    ] = None,
    readme: Annotated[
        Path | None, typer.Option(help="Write the table between the markers in this file.")
    ] = None,
) -> None:
    """Time the variants side by side, each after it was checked.

    Without --shape and --sweep: real data sets, and sweeps of n, d, M and K from one base point.
    Sweeps have the squared loss unless another is named, so that K = 1 is a problem too. With
    --peers: eight shapes with networks of their own, and one table with a row a shape. With
    --updates: three shapes, each with all batches and optimizers, numba-fused unless --variants
    names others. With --calibrate: the cost models of `twolayer choose`, as far as they are not
    known, in both dtypes, on one thread and on all, or on --threads; interrupted, it goes on there.
    """
    one_of("device", device, ("cpu", "cuda"))
    waiting = calm.Waiting(wait_calm)
    if updates:
        _refuse(
            "with --updates", sweep=sweep, scheduler=scheduler, limit=limit, calibrate=calibrate,
            tune=tune, plot=plot, roofline=roofline, device=device if device != "cpu" else None,
        )  # fmt: skip
        field = options.select_variants(variants or races.REFERENCE, variant_file)
        dtype = float_type("dtype", dtype).name
        tasks = over_batches.tasks(shape or (), activation, loss, dtype, batches, optimizers)
        rounds = races.ROUNDS
        over_batches.bench(
            tasks, field, peers, check_threads(threads), rounds, json, readme, waiting
        )
        return
    _refuse("without --updates", batches=batches, optimizers=optimizers)
    if calibrate:
        field = options.select_variants(variants, variant_file)
        calibration.calibrate(field, device, threads, fresh)
        return
    _refuse("without --calibrate", fresh=fresh)
    if device == "cuda":
        _refuse(
            "with --device cuda",
            sweep=sweep, peers=peers, plot=plot, readme=readme, scheduler=scheduler,
        )  # fmt: skip
        output.check_writable(json=json)
        shapes = [Shape.parse(text) for text in shape] if shape else [*device_clock.SHAPES]
        net = Network(activation or "tanh", loss or "squared")
        field = options.select_variants(variants, variant_file, device)
        if tune:
            on_gpu.tune(field, net, shapes, float_type("dtype", dtype).name)
        found = on_gpu.bench(field, net, shapes, float_type("dtype", dtype).name, json)
        wrong = any(record["skipped"].startswith(DISAGREES) for record in found)
        if code := codes.of(wrong, any(not record["skipped"] for record in found)):
            raise typer.Exit(code)
        return
    if tune:
        raise ValueError("tune: expected it with --device cuda only, got --device cpu")
    listed = peers and not (shape or sweep)
    if listed and (activation or loss):
        name = "activation" if activation else "loss"
        raise ValueError(
            f"{name}: expected none beside --peers without --shape, whose shapes have networks of "
            f"their own, got {activation or loss!r}"
        )
    if peers and variants is None:
        variants = peers_table.VARIANTS
    field = options.select_variants(variants, variant_file, clustered=scheduler is not None)
    dtype = float_type("dtype", dtype).name
    threads = check_threads(threads)
    if limit is None:
        limit = peers_table.LIMIT if peers else races.LIMIT
    if not limit > 0:
        raise ValueError(f"limit: expected a positive number of seconds, got {limit}")
    outputs = _Outputs(peers, json, plot, roofline, readme)
    outputs.check(field)
    options.connect(scheduler, field)
    if listed:
        groups = listed_peers(dtype, quick)
    else:
        net = Network(activation or "tanh", loss or "squared")
        groups = workloads(net, dtype, shape or (), sweep or (), quick, output.complain)
    roof = rooflines.probe(dtype, threads)
    results = {
        workload: Result(workload, threads, roof)
        for workload in dict.fromkeys(w for members in groups.values() for w in members)
    }
    interrupted = False
    try:
        _run(list(results.values()), field, limit, waiting)
    except KeyboardInterrupt:
        interrupted = True
        output.complain("interrupted: what was measured until now follows")
    finished = {
        name: begun
        for name, members in groups.items()
        if (begun := [results[workload] for workload in members if results[workload].entries])
    }
    roof = next(iter(results.values())).roof
    show = peers_table.show if peers else tables.show
    output.deliver(
        lambda: show(output.stdout(), finished, roof, threads),
        *outputs.writes(finished, roof, threads, dtype, interrupted),
    )
    if interrupted:
        raise typer.Exit(codes.INTERRUPTED)
    entries = [entry for result in results.values() for entry in result.entries]
    wrong, timed = any(e.wrong for e in entries), any(e.blocks for e in entries)
    if code := codes.of(wrong, timed):
        raise typer.Exit(code)


def _refuse(where: str, **given: Any) -> None:
    """Raise ValueError for an argument that is given where nothing uses it."""
    for name, value in given.items():
        if value:
            raise ValueError(f"{name}: expected none {where}, got {value}")


@dataclass(frozen=True)
class _Outputs:
    """The files asked for."""

    peers: bool
    json: Path | None
    plot: Path | None
    roofline: Path | None
    readme: Path | None

    @property
    def _marker(self) -> str:
        return peers_table.MARKER if self.peers else "bench"

    def check(self, field: list[Variant]) -> None:
        """Refuse what could not be written at the end before anything is measured."""
        output.check_writable(json=self.json, plot=self.plot, roofline=self.roofline)
        plots.check(plot=self.plot, roofline=self.roofline)
        if self.readme is not None:
            tables.check_markers(self.readme, self._marker)
        names = [variant.name for variant in field]
        if self.peers and self.plot is not None and races.REFERENCE not in names:
            raise ValueError(
                f"plot: expected {races.REFERENCE} among the variants, for times are relative to "
                f"its own, got {', '.join(names)}"
            )

    def writes(
        self,
        groups: tables.Groups,
        roof: rooflines.Roofline,
        threads: int,
        dtype: str,
        interrupted: bool,
    ) -> Iterator[tuple[Path | None, Callable[[Path], object]]]:
        """How to write each; a run that was interrupted leaves the figures and the README alone."""
        date, command = output.occasion()
        report: dict[str, Any] = {"date": date, "command": command, "interrupted": interrupted}
        report |= tables.report(groups, roof, threads)
        if self.peers:
            report["peers"] = peers_table.report(groups)
        yield self.json, lambda file: output.write_json(file, report)
        if interrupted or not (self.plot or self.roofline or self.readme):
            return
        if not any(result.ranking for members in groups.values() for result in members):
            output.complain("nothing was timed, so the figures and the README are left as they are")
            return
        machine = tables.describe_machine(threads, dtype)
        markdown = peers_table.markdown if self.peers else tables.markdown
        table = markdown(groups, machine, command)
        yield self.readme, lambda file: tables.write_between(file, table, self._marker)
        figure = plots.peers_figure if self.peers else plots.figure
        yield self.plot, lambda file: plots.plot(figure, groups, file, machine)
        roofline = plots.roofline_figure
        yield self.roofline, lambda file: plots.plot(roofline, groups, file, machine)


def _run(
    results: list[Result], field: list[Variant], limit: float, waiting: Callable[[], None]
) -> None:
    """Fill the results in, one race after the other, with a progress bar if somebody looks."""
    units_of_one = len(field) * (races.ROUNDS + 1)
    with Bar(len(results) * units_of_one, lines=True) as bar, Store() as store:
        for number, result in enumerate(results):

            def progress(name: str, done: int, workload: Workload = result.workload) -> None:
                bar.add(f"{workload}  {name}", done)

            waiting()
            _raise_roof(results, result)
            races.race(result, field, limit=limit, store=store, progress=progress)
            bar.show("", (number + 1) * units_of_one)
            bar.line(f"{number + 1}/{len(results)} {_summary(result)}")


def _raise_roof(results: list[Result], current: Result) -> None:
    """Probe again: what disturbs one probe on a shared machine must not hide what it can do."""
    found = rooflines.probe(current.workload.dtype, current.threads, seconds=0.1)
    best = rooflines.Roofline(*map(max, current.roof, found))
    for result in results:
        result.roof = best


def _summary(result: Result) -> str:
    if not result.ranking:
        return f"{result.workload}: nothing was timed"
    best = result.ranking[0]
    return (
        f"{result.workload}: {len(result.ranking)} variants timed, the fastest is "
        f"{best.variant.name} with {units.duration(best.seconds.median)} an epoch"
    )

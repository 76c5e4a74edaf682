"""What `bench` and `peers` share: races one after the other, and what is shown and written."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import typer

from ....interface import Variant
from ....machine import calm, hardware
from ....machine.revision import revision
from ....machine.store import Store
from ....measuring import race as races
from ....measuring import roofline as rooflines
from ....measuring.race import Result, Workload, distinct
from ....measuring.workloads import Groups
from ....progress import Bar
from ....showing import output, tables, units
from ....showing import plot as plots
from ....texts import counted
from ... import codes
from ...calm import Waiting


class Kind(NamedTuple):
    """How a table, its Markdown, its figure and what JSON has besides are made of the results."""

    marker: str
    show: Callable[..., None]
    markdown: Callable[..., str]
    figure: Callable[..., Any]
    more: Callable[[tables.Groups], dict[str, Any]] = lambda groups: {}


@dataclass(frozen=True)
class Files:
    """The files asked for."""

    json: Path | None
    plot: Path | None
    roofline: Path | None
    readme: Path | None

    def check(self, marker: str) -> None:
        """Refuse what could not be written at the end before anything is measured."""
        output.check_writable(json=self.json, plot=self.plot, roofline=self.roofline)
        plots.check(plot=self.plot, roofline=self.roofline)
        if self.readme is not None:
            tables.check_markers(self.readme, marker)


def run(
    kind: Kind, groups: Groups, field: list[Variant], dtype: str, threads: int, skip_above: float,
    waiting: Waiting, files: Files,
) -> None:  # fmt: skip
    """Race the field on all workloads, show and write; an interrupted run keeps what it has."""
    for now in (hardware.signature, revision):  # files may change while it measures
        now()
    roof = rooflines.probe(dtype, threads)
    results = {
        workload: Result(workload, threads, roof)
        for workload in dict.fromkeys(w for members in groups.values() for w in members)
    }
    interrupted = False
    try:
        _race(list(results.values()), field, skip_above, waiting)
    except KeyboardInterrupt:
        interrupted = True
        output.complain("interrupted: what was measured until now follows")
    finished = {
        name: begun
        for name, members in groups.items()
        if (begun := [results[workload] for workload in members if results[workload].entries])
    }
    roof = next(iter(results.values())).roof
    output.deliver(
        lambda: kind.show(output.stdout(), finished, roof, threads),
        *_writes(kind, files, finished, roof, threads, dtype, interrupted),
    )
    if interrupted:
        raise typer.Exit(codes.INTERRUPTED)
    entries = [entry for result in results.values() for entry in result.entries]
    wrong, timed = any(e.wrong for e in entries), any(e.blocks for e in entries)
    if code := codes.of(wrong, timed):
        raise typer.Exit(code)


def _writes(
    kind: Kind, files: Files, groups: tables.Groups, roof: rooflines.Roofline, threads: int,
    dtype: str, interrupted: bool,
) -> Iterator[tuple[Path | None, Callable[[Path], object]]]:  # fmt: skip
    """How to write each; a run that was interrupted leaves the figures and the README alone."""
    date, command = output.occasion()
    report: dict[str, Any] = {"date": date, "command": command, "interrupted": interrupted}
    report |= tables.report(groups, roof, threads) | kind.more(groups)
    yield files.json, lambda file: output.write_json(file, report)
    if interrupted or not (files.plot or files.roofline or files.readme):
        return
    if not any(result.ranking for members in groups.values() for result in members):
        output.complain("nothing was timed, so the figures and the README are left as they are")
        return
    machine = tables.describe_machine(threads, dtype)
    table = kind.markdown(groups, machine, command)
    yield files.readme, lambda file: tables.write_between(file, table, kind.marker)
    caption = " ".join(filter(None, [machine, calm.note(r.calm for r in distinct(groups))]))
    yield files.plot, lambda file: plots.plot(kind.figure, groups, file, caption)
    roofline = plots.roofline_figure
    yield files.roofline, lambda file: plots.plot(roofline, groups, file, caption)


def _race(results: list[Result], field: list[Variant], skip_above: float, waiting: Waiting) -> None:
    """Fill the results in, one race after the other, with a progress bar if somebody looks."""
    units_of_one = len(field) * (races.ROUNDS + 1)
    with Bar(len(results) * units_of_one, lines=True) as bar, Store() as store:
        for number, result in enumerate(results):

            def progress(name: str, done: int, workload: Workload = result.workload) -> None:
                bar.add(f"{workload}  {name}", done)

            waiting()
            _raise_roof(results, result)
            races.race(result, field, limit=skip_above, store=store, progress=progress)
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
    which = "the fastest is" if result.winner else "none is shown to be the fastest, first is"
    return (
        f"{result.workload}: {counted(len(result.ranking), 'variant')} timed, {which} "
        f"{best.variant.name} with {units.duration(best.seconds.median)} an epoch"
    )

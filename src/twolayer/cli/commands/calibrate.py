"""`twolayer bench --calibrate`: the cost models that `twolayer choose` uses."""

from __future__ import annotations

import math
from collections.abc import Sequence

import typer

from ...choosing import calibrate as calibration
from ...choosing import starts
from ...interface import Variant, check_threads
from ...machine.store import Store
from ...progress import Bar
from ...showing import output, units
from ...showing.table import Table
from .. import codes


def calibrate(
    field: Sequence[Variant], device: str, threads: int | None, fresh: bool = False
) -> None:
    """Measure what is missing, or all if fresh, and print a table of the models."""
    field = [
        variant.on(device) for variant in field
        if device in variant.devices and calibration.by_default(variant)
        and variant.on(device).unavailable() is None
    ]  # fmt: skip
    counts = [1] if threads is None else []
    counts.append(check_threads(threads))
    wanted = calibration.tasks(field, threads=counts)
    with Store() as store:
        todo = calibration.missing(store, wanted, fresh)
        calls = starts.missing(store, field, fresh)
        if todo or calls:
            what = f"calibrating: {len(todo)} of {len(wanted)} models are not known"
            with Bar(len(todo) * calibration.UNITS + len(calls), what) as bar:
                try:
                    failed = starts.time_starts(store, calls, bar.add)
                    for task, why in calibration.calibrate(store, todo, bar.add, fresh).items():
                        about = f"{task.variant.name}, {task.dtype}, threads={task.threads}"
                        failed[about] = why
                except KeyboardInterrupt:
                    output.complain("interrupted: the same command goes on from here")
                    raise typer.Exit(codes.INTERRUPTED) from None
            for about, why in failed.items():
                output.complain(f"not known, the same command tries again: {about}: {why}")
        _show(store, wanted)


def _show(store: Store, wanted: Sequence[calibration.Task]) -> None:
    from ...choosing.model import UNITS

    console = output.stdout()
    for dtype, threads in dict.fromkeys((task.dtype, task.threads) for task in wanted):
        mine = [task for task in wanted if (task.dtype, task.threads) == (dtype, threads)]
        entries = [task.entry(store) for task in mine]
        models = [entry.model for entry in entries if entry is not None and entry.model is not None]
        table = Table(title=f"{dtype}, threads: {threads}")
        table.add_column("", no_wrap=True)
        for model in models:
            table.add_column(model.variant, justify="right", no_wrap=True)
        for term in dict.fromkeys(name for model in models for name in sorted(model.coefficients)):
            values = [model.coefficients.get(term, 0.0) for model in models]
            if any(values):
                cells = (f"{value:.2g}" if value else "–" for value in values)
                table.add_row(term, *cells)
        table.add_row("shapes", *(str(model.samples) for model in models))
        table.add_row(
            "interval ×, ÷", *(units.fixed(math.exp(model.spread), 2) for model in models)
        )
        console.print(table)
        for task, entry in zip(mine, entries, strict=True):
            if entry is not None and entry.failure:
                output.complain(f"never chosen: {task.variant.name} {entry.failure}")
        console.print()
    terms = "; ".join(f"{term}: {unit}" for term, unit in UNITS.items())
    console.print(f"Units. {terms}.", style="dim", soft_wrap=True)

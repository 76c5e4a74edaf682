"""`twolayer bench --peers`: what users would pick instead and numba-fused, in one table."""

from __future__ import annotations

import statistics
from collections.abc import Iterable
from typing import Any

from rich.console import Console

from ..measuring.race import REFERENCE, Result, distinct
from ..measuring.roofline import Roofline
from . import tables, units
from .table import Table
from .tables import Groups

VARIANTS = f"numpy,torch,torch-compile,jax,{REFERENCE}"
LIMIT = 10.0  # seconds an epoch: the largest shapes take one or two
MARKER = "peers"
_RATIO = f"fastest other / {REFERENCE}"
_SHARE = f"{REFERENCE} of the roofline"


def show(console: Console, groups: Groups, roof: Roofline, threads: int) -> None:
    """A row a shape, a column a variant, what was skipped, and the mean of the ratios."""
    results = distinct(groups)
    table = Table(title="Time of an epoch")
    table.add_column("n,d,M,K", no_wrap=True)
    for name in (*_names(results), "ratio", "roofline"):
        table.add_column(name, justify="right", no_wrap=True)
    for result in results:
        net = result.workload.net
        label = result.workload.dataset or ",".join(map(str, result.workload.shape))
        cells = [cell.strip("*") for cell in _cells(result, _names(results))]
        table.add_row(label, *cells)
        table.add_row(f"{net.activation}, {net.loss}", style="dim")
    console.print()
    console.print(table)
    for group, members in groups.items():
        tables.show_skipped(console, group, members)
    console.print()
    console.print(_mean(results))
    for line in (
        f"ratio: {_RATIO}. roofline: {_SHARE}. Times: median over blocks.",
        tables.describe_roof(roof, threads),
    ):
        console.print(line, style="dim")


def markdown(groups: Groups, machine: str, command: str) -> str:
    """The same as a Markdown table, the fastest in bold."""
    results = [result for result in distinct(groups) if result.ranking]
    names = _names(results)
    rows = []
    for result in results:
        net = result.workload.net
        label = result.workload.dataset or f"{net.activation}, {net.loss}"
        rows.append([label, *map(str, result.workload.shape), *_cells(result, names)])
    table = tables.markdown_table(["σ, ℓ", "n", "d", "M", "K", *names, _RATIO, _SHARE], rows)
    why = [line for group, members in groups.items() for line in tables.skipped(group, members)]
    reasons = f" ({'; '.join(why)})" if why else ""
    note = (
        f"Time of one epoch: median over warmed-up blocks of one race; – is skipped{reasons}. "
        "The roofline is what the processor's peak and the memory's bandwidth allow at best."
    )
    return f"{table}\n\n{_mean(results)}\n\n{note}\n{tables.origin(machine, command)}"


def report(groups: Groups) -> dict[str, Any]:
    """The ratios and their mean as JSON values; None where either side was not timed."""
    results = distinct(groups)
    leads = [result.lead for result in results]
    return {"reference": REFERENCE, "ratios": leads, "geometric_mean": geometric_mean(leads)}


def geometric_mean(ratios: Iterable[float | None]) -> float | None:
    """The mean of the ratios that there are; None where there are none."""
    known = [ratio for ratio in ratios if ratio is not None]
    return statistics.geometric_mean(known) if known else None


def _names(results: Iterable[Result]) -> list[str]:
    """All variants, those that were skipped everywhere too."""
    return list(dict.fromkeys(e.variant.name for result in results for e in result.entries))


def _cells(result: Result, names: list[str]) -> list[str]:
    if not result.ranking:
        return ["–"] * (len(names) + 2)
    reference = result.of(REFERENCE)
    ratio = "–" if result.lead is None else units.fixed(result.lead, 2)
    share = f"{result.least_seconds / reference.seconds.median:.0%}" if reference else "–"
    return [*tables.times(result, names), ratio, share]


def _mean(results: list[Result]) -> str:
    leads = [result.lead for result in results]
    mean = geometric_mean(leads)
    if mean is None:
        return f"No ratio: no shape has figures of both {REFERENCE} and another."
    count = sum(lead is not None for lead in leads)
    return f"Geometric mean of {_RATIO} over {count} shapes: {mean:.2f}."

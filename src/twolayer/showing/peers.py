"""`twolayer peers`: what users would pick instead and numba-fused, in one table."""

from __future__ import annotations

import statistics
from collections.abc import Iterable
from typing import Any

from rich.console import Console

from ..measuring.race import REFERENCE, Result, distinct
from ..measuring.roofline import Roofline
from ..texts import counted
from . import tables
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
        table.add_row(result.calm.mark(label), *cells)
        table.add_row(f"{net.activation}, {net.loss}", style="dim")
    console.print()
    console.print(table)
    for group, members in groups.items():
        tables.show_skipped(console, tables.skipped(group, members))
    console.print()
    console.print(_mean(results))
    for line in (
        f"ratio: {_RATIO}, with its 95% interval. roofline: {_SHARE}. "
        f"Times: {tables.blocks(e.blocks for r in results for e in r.ranking)}.",
        tables.describe_roof(roof, threads),
    ):
        console.print(line, style="dim", soft_wrap=True)
    tables.show_calm(console, [result.calm for result in results])


def markdown(groups: Groups, machine: str, command: str) -> str:
    """The same as a Markdown table, winners in bold."""
    results = [result for result in distinct(groups) if result.ranking]
    names = _names(results)
    rows = []
    for result in results:
        net = result.workload.net
        label = result.workload.dataset or f"{net.activation}, {net.loss}"
        rows.append(
            [result.calm.mark(label), *map(str, result.workload.shape), *_cells(result, names)]
        )
    table = tables.markdown_table(["σ, ℓ", "n", "d", "M", "K", *names, _RATIO, _SHARE], rows)
    why = [line for group, members in groups.items() for line in tables.skipped(group, members)]
    reasons = f" ({'; '.join(why)})" if why else ""
    note = (
        f"Time of one epoch: {tables.blocks(e.blocks for r in results for e in r.ranking)} of one "
        f"race; {tables.BOLD}; – is skipped{reasons}. "
        "The roofline is what the processor's peak and the memory's bandwidth allow at best."
    )
    table = f"{table}\n\n{_mean(results)}"
    return tables.noted(table, note, results, tables.origin(machine, command))


def report(groups: Groups) -> dict[str, Any]:
    """The ratios and their mean as JSON values; None where either side was not timed."""
    results = distinct(groups)
    leads = [result.lead and result.lead.report() for result in results]
    return {"reference": REFERENCE, "ratios": leads, "geometric_mean": mean_lead(results)}


def geometric_mean(ratios: Iterable[float]) -> float | None:
    """The mean of the ratios; None where there are none."""
    known = [*ratios]
    return statistics.geometric_mean(known) if known else None


def mean_lead(results: Iterable[Any]) -> float | None:
    """The mean of the results' leads over the reference."""
    return geometric_mean(result.lead.value for result in results if result.lead)


def _names(results: Iterable[Result]) -> list[str]:
    """All variants, those that were skipped everywhere too."""
    return list(dict.fromkeys(e.variant.name for result in results for e in result.entries))


def _cells(result: Result, names: list[str]) -> list[str]:
    if not result.ranking:
        return ["–"] * (len(names) + 2)
    reference = result.of(REFERENCE)
    share = f"{result.least_seconds / reference.seconds.median:.0%}" if reference else "–"
    return [*tables.times(result, names), tables.ratio(result.lead), share]


def _mean(results: list[Result]) -> str:
    mean = mean_lead(results)
    if mean is None:
        return f"No ratio: no shape has figures of both {REFERENCE} and another."
    count = sum(result.lead is not None for result in results)
    return f"Geometric mean of {_RATIO} over {counted(count, 'shape')}: {mean:.2f}."

"""`twolayer updates`: the time of an update over mini-batches, in one table."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from rich.console import Console

from ..machine.hardware import fingerprint
from ..measuring.race import REFERENCE
from ..training.updates import Result
from . import tables
from .peers import geometric_mean
from .table import Table
from .units import duration

MARKER = "updates"
_RATIO = f"best peer / {REFERENCE}"


def show(console: Console, results: Sequence[Result]) -> None:
    """A row a workload, batch and optimizer, a column a loop, what was skipped, and the ratios."""
    table = Table(title="Time of an update")
    names = _names(results)
    table.add_column("n,d,M,K", no_wrap=True)
    for name in ("batch", "optimizer", *names, "ratio"):
        table.add_column(name, justify="right", no_wrap=True)
    last = None
    for result in results:
        cells = [cell.strip("*") for cell in _cells(result, names)]
        label = _label(result) if result.workload != last else ""
        last = result.workload
        row = [str(result.batch), result.calm.mark(result.optimizer)]
        table.add_row(label, *row, *cells)
    console.print()
    console.print(table)
    tables.show_skipped(console, _skipped(results))
    console.print()
    console.print(_mean(results))
    note = f"ratio: {_RATIO}, with its 95% interval. Times: {_blocks(results)}."
    console.print(note, style="dim", soft_wrap=True)
    tables.show_calm(console, [result.calm for result in results])


def markdown(results: Sequence[Result], machine: str, command: str) -> str:
    """The same as a Markdown table, winners in bold."""
    names = _names(results)
    heads = ["σ, ℓ", "n,d,M,K", "batch", "optimizer", *names, _RATIO]
    rows = [
        [
            f"{result.workload.net.activation}, {result.workload.net.loss}",
            _label(result),
            str(result.batch),
            result.calm.mark(result.optimizer),
            *_cells(result, names),
        ]
        for result in results
    ]
    why = _skipped(results)
    reasons = f" ({'; '.join(why)})" if why else ""
    note = f"Time of an update: {_blocks(results)}; {tables.BOLD}; – is skipped{reasons}."
    table = f"{tables.markdown_table(heads, rows)}\n\n{_mean(results)}"
    return tables.noted(table, note, results, tables.origin(machine, command))


def report(results: Sequence[Result], threads: int) -> dict[str, Any]:
    """All figures as JSON values, in seconds."""
    ratios = [result.lead.value for result in results if result.lead]
    return {
        "machine": fingerprint(),
        "threads": threads,
        "reference": REFERENCE,
        "geometric_mean": geometric_mean(ratios),
        "worst": min(ratios, default=None),
        "updates": [
            {
                "activation": result.workload.net.activation,
                "loss": result.workload.net.loss,
                "dtype": result.workload.dtype,
                **result.workload.shape._asdict(),
                "batch": result.batch,
                "optimizer": result.optimizer,
                "best_peer": result.best_peer.name if result.best_peer else None,
                **(result.lead.report() if result.lead else {}),
                "calm": result.calm.report(),
                "loops": [_entry(entry) for entry in result.entries],
            }
            for result in results
        ],
    }


def _entry(entry: Any) -> dict[str, Any]:
    common = {"name": entry.name, "peer": entry.peer}
    if not entry.blocks:
        return common | {"skipped": entry.skipped or "interrupted"}
    low, median, high = entry.seconds
    return common | {"seconds": median, "low": low, "high": high, "blocks": entry.blocks}


def _names(results: Sequence[Result]) -> list[str]:
    return list(dict.fromkeys(entry.name for result in results for entry in result.entries))


def _label(result: Result) -> str:
    return ",".join(map(str, result.workload.shape))


def _cells(result: Result, names: list[str]) -> list[str]:
    """The times by name, the winner in bold, – for what was not timed, and the ratio."""
    shown = {e.name: duration(e.seconds.median) for e in result.entries if e.blocks}
    if result.winner:
        shown[result.winner.name] = f"**{shown[result.winner.name]}**"
    return [*(shown.get(name, "–") for name in names), tables.ratio(result.lead)]


def _blocks(results: Sequence[Result]) -> str:
    return tables.blocks(entry.blocks for result in results for entry in result.entries)


def _skipped(results: Sequence[Result]) -> list[str]:
    """A line for each reason why a loop was skipped."""
    found = [
        (entry.name, entry.skipped, f"{_label(r)} batch {r.batch} {r.optimizer}")
        for r in results for entry in r.entries
    ]  # fmt: skip
    return tables.reasons(found, len(results))


def _mean(results: Sequence[Result]) -> str:
    ratios = [result.lead.value for result in results if result.lead]
    mean = geometric_mean(ratios)
    if mean is None:
        return f"No ratio: nowhere are there figures of both {REFERENCE} and a peer."
    return f"{_RATIO} over {len(ratios)}: geometric mean {mean:.2f}, worst {min(ratios):.2f}."

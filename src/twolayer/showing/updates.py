"""`twolayer bench --updates`: the time of an update over mini-batches, in one table."""

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
from .units import duration, fixed

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
        table.add_row(label, str(result.batch), result.optimizer, *cells)
    console.print()
    console.print(table)
    for line in _skipped(results):
        style = "red" if "disagrees" in line else "dim"
        console.print(f"skipped: {line}", style=style, soft_wrap=True)
    console.print()
    console.print(_mean(results))
    console.print(f"ratio: {_RATIO}. Times: median over blocks.", style="dim")


def markdown(results: Sequence[Result], machine: str, command: str) -> str:
    """The same as a Markdown table, the fastest in bold."""
    names = _names(results)
    heads = ["σ, ℓ", "n,d,M,K", "batch", "optimizer", *names, _RATIO]
    rows = [
        [
            f"{result.workload.net.activation}, {result.workload.net.loss}",
            _label(result),
            str(result.batch),
            result.optimizer,
            *_cells(result, names),
        ]
        for result in results
    ]
    why = _skipped(results)
    reasons = f" ({'; '.join(why)})" if why else ""
    note = f"Time of an update: median over warmed-up blocks; – is skipped{reasons}."
    table = tables.markdown_table(heads, rows)
    return f"{table}\n\n{_mean(results)}\n\n{note}\n{tables.origin(machine, command)}"


def report(results: Sequence[Result], threads: int) -> dict[str, Any]:
    """All figures as JSON values, in seconds."""
    ratios = [result.ratio for result in results]
    return {
        "machine": fingerprint(),
        "threads": threads,
        "reference": REFERENCE,
        "geometric_mean": geometric_mean(ratios),
        "worst": min((ratio for ratio in ratios if ratio is not None), default=None),
        "updates": [
            {
                "activation": result.workload.net.activation,
                "loss": result.workload.net.loss,
                "dtype": result.workload.dtype,
                **result.workload.shape._asdict(),
                "batch": result.batch,
                "optimizer": result.optimizer,
                "best_peer": result.best_peer.name if result.best_peer else None,
                "ratio": result.ratio,
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
    """The times by name, the fastest in bold, – for what was not timed, and the ratio."""
    seconds = {entry.name: entry.seconds.median for entry in result.entries if entry.blocks}
    shown = {name: duration(value) for name, value in seconds.items()}
    if seconds:
        best = min(seconds, key=seconds.__getitem__)
        shown[best] = f"**{shown[best]}**"
    ratio = "–" if result.ratio is None else fixed(result.ratio, 2)
    return [*(shown.get(name, "–") for name in names), ratio]


def _skipped(results: Sequence[Result]) -> list[str]:
    """A line for each loop and reason, with the places unless it was so at all of them."""
    found: dict[tuple[str, str], list[str]] = {}
    for result in results:
        for entry in result.entries:
            if entry.skipped:
                place = f"{_label(result)} batch {result.batch} {result.optimizer}"
                found.setdefault((entry.name, entry.skipped), []).append(place)
    return [
        f"{name}{'' if len(places) == len(results) else ' at ' + '; '.join(places)}: {reason}"
        for (name, reason), places in found.items()
    ]


def _mean(results: Sequence[Result]) -> str:
    ratios = [result.ratio for result in results if result.ratio is not None]
    mean = geometric_mean(ratios)
    if mean is None:
        return f"No ratio: nowhere are there figures of both {REFERENCE} and a peer."
    return f"{_RATIO} over {len(ratios)}: geometric mean {mean:.2f}, worst {min(ratios):.2f}."

"""The results of `twolayer bench` for people, for README files and for programs."""

from __future__ import annotations

import datetime
import math
import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console

from ..machine import calm
from ..machine.hardware import fingerprint
from ..machine.revision import revision
from ..measuring.race import Entry, Result, distinct
from ..measuring.roofline import Roofline
from ..measuring.timing import Ratio
from ..texts import counted
from . import output
from .table import Table
from .units import duration, fixed, memory

Groups = Mapping[str, Sequence[Result]]

BOLD = (
    "bold: the fastest, if no other ties with it: ratios have 95% intervals, and one with 1 in it "
    "is a tie"
)
_TITLES = {"data": "Real data sets", "shapes": "Shapes"}


def show(console: Console, groups: Groups, roof: Roofline, threads: int) -> None:
    """One table a group, and below it what was skipped and why."""
    for group, results in groups.items():
        console.print()
        console.print(_table(group, results))
        show_skipped(console, skipped(group, results))
    console.print()
    found = distinct(groups)
    for line in (
        describe_roof(roof, threads),
        f"Times: {blocks(e.blocks for r in found for e in r.ranking)}, ± interquartile range. "
        "Ratio: to the fastest, with its 95% interval; bold: no other has 1 in it.",
    ):
        console.print(line, style="dim", soft_wrap=True)
    show_calm(console, [result.calm for result in found])


def show_calm(console: Console, met: Sequence[calm.Calm]) -> None:
    """What the marked rows were measured in, if anything was."""
    if note := calm.note(met):
        console.print(note, style="yellow", soft_wrap=True)


def blocks(taken: Iterable[Sequence[float]]) -> str:
    """Of how many blocks the figures are medians."""
    counts = {len(found) for found in taken if found}
    most = f"{min(counts)} to {max(counts)}" if len(counts) > 1 else str(max(counts, default=0))
    return f"median over {most} warmed-up blocks"


def ratio(found: Ratio | None) -> str:
    """A ratio and its interval; – where there is none."""
    if found is None:
        return "–"
    interval = f" ({fixed(found.low, 2)} to {fixed(found.high, 2)})"
    return fixed(found.value, 2) + (interval if math.isfinite(found.high) else "")


def show_skipped(console: Console, lines: Iterable[str]) -> None:
    """What was skipped, and why."""
    for line in lines:
        style = "red" if "disagrees" in line else "dim"
        console.print(f"skipped: {line}", style=style, soft_wrap=True)


def describe_roof(roof: Roofline, threads: int) -> str:
    """Both roofs in one sentence."""
    return (
        f"Roofline, {counted(threads, 'thread')}: {roof.flops / 1e9:.0f} GFLOP/s, "
        f"{roof.bandwidth / 1e9:.1f} GB/s."
    )


def _table(group: str, results: Sequence[Result]) -> Table:
    net = results[0].workload.net
    loss = "" if group == "data" else f", {net.loss} loss"
    table = Table(title=f"{_TITLES.get(group, f'Sweep of {group}')} ({net.activation}{loss})")
    table.add_column("problem", no_wrap=True)
    table.add_column("variant", no_wrap=True)
    for heading in ("an epoch", "±", "ratio", "GFLOP/s", "roofline", "MiB", "first call"):
        table.add_column(heading, justify="right", no_wrap=True)
    for result in results:
        labels = _label_lines(group, result)
        rows = [_row(result, entry) for entry in result.ranking] or [["nothing was timed"]]
        for i in range(max(len(rows), len(labels))):
            label = labels[i] if i < len(labels) else ""
            cells = rows[i] if i < len(rows) else []
            table.add_row(label, *cells, style="bold" if i == 0 and result.winner else None)
        table.add_section()
        table.add_row()
    return table


def _row(result: Result, entry: Entry) -> list[str]:
    figures = result.figures(entry)
    spread = (figures["high"] - figures["low"]) / figures["seconds"]
    share = figures["roofline"]
    return [
        entry.variant.name,
        duration(figures["seconds"]),
        f"{spread:.0%}",
        "1" if entry is result.ranking[0] else ratio(result.ratio(entry)),
        fixed(figures["gflops"], 2 if figures["gflops"] < 9.995 else 0),
        "" if share is None else f"{share:.1%}",
        memory(figures["peak_memory"]),
        duration(figures["first_call"]),
    ]


def _label(group: str, result: Result) -> str:
    shape = result.workload.shape
    if group in shape._fields:
        return f"{group}={getattr(shape, group)}"
    return result.workload.dataset or str(shape)


def _label_lines(group: str, result: Result) -> list[str]:
    shape = result.workload.shape
    if group in shape._fields:
        others = [f"{k}={v}" for k, v in shape._asdict().items() if k != group]
        lines = [_label(group, result), " ".join(others)]
    else:
        lines = [result.workload.dataset] if result.workload.dataset else []
        lines += [f"n={shape.n} d={shape.d}", f"M={shape.M} K={shape.K}"]
    return [result.calm.mark(lines[0]), *lines[1:]]


def skipped(group: str, results: Sequence[Result]) -> list[str]:
    """A line for each reason why a variant was skipped, as of `reasons`."""
    found = [(e.variant.name, e.skipped, _label(group, r)) for r in results for e in r.entries]
    return reasons(found, len(results))


def reasons(found: Iterable[tuple[str, str, str]], places: int) -> list[str]:
    """Name, reason or "", and place as a line for each reason, with all whom it is about.

    Arguments: places, how many there are: a reason that holds at all of them names none.
    """
    where: dict[tuple[str, str], list[str]] = {}
    for name, reason, place in found:
        if reason:
            where.setdefault((name, reason), []).append(place)
    names: dict[tuple[str, str], list[str]] = {}
    for (name, reason), some in where.items():
        at = "" if len(some) == places else f" at {'; '.join(some)}"
        names.setdefault((at, reason), []).append(name)
    return [f"{', '.join(some)}{at}: {reason}" for (at, reason), some in names.items()]


def describe_machine(threads: int, dtype: str) -> str:
    """CPU, threads, dtype and the versions that matter, in one line."""
    found = fingerprint()
    libraries = found["libraries"]
    assert isinstance(libraries, list)
    versions = [text for text in libraries if text.split()[0] in ("numpy", "numba", "torch", "jax")]
    return ", ".join([f"{found['cpu']}", counted(threads, "thread"), dtype, *versions])


def markdown(groups: Groups, machine: str, command: str) -> str:
    """The run as a Markdown table: a row a workload, a column a variant, winners in bold."""
    results = [result for result in distinct(groups) if result.ranking]
    names = list(dict.fromkeys(e.variant.name for r in results for e in r.entries if e.blocks))
    heads = ["data", "n", "d", "M", "K", *names, "second / fastest", "roofline"]
    rows = [
        [
            result.calm.mark(result.workload.dataset or f"synthetic, {result.workload.net.loss}"),
            *map(str, result.workload.shape),
            *times(result, names),
            ratio(result.margin),
            duration(result.least_seconds),
        ]
        for result in results
    ]
    note = (
        f"Time of one epoch: {blocks(e.blocks for r in results for e in r.ranking)}; {BOLD}; – is "
        "skipped; the roofline is what the processor's peak and the memory's bandwidth allow at "
        "best."
    )
    return noted(markdown_table(heads, rows), note, results, origin(machine, command))


def noted(table: str, note: str, results: Iterable[Any], origin: str) -> str:
    """A table with its notes below, among them what the marked rows were measured in."""
    marked = calm.note(result.calm for result in results)
    return "\n".join(filter(None, [f"{table}\n\n{note}", marked, origin]))


def times(result: Result, names: Iterable[str]) -> list[str]:
    """The time of each variant by name, the winner in bold, – for one that was not timed."""
    found = {e.variant.name: duration(e.seconds.median) for e in result.ranking}
    if result.winner:
        best = result.winner.variant.name
        found[best] = f"**{found[best]}**"
    return [found.get(name, "–") for name in names]


def markdown_table(heads: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A table whose first column is text and whose others are figures."""
    rule = ["---"] + ["---:"] * (len(heads) - 1)
    return "\n".join(f"| {' | '.join(cells)} |" for cells in (heads, rule, *rows))


def origin(machine: str, command: str) -> str:
    """Where a table comes from that is made today."""
    return f"{machine}. Written on {datetime.date.today().isoformat()} by `{command}`."


def write_between(path: Path, content: str, name: str) -> None:
    """Put the content between the markers of that name in a file, which is replaced whole."""
    output.write_text(path, between_markers(path, content, name))


def between_markers(path: Path, content: str, name: str) -> str:
    """A file's text with the content between the markers. Raises ValueError unless it has both."""
    first, last = f"<!-- {name}:start -->", f"<!-- {name}:end -->"
    before, start, rest = path.read_text(encoding="utf-8").partition(first)
    _, end, after = rest.partition(last)
    if not start or not end:
        raise ValueError(f"readme: expected the lines {first} and {last}, in this order, in {path}")
    return f"{before}{first}\n\n{content}\n\n{last}{after}"


def check_markers(path: Path, name: str) -> None:
    """Raise ValueError unless it is a file that can be written and has the markers of that name."""
    if not os.path.isfile(path):  # which raises nothing for a name that cannot be one
        raise ValueError(f"readme: expected an existing file, got {str(path)!r}")
    output.check_writable(readme=path)
    between_markers(path, "", name)


def report(groups: Groups, roof: Roofline, threads: int) -> dict[str, Any]:
    """Results, roofline and machine as JSON values; times in seconds, memory in bytes."""
    places: dict[int, list[str]] = {}
    results: dict[int, Result] = {}
    for group, members in groups.items():
        for result in members:
            places.setdefault(id(result), []).append(group)
            results[id(result)] = result
    return {
        "machine": fingerprint(),
        **revision()._asdict(),
        "threads": threads,
        "roofline": {"flops": roof.flops, "bandwidth": roof.bandwidth},
        "workloads": [
            {
                "groups": places[key],
                "data": result.workload.dataset or "synthetic",
                "activation": result.workload.net.activation,
                "loss": result.workload.net.loss,
                "dtype": result.workload.dtype,
                **result.workload.shape._asdict(),
                "least_seconds": result.least_seconds,
                "calm": result.calm.report(),
                "variants": [_entry(result, entry) for entry in result.entries],
            }
            for key, result in results.items()
        ],
    }


def _entry(result: Result, entry: Entry) -> dict[str, Any]:
    common = {"variant": entry.variant.name, "device": entry.variant.device}
    if entry.blocks:
        return common | result.figures(entry)
    return common | {"skipped": entry.skipped or "interrupted"}

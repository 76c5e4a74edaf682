"""The page of the machines measured so far, as Markdown, as HTML and in a terminal."""

from __future__ import annotations

import html
import statistics
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from rich.console import Console

from ...history.levels import Problem
from ...history.machines import Figure, Measured
from ..table import Table
from ..tables import markdown_table
from ..units import duration, fixed

MARKER = "machines"
NONE = "No machine was added yet."
ADD = "To add yours: `twolayer bench`, then `twolayer machines --add --page docs/machines.md`."
LIMIT = (
    "Of the limit: the least time that the processor's peak and the memory's bandwidth allow, over "
    "the measured one. A GPU's peak is that of its plain cores, which tensor cores exceed."
)


class Section(NamedTuple):
    """A heading, sentences, and a table of heads and rows."""

    heading: str
    sentences: list[str]
    heads: list[str]
    rows: list[list[str]]


def sections(found: Sequence[Measured]) -> Iterator[Section]:
    """All machines in a table, then a section for each."""
    if not found:
        yield Section("", [NONE, ADD], [], [])
        return
    heads = ["machine", "problems", "fastest most often", "of the limit", "measured"]
    yield Section("", [ADD, LIMIT], heads, [_overview(one) for one in found])
    for one in found:
        heads = ["σ, ℓ, dtype", "n", "d", "M", "K", "threads", "fastest", "an epoch",
                 "of the limit", "the others, times as long"]  # fmt: skip
        rows = [_row(one, task, race) for task, race in one.races().items()]
        yield Section(f"{one.machine.name} ({one.machine.key})", [_facts(one)], heads, rows)


def _overview(one: Measured) -> list[str]:
    races = one.races()
    wins = Counter(race[0].problem.variant for race in races.values())
    shares = [s for race in races.values() if (s := one.share(race[0])) is not None]
    won = ", ".join(f"{name} ({count})" for name, count in wins.most_common(3))
    days = sorted({figure.date for figure in one.figures})
    when = " to ".join(dict.fromkeys((days[0], days[-1])))
    middle = f"{_percent(statistics.median(shares))} in the median" if shares else "–"
    return [one.machine.name, str(len(races)), won, middle, when]


def _facts(one: Measured) -> str:
    facts = one.facts
    said = [str(facts.get("system", "")), str(facts.get("python", ""))]
    said += [*map(str, facts.get("libraries", ()))]
    commits = sorted({figure.commit for figure in one.figures})
    said.append(f"commit {', '.join(commits)}")
    limits = "; ".join(
        f"{dtype} on {f'{threads} threads' if threads else 'the GPU'} {flops / 1e9:.0f} GFLOP/s, "
        f"{bandwidth / 1e9:.0f} GB/s"
        for (dtype, threads), (flops, bandwidth) in sorted(one.limits.items())
    )
    return f"{', '.join(filter(None, said))}. Limits: {limits or 'not known'}."


def _row(one: Measured, task: Problem, race: Sequence[Figure]) -> list[str]:
    best, *others = race
    share = one.share(best)
    spread = (best.high - best.low) / 2 / best.seconds
    rest = ", ".join(f"{x.problem.variant} {fixed(x.seconds / best.seconds, 2)}" for x in others)
    data = "" if task.data == "synthetic" else f"{task.data}: "
    return [
        f"{data}{task.activation}, {task.loss}, {task.dtype}",
        *(str(size) for size in (task.n, task.d, task.M, task.K)),
        str(task.threads if task.device == "cpu" else task.device), best.problem.variant,
        f"{duration(best.seconds)} ± {spread:.1%}", "–" if share is None else _percent(share),
        rest or "–",
    ]  # fmt: skip


def _percent(share: float) -> str:
    return f"{share:.0%}" if share >= 0.01 else "< 1%"


def show(console: Console, found: Sequence[Measured]) -> None:
    """The table of all machines."""
    first = next(sections(found))
    if first.heads:
        table = Table(*first.heads)
        for row in first.rows:
            table.add_row(*row)
        console.print(table)
    for sentence in first.sentences:
        console.print(sentence.replace("`", ""), style="dim", soft_wrap=True)


def markdown(found: Sequence[Measured]) -> str:
    """The page between its markers."""
    parts = []
    for one in sections(found):
        parts += [f"## {one.heading}"] if one.heading else []
        parts += one.sentences
        parts += [markdown_table(one.heads, one.rows)] if one.heads else []
    return "\n\n".join(parts)


def page(found: Sequence[Measured]) -> str:
    """The same as one HTML file that needs nothing else."""
    parts = []
    for one in sections(found):
        parts += [f"<h2>{html.escape(one.heading)}</h2>"] if one.heading else []
        parts += [f"<p>{html.escape(text.replace('`', ''))}</p>" for text in one.sentences]
        if one.heads:
            heads = "".join(f'<th scope="col">{html.escape(head)}</th>' for head in one.heads)
            rows = "".join(
                f"<tr>{''.join(f'<td>{html.escape(cell)}</td>' for cell in row)}</tr>\n"
                for row in one.rows
            )
            parts.append(
                '<div class="table"><table>\n'
                f"<thead><tr>{heads}</tr></thead>\n<tbody>\n{rows}</tbody></table></div>"
            )
    return _PAGE.replace("BODY", "\n".join(parts))


_PAGE = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<title>twolayer: machines</title>
<link rel="icon" href="data:,">
<style>
:root { color-scheme: light dark; }
body { margin: 0 auto; padding: 1rem; max-width: 82rem; font: 1rem/1.5 system-ui, sans-serif; }
p { max-width: 46rem; }
.table { overflow-x: auto; }
table { border-collapse: collapse; }
th, td { padding: 0.2rem 0.6rem; text-align: left; border-bottom: 1px solid #8888; }
td { white-space: nowrap; font-variant-numeric: tabular-nums; }
td:last-child { white-space: normal; min-width: 16rem; }
@media print { .table { overflow: visible; } body { font-size: 8pt; } }
</style>
</head>
<body>
<h1>Machines measured so far</h1>
BODY
</body>
</html>
"""

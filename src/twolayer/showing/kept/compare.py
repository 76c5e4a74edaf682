"""Two sides next to each other, for people and for programs."""

from __future__ import annotations

import math
import statistics
from typing import Any

from rich.console import Console

from ...history.sides import ASSUMED, FILE, KNOWN, Comparison, Pair, Side
from ..table import Table
from ..units import duration, fixed


def show(console: Console, found: Comparison) -> None:
    """A row a problem and variant, the mean of each variant, and what cannot be compared."""
    console.print(f"A: {_describe(found.a)}", soft_wrap=True)
    console.print(f"B: {_describe(found.b)}", soft_wrap=True)
    if found.pairs:
        console.print(_table(found))
    for name, ratios in means(found).items():
        console.print(
            f"{name}: B / A = {fixed(math.exp(statistics.fmean(map(math.log, ratios))), 3)} in the "
            f"geometric mean of {len(ratios)}"
        )
    for line in lacking(found):
        console.print(f"not compared: {line}", style="dim", soft_wrap=True)
    for line in _notes(found):
        console.print(line, style="dim", soft_wrap=True)


def _describe(side: Side) -> str:
    machines = sorted({f"{one.machine.name} ({one.machine.key})" for one in side.levels})
    what = f"the {side.kind} {side.label}"
    commits = sorted({level.state for level in side.levels})
    if side.kind == FILE:
        return f"{what}, commit {', '.join(commits)}, measured on {'; '.join(machines)}"
    return f"{what}, measured on {'; '.join(machines)}"


def _table(found: Comparison) -> Table:
    table = Table()
    for heading in ("problem", "variant"):
        table.add_column(heading, no_wrap=heading == "variant")
    several = len({pair.a.machine for pair in found.pairs}) > 1
    if several:
        table.add_column("machine", no_wrap=True)
    for heading in ("A", "B", "B / A", "interval of 95%", "B is"):
        table.add_column(heading, justify="right", no_wrap=True)
    table.add_column("besides")
    for pair in found.pairs:
        table.add_row(
            str(pair.a.problem).strip(), pair.a.problem.variant,
            *([pair.a.machine.key] if several else []), duration(pair.a.median),
            duration(pair.b.median), fixed(pair.ratio, 3),
            f"{fixed(pair.low, 3)} – {fixed(pair.high, 3)}", pair.verdict, ", ".join(pair.also),
            style="" if pair.verdict == "unclear" else "bold",
        )  # fmt: skip
    return table


def means(found: Comparison) -> dict[str, list[float]]:
    """The ratios of each variant."""
    made: dict[str, list[float]] = {}
    for pair in found.pairs:
        made.setdefault(pair.a.problem.variant, []).append(pair.ratio)
    return made


def lacking(found: Comparison) -> list[str]:
    """A line for each variant and reason, with up to three problems."""
    groups: dict[tuple[str, str], list[str]] = {}
    for problem, why in found.lacking:
        groups.setdefault((problem.variant, why), []).append(str(problem).strip())
    lines = []
    for (name, why), problems in groups.items():
        more = f" and {len(problems) - 3} more" if len(problems) > 3 else ""
        lines.append(f"{name}, {'; '.join(problems[:3])}{more}: {why}")
    return lines


def _notes(found: Comparison) -> list[str]:
    if not found.pairs:
        return []
    notes = ["B is slower or faster where the interval leaves out 1."]
    if any(pair.assumed for pair in found.pairs):
        notes.append(
            f"Runs are taken to differ by {ASSUMED:.0%} where a machine has fewer than {KNOWN} "
            "measurements of a problem: measure again for narrower intervals."
        )
    if any(pair.a.machine != pair.b.machine for pair in found.pairs):
        notes.append("A and B are different machines: a ratio says nothing of the sources.")
    return notes


def report(found: Comparison) -> dict[str, Any]:
    """The same as JSON values."""
    return {
        "a": {"label": found.a.label, "kind": found.a.kind},
        "b": {"label": found.b.label, "kind": found.b.kind},
        "pairs": [_pair(pair) for pair in found.pairs],
        "not_compared": [problem._asdict() | {"why": why} for problem, why in found.lacking],
    }


def _pair(pair: Pair) -> dict[str, Any]:
    sides = {
        name: {
            "machine": level.machine.key, "commit": level.commit, "tree": level.tree,
            "seconds": level.median, "measurements": len(level.seconds),
        }
        for name, level in (("a", pair.a), ("b", pair.b))
    }  # fmt: skip
    return pair.a.problem._asdict() | sides | {
        "ratio": pair.ratio, "low": pair.low, "high": pair.high, "verdict": pair.verdict,
        "assumed": pair.assumed, "also": [*pair.also],
    }  # fmt: skip

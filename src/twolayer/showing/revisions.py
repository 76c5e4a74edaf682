"""The outcome of `twolayer regress` for people, for pull requests and for programs."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict
from typing import Any

from rich.console import Console
from rich.table import Table

from ..machine.hardware import fingerprint
from ..regress.costs import RULES, Cost
from ..regress.decide import Decision
from ..regress.revisions import Revision
from ..regress.run import Outcome
from .units import duration, memory

Sides = tuple[Revision, Revision]

_ORDER = {"slower": 0, "faster": 1, "unclear": 2, "same": 3}
_STYLES = {"slower": "red", "worse": "red", "faster": "green", "better": "green", "unclear": "dim"}
_HEADS = ("benchmark", "base", "head", "ratio", "95% interval", "verdict", "visible")


def show(console: Console, outcome: Outcome, sides: Sides) -> None:
    """The table, what else changed, what failed, and one sentence that sums it up."""
    table = Table(title=title(sides), title_justify="left", box=None, pad_edge=False)
    for i, head in enumerate(_HEADS):
        table.add_column(head, justify="left" if i in (0, 5) else "right", no_wrap=True)
    for decision in ordered(outcome):
        table.add_row(*_cells(decision), style=_STYLES.get(decision.verdict))
    if outcome.decisions:
        console.print(table)
    for line in notes(outcome):
        console.print(line, style="red" if "failed" in line or "worse" in line else None,
                      soft_wrap=True)  # fmt: skip
    console.print(summary(outcome), style="bold", soft_wrap=True)


def markdown(outcome: Outcome, sides: Sides) -> str:
    """The same for a pull request: what changed first, all benchmarks folded away."""
    changed = [d for d in ordered(outcome) if d.verdict in ("slower", "faster")]
    parts = [f"**{summary(outcome)}**", title(sides)]
    if changed:
        parts.append(_grid(changed))
    if lines := notes(outcome):
        parts.append("\n".join(f"- {line}" for line in lines))
    if outcome.decisions:
        parts.append(
            f"<details><summary>All benchmarks</summary>\n\n{_grid(ordered(outcome))}\n\n</details>"
        )
    parts.append(
        "ratio: head / base, above 1 is slower. visible: the smallest change that this run would "
        "have seen. unclear: neither a change nor its absence was shown."
    )
    return "\n\n".join(parts)


def report(outcome: Outcome, sides: Sides) -> dict[str, Any]:
    """All figures as JSON values; times in seconds, memory in bytes."""
    return {
        "machine": fingerprint(),
        "base": sides[0].label,
        "head": sides[1].label,
        "exit_code": outcome.exit_code,
        "summary": summary(outcome),
        "seconds": outcome.seconds,
        "benchmarks": [asdict(decision) for decision in ordered(outcome)],
        "costs": [asdict(cost) for cost in outcome.costs],
        "failed": [{"benchmark": name, "sentence": text} for name, text in outcome.failed],
        "left_out": [{"benchmark": name, "sentence": text} for name, text in outcome.absent],
    }


def title(sides: Sides) -> str:
    """Which two are compared."""
    return f"base: {sides[0].label}, head: {sides[1].label}"


def summary(outcome: Outcome) -> str:
    """One sentence."""
    counts = {verdict: 0 for verdict in _ORDER}
    for decision in outcome.decisions:
        counts[decision.verdict] += 1
    told = ", ".join(f"{count} {verdict}" for verdict, count in counts.items() if count)
    worse = sum(cost.verdict == "worse" for cost in outcome.costs)
    told += f", {worse} worse in another respect" if worse else ""
    told += f", {len(outcome.failed)} failed" if outcome.failed else ""
    words = {0: "No regression", 1: "Regression", 2: "A benchmark failed", 3: "Too little measured"}
    return f"{words[outcome.exit_code]}: {told or 'nothing was measured'}, {outcome.seconds:.0f} s."


def ordered(outcome: Outcome) -> list[Decision]:
    """The changes first, the largest at the top."""
    return sorted(outcome.decisions, key=lambda d: (_ORDER[d.verdict], -abs(d.ratio - 1)))


def notes(outcome: Outcome) -> list[str]:
    """A line for each change of another kind, each failure, and each reason to leave some out."""
    lines = [
        f"{cost.variant}: {RULES[cost.kind].title}: {_figure(cost, cost.base)} → "
        f"{_figure(cost, cost.head)}, {cost.verdict}"
        for cost in outcome.costs
        if cost.verdict != "same"
    ]
    lines += [f"{name} failed: {sentence}" for name, sentence in outcome.failed]
    return lines + [f"left out: {name}: {sentence}" for name, sentence in outcome.absent]


def _figure(cost: Cost, value: float) -> str:
    unit = RULES[cost.kind].unit
    if unit == "s":
        return duration(value)
    return f"{memory(round(value))} MiB" if unit == "bytes" else f"{value:.3g} {unit}"


def _cells(decision: Decision) -> list[str]:
    return [
        decision.name,
        *(
            "" if seconds is None else duration(seconds)
            for seconds in (decision.base, decision.head)
        ),
        f"{decision.ratio:.4f}",
        f"{decision.low:.4f} to {decision.high:.4f}",
        decision.verdict,
        f"{decision.visible:.1%}" if decision.visible < 1 else "> 100%",
    ]


def _grid(decisions: Iterable[Decision]) -> str:
    rows = [_HEADS, ("---", "---:", "---:", "---:", "---:", "---", "---:")]
    return "\n".join(f"| {' | '.join(row)} |" for row in [*rows, *map(_cells, decisions)])

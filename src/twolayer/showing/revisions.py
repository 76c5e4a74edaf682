"""The outcome of `twolayer regress` for people, for pull requests and for programs."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict
from typing import Any

from rich.console import Console

from ..machine.hardware import fingerprint
from ..regress.costs import RULES, Cost
from ..regress.decide import KINDS, LOOKS, WANTED_SHAPE, Decision
from ..regress.revisions import Revision
from ..regress.run import Outcome
from .table import Table
from .units import duration, fixed, memory

Sides = tuple[Revision, Revision]

_VERDICTS = ("slower", "more", "faster", "less", "unclear", "same")
_STYLES = {
    "slower": "red", "more": "red", "worse": "red", "faster": "green", "less": "green",
    "better": "green", "unclear": "dim",
}  # fmt: skip
_HEADS = ("benchmark", "base", "head", "ratio", "95% interval", "verdict", "visible")
# What is told of a benchmark that was not timed, in this order.
_NOTES = {
    "failed": "{name} failed: {sentence}",
    "lost": "{name} is lost: {sentence}",
    "far": "{name} is slower: {sentence}",
    "repaired": "{name} is repaired: {sentence}",
    "new": "{name} is new: {seconds} an epoch; {sentence}",
    "absent": "left out: {name}: {sentence}",
}


def show(console: Console, outcome: Outcome, sides: Sides) -> None:
    """The table, what else changed, what failed, and one sentence that sums it up."""
    if outcome.decisions:
        console.print(table(ordered(outcome), title(sides)))
    for line, style in notes(outcome):
        console.print(line, style=style, soft_wrap=True)
    console.print(summary(outcome), style="bold", soft_wrap=True)


def table(decisions: Iterable[Decision], head: str | None = None) -> Table:
    """A row for each decision."""
    made = Table(title=head)
    for i, name in enumerate(_HEADS):
        made.add_column(name, justify="left" if i in (0, 5) else "right", no_wrap=True)
    for decision in decisions:
        made.add_row(*_cells(decision), style=_STYLES.get(decision.verdict))
    return made


def markdown(outcome: Outcome, sides: Sides) -> str:
    """The same for a pull request: what changed first, all benchmarks folded away."""
    changed = [d for d in ordered(outcome) if d.changed]
    parts = [f"**{summary(outcome)}**", title(sides)]
    if changed:
        parts.append(_grid(changed))
    if lines := notes(outcome):
        parts.append("\n".join(f"- {_escaped(line)}" for line, _ in lines))
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
        "benchmarks": [asdict(decision) for decision in outcome.decisions],
        "calm": outcome.calm.report(),
        "costs": [asdict(cost) for cost in outcome.costs],
        "notes": [note._asdict() for note in outcome.notes],
    }


def title(sides: Sides) -> str:
    """Which two are compared."""
    return f"base: {sides[0].label}, head: {sides[1].label}"


def summary(outcome: Outcome) -> str:
    """What was found, what it was measured in, and what was shown, a sentence each."""
    counts = dict.fromkeys(_VERDICTS, 0)
    for decision in outcome.decisions:
        counts[decision.verdict] += decision.kind == "time" or decision.changed
    told = [f"{count} {verdict}" for verdict, count in counts.items() if count]
    excused = sum(bool(decision.excuse) for decision in outcome.decisions)
    told += [f"{excused} of them excused"] if excused else []
    worse = sum(cost.regression for cost in outcome.costs)
    told += [f"{worse} worse in another respect"] if worse else []
    words = {"far": "too slow to be timed", "absent": "left out"}
    for kind in _NOTES:
        if count := len(outcome.of(kind)):
            told.append(f"{count} {words.get(kind, kind)}")
    titles = {
        0: "No regression",
        1: "Regression",
        2: "A benchmark failed",
        3: "Too little measured",
    }
    what = ", ".join(told) or "nothing was measured"
    text = f"{titles[outcome.exit_code]}: {what}, {outcome.seconds:.0f} s."
    met = f"Measured while {outcome.calm}." if outcome.calm.reasons else ""
    return " ".join(filter(None, [text, met, shown(outcome)]))


def shown(outcome: Outcome) -> str:
    """Which changes of an epoch's time can be ruled out, and what is worst known."""
    times = [d for d in outcome.decisions if d.kind == "time" and not d.changed]
    known = [d for d in times if d.processes >= LOOKS[0]]
    if not known:
        return ""
    whole = {d.variant: d for d in known if d.base is None}
    single = [d for d in known if d.variant not in whole and d.base is not None]
    least = [f"{_away(d)} of {d.variant}" for d in [*whole.values(), *single]]
    worst = max([d for d in known if d.base is not None] or known, key=_largest)
    text = f"Ruled out, with 95% each, are changes by more than {', '.join(least)}; the least is "
    text += f"known of {worst.name}: {_away(worst)}."
    return f"{text} More time (--budget) tells more." if _largest(worst) > WANTED_SHAPE else text


def _largest(decision: Decision) -> float:
    """The largest change, either way, that the interval does not rule out."""
    return max(decision.high - 1, 1 - decision.low)


def _away(decision: Decision) -> str:
    return f"{min(_largest(decision), 9.99):.1%}"


def ordered(outcome: Outcome) -> list[Decision]:
    """The changes first, the largest at the top; of what is not an epoch's time only changes."""
    told = [d for d in outcome.decisions if d.kind == "time" or d.changed]
    return sorted(told, key=lambda d: (_VERDICTS.index(d.verdict), -abs(d.ratio - 1)))


def notes(outcome: Outcome) -> list[tuple[str, str | None]]:
    """A line, and its color, for each cost that changed and each benchmark that was not timed."""
    lines: list[tuple[str, str | None]] = [
        (
            f"{cost.variant}: {RULES[cost.kind].title}: {_figure(cost, cost.base)} → "
            f"{_figure(cost, cost.head)}, {cost.verdict}" + ", accepted" * bool(cost.excuse),
            None if cost.excuse else _STYLES[cost.verdict],
        )
        for cost in outcome.costs
        if cost.verdict != "same"
    ]
    for kind, form in _NOTES.items():
        for note in outcome.of(kind):
            text = form.format(
                name=note.benchmark,
                sentence=note.sentence,
                seconds="" if note.seconds is None else duration(note.seconds),
            )
            bad = kind in ("failed", "lost", "far") and not note.accepted
            lines.append((text + ", accepted" * note.accepted, "red" if bad else None))
    return lines


def _escaped(text: str) -> str:
    """For Markdown: nothing in a failure's text is markup, a mention or the end of a table."""
    text = " ".join(text.split())
    for character in "\\`*_<>[]|@#":
        text = text.replace(character, f"\\{character}")
    return text


def _figure(cost: Cost, value: float) -> str:
    return (
        duration(value) if RULES[cost.kind].unit == "s" else f"{value:.3g} {RULES[cost.kind].unit}"
    )


def _cells(decision: Decision) -> list[str]:
    of = duration if KINDS[decision.kind].unit == "s" else lambda x: f"{memory(round(x))} MiB"
    return [
        decision.name,
        *("" if value is None else of(value) for value in (decision.base, decision.head)),
        fixed(decision.ratio, 4),
        f"{fixed(decision.low, 4)} to {fixed(decision.high, 4)}",
        ", ".join(filter(None, [decision.verdict, decision.excuse])),
        f"{decision.visible:.1%}" if decision.visible < 1 else "> 100%",
    ]


def _grid(decisions: Iterable[Decision]) -> str:
    rows = [_HEADS, ("---", "---:", "---:", "---:", "---:", "---", "---:")]
    return "\n".join(f"| {' | '.join(row)} |" for row in [*rows, *map(_cells, decisions)])

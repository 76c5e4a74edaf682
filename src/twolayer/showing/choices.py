"""Which variant was chosen, and why."""

from __future__ import annotations

from rich.console import Console

from ..choosing import Choice
from .table import Table
from .units import duration, memory


def show(console: Console, choice: Choice, explain: bool = False) -> None:
    """The variant, why, and what is known of the others; explain: how they were timed, too."""
    console.print(choice.variant, style="bold")
    console.print(f"{choice.reason}.", soft_wrap=True)
    if choice.total_seconds is not None:
        console.print(
            f"{choice.epochs} epochs take {duration(choice.total_seconds)} in a new "
            f"process, of which {duration(choice.chosen.before)} come before the first.",
            soft_wrap=True,
        )
        for turn in choice.break_even[1:]:
            about = "" if turn.low == turn.high else f" ({turn.low} to {turn.high})"
            console.print(f"From {turn.epochs}{about} epochs on it is {turn.variant}.")
    if choice.calm:
        console.print(f"While it was timed {choice.calm}: the answer is not kept.", style="yellow")
    table = Table("variant")
    headings = ["an epoch", "from", "to", "times", "MiB"]
    if choice.epochs is not None:
        headings += ["before", f"{choice.epochs} epochs"]
    for heading in headings:
        table.add_column(heading, justify="right", no_wrap=True)
    for candidate in (choice.chosen, *choice.runners_up):
        low, median, high = candidate.seconds
        ratio = "" if candidate.ratio is None else f"{candidate.ratio.median:.2f}"
        about = "" if candidate.blocks else "about "
        row = [
            candidate.variant, f"{about}{duration(median)}", duration(low),
            duration(high), ratio, memory(candidate.memory),
        ]  # fmt: skip
        if choice.epochs is not None:
            known = candidate.start is not None
            row += [
                duration(candidate.before) if known else "–",
                duration(candidate.total(choice.epochs)) if known else "–",
            ]
        table.add_row(*row, style="bold" if candidate is choice.chosen else None)
    console.print()
    console.print(table)
    if explain:
        console.print()
        console.print(f"Timed on {choice.rows} rows, in blocks taken in turn.", soft_wrap=True)
        for candidate in choice.runners_up:
            if candidate.ratio is not None:
                low, _, high = candidate.ratio
                console.print(
                    f"{candidate.variant} took {low:.2f} to {high:.2f} times as long in the "
                    f"{candidate.blocks} blocks that it was not left behind in.", soft_wrap=True,
                )  # fmt: skip
        for variant, reason in choice.ruled_out:
            console.print(f"ruled out: {variant} {reason}", style="dim", soft_wrap=True)

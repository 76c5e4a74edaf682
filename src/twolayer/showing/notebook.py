"""What a notebook shows of choices, races, comparisons and plans: what the commands print."""

from __future__ import annotations

from functools import singledispatch
from typing import Any

from rich.console import Console

from ..choosing import Choice
from ..interface import Plan
from ..measuring.race import Result
from ..regress.decide import Decision
from . import choices, output, revisions, tables

_WIDTH = 120
_FORMAT = '<pre style="white-space:pre;overflow-x:auto;line-height:normal">{code}</pre>'


def html(thing: Any) -> str:
    """An object as HTML. Raises TypeError for one of a kind that is not known here."""
    console = output.recorder(_WIDTH)
    _show(thing, console)
    return console.export_html(code_format=_FORMAT, inline_styles=True)


@singledispatch
def _show(thing: Any, console: Console) -> None:
    raise TypeError(f"thing: expected a choice, a race, a comparison or a plan, got {thing!r}")


@_show.register
def _(thing: Choice, console: Console) -> None:
    choices.show(console, thing, explain=True)


@_show.register
def _(thing: Result, console: Console) -> None:
    tables.show(console, {"shapes": [thing]}, thing.roof, thing.threads)


@_show.register
def _(thing: Decision, console: Console) -> None:
    console.print(revisions.table([thing]))


@_show.register
def _(thing: Plan, console: Console) -> None:
    net = thing.net
    threads = "1 thread" if thing.threads == 1 else f"{thing.threads} threads"
    console.print(
        f"{thing.variant} on {thing.shape}, {net.activation}, {net.loss}, {thing.dtype}, {threads}"
    )

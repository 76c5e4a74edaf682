"""What a notebook shows of choices, races, comparisons and plans: what the commands print."""

from __future__ import annotations

import io
from functools import singledispatch
from typing import Any

from rich.console import Console

from ..choosing import Choice
from ..interface import Plan
from ..measuring.race import Result
from ..regress.decide import Decision
from . import choices, revisions, tables

_WIDTH = 120
_FORMAT = (
    '<pre style="font-family:monospace;white-space:pre;overflow-x:auto;line-height:normal">'
    "{code}</pre>"
)


class _Page(Console):
    """Shows nothing and keeps all, to be exported, in lines that fit."""

    def __init__(self) -> None:
        super().__init__(
            record=True, file=io.StringIO(), width=_WIDTH, markup=False, highlight=False,
            force_jupyter=False,  # or what is printed would be shown besides
        )  # fmt: skip

    def print(self, *things: Any, **how: Any) -> None:
        """As for a terminal that does not wrap long lines itself."""
        super().print(*things, **how | {"soft_wrap": False})


def html(thing: Any) -> str:
    """An object as HTML. Raises TypeError for one of a kind that is not known here."""
    console = _Page()
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

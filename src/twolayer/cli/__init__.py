"""The command line `twolayer`."""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from importlib import import_module
from typing import Any

import typer
from typer.core import TyperGroup

from ..progress import told
from ..showing.output import complain
from ..texts import sentence
from . import codes

# Command: its module and function. Only the one that is run is imported.
COMMANDS = {
    "list": ("list", "list_variants"),
    "verify": ("verify", "verify"),
    "bench": ("bench", "bench"),
    "choose": ("choose", "choose"),
    "train": ("train", "train"),
    "predict": ("predict", "predict"),
    "regress": ("regress", "regress"),
    "report": ("report", "report"),
}


class _Commands(TyperGroup):
    """The commands by name, each imported when it is needed.

    Some versions of typer bring a click of their own, so its types have no one name.
    """

    def list_commands(self, ctx: Any) -> list[str]:
        return [*COMMANDS]

    def get_command(self, ctx: Any, name: str) -> Any:
        if name not in COMMANDS:
            return None
        module, function = COMMANDS[name]
        try:
            found = import_module(f".commands.{module}", __name__)
        except ValueError as error:  # of a variable with which Numba does not start
            complain(str(error))
            raise typer.Exit(codes.FAILED) from None
        return command(name, getattr(found, function))


app = typer.Typer(
    cls=_Commands,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=False,
)


@app.callback()
def main() -> None:
    """Two-layer networks f(x) = h(W σ(V x)): one interface, many implementations."""


def command(name: str, function: Callable[..., None]) -> Any:
    """A command; what the package refuses in it becomes one red sentence and exit code 2."""

    @wraps(function)
    def run(*arguments: Any, **options: Any) -> None:
        try:
            with told():
                function(*arguments, **options)
        except (typer.Exit, typer.Abort):  # these are RuntimeErrors too
            raise
        except (ValueError, TypeError, MemoryError, RuntimeError, OSError) as error:
            complain(sentence(error, Exception))
            raise typer.Exit(codes.FAILED) from None

    single = typer.Typer(pretty_exceptions_enable=False, add_completion=False)
    single.command(name, epilog=codes.epilog())(run)
    return typer.main.get_command(single)

"""The command line `twolayer`."""

from __future__ import annotations

import inspect
import os
import re
import shutil
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import wraps
from importlib import import_module
from pathlib import Path
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from .. import __version__
from ..progress import told
from ..showing import output
from ..showing.streams import patient
from ..texts import SENTENCES, sentence
from . import codes

# Command: its module, its function and its panel in --help. Only the one that is run is imported.
_LOOK, _TIME, _USE, _KEPT = "Look and check", "Time", "Use", "What was measured"
COMMANDS = {
    "list": ("list", "list_variants", _LOOK),
    "verify": ("verify", "verify", _LOOK),
    "machine": ("machine", "machine", _LOOK),
    "bench": ("racing.bench", "bench", _TIME),
    "peers": ("racing.peers", "peers", _TIME),
    "updates": ("racing.updates", "updates", _TIME),
    "gpu": ("racing.gpu", "gpu", _TIME),
    "report": ("report", "report", _TIME),
    "regress": ("regress", "regress", _TIME),
    "choose": ("choose", "choose", _USE),
    "train": ("train", "train", _USE),
    "predict": ("predict", "predict", _USE),
    "history": ("kept.history", "history", _KEPT),
    "compare": ("kept.compare", "compare", _KEPT),
    "machines": ("kept.machines", "machines", _KEPT),
}


_SIZE = re.compile("[1-9][0-9]{0,3}")  # of a terminal, in characters


class _Ended(typer.Exit):
    """The end of one of our commands, whose codes have meanings."""


class _Commands(TyperGroup):
    """The commands by name, each imported when it is needed.

    Some versions of typer bring a click of their own, so its types have no one name.
    """

    def __init__(self, **settings: Any) -> None:
        super().__init__(**settings)
        self.commands: Any = dict.fromkeys(COMMANDS)  # among which a misspelled name is looked for

    def list_commands(self, ctx: Any) -> list[str]:
        return [*COMMANDS]

    def get_command(self, ctx: Any, name: str) -> Any:
        if name not in COMMANDS:
            return None
        module, function, panel = COMMANDS[name]
        with _guarded():
            found = import_module(f".commands.{module}", __name__)
        return command(name, getattr(found, function), panel)

    def main(self, *arguments: Any, **settings: Any) -> Any:
        """Run the command; what was asked for counts more than what is said of it."""
        output.begin()
        for size in ("COLUMNS", "LINES"):  # of what is no terminal's Rich shows nothing, or fails
            if not _SIZE.fullmatch(os.environ.get(size, "1")):
                del os.environ[size]
        with patient() as stdout, told():
            code: Any = 0
            try:
                with _guarded():
                    try:
                        return super().main(*arguments, **settings)
                    except SystemExit as end:
                        ours = isinstance(end.__context__, _Ended)
                        code = end.code if ours or end.code != codes.WRONG else codes.FAILED
            except typer.Exit as end:  # of what shows help, or reads what was typed
                code = end.exit_code
            finally:
                stdout.flush()
                if stdout.failure is not None:
                    output.complain(f"standard output: {stdout.failure}")
                    code = code or codes.FAILED
            raise SystemExit(code)


# In narrow panels names of options would be cut.
_MARKUP: Any = "rich" if shutil.get_terminal_size().columns >= 80 else None

app = typer.Typer(
    cls=_Commands,
    rich_markup_mode=_MARKUP,
    no_args_is_help=True,
    epilog=codes.epilog(""),
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["--help", "-h"]},
)


def _version(wanted: bool) -> None:
    if wanted:
        output.stdout().print(f"twolayer {__version__}")
        raise typer.Exit


@app.callback()
def main(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Say which this is.")
    ] = False,
) -> None:
    """Two-layer networks f(x) = h(W σ(V x)): one interface, many implementations."""


@contextmanager
def _guarded() -> Iterator[None]:
    """What is refused or fails becomes one red sentence and exit code 2: 1 has a meaning."""
    try:
        yield
    except (typer.Exit, typer.Abort):  # these are RuntimeErrors too
        raise
    except KeyboardInterrupt:
        output.complain("interrupted")
        raise typer.Exit(codes.INTERRUPTED) from None
    except SENTENCES as error:
        output.complain(sentence(error, *SENTENCES))
    except BaseException as error:  # a library's, or a mistake of ours, so the place is told
        last = traceback.extract_tb(error.__traceback__)[-1]
        output.complain(f"{sentence(error)} ({Path(last.filename).name}, line {last.lineno})")
    else:
        return
    raise typer.Exit(codes.FAILED)


def command(name: str, function: Callable[..., None], panel: str | None = None) -> Any:
    """A command that never ends in an exception."""

    @wraps(function)
    def run(*arguments: Any, **options: Any) -> None:
        try:
            with _guarded():
                function(*arguments, **options)
        except typer.Exit as end:
            raise _Ended(end.exit_code) from None

    # Where a line of the source ends says nothing.
    paragraphs = inspect.cleandoc(function.__doc__ or "").split("\n\n")
    run.__doc__ = "\n\n".join(" ".join(text.split()) for text in paragraphs)
    single = typer.Typer(
        pretty_exceptions_enable=False, add_completion=False, rich_markup_mode=_MARKUP
    )
    single.command(name, epilog=codes.epilog(name), rich_help_panel=panel)(run)
    return typer.main.get_command(single)

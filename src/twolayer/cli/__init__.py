"""The command line `twolayer`."""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from typing import Any

import typer

from . import bench, list, regress, report, train, verify
from .output import complain

app = typer.Typer(
    help="Two-layer networks f(x) = h(W σ(V x)): one interface, many implementations.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=False,
)


def command(name: str, function: Callable[..., None]) -> None:
    """Add a command; what the package refuses in it becomes one red sentence and exit code 2."""

    @wraps(function)
    def run(*arguments: Any, **options: Any) -> None:
        try:
            function(*arguments, **options)
        except (typer.Exit, typer.Abort):  # these are RuntimeErrors too
            raise
        except (ValueError, TypeError, MemoryError, RuntimeError, OSError) as error:
            complain(str(error) or type(error).__name__)
            raise typer.Exit(2) from None

    app.command(name)(run)


command("list", list.list_variants)
command("verify", verify.verify)
command("bench", bench.bench)
command("train", train.train)
command("regress", regress.regress)
command("report", report.report)

"""The progress bar of whatever takes longer than a moment."""

from __future__ import annotations

import logging
import random
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from importlib.util import find_spec
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.console import Console

_PACKAGE = __name__.partition(".")[0]


class _Stderr(logging.Handler):
    """A line on standard error, whatever that is at the moment, for each message."""

    def emit(self, record: logging.LogRecord) -> None:
        with suppress(OSError, ValueError):  # it may be closed
            if sys.stderr is not None:
                print(f"{_PACKAGE}: {record.getMessage()}", file=sys.stderr, flush=True)


@contextmanager
def told() -> Iterator[None]:
    """Show inside what the package logs and what anybody warns of: as a program, not as a library.

    A line each: neither the place in the sources nor more than the first line of a warning.
    """
    logger, handler = logging.getLogger(_PACKAGE), _Stderr(logging.INFO)
    level, form = logger.level, warnings.formatwarning
    logger.setLevel(logging.INFO)
    logger.addHandler(handler)
    warnings.formatwarning = _line
    try:
        yield
    finally:
        warnings.formatwarning = form
        logger.removeHandler(handler)
        logger.setLevel(level)


def _line(message: Warning | str, *_: object, **__: object) -> str:
    return f"{_PACKAGE}: {str(message).strip().partition(chr(10))[0]}\n"


def _draws(console: Console) -> bool:
    """Whether it is a notebook's that can draw a bar."""
    return console.is_jupyter and find_spec("ipywidgets") is not None


class Bar:
    """A bar on stderr where that is a terminal; elsewhere lines, if asked for.

    Arguments: total, the units of work, if known; announce, a sentence that is printed in any case;
    lines, whether each piece of work is a line where nobody sees a bar. A context.
    """

    def __init__(self, total: float | None = None, announce: str = "", lines: bool = False) -> None:
        state = random.getstate()  # which Rich draws from when it is imported first
        from rich.console import Console
        from rich.progress import (
            BarColumn,
            MofNCompleteColumn,
            Progress,
            TextColumn,
            TimeElapsedColumn,
            TimeRemainingColumn,
        )

        random.setstate(state)
        self._console = Console(stderr=True, markup=False, highlight=False)
        self._announce, self._lines = announce, lines and not self._console.is_terminal
        self._bar = Progress(
            TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(),
            TimeElapsedColumn(), TimeRemainingColumn(), console=self._console, transient=True,
            disable=not (self._console.is_terminal or _draws(self._console)),
        )  # fmt: skip
        self._task = self._bar.add_task("", total=total)
        self._last = -1.0

    def __enter__(self) -> Bar:
        if self._announce:
            self._console.print(f"twolayer: {self._announce}", soft_wrap=True)
        self._bar.start()
        return self

    def __exit__(self, *exception: object) -> None:
        self._bar.stop()

    def add(self, what: str, units: float) -> None:
        """Say what is being done, and that so many units more are done."""
        self._bar.update(self._task, advance=units, description=what)

    def show(self, what: str, done: float, total: float | None = None) -> None:
        """Say what is being done, and how many units are done, of how many if that is new."""
        self._bar.update(self._task, completed=done, total=total, description=what)
        if self._lines and what and done != self._last and (total is None or done < total):
            of = f"/{total:g}" if total is not None else ""
            self._console.print(f"{done + 1:g}{of} {what}", soft_wrap=True)
        self._last = done

    def line(self, text: str) -> None:
        """A line where nobody sees the bar."""
        if self._lines:
            self._console.print(text, soft_wrap=True)

"""How commands speak: tables and figures on stdout, all else on stderr, and files written whole."""

from __future__ import annotations

import datetime
import json
import os
import shlex
import sys
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.text import Text

from ..machine.atomic import replacing

_WIDTH = 100  # of a table that goes into a file or a pipe


def stdout() -> Console:
    """The console of results."""
    return Console(width=None if sys.stdout.isatty() else _WIDTH, markup=False, highlight=False)


def stderr() -> Console:
    """The console of progress and errors."""
    return Console(stderr=True, markup=False, highlight=False)


def complain(sentence: str) -> None:
    """One red line on stderr."""
    stderr().print(Text(" ".join(sentence.split()), style="red"), soft_wrap=True)


def check_writable(argument: str, path: Path) -> None:
    """Raise ValueError for a file that cannot be written, before anything is measured."""
    if not path.parent.is_dir():
        raise ValueError(f"{argument}: expected a file in an existing folder, got {str(path)!r}")
    if path.is_dir() or not os.access(path if path.exists() else path.parent, os.W_OK):
        raise ValueError(f"{argument}: expected a file that can be written, got {str(path)!r}")


def occasion() -> tuple[str, str]:
    """When a command runs, to the second, and its line."""
    now = datetime.datetime.now().astimezone().isoformat(timespec="seconds")
    return now, shlex.join(["twolayer", *sys.argv[1:]])


def write_text(path: Path, text: str) -> None:
    """Replace the whole file at once, so that nobody ever reads a half of it."""
    with replacing(path) as file:
        file.write(text.encode())


def write_json(path: Path, value: Any) -> None:
    """Write a JSON value, whole; NumPy's numbers are numbers."""
    text = json.dumps(value, indent=1, ensure_ascii=False, default=lambda number: number.item())
    write_text(path, text + "\n")

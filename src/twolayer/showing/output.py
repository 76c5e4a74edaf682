"""How commands speak: tables and figures on stdout, all else on stderr, and files written whole."""

from __future__ import annotations

import datetime
import errno
import json
import shlex
import sys
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.text import Text

from ..machine import atomic
from ..texts import SENTENCES, sentence

SCHEMA = 1  # one more wherever a key goes or means something else
_ENDLESS = 1 << 16  # columns: what goes into a file or a pipe is neither cut nor wrapped
_files: dict[str, Path] = {}  # that this command writes, by their arguments
_read: list[Path] = []  # that this command reads


def stdout() -> Console:
    """The console of results; on stderr where a file of figures is standard output."""
    console = Console(
        stderr=any(map(atomic.is_stdout, _files.values())), markup=False, highlight=False
    )
    if not console.file.isatty():
        console.width = _ENDLESS
    return console


def stderr() -> Console:
    """The console of progress and errors."""
    return Console(stderr=True, markup=False, highlight=False)


def complain(sentence: str) -> None:
    """One red line on stderr."""
    stderr().print(Text(" ".join(sentence.split()), style="red"), soft_wrap=True)


def begin() -> None:
    """Forget the files of the command before."""
    _files.clear()
    _read.clear()


def check_writable(**paths: Path | None) -> None:
    """Raise ValueError for a file that cannot be written, before anything is measured."""
    for argument, path in paths.items():
        if path is None:
            continue
        try:
            if path == atomic.STDOUT and getattr(sys.stdout, "missing", False):
                raise OSError(errno.EBADF, "standard output is closed")
            atomic.check_writable(path)
        except OSError as error:
            lost = isinstance(error, FileNotFoundError)
            which = "in an existing folder" if lost else "that can be written"
            raise ValueError(
                f"{argument}: expected a file {which}, got {str(path)!r}: {error.strerror}"
            ) from None
        if any(_same(path, other) for other in _files.values()):
            raise ValueError(f"{argument}: expected a file of its own, got {str(path)!r} again")
        _files[argument] = path
    check_unread()


def check_unread(*read: Path | str | None) -> None:
    """Raise ValueError where this command would write over one of these or others that it reads."""
    _read.extend(Path(path) for path in read if path is not None)
    for argument, path in _files.items():
        if any(_same(path, other) for other in _read):
            raise ValueError(f"{argument}: expected no file that is read, got {str(path)!r}")


def _same(path: Path, other: Path) -> bool:
    """Whether both are one file, or both standard output."""
    if atomic.is_stream(path) or atomic.is_stream(other):
        return atomic.is_stdout(path) and atomic.is_stdout(other)
    return path.resolve() == other.resolve()


def kind(argument: str, path: Path, kinds: Sequence[str]) -> str:
    """The ending of a file's name, one of `kinds`; the first for what is no plain file."""
    if path.suffix in kinds:
        return path.suffix
    if atomic.is_stream(path):
        return kinds[0]
    raise ValueError(
        f"{argument}: expected a file ending in {' or '.join(kinds)}, got {str(path)!r}"
    )


def deliver(
    show: Callable[[], object], *files: tuple[Path | None, Callable[[Path], object]]
) -> None:
    """Write the files that were asked for, each with its function, and then print.

    What fails keeps nothing else from being delivered: the last of it is raised afterwards, the
    others are told.
    """
    failed: list[Exception] = []
    acts = [partial(write, path) for path, write in files if path is not None]
    for act in [*acts, partial(show)]:
        try:
            act()
        except Exception as error:
            failed.append(error)
    for other in failed[:-1]:
        complain(sentence(other, *SENTENCES))
    if failed:
        raise failed[-1]


def occasion() -> tuple[str, str]:
    """When a command runs, to the second, and its line."""
    now = datetime.datetime.now().astimezone().isoformat(timespec="seconds")
    return now, shlex.join(["twolayer", *sys.argv[1:]])


def write_text(path: Path, text: str) -> None:
    """Replace the whole file at once, so that nobody ever reads a half of it."""
    with atomic.replacing(path) as file:
        file.write(text.encode(errors="backslashreplace"))  # of names that are no UTF-8


def write_json(path: Path, value: Mapping[str, Any]) -> None:
    """Write a JSON object, whole, and the number of what its keys mean: docs/reference/json.md.

    NumPy's numbers are numbers.
    """
    text = json.dumps(
        {"schema": SCHEMA, **value},
        indent=1,
        ensure_ascii=False,
        default=lambda number: number.item(),
    )
    write_text(path, text + "\n")

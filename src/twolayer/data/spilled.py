"""Rows that do not fit into memory, in files without a name, which end with the process.

Where it was killed, too: the system keeps such a file as long as somebody has it open.
"""

from __future__ import annotations

import os
import shutil
import tempfile
import weakref
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from ..machine.hardware import available_memory
from ..network import enough_memory
from .sources import File, FileSource, Source, npy

_USUAL = "/var/tmp"  # on a disk, where /tmp may be memory

Tell = Callable[[str], None]


class Full(OSError):
    """There is no room on the disk."""


def folder() -> str:
    """Where the files lie: $TMPDIR, else a folder for temporary files on a disk."""
    usual = os.access(_USUAL, os.W_OK) and not os.environ.get("TMPDIR")
    return _USUAL if usual else tempfile.gettempdir()


def on_disk(
    path: Path, memory: int, disk: int, streamed: bool | None, tell: Tell = lambda said: None
) -> bool:
    """Whether a file is to be read in blocks, which takes so many bytes on the disk, else memory.

    streamed, True for it is, None for where the memory is too small, False for never, with
    MemoryError. Raises `Full` where the disk is too small; tell takes what is written there.
    """
    if streamed is False:
        enough_memory(f"reading {path}", memory)
    if not (streamed or memory > available_memory()):
        return False
    free = shutil.disk_usage(folder()).free
    if disk > free:
        raise _full(path, f"{disk / 2**30:.2f} GiB", f"{free / 2**30:.2f} GiB")
    if disk:
        tell(
            f"{path}: to be read in blocks, it is written to {folder()} for as long as the command "
            f"runs, about {disk / 2**30:.2f} GiB"
        )
    return True


def _full(name: str | Path, expected: str, got: str) -> Full:
    return Full(
        f"{name}: expected {expected} of disk space in {folder()} to read it in blocks, got {got}: "
        "TMPDIR names another folder"
    )


class Spill:
    """A file without a name that is written, and then read."""

    def __init__(self, name: str | Path) -> None:
        self.name = str(name)
        try:
            self._file = tempfile.TemporaryFile(buffering=0, dir=folder())  # noqa: SIM115
        except OSError as error:
            raise _full(name, "files", str(error.strerror)) from None
        weakref.finalize(self, self._file.close)
        self._path = Path(f"/dev/fd/{self._file.fileno()}")

    def write(self, data: Any) -> None:
        """Write all of the bytes. Raises `Full`."""
        view = memoryview(data)
        while len(view):
            try:
                view = view[self._file.write(view) :]
            except OSError as error:
                raise _full(self.name, "enough", str(error.strerror)) from None

    def npy(self) -> Source:
        """What was written, an .npy file."""
        return npy(self._path, self.name)

    def rows(self, shape: tuple[int, ...], dtype: np.dtype) -> Source:
        """What was written, rows without a header."""
        return FileSource(File(self._path, 0, shape, dtype, self.name), self.name)


class Rows:
    """Rows that are collected block by block, in memory or on the disk."""

    def __init__(self, name: str | Path, spill: bool) -> None:
        self.name, self._spill = str(name), Spill(name) if spill else None
        self._blocks: list[np.ndarray] = []
        self._count = 0

    def append(self, block: np.ndarray) -> None:
        """Add some rows. Raises `Full`."""
        self._count += len(block)
        if self._spill is None:
            self._blocks.append(block)
        else:
            self._blocks = [block[:0]]
            self._spill.write(np.ascontiguousarray(block).reshape(-1).view(np.uint8).data)

    def source(self) -> Source:
        """All rows."""
        if self._spill is None:
            return Source(np.concatenate(self._blocks), self.name)
        (last,) = self._blocks
        return self._spill.rows((self._count, *last.shape[1:]), last.dtype)

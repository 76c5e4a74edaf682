"""Files that are replaced whole. Imports nothing that takes time."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO


@contextmanager
def replacing(path: str | Path) -> Iterator[IO[bytes]]:
    """A new file that takes the place of `path` when the block ends: nobody reads a half of it.

    It is on the disk before it does, so that after a loss of power too one of both is whole.
    """
    path = Path(path).resolve()  # a link stays a link
    new = path.with_name(f".{path.name}.new")
    try:
        with new.open("wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        if path.exists():
            shutil.copymode(path, new)
        new.replace(path)
        with suppress(OSError):  # where folders cannot be opened
            folder = os.open(path.parent, os.O_RDONLY)
            try:
                os.fsync(folder)
            finally:
                os.close(folder)
    finally:
        new.unlink(missing_ok=True)

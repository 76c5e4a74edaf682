"""Files that are written whole: replaced, or in place where nothing can be replaced.

Imports nothing that takes time.
"""

from __future__ import annotations

import errno
import fcntl
import os
import shutil
import stat
import sys
import zlib
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext, suppress
from pathlib import Path
from typing import IO, Any

STDOUT = Path("-")
_SPOOLED = 1 << 24  # bytes that wait in memory for what they are written to


@contextmanager
def replacing(path: str | Path) -> Iterator[IO[bytes]]:
    """A new file that takes the place of `path` when the block ends: nobody reads a half of it.

    It is on the disk before it does, so that after a loss of power too one of both is whole. A link
    stays a link. Standard output ("-"), what is no plain file, what something is mounted on and
    what lies in a folder that takes no new file are written in place, at once.
    """
    path = Path(path)
    try:
        with _beside(path) as new, nullcontext(new) if new else _spooled() as file:
            yield file
            file.flush()
            if new is None:
                file.seek(0)
                _pour(file, path)
            elif not _replace(path.resolve(), new):
                with open(new.name, "rb") as again:
                    _pour(again, path)
    except OSError as error:
        if error.filename is None and error.errno is not None:
            raise OSError(error.errno, error.strerror, str(path)) from error
        raise


def is_stream(path: Path) -> bool:
    """Whether it is standard output or error, a pipe, a device: nothing that can be replaced."""
    if path == STDOUT:
        return True
    try:
        found = path.stat()
    except OSError:
        return False
    return not stat.S_ISREG(found.st_mode) or _descriptor(path) is not None


def is_stdout(path: Path) -> bool:
    """Whether it is what standard output goes to, by any name."""
    return path == STDOUT or _descriptor(path) == 1


def check_writable(path: Path) -> None:
    """Raise OSError for what cannot be written. It is left as it is."""
    if path == STDOUT:
        return
    try:
        target = path.resolve()
    except RuntimeError as error:
        raise OSError(errno.ELOOP, "a circle of links") from error
    if not is_stream(path) and not target.parent.is_dir():
        raise FileNotFoundError(errno.ENOENT, f"there is no folder {target.parent}")
    if path.is_dir() or path.is_socket():
        raise OSError(errno.EISDIR, "it is a folder or a socket")
    if _exists(path) and not os.access(path, os.W_OK):
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))
    with _beside(path):
        pass


def _exists(path: Path) -> bool:
    """As `Path.exists`, but a name that cannot be one raises OSError."""
    try:
        path.stat()
    except FileNotFoundError:
        return False
    return True


def _descriptor(path: Path) -> int | None:
    """1 or 2, if standard output or error goes to that very file."""
    for handle in (1, 2):
        with suppress(OSError):
            if os.path.samestat(os.fstat(handle), path.stat()):
                return handle
    return None


@contextmanager
def _beside(path: Path) -> Iterator[IO[bytes] | None]:
    """A new file in the folder of `path`, removed unless it was moved; None where `path` is to be
    written in place.

    Whoever has it open holds a lock, so that what was left by others who were killed can go.
    """
    if is_stream(path):
        yield None
        return
    target = path.resolve()
    there = _exists(target)
    # Short, for the name itself may be as long as a name can be.
    prefix = f".twolayer-{zlib.crc32(target.name.encode(errors='surrogateescape')):08x}-"
    try:
        _sweep(target.parent, prefix)
        while True:
            new = target.parent / (prefix + os.urandom(4).hex())
            file = new.open("xb")  # for writing alone: NumPy copies what it writes into others
            with suppress(OSError):  # where nothing can be locked, nothing is swept
                fcntl.flock(file, fcntl.LOCK_EX)
            if os.fstat(file.fileno()).st_nlink:  # 0: swept before it was locked
                break
            file.close()
    except OSError:
        if not there:
            raise
        yield None
        return
    with file:
        try:
            yield file
        finally:
            Path(file.name).unlink(missing_ok=True)


def _sweep(folder: Path, prefix: str) -> None:
    """Remove the new files of those who were killed."""
    for left in folder.glob(f"{prefix}*"):
        with suppress(OSError), left.open("rb") as file:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            left.unlink()


def _spooled() -> Any:
    from tempfile import SpooledTemporaryFile

    return SpooledTemporaryFile(_SPOOLED)


def _replace(target: Path, new: IO[bytes]) -> bool:
    """Move the new file into the place; False if something holds the place."""
    os.fsync(new.fileno())
    there = target.exists()
    if there:
        shutil.copymode(target, new.name)
    try:
        os.replace(new.name, target)
    except OSError:
        if there:
            return False
        raise
    with suppress(OSError):  # where folders cannot be opened
        folder = os.open(target.parent, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)
    return True


def _pour(file: IO[bytes], path: Path) -> None:
    """Write what is in the file in place. Nobody is told that a pipe's reader has left."""
    if path == STDOUT:
        try:
            handle: int | None = sys.stdout.fileno()
        except OSError:  # no file, but a stream of Python's own
            sys.stdout.write(file.read().decode())
            return
    else:
        handle = _descriptor(path)
    if handle is None:
        # Not created: in a folder that all may write to, nobody else's file can be opened so.
        handle = os.open(path, os.O_WRONLY | os.O_TRUNC)
    else:  # behind what is there already
        sys.stdout.flush()
        sys.stderr.flush()
        handle = os.dup(handle)
    with suppress(BrokenPipeError), os.fdopen(handle, "wb") as place:
        shutil.copyfileobj(file, place)

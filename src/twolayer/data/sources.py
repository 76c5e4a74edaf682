"""Arrays on disk, read a block of rows at a time: .npy files, memory maps and Zarr arrays.

An .npy file is read, not mapped: pages of a map count as this process's memory as long as there is
some to spare. It is read past the system's cache, which costs the processor next to nothing and
would not hold the file anyway.
"""

from __future__ import annotations

import importlib.util
import mmap
import os
import weakref
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ..texts import missing

_PAGE = 4096  # bytes; what direct reads are aligned to


class Source:
    """Rows of an array that stays where it is.

    Arguments: array, with shape, dtype and slices of rows; name, for messages; first and last, the
    rows that count. `read` copies some of them.
    """

    def __init__(self, array: Any, name: str, first: int = 0, last: int | None = None) -> None:
        self._array, self.name, self._first = array, name, first
        self._last = array.shape[0] if last is None else last
        self.dtype = np.dtype(array.dtype)
        self.shape = (self._last - first, *array.shape[1:])
        self.ndim = len(self.shape)

    def __len__(self) -> int:
        return int(self.shape[0])

    def __getitem__(self, rows: slice) -> Source:
        """A source of some of the rows."""
        start, stop, _ = rows.indices(len(self))
        return type(self)(self._array, self.name, self._first + start, self._first + stop)

    def read(self, start: int, stop: int, out: np.ndarray) -> np.ndarray:
        """Rows start to stop in the dtype of `out`, in its first rows, which are returned."""
        rows = out[: stop - start]
        with np.errstate(over="ignore"):
            rows[...] = self._array[self._first + start : self._first + stop]
        return rows

    def buffer(self, rows: int, dtype: np.dtype) -> Any:
        """Memory for `fetch`."""
        return np.empty((rows, *self.shape[1:]), dtype)

    def fetch(self, start: int, stop: int, buffer: Any) -> np.ndarray:
        """Rows start to stop, inside a buffer of this source."""
        return self.read(start, stop, buffer)

    def rows(self, start: int, stop: int) -> np.ndarray:
        """Rows start to stop, or to the last one, in an array of their own."""
        stop = min(stop, len(self))
        out = np.empty((stop - start, *self.shape[1:]), self.dtype)
        return self.read(start, stop, out)


class _File:
    """A C-contiguous array inside a file: rows are read without a map."""

    def __init__(self, path: Path, offset: int, shape: tuple[int, ...], dtype: np.dtype) -> None:
        self.shape, self.dtype, self._offset = shape, dtype, offset
        self._row = int(np.prod(shape[1:], dtype=np.int64)) * dtype.itemsize
        self._path, self._file = path, os.open(path, os.O_RDONLY)
        weakref.finalize(self, os.close, self._file)
        self._direct = self._open_direct() if offset % dtype.itemsize == 0 else None
        size = os.fstat(self._file).st_size
        if size < offset + shape[0] * self._row:
            raise ValueError(
                f"{path}: expected a whole .npy file, got {size} bytes of "
                f"{offset + shape[0] * self._row}"
            )

    def read(self, start: int, out: np.ndarray) -> None:
        """Fill `out` with rows from `start` on."""
        view = memoryview(out.reshape(-1).view(np.uint8).data)
        place = self._offset + start * self._row
        while len(view):
            count = os.preadv(self._file, [view], place)
            if count == 0:
                raise ValueError(f"{self._path}: ended while it was read")
            view, place = view[count:], place + count

    def _open_direct(self) -> int | None:
        """The file past the system's cache, where there is a way: that copies nothing."""
        try:
            file = os.open(self._path, os.O_RDONLY | os.O_DIRECT)
        except (OSError, AttributeError):
            return None
        weakref.finalize(self, os.close, file)
        try:
            os.preadv(file, [mmap.mmap(-1, _PAGE)], 0)
        except OSError:
            return None
        return file

    def buffer(self, rows: int) -> mmap.mmap | None:
        """Whole pages for `fetch`, or None where it cannot be used."""
        return None if self._direct is None else mmap.mmap(-1, rows * self._row + 2 * _PAGE)

    def fetch(self, start: int, stop: int, buffer: mmap.mmap) -> np.ndarray:
        """Rows start to stop, inside the pages of the buffer."""
        assert self._direct is not None
        first, last = (self._offset + row * self._row for row in (start, stop))
        low = first // _PAGE * _PAGE
        view = memoryview(buffer)[: -(-(last - low) // _PAGE) * _PAGE]
        got = 0
        while low + got < last:
            count = os.preadv(self._direct, [view[got:]], low + got)
            if count == 0:
                raise ValueError(f"{self._path}: ended while it was read")
            got += count
        shape = (stop - start, *self.shape[1:])
        count = int(np.prod(shape, dtype=np.int64))
        return np.frombuffer(buffer, self.dtype, count, first - low).reshape(shape)


class FileSource(Source):
    """A `Source` of an .npy file."""

    _array: _File

    def read(self, start: int, stop: int, out: np.ndarray) -> np.ndarray:
        """As `Source.read`."""
        rows = out[: stop - start]
        if rows.dtype == self.dtype:
            self._array.read(self._first + start, rows)
            return rows
        raw = np.empty(rows.shape, self.dtype)
        self._array.read(self._first + start, raw)
        with np.errstate(over="ignore"):
            rows[...] = raw
        return rows

    def buffer(self, rows: int, dtype: np.dtype) -> Any:
        """As `Source.buffer`."""
        pages = self._array.buffer(rows) if dtype == self.dtype else None
        return super().buffer(rows, dtype) if pages is None else pages

    def fetch(self, start: int, stop: int, buffer: Any) -> np.ndarray:
        """As `Source.fetch`."""
        if isinstance(buffer, mmap.mmap):
            return self._array.fetch(self._first + start, self._first + stop, buffer)
        return self.read(start, stop, buffer)


def source(array: Any, name: str = "X") -> Source:
    """A source for the path of an .npy file or a Zarr array, a memory map, or an array.

    Raises ValueError for a file that is missing, damaged or in Fortran order, RuntimeError for a
    Zarr array where zarr is not installed.
    """
    if isinstance(array, Source):
        return array
    if isinstance(array, str | os.PathLike):
        path = Path(array)
        return _zarr(path) if path.is_dir() else _npy(path)
    if isinstance(array, np.memmap) and array.flags.c_contiguous and array.filename is not None:
        whole = array.base is getattr(array, "_mmap", None)  # no slice of another map
        if whole:
            file = _File(Path(array.filename), array.offset, array.shape, array.dtype)
            return FileSource(file, str(array.filename))
    return Source(array, name)


def _npy(path: Path) -> Source:
    if not path.exists():
        raise ValueError(f"{path}: expected a file, got nothing of that name")
    if path.suffix != ".npy":
        raise ValueError(f"{path}: expected an .npy file or a Zarr array to read in blocks")
    try:
        mapped = np.load(path, mmap_mode="r", allow_pickle=False)
    except (ValueError, OSError, EOFError, SyntaxError, TypeError, OverflowError) as error:
        raise ValueError(f"{path}: expected a whole .npy file, got: {error}") from None
    if not mapped.flags.c_contiguous:
        raise ValueError(f"{path}: expected rows one after the other, got Fortran order")
    if 0 in mapped.shape:
        raise ValueError(f"{path}: expected at least one row and column, got {mapped.shape}")
    return FileSource(_File(path, mapped.offset, mapped.shape, mapped.dtype), str(path))


def _zarr(path: Path) -> Source:
    if importlib.util.find_spec("zarr") is None:
        raise RuntimeError(missing(f"{path}: reading a folder needs", "zarr", "cluster"))
    import zarr

    try:
        array = zarr.open_array(path, mode="r")
    except Exception as error:  # zarr has many
        raise ValueError(f"{path}: expected a Zarr array, got: {error}") from None
    return Source(array, str(path))


def block_rows(nbytes: int, sources: Sequence[Source], itemsize: int) -> int:
    """Rows of so many bytes in all, at least one; whole chunks of a Zarr array where those fit."""
    row = sum(int(np.prod(s.shape[1:], dtype=np.int64)) * itemsize for s in sources)
    rows = max(1, nbytes // max(1, row))
    chunks = getattr(sources[0]._array, "chunks", None)
    if chunks and rows > chunks[0]:
        rows = rows // chunks[0] * chunks[0]
    return min(rows, len(sources[0]))

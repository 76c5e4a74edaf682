"""Arrays on disk, read a block of rows at a time: .npy files, memory maps and Zarr arrays.

An .npy file is read, not mapped: pages of a map count as this process's memory as long as there is
some to spare. It is read past the system's cache, which costs the processor next to nothing and
would not hold the file anyway.
"""

from __future__ import annotations

import importlib.util
import math
import mmap
import os
import tokenize
import weakref
import zipfile
import zlib
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.lib import format as form

from ..interface.checks import as_array
from ..network import enough_memory
from ..texts import missing

Change = Callable[[np.ndarray], np.ndarray]

BLOCK = 16 << 20  # bytes that are read at once into memory
_PAGE = 4096  # bytes; what direct reads are aligned to


class Source:
    """Rows of an array that stays where it is.

    Arguments: array, with shape, dtype and slices of rows; name, for messages; first and last, the
    rows that count. `read` copies some of them.
    """

    def __init__(self, array: Any, name: str, first: int = 0, last: int | None = None) -> None:
        self._array, self.name, self._first = array, name, first
        shape = tuple(array.shape)
        self._last = (shape or (0,))[0] if last is None else last
        self.dtype = np.dtype(array.dtype)
        self.shape = (self._last - first, *shape[1:]) if shape else ()
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

    def is_loaded(self, dtype: Any) -> bool:
        """Whether it is an array in memory that can be used as it is."""
        array = self._array
        return type(array) is np.ndarray and array.flags.c_contiguous and array.dtype == dtype

    def load(self, dtype: Any, order: np.ndarray | None = None, finite: bool = False) -> np.ndarray:
        """All rows in memory in a dtype, in an order of their numbers; no copy without need.

        finite, whether NaN and infinity are refused, with ValueError.
        """
        here = order is None and self.is_loaded(dtype)
        out = self._array[self._first : self._last] if here else np.empty(self.shape, dtype)
        rows = block_rows(BLOCK, [self], max(self.dtype.itemsize, out.itemsize))
        if order is not None:
            place = np.empty_like(order)
            place[order] = np.arange(len(order))
            buffer = np.empty((rows, *self.shape[1:]), dtype)
        for start in range(0, len(self), rows):
            stop = min(len(self), start + rows)
            block = out[start:stop] if order is None else buffer
            if not here:
                block = self.read(start, stop, block)
            if finite:
                check_finite(self.name, block, start)
            if order is not None:
                out[place[start:stop]] = block
        return out

    def buffer(self, rows: int, dtype: np.dtype) -> Any:
        """Memory for `fetch`."""
        return np.empty((rows, *self.shape[1:]), dtype)

    def fetch(self, start: int, stop: int, buffer: Any) -> np.ndarray:
        """Rows start to stop, inside a buffer of this source."""
        return self.read(start, stop, buffer)

    def blocks(self, dtype: Any = None) -> Iterator[tuple[int, np.ndarray]]:
        """All rows, as the number of the first and so many as are read at once, in a dtype."""
        dtype = self.dtype if dtype is None else np.dtype(dtype)
        rows = block_rows(BLOCK, [self], max(self.dtype.itemsize, dtype.itemsize))
        for start in range(0, len(self), rows):
            stop = min(len(self), start + rows)
            yield start, self.read(start, stop, np.empty((stop - start, *self.shape[1:]), dtype))

    def rows(self, start: int, stop: int) -> np.ndarray:
        """Rows start to stop, or to the last one, in an array of their own."""
        stop = min(stop, len(self))
        out = np.empty((stop - start, *self.shape[1:]), self.dtype)
        return self.read(start, stop, out)


class File:
    """A C-contiguous array inside a file: rows are read without a map."""

    def __init__(
        self, path: Path, offset: int, shape: tuple[int, ...], dtype: np.dtype, name: str,
        end: int | None = None,
    ) -> None:  # fmt: skip
        self.shape, self.dtype, self._offset = shape, dtype, offset
        self._row = math.prod(shape[1:]) * dtype.itemsize
        self.nbytes = shape[0] * self._row
        self._name, self._path, self._file = name, path, os.open(path, os.O_RDONLY)
        weakref.finalize(self, os.close, self._file)
        aligned = offset % max(1, dtype.itemsize) == 0
        self._direct = self._open_direct() if aligned else None
        got = (os.fstat(self._file).st_size if end is None else end) - offset
        if min(shape) < 0 or got < self.nbytes:
            raise ValueError(
                f"{name}: expected a whole {Path(name).suffix} file, got: {got} bytes for an array "
                f"of shape {shape} and dtype {dtype}"
            )

    def read(self, start: int, out: np.ndarray) -> None:
        """Fill `out` with rows from `start` on."""
        view = memoryview(out.reshape(-1).view(np.uint8).data)
        place = self._offset + start * self._row
        while len(view):
            count = os.preadv(self._file, [view], place)
            if count == 0:
                raise ValueError(f"{self._name}: ended while it was read")
            view, place = view[count:], place + count

    def _open_direct(self) -> int | None:
        """The file past the system's cache, where there is a way: that copies nothing."""
        try:
            file = os.open(self._path, os.O_RDONLY | os.O_DIRECT)
        except (OSError, AttributeError):
            return None
        weakref.finalize(self, os.close, file)
        try:
            os.preadv(file, [_pages(_PAGE)], 0)
        except OSError:
            return None
        return file

    def buffer(self, rows: int) -> mmap.mmap | None:
        """Whole pages for `fetch`, or None where it cannot be used."""
        return None if self._direct is None else _pages(rows * self._row + 2 * _PAGE)

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
                raise ValueError(f"{self._name}: ended while it was read")
            got += count
        shape = (stop - start, *self.shape[1:])
        count = int(np.prod(shape, dtype=np.int64))
        return np.frombuffer(buffer, self.dtype, count, first - low).reshape(shape)


def _pages(nbytes: int) -> mmap.mmap:
    """Memory in whole pages, which a forked child does not share."""
    return mmap.mmap(-1, nbytes, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)


class FileSource(Source):
    """A `Source` of an .npy file."""

    _array: File

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


class _Chunks:
    """A Zarr array; what goes wrong in zarr's many ways is a ValueError that names it."""

    def __init__(self, array: Any, name: str) -> None:
        self.shape, self.dtype, self.chunks = array.shape, array.dtype, array.chunks
        self._array, self._name = array, name
        chunk = math.prod(self.chunks) * self.dtype.itemsize
        enough_memory(f"reading a chunk of {name}", chunk)

    def __getitem__(self, rows: slice) -> np.ndarray:
        try:
            return np.asarray(self._array[rows])
        except Exception as error:
            raise ValueError(f"{self._name}: expected a whole Zarr array, got: {error}") from None


class _Changed:
    """Rows of a source of other numbers: change takes some of the source's, (rows, …)."""

    def __init__(self, inner: Source, dtype: Any, change: Change) -> None:
        self.dtype, self._inner, self._change = np.dtype(dtype), inner, change
        self.shape = (len(inner), *change(inner.rows(0, 1)).shape[1:])

    def __getitem__(self, rows: slice) -> np.ndarray:
        return self._change(self._inner.rows(rows.start, rows.stop))


def changed(inner: Source, dtype: Any, change: Change) -> Source:
    """A source of other numbers, made where and when they are read."""
    return Source(_Changed(inner, dtype, change), inner.name)


def source(array: Any, name: str = "X") -> Source:
    """A source for the path of an .npy file or a Zarr array, a memory map, or an array.

    Raises ValueError for a file that is missing or damaged, RuntimeError for a Zarr array where
    zarr is not installed.
    """
    if isinstance(array, Source):
        return array
    if isinstance(array, str | os.PathLike):
        path = Path(array)
        if path.suffix.lower() == ".npy" and path.is_file():
            return npy(path)
        if not path.is_dir():
            what = " to read in blocks" if path.exists() else ", got nothing of that name"
            raise ValueError(f"{path}: expected an .npy file or a Zarr array{what}")
        found = zarr_arrays(path)
        if [*found] != [""]:
            raise ValueError(f"{path}: expected a Zarr array, got a group of {', '.join(found)}")
        return found[""]
    if isinstance(array, np.memmap) and array.flags.c_contiguous and array.filename is not None:
        whole = array.base is getattr(array, "_mmap", None)  # no slice of another map
        path = Path(array.filename)
        if whole and array.mode != "c" and path.is_file():  # which holds what the array does
            file = File(path, array.offset, array.shape, array.dtype, str(path))
            return FileSource(file, str(path))
    if not hasattr(array, "shape") or isinstance(array, np.ma.MaskedArray):
        array = as_array(name, array)
    return Source(array, name)


def npy(path: Path, name: str | None = None, start: int = 0, end: int | None = None) -> Source:
    """A source of an .npy file, or of one that lies inside of another, from start to end.

    name, for messages. Raises ValueError for what is no whole one of numbers.
    """
    name = str(path) if name is None else name
    try:
        with path.open("rb") as file:
            file.seek(start)
            short = form.read_magic(file) == (1, 0)
            header = form.read_array_header_1_0 if short else form.read_array_header_2_0
            shape, by_columns, dtype = header(file)
            start = file.tell()
        if dtype.hasobject:
            raise ValueError("Python objects")
    except DAMAGED as error:
        raise damaged(Path(name), error) from None
    shape = shape[::-1] if by_columns else shape
    stored = File(path, start, shape or (1,), dtype, name, end)
    if shape and dtype.itemsize and (not by_columns or len(shape) == 1):
        return FileSource(stored, name)
    mapped = np.memmap(path, dtype, "r", start, shape) if stored.nbytes else np.empty(shape, dtype)
    return Source(mapped.T if by_columns else mapped, name)


def zarr_arrays(path: Path) -> dict[str, Source]:
    """The arrays of a folder that Zarr wrote, format 2 or 3: one without a name, or a group's."""
    if not any((path / name).exists() for name in (".zarray", ".zgroup", "zarr.json")):
        raise ValueError(f"{path}: expected a file or a Zarr array, got a folder")
    if importlib.util.find_spec("zarr") is None:
        raise RuntimeError(missing(f"{path}: reading a folder needs", "zarr", "cluster"))
    import zarr

    try:
        found = zarr.open(path, mode="r")
        arrays = dict(found.arrays()) if isinstance(found, zarr.Group) else {"": found}
    except Exception as error:  # zarr has many
        raise ValueError(f"{path}: expected a Zarr array, got: {error}") from None
    return {
        name: Source(_Chunks(array, str(path / name)), str(path / name))
        for name, array in arrays.items()
    }


# What NumPy raises for the many ways in which a file can be damaged.
DAMAGED = (
    ValueError, OSError, EOFError, MemoryError, OverflowError, SyntaxError, KeyError, TypeError,
    NotImplementedError, RuntimeError, tokenize.TokenError, zipfile.BadZipFile, zlib.error,
)  # fmt: skip


def damaged(path: Path, error: Exception) -> ValueError:
    """The error for a file that NumPy cannot read."""
    if "allow_pickle" in str(error) or "Python objects" in str(error):
        return ValueError(f"{path}: expected arrays of numbers, got pickled objects")
    return ValueError(f"{path}: expected a whole {path.suffix} file, got: {error}")


def check_finite(name: str, X: np.ndarray, start: int = 0) -> None:
    """Raise ValueError naming the first of the rows, from start on, with NaN or infinity in X."""
    if X.dtype.kind == "f" and not np.isfinite(X).all():
        row, *rest = (int(i) for i in np.argwhere(~np.isfinite(X))[0])
        raise ValueError(
            f"{name}: expected finite numbers that {X.dtype} can hold in X, "
            f"got {X[row, *rest]} at {[start + row, *rest]}"
        )


def block_rows(nbytes: int, sources: Sequence[Source], itemsize: int, more: int = 0) -> int:
    """Rows of so many bytes in all, at least one; whole chunks of a Zarr array where those fit.

    more: numbers that are made of each row besides.
    """
    row = more * itemsize
    row += sum(int(np.prod(s.shape[1:], dtype=np.int64)) * itemsize for s in sources)
    rows = max(1, nbytes // max(1, row))
    chunks = getattr(sources[0]._array, "chunks", None)
    if chunks and rows > chunks[0]:
        rows = rows // chunks[0] * chunks[0]
    return min(rows, len(sources[0]))

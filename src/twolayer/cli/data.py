"""The data that `twolayer train` is given, by name or in files, in memory or on disk."""

from __future__ import annotations

import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from ..composed import stream
from ..data import datasets, files
from ..data.bundled import BUNDLED
from ..data.sources import BLOCK, Source, block_rows, changed
from ..data.text import LAST, Columns
from ..interface import Plan, Variant, check_threads
from ..machine.hardware import available_memory
from ..network import Network, Parameters, Shape
from ..showing import output

_ORDER = 0  # of the rows: a random stream of its own beside those of the epochs, 1, 2, …
_TOLD = 20  # classes at most that are named
_SAMPLE = 1 << 16  # rows of data on disk that a checksum looks at


class Data(NamedTuple):
    """X (n, d), Y (n, K) or (n,) labels, and the name of the loss that fits them."""

    X: Any  # both arrays, or both a Source
    Y: Any
    loss: str

    @property
    def streamed(self) -> bool:
        """Whether it is read in blocks."""
        return isinstance(self.X, Source)

    def rows(self, rows: Any) -> Data:
        """Some of the rows."""
        return Data(self.X[rows], self.Y[rows], self.loss)

    def plan(self, variant: Variant, net: Network, theta: Parameters, threads: int | None) -> Plan:
        """A plan of the variant over the data."""
        if self.streamed:
            return stream.plan(variant, net, self.X, self.Y, theta, threads)
        try:
            return variant.plan(net, self.X, self.Y, theta, threads)
        except MemoryError as error:
            raise MemoryError(f"{error}; --stream reads X in blocks") from None


def note(sentence: str) -> None:
    """What a user should look at, on stderr."""
    output.stderr().print(f"twolayer: {sentence}", soft_wrap=True)


def is_file(data: str) -> bool:
    """Whether a file is meant, not a data set, whose name wins: ./digits is a file."""
    return data not in BUNDLED and files.is_file(data)


def load(
    data: str | None, X: Path | None, Y: Path | None, columns: Columns, dtype: str,
    streamed: bool = False,
) -> Data:  # fmt: skip
    """A bundled set, one file, or a pair of files, as sources.

    streamed, whether nothing large is to be in memory; what does not fit there never is.
    """
    output.check_unread(data if data is None or is_file(data) else None, X, Y)
    if (data is None) == (X is None) or (X is None) != (Y is None):
        raise ValueError("data: expected either a data set or file, or both --X and --Y")
    if data is None:
        assert X is not None
        assert Y is not None
        return Data(*files.open_pair(X, Y, columns, note, streamed or None), "squared")
    if is_file(data):
        return Data(*files.open_data(data, columns, note, streamed or None), "squared")
    files.check_columns(columns, "a data set")
    found = datasets.load(data, dtype)
    return Data(Source(found.X, data), Source(found.Y, data), found.loss)


def load_validation(
    validation: str, data: Data, columns: Columns, streamed: bool = False
) -> Data | None:
    """The validation data where they are a file, as `load`; None where they are a share."""
    try:
        float(validation)
    except ValueError:
        X, both, Y = validation.partition(",")
        output.check_unread(validation, X, Y)
        if both and not Path(validation).exists():
            alone = columns._replace(targets=LAST.targets)  # --target is said of the data's columns
            held = Data(*files.open_pair(X, Y, alone, note, streamed or None), data.loss)
        else:
            if Path(validation).suffix.lower() not in files.TEXTS:
                columns = columns._replace(targets=LAST.targets)
            held = Data(*files.open_data(validation, columns, note, streamed or None), data.loss)
        if held.X.shape[1] != data.X.shape[1]:
            raise ValueError(
                f"validation: expected {data.X.shape[1]} inputs, got {held.X.shape[1]}"
            ) from None
        return held
    return None


def label(
    net: Network, parts: Sequence[Data], classes: bool
) -> tuple[list[Data], int, np.ndarray | None]:
    """The parts, K of a network for their targets, and which classes the outputs are for, if told.

    classes, whether the labels that occur are numbered. The check of the targets is the plan's.
    """
    Y, targets = parts[0].Y, net.objective.targets
    if classes and Y.ndim == 2:
        raise ValueError(f"classes: expected labels of shape (n,), got Y {Y.shape}")
    if classes:
        found = _distinct(parts)
        codes = targets.codes(len(found))
        parts = [
            part._replace(
                Y=changed(part.Y, codes.dtype, lambda Y: codes[np.searchsorted(found, Y)])
            )
            for part in parts
        ]
        return list(parts), 1 if targets.single else len(found), found
    if Y.ndim == 2:
        return list(parts), Y.shape[1], None
    if not targets.labels or Y.dtype.kind not in "iu":
        return list(parts), 1, None
    found = _distinct(parts)
    K = max(1, 1 + int(found[-1]))
    if found[0] >= 0 and len(found) < K:
        note(
            f"Y: labels {found[0]} to {found[-1]} make K = {K} classes, of which {len(found)} "
            f"{'occurs' if len(found) == 1 else 'occur'}: --classes numbers those alone"
        )
    return list(parts), K, None


def told(classes: np.ndarray) -> str:
    """Which classes the outputs are for, in their order."""
    shown = [*map(str, classes[:_TOLD].tolist()), *["…"] * (len(classes) > _TOLD)]
    return f"the classes are, in their order, {', '.join(shown)}"


def _distinct(parts: Sequence[Data]) -> np.ndarray:
    """The labels that occur, in order."""
    found: list[np.ndarray] = []
    for part in parts:
        for _, block in part.Y.blocks():
            found = [np.unique(np.concatenate([*found, np.unique(block)]))]
    return found[0]


def ready(
    parts: Sequence[Data], variant: Variant, net: Network, sizes: tuple[int, int], dtype: str,
    threads: int | None, streamed: bool, order: int | None,
) -> list[Data]:  # fmt: skip
    """The parts in memory, the rows of the first in a random order; what does not fit, as it is.

    sizes, M and K; streamed, whether none is to be in memory; order, a seed, None for that of the
    file.
    """
    threads = check_threads(threads)
    needed = sum(_bytes(part, variant, net, sizes, dtype, threads, order) for part in parts)
    free = available_memory()
    if not streamed and needed > free:
        what = (
            f"{parts[0].X.name}: the training needs {needed / 2**30:.2f} GiB of memory, "
            f"{free / 2**30:.2f} GiB are free"
        )
        if variant.device not in ("cpu", "any"):
            raise MemoryError(f"{what}: take --stream and a variant for the CPU")
        note(f"{what}: X is read in blocks, as with --stream")
        streamed = True
    if streamed:
        if order is not None:
            note(
                f"{parts[0].X.name}: what is read in blocks is not shuffled: shuffle the rows of "
                "the files where their order means something"
            )
        return list(parts)
    loaded: list[Data] = []
    for part in parts:
        rows = None
        if order is not None and not loaded:
            rows = np.random.default_rng([order, _ORDER]).permutation(len(part.X))
        X, Y = part.X.load(dtype, rows, finite=True), part.Y.load(part.Y.dtype, rows)
        loaded.append(Data(X, Y, part.loss))
    return loaded


def _bytes(
    part: Data, variant: Variant, net: Network, sizes: tuple[int, int], dtype: str, threads: int,
    order: int | None,
) -> int:  # fmt: skip
    """All that a training takes for these rows: arrays, a variant's buffers, outputs at the end."""
    M, K = sizes
    n, d = part.X.shape
    size = np.dtype(dtype).itemsize
    own = 0 if part.X.is_loaded(dtype) and order is None else n * d * size
    row = 2 * size + (0 if net.objective.targets.labels else 3 * 8)  # Y, F; the score in float64
    return own + n * K * row + variant.workspace(Shape(n, d, M, K), size, threads)


def split(data: Data, share: str) -> tuple[Data, Data]:
    """What to train on, and the validation data: the last rows, so large a share.

    Raises ValueError for a share that leaves no row to either.
    """
    n = len(data.X)
    first = n - round(float(share) * n) if 0 < float(share) < 1 else 0
    if not 0 < first < n:
        raise ValueError(
            f"validation: expected a file, or a share of the {n} rows that leaves some to both, "
            f"got {share}"
        )
    return data.rows(slice(0, first)), data.rows(slice(first, n))


def checksum(*parts: Data) -> int:
    """A number that changes with the data; of data on disk, with their first rows and sizes."""
    value = 0
    for part in parts:
        for array in (part.X, part.Y):
            value = zlib.crc32(str(array.shape).encode(), value)
            for block in _sampled(array) if isinstance(array, Source) else (array,):
                bytes_ = np.ascontiguousarray(block).reshape(-1).view(np.uint8)
                value = zlib.crc32(bytes_.data, value)
    return value


def _sampled(array: Source) -> Iterator[np.ndarray]:
    """The first rows, as many at a time as a block of data on disk has."""
    last = min(len(array), _SAMPLE)
    rows = block_rows(BLOCK, [array], array.dtype.itemsize)
    for start in range(0, last, rows):
        yield array.rows(start, min(start + rows, last))

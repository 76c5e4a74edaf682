"""The data that `twolayer train` is given, by name or in files, in memory or on disk."""

from __future__ import annotations

import zlib
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from ..composed import stream
from ..data import datasets, files
from ..data.sources import Source, source
from ..interface import Plan, Variant
from ..machine.hardware import available_memory
from ..network import Network, Parameters

_ORDER = 0  # of the rows: a random stream of its own beside those of the epochs, 1, 2, …
_SAMPLE = 1 << 16  # rows of data on disk that a checksum looks at


class Data(NamedTuple):
    """X (n, d), Y (n, K) or (n,) labels, and the name of the loss that fits them."""

    X: Any  # both arrays, or both a Source
    Y: Any
    loss: str

    @property
    def streamed(self) -> bool:
        """Whether it stays on disk."""
        return isinstance(self.X, Source)

    def rows(self, rows: Any) -> Data:
        """Some of the rows."""
        return Data(self.X[rows], self.Y[rows], self.loss)

    def plan(self, variant: Variant, net: Network, theta: Parameters, threads: int | None) -> Plan:
        """A plan of the variant over the data."""
        if self.streamed:
            return stream.plan(variant, net, self.X, self.Y, theta, threads)
        return variant.plan(net, self.X, self.Y, theta, threads)


def load(
    data: str | None, X: Path | None, Y: Path | None, target: int, dtype: str, streamed: bool
) -> Data:
    """A bundled set, one file, or a pair of files; what does not fit into memory is streamed."""
    if (data is None) == (X is None) or (X is None) != (Y is None):
        raise ValueError("data: expected either a data set or file, or both --X and --Y")
    if data is None:
        assert X is not None
        assert Y is not None
        large = X.suffix == ".npy" and X.is_file() and X.stat().st_size > available_memory()
        zarr = X.is_dir() and (X / "zarr.json").exists()
        if streamed or large or zarr:
            return Data(source(X), source(Y), "squared")
        return Data(*files.load_pair(X, Y, dtype), "squared")
    if streamed:
        raise ValueError("stream: expected --X and --Y beside it, .npy files or Zarr arrays")
    if Path(data).suffix in files.FORMATS or Path(data).exists():
        return Data(*files.load(data, target, dtype), "squared")
    found = datasets.load(data, dtype)
    return Data(found.X, found.Y, found.loss)


def outputs(net: Network, *parts: Data) -> int:
    """K of a network for these targets; the check of the targets themselves is the plan's."""
    Y = parts[0].Y
    if Y.ndim == 2:
        return int(Y.shape[1])
    if not net.objective.targets.labels or Y.dtype.kind not in "iu":
        return 1
    return max(1, *(1 + _largest(part.Y) for part in parts))


def _largest(labels: np.ndarray | Source) -> int:
    """The largest of them, without more of them in memory than a block."""
    blocks = range(0, len(labels), _SAMPLE)
    if isinstance(labels, Source):
        return max(int(labels.rows(i, i + _SAMPLE).max()) for i in blocks)
    return int(labels.max())


def shuffle(data: Data, seed: int) -> Data:
    """The rows in a random order; data on disk stay as they are."""
    if data.streamed:
        return data
    return data.rows(np.random.default_rng([seed, _ORDER]).permutation(len(data.X)))


def split(data: Data, validation: str, target: int, dtype: str) -> tuple[Data, Data]:
    """What to train on, and the validation data: the last rows, so large a share, or a file.

    Raises ValueError for a share that leaves no row to either, and for a bad file.
    """
    try:
        share = float(validation)
    except ValueError:
        held = Data(*files.load(validation, target, dtype), data.loss)
        if held.X.shape[1] != data.X.shape[1]:
            raise ValueError(
                f"validation: expected {data.X.shape[1]} inputs, got {held.X.shape[1]}"
            ) from None
        return data, held
    n = len(data.X)
    first = n - round(share * n) if 0 < share < 1 else 0
    if not 0 < first < n:
        raise ValueError(
            f"validation: expected a file, or a share of the {n} rows that leaves some to both, "
            f"got {validation}"
        )
    return data.rows(slice(0, first)), data.rows(slice(first, n))


def checksum(*parts: Data) -> int:
    """A number that changes with the data; of data on disk, with their first rows and sizes."""
    value = 0
    for part in parts:
        for array in (part.X, part.Y):
            value = zlib.crc32(str(array.shape).encode(), value)
            if isinstance(array, Source):
                array = array.rows(0, _SAMPLE)
            value = zlib.crc32(np.ascontiguousarray(array).reshape(-1).view(np.uint8).data, value)
    return value

"""X and Y from files: NumPy's .npy and .npz, text with a row a sample, and Zarr's folders.

All come as sources, in memory or on disk; what is read of them does not depend on the format.
Pickled objects are refused, since loading one runs whatever code it holds.
"""

from __future__ import annotations

import warnings
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.lib.npyio import NpzFile

from ..network import enough_memory, float_type
from . import sources, spilled, text
from .sources import Source, changed
from .spilled import Tell
from .text import LAST, NONE, Columns

TEXTS = (".csv", ".tsv")
FORMATS = (".npy", ".npz", *TEXTS)
# How files begin that are taken for others.
_BEGINNINGS = {
    b"\x93NUMPY": "an .npy file", b"PK": "a zip file, as .npz and .xlsx are",
    b"\x89HDF": "an HDF5 file", b"PAR1": "a Parquet file", b"ARROW1": "an Arrow file",
    b"\x1f\x8b": "a gzip file, which gunzip unpacks", b"\xff\xfe": "UTF-16", b"\xfe\xff": "UTF-16",
}  # fmt: skip
_LENGTHS = 26  # where an entry of a zip file has those of its name and of what is said beside it
_RIGHT = {".npy": b"\x93NUMPY", ".npz": b"PK"}
_NAMES = {  # of the arrays in a file that has both, first come first served
    "X": ("X", "x", "X_train", "x_train"),
    "Y": ("Y", "y", "Y_train", "y_train"),
}
_ADVICE = {
    "V": ": numpy.lib.recfunctions.structured_to_unstructured makes columns of the fields",
    "U": ": --classes numbers labels that are words",
}


def read_arrays(path: str | Path, names: Sequence[str]) -> dict[str, np.ndarray]:
    """The arrays of an .npz file; ValueError for damage, and unless those of `names` are there."""
    path, kind = _existing(path)
    if kind != ".npz":
        raise ValueError(f"{path}: expected a file named .npz")
    arrays = _npz(path)
    for name in names:
        if name not in arrays:
            raise ValueError(f"{path}: expected arrays {', '.join(names)}, {name} is missing")
    return arrays


def is_file(data: str) -> bool:
    """Whether a text is meant as a path, not as the name of a data set."""
    return bool(Path(data).suffix) or Path(data).name != data or Path(data).exists()


def open_data(
    path: str | Path, columns: Columns = LAST, tell: Tell = warnings.warn,
    streamed: bool | None = None,
) -> tuple[Source, Source]:  # fmt: skip
    """X (n, d) and Y, (n,) or (n, K), of one file.

    An .npz file or a Zarr group holds them as X and Y, or by a name of `_NAMES`; of a text the last
    columns are Y. Raises ValueError for a file that is missing, damaged, empty, ragged or not
    numeric; what is not finite is found where X is read. tell takes what a user should look at;
    streamed is as for `spilled.on_disk`.
    """
    path, kind = _existing(path)
    check_columns(columns, kind)
    if kind in TEXTS:
        X, Y = text.read(path, columns, tell, streamed)
    elif kind == ".npy":
        raise ValueError(f"{path}: an .npy file holds one array: give X and Y as two files")
    else:
        X, Y = _named(path, kind, ("X", "Y"), tell, streamed)
    X, Y = inputs(X), targets(Y, bool(columns.words))
    if len(X) != len(Y):
        raise ValueError(f"{path}: expected as many rows, got X {X.shape} and Y {Y.shape}")
    return X, Y


def open_pair(
    X: str | Path, Y: str | Path, columns: Columns = LAST, tell: Tell = warnings.warn,
    streamed: bool | None = None,
) -> tuple[Source, Source]:  # fmt: skip
    """X (n, d) and Y, each from a file of its own; errors as for `open_data`."""
    (X_path, X_kind), (Y_path, Y_kind) = _existing(X), _existing(Y)
    check_columns(columns, X_kind, Y_kind)
    x = inputs(_alone(X_path, X_kind, columns._replace(targets=0, words=False), tell, streamed))
    y = _alone(Y_path, Y_kind, columns._replace(targets=None, drop=None), tell, streamed)
    y = targets(y, bool(columns.words))
    if len(x) != len(y):
        raise ValueError(f"{Y}: expected {len(x)} rows as in {X}, got {len(y)}")
    return x, y


def open_inputs(path: str | Path, columns: Columns = NONE, tell: Tell = warnings.warn) -> Source:
    """X (n, d) of a file, which may have it beside other arrays; errors as for `open_data`."""
    path, kind = _existing(path)
    check_columns(columns, kind, usual=NONE.targets)
    if kind == ".npz" or (kind == "" and "" not in sources.zarr_arrays(path)):
        return inputs(*_named(path, kind, ("X",), tell, None))
    return inputs(_alone(path, kind, columns._replace(words=None), tell, None))


def load(
    path: str | Path, targets: int = 1, dtype: Any = "float32"
) -> tuple[np.ndarray, np.ndarray]:
    """X (n, d) of the given dtype and Y from one file, in memory; the rest as for `open_data`."""
    X, Y = open_data(path, Columns(targets), streamed=False)
    return X.load(float_type("dtype", dtype), finite=True), Y.load(Y.dtype)


def load_pair(
    X: str | Path, Y: str | Path, dtype: Any = "float32"
) -> tuple[np.ndarray, np.ndarray]:
    """X (n, d) of the given dtype and Y from two files, in memory; as for `open_pair`."""
    x, y = open_pair(X, Y, streamed=False)
    return x.load(float_type("dtype", dtype), finite=True), y.load(y.dtype)


def inputs(X: Source) -> Source:
    """X (n, d) of real numbers; ValueError for others."""
    _numbers(X, "X", "")
    if X.ndim != 2 or 0 in X.shape:
        advice = {1: ": X[:, None] is one input a row"}.get(
            X.ndim, "" if X.ndim < 3 else ": X.reshape(len(X), -1) makes a row of each"
        )
        raise ValueError(f"{X.name}: expected X of shape (n, d), got {X.shape}{advice}")
    return X


def targets(Y: Source, words: bool = False) -> Source:
    """Y, (n,) where there is one a row, else (n, K); whole numbers (n,) are integers."""
    _numbers(Y, "Y", "UST" if words else "")
    if Y.ndim not in (1, 2) or 0 in Y.shape:
        raise ValueError(f"{Y.name}: expected Y of shape (n,) or (n, K), got {Y.shape}")
    if Y.dtype.kind == "S":  # four characters are written for a byte that is no UTF-8
        name = np.dtype(f"U{4 * Y.dtype.itemsize}")
        Y = changed(Y, name, lambda block: np.strings.decode(block, "utf-8", "backslashreplace"))
    if Y.dtype.kind == "f" and Y.dtype.itemsize > 8:
        Y = changed(Y, np.float64, lambda block: block.astype(np.float64))
    if Y.shape[1:] == (1,):
        Y = changed(Y, Y.dtype, lambda block: block[:, 0])
    whole = Y.ndim == 1
    for start, block in Y.blocks() if Y.dtype.kind == "f" else ():
        if not np.isfinite(block).all():
            row, *rest = (int(i) for i in np.argwhere(~np.isfinite(block))[0])
            raise ValueError(
                f"{Y.name}: expected finite numbers in Y, got {block[row, *rest]} at "
                f"{[start + row, *rest]}"
            )
        whole = whole and bool((np.rint(block) == block).all() and abs(block).max() < 2**53)
    if whole and Y.dtype.kind == "f":
        return changed(Y, np.int64, lambda block: block.astype(np.int64))
    return Y


def _existing(path: str | Path) -> tuple[Path, str]:
    """The path, and the ending of its name, "" for a folder."""
    path = Path(path)
    if path.is_dir():
        return path, ""
    if not path.exists():
        raise ValueError(f"{path}: expected a file, got nothing of that name")
    if not path.is_file():
        raise ValueError(f"{path}: expected a plain file, got a pipe or a device")
    kind = path.suffix.lower()
    with path.open("rb") as file:
        start = file.read(8)
    what = next((name for begin, name in _BEGINNINGS.items() if start.startswith(begin)), "")
    if kind not in FORMATS:
        got = f", got {what}" if what else ""
        raise ValueError(
            f"{path}: expected a file named {' or '.join(FORMATS)}, or a Zarr folder{got}"
        )
    if not start:
        raise ValueError(f"{path}: expected numbers, got an empty file")
    if kind in TEXTS and what:
        raise ValueError(f"{path}: expected text in UTF-8, got {what}")
    if kind in _RIGHT and not start.startswith(_RIGHT[kind]):
        raise ValueError(f"{path}: expected a whole {kind} file, got: {what or 'another'}")
    return path, kind


def check_columns(
    columns: Columns, X: str, Y: str | None = None, usual: int | None = LAST.targets
) -> None:
    """Refuse what is said about columns of text where there is none.

    X, Y: the kinds of the files, Y of one of its own; usual: the targets where nothing is said.
    """
    texts = " or ".join(TEXTS)
    if columns.targets != usual and (Y is not None or X not in TEXTS):
        found = "X and Y in files of their own" if Y is not None else X or "a Zarr folder"
        raise ValueError(f"target: expected a file named {texts}, got {found}")
    if columns.drop is not None and X not in TEXTS:
        raise ValueError(f"drop: expected X in a file named {texts}, got {X or 'a Zarr folder'}")
    if columns.header is not None and not {X, Y} & {*TEXTS}:
        raise ValueError(f"header: expected a file named {texts}, got {X or 'a Zarr folder'}")


def _named(
    path: Path, kind: str, wanted: Sequence[str], tell: Tell, streamed: bool | None
) -> list[Source]:
    """X, or X and Y, of a file or a folder that holds several arrays."""
    group = sources.zarr_arrays(path) if kind == "" else {}
    if "" in group:
        raise ValueError(f"{path}: a Zarr array is X or Y alone: give both, with --X and --Y")
    entries = {} if kind == "" else _entries(path)
    held = [*(group or entries)]
    chosen = [next((name for name in _NAMES[want] if name in held), "") for want in wanted]
    if "" in chosen:
        which = "arrays X and Y" if len(wanted) == 2 else "an array X"
        advice = f": numpy.savez(FILE, {', '.join(f'{want}=…' for want in wanted)}) names them"
        raise ValueError(f"{path}: expected {which}, got {', '.join(held) or 'nothing'}{advice}")
    if kind == "":
        return [group[name] for name in chosen]
    members = [entries[name] for name in chosen]
    written = sum(entry.file_size for entry in members if not _lies_open(entry))
    if spilled.on_disk(path, sum(entry.file_size for entry in members), written, streamed, tell):
        return [_member(path, entry) for entry in members]
    arrays = _npz(path, chosen)
    return [Source(arrays[name], str(path)) for name in chosen]


def _alone(path: Path, kind: str, columns: Columns, tell: Tell, streamed: bool | None) -> Source:
    """The one array of a file or a folder; of a text X, or Y where all columns are targets."""
    if kind in TEXTS:
        X, Y = text.read(path, columns, tell, streamed)
        return Y if columns.targets is None else X
    if kind == ".npz":
        raise ValueError(f"{path}: an .npz file holds X and Y together: give it alone")
    return sources.npy(path) if kind else sources.source(path)


def _entries(path: Path) -> dict[str, zipfile.ZipInfo]:
    """What an .npz file says of each array."""
    try:
        with zipfile.ZipFile(path) as archive:
            return {entry.filename.removesuffix(".npy"): entry for entry in archive.infolist()}
    except sources.DAMAGED as error:
        raise sources.damaged(path, error) from None


def _npz(path: Path, names: Sequence[str] | None = None) -> dict[str, np.ndarray]:
    """Arrays of an .npz file by name: those named, or all."""
    entries = _entries(path)
    found = [name for name in entries if names is None or name in names]
    enough_memory(f"reading {path}", sum(entries[name].file_size for name in found))
    try:
        with path.open("rb") as file, NpzFile(file, allow_pickle=False) as archive:
            arrays = {name: archive[name] for name in found}
    except sources.DAMAGED as error:
        raise sources.damaged(path, error) from None
    for name, array in arrays.items():
        if not isinstance(array, np.ndarray):  # but the bytes of what is no array
            raise ValueError(f"{path}: expected arrays, got something else as {name}")
    return arrays


def _lies_open(entry: zipfile.ZipInfo) -> bool:
    """Whether the bytes of an array are in the archive as they are."""
    return entry.compress_type == zipfile.ZIP_STORED and not entry.flag_bits & 1


def _member(path: Path, entry: zipfile.ZipInfo) -> Source:
    """An array of an .npz file on disk: where it lies, or written there as an .npy file."""
    spill = None if _lies_open(entry) else spilled.Spill(path)
    try:
        with zipfile.ZipFile(path) as archive, archive.open(entry) as member:
            while block := member.read(sources.BLOCK):  # which looks at the checksum, too
                if spill is not None:
                    spill.write(block)
        with path.open("rb") as file:
            file.seek(entry.header_offset + _LENGTHS)
            lengths = np.frombuffer(file.read(4), "<u2")
    except spilled.Full:
        raise
    except sources.DAMAGED as error:
        raise sources.damaged(path, error) from None
    if spill is not None:
        return spill.npy()
    start = entry.header_offset + _LENGTHS + 4 + int(lengths.sum(dtype=np.int64))
    return sources.npy(path, str(path), start, start + entry.file_size)


def _numbers(array: Source, name: str, others: str) -> None:
    kind = array.dtype.kind
    if kind not in "buif" + others:
        raise ValueError(
            f"{array.name}: expected {name} of real numbers, got dtype {array.dtype}"
            + ("" if kind == "U" and name == "X" else _ADVICE.get(kind, ""))
        )

"""X and Y from files: NumPy's .npy and .npz, and .csv with comma-separated numbers.

Pickled objects are refused, since loading one runs whatever code it holds.
"""

from __future__ import annotations

import tokenize
import warnings
import zipfile
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.lib.npyio import NpzFile

from ..network import enough_memory, float_type

FORMATS = (".npy", ".npz", ".csv")
# What NumPy raises for the many ways in which a file can be damaged.
_DAMAGED = (
    ValueError, OSError, EOFError, MemoryError, OverflowError, SyntaxError, KeyError, TypeError,
    NotImplementedError, RuntimeError, tokenize.TokenError, zipfile.BadZipFile, zlib.error,
)  # fmt: skip


def read_arrays(path: str | Path, names: Sequence[str] | None) -> dict[str, np.ndarray]:
    """Those arrays of an .npz file, or all; ValueError for damage and for what is not there."""
    path = _existing(path)
    if path.suffix != ".npz":
        raise ValueError(f"{path}: expected a file named .npz")
    arrays = _read(path, names)
    for name in names or ():
        if name not in arrays:
            raise ValueError(f"{path}: expected arrays {', '.join(names or ())}, {name} is missing")
    return arrays


def load(
    path: str | Path, targets: int = 1, dtype: Any = "float32"
) -> tuple[np.ndarray, np.ndarray]:
    """X (n, d) of the given dtype and Y from one file.

    An .npz holds them under the names X and Y; of a .csv, with or without a line of column names,
    the last `targets` columns are Y, (n,) where that is one. Raises ValueError for a file that is
    missing, damaged, empty, ragged, not numeric or not finite.
    """
    path = _existing(path)
    if path.suffix == ".npy":
        raise ValueError(f"{path}: an .npy file holds one array: give X and Y as two files")
    if path.suffix == ".npz":
        arrays = _read(path)
        missing = [name for name in ("X", "Y") if name not in arrays]
        if missing:
            held = ", ".join(arrays) or "nothing"
            raise ValueError(f"{path}: expected arrays X and Y, got {held}")
        return inputs(path, arrays["X"], dtype), labels(path, arrays["Y"])
    table = _read(path)["table"]
    if not 1 <= targets < table.shape[1]:
        raise ValueError(
            f"{path}: expected columns of inputs and {targets} of targets, "
            f"got {table.shape[1]} in all"
        )
    X, Y = table[:, :-targets], table[:, -targets:]
    return inputs(path, X, dtype), labels(path, Y[:, 0] if targets == 1 else Y)


def load_pair(
    X: str | Path, Y: str | Path, dtype: Any = "float32"
) -> tuple[np.ndarray, np.ndarray]:
    """X (n, d) of the given dtype and Y from two .npy or .csv files; errors as for `load`."""
    pair = []
    for path in map(_existing, (X, Y)):
        if path.suffix == ".npz":
            raise ValueError(f"{path}: an .npz file holds X and Y together: give it alone")
        (array,) = _read(path).values()
        pair.append(array)
    if Path(Y).suffix == ".csv" and pair[1].shape[1] == 1:
        pair[1] = pair[1][:, 0]
    X_array, Y_array = inputs(X, pair[0], dtype), labels(Y, pair[1])
    if len(X_array) != len(Y_array):
        raise ValueError(f"{Y}: expected {len(X_array)} rows as in {X}, got {len(Y_array)}")
    return X_array, Y_array


def load_inputs(path: str | Path, targets: int = 0, dtype: Any = "float32") -> np.ndarray:
    """X (n, d) of the given dtype from an .npy or .csv file, or an .npz that has it by that name.

    The last `targets` columns of a .csv are left out. Errors as for `load`.
    """
    path = _existing(path)
    if path.suffix == ".npz":
        return inputs(path, read_arrays(path, ("X",))["X"], dtype)
    (array,) = _read(path).values()
    if path.suffix == ".csv" and targets:
        if not 0 < targets < array.shape[1]:
            raise ValueError(
                f"{path}: expected columns of inputs and {targets} others, "
                f"got {array.shape[1]} in all"
            )
        array = array[:, :-targets]
    return inputs(path, array, dtype)


def inputs(path: str | Path, X: np.ndarray, dtype: Any) -> np.ndarray:
    """X (n, d) in the given dtype; ValueError for another rank and for what it cannot hold."""
    dtype = float_type("dtype", dtype)
    if X.ndim != 2 or 0 in X.shape:
        raise ValueError(f"{path}: expected X of shape (n, d), got {X.shape}")
    X = _numbers(path, "X", X)
    with np.errstate(over="ignore"):
        converted = X.astype(dtype, copy=False)
    return _finite(path, "X", converted, f" that {dtype} can hold")


def labels(path: str | Path, Y: np.ndarray) -> np.ndarray:
    """Y (n,) or (n, K); floating-point labels (n,) that are whole numbers become integers."""
    if Y.ndim not in (1, 2) or 0 in Y.shape:
        raise ValueError(f"{path}: expected Y of shape (n,) or (n, K), got {Y.shape}")
    Y = _finite(path, "Y", _numbers(path, "Y", Y), "")
    whole = Y.ndim == 1 and Y.dtype.kind == "f" and bool((np.rint(Y) == Y).all())
    return Y.astype(np.int64) if whole and float(abs(Y).max()) < 2**53 else Y


def _existing(path: str | Path) -> Path:
    path = Path(path)
    if path.is_dir():
        raise ValueError(f"{path}: expected a file, got a folder")
    if not path.exists():
        raise ValueError(f"{path}: expected a file, got nothing of that name")
    if path.suffix not in FORMATS:
        raise ValueError(f"{path}: expected a file named {' or '.join(FORMATS)}")
    if path.stat().st_size == 0:
        raise ValueError(f"{path}: expected numbers, got an empty file")
    enough_memory(f"reading {path}", path.stat().st_size)
    return path


def _read(path: Path, names: Sequence[str] | None = ("X", "Y")) -> dict[str, np.ndarray]:
    """Arrays of a file by name: of an .npz those named, or all."""
    if path.suffix == ".csv":
        return {"table": _read_csv(path)}
    try:
        if path.suffix == ".npy":
            with path.open("rb") as file:
                return {"array": np.lib.format.read_array(file, allow_pickle=False)}
        with path.open("rb") as file, NpzFile(file, allow_pickle=False) as archive:
            wanted = archive.files if names is None else names
            return {name: archive[name] for name in archive.files if name in wanted}
    except _DAMAGED as error:
        if "allow_pickle" in str(error):
            raise ValueError(f"{path}: expected arrays of numbers, got pickled objects") from None
        raise ValueError(f"{path}: expected a whole {path.suffix} file, got: {error}") from None


def _read_csv(path: Path) -> np.ndarray:
    try:
        with path.open(encoding="utf-8-sig") as file:
            head = file.readline()
        skip = not all(_is_number(cell) for cell in head.split(","))
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # of a file without data
            table = np.loadtxt(
                path, delimiter=",", ndmin=2, skiprows=int(skip), encoding="utf-8-sig"
            )
    except UnicodeDecodeError:
        raise ValueError(f"{path}: expected text in UTF-8, got other bytes") from None
    except ValueError as error:
        what = str(error).partition(";")[0]  # what follows is advice for callers of NumPy
        raise ValueError(f"{path}: expected rows of as many numbers each, got: {what}") from None
    if table.size == 0:
        raise ValueError(f"{path}: expected numbers, got no line of them")
    return table


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def _numbers(path: str | Path, name: str, array: np.ndarray) -> np.ndarray:
    if array.dtype.kind not in "buif":
        raise ValueError(f"{path}: expected {name} of real numbers, got dtype {array.dtype}")
    return array


def _finite(path: str | Path, name: str, array: np.ndarray, that: str) -> np.ndarray:
    if array.dtype.kind == "f" and not np.isfinite(array).all():
        at = tuple(int(i) for i in np.argwhere(~np.isfinite(array))[0])
        raise ValueError(
            f"{path}: expected finite numbers{that} in {name}, got {array[at]} at {list(at)}"
        )
    return array

"""What X, Y and θ must be, and one sentence for each way in which they are not."""

from __future__ import annotations

import math
from collections.abc import Iterable
from numbers import Real
from operator import index
from typing import Any

import numpy as np

from ..network import DTYPES, Network, Parameters, Shape, float_type
from ..targets import one_hot

_LARGEST = {np.dtype(name): float(np.finfo(name).max) for name in DTYPES}
_BLOCK = 1 << 16  # elements looked at in one go, so that a check needs no array as large as X


def check_inputs(X: Any, argument: str = "X") -> np.ndarray:
    """X (n, d) as a C-contiguous array of float32 or float64, copied only if it must be."""
    X = matrix(argument, X, ("n", "d"))
    float_type(argument, X.dtype)
    finite(argument, X)
    return readable(X)


def check_inputs_of(theta: Parameters, X: Any) -> np.ndarray:
    """X (n, d) of the dtype and with the columns that θ has."""
    X = check_inputs(X)
    same_type("theta.V", theta.V.dtype, "X", X.dtype)
    if theta.V.shape[1] != X.shape[1]:
        raise ValueError(
            f"theta.V: expected shape (M, {X.shape[1]}) to fit X {X.shape}, got {theta.V.shape}"
        )
    return X


def check_new_inputs(X: Any, d: int, dtype: np.dtype) -> np.ndarray:
    """X_new (n, d) of a plan's dtype."""
    X = check_inputs(X, "X_new")
    same_type("X_new", X.dtype, "X", dtype)
    if X.shape[1] != d:
        raise ValueError(f"X_new: expected shape (n, {d}), got {X.shape}")
    return X


def check_parameters(net: Network, theta: Any) -> Parameters:
    """V (M, d) and W (K, M) of one dtype, as C-contiguous copies that the caller does not share."""
    if not isinstance(theta, tuple) or len(theta) != 2:
        raise TypeError(f"theta: expected Parameters(V, W), got {type(theta).__name__}")
    V = matrix("theta.V", theta[0], ("M", "d"))
    W = matrix("theta.W", theta[1], ("K", "M"))
    same_type("theta.W", float_type("theta.W", W.dtype), "theta.V", float_type("theta.V", V.dtype))
    if W.shape[1] != V.shape[0]:
        raise ValueError(
            f"theta.W: expected shape (K, {V.shape[0]}) to fit theta.V {V.shape}, got {W.shape}"
        )
    if net.objective.targets.single and W.shape[0] != 1:
        raise ValueError(
            f"theta.W: the {net.loss} loss has one output, expected shape (1, M), got {W.shape}"
        )
    finite("theta.V", V)
    finite("theta.W", W)
    return Parameters(V.copy(order="C"), W.copy(order="C"))


def check_targets(net: Network, Y: Any, shape: Shape, dtype: np.dtype) -> np.ndarray:
    """Y (n, K) as a C-contiguous array of the given dtype; class labels become one-hot rows."""
    Y = as_array("Y", Y)
    targets = net.objective.targets
    if Y.dtype.kind not in "buif":
        raise TypeError(f"Y: expected a real or integer dtype, got {Y.dtype}")
    if len(Y) != shape.n if Y.ndim else True:
        raise ValueError(f"Y: expected one target a sample, {shape.n} rows as in X, got {Y.shape}")
    if targets.labels and Y.ndim == 1:
        return one_hot(Y, shape.K, dtype)
    if Y.ndim == 1 and shape.K == 1:
        Y = Y[:, None]
    if Y.shape != (shape.n, shape.K):
        labels = f", or ({shape.n},) integer labels" if targets.labels else ""
        raise ValueError(f"Y: expected shape ({shape.n}, {shape.K}){labels}, got {Y.shape}")
    finite("Y", Y)
    targets.check(Y, dtype)
    with np.errstate(over="ignore"):
        converted = Y.astype(dtype, order="C", copy=False)
    if converted is not Y:
        finite("Y", converted, f"values that {dtype} can hold")
    return readable(converted)


def check_rows(rows: Any, n: int) -> slice:
    """`rows` as slice(start, stop) with 0 ≤ start < stop ≤ n."""
    plain = type(rows) is slice and rows.step is None
    if plain and type(rows.start) is int is type(rows.stop) and 0 <= rows.start < rows.stop <= n:
        return rows  # at once: a small batch takes little longer than its checks
    if rows is None:
        return slice(0, n)
    if not isinstance(rows, slice):
        raise TypeError(f"rows: expected None or a slice, got {type(rows).__name__}")
    if rows.step not in (None, 1):
        raise ValueError(f"rows: expected a slice without a step, got step {rows.step}")
    try:
        start = 0 if rows.start is None else index(rows.start)
        stop = n if rows.stop is None else index(rows.stop)
    except TypeError:
        raise TypeError(f"rows: expected integers as bounds, got {rows}") from None
    if not 0 <= start < stop <= n:
        raise ValueError(f"rows: expected 0 <= start < stop <= {n}, got slice({start}, {stop})")
    return slice(start, stop)


def check_runs(rows: Any, n: int) -> np.ndarray:
    """`rows` as int64 (count, 2), of each run start and stop with 0 ≤ start < stop ≤ n."""
    runs = as_array("rows", rows)
    if runs.size == 0:
        return np.empty((0, 2), np.int64)
    if runs.ndim != 2 or runs.shape[1] != 2:
        raise ValueError(f"rows: expected shape (count, 2), from and to which, got {runs.shape}")
    if runs.dtype.kind not in "ui":
        raise TypeError(f"rows: expected integers as bounds, got {runs.dtype}")
    start, stop = runs.T
    wrong = (start < 0) | (start >= stop) | (stop > n)
    if wrong.any():
        i = int(wrong.argmax())
        raise ValueError(
            f"rows: expected 0 <= start < stop <= {n}, got {start[i]} and {stop[i]} at [{i}]"
        )
    return np.array(runs, np.int64, order="C")  # which the caller cannot change any more


def check_step_size(mu: Any, dtype: np.dtype) -> float:
    """μ as a float that is finite in the given dtype."""
    return _finite_number("mu", mu, dtype)


def check_scalars(scalars: Iterable[Any], dtype: np.dtype) -> tuple[float, ...]:
    """The scalars of an update as floats that are finite in the given dtype."""
    values, largest = tuple(scalars), _LARGEST[dtype]
    for value in values:
        if type(value) is not float or not -largest <= value <= largest:
            return tuple(_finite_number("scalars", value, dtype) for value in values)
    return values


def check_table(scalars: Any, updates: int, count: int, dtype: np.dtype) -> np.ndarray:
    """The scalars of so many updates, so many each, as float64 that are finite in the dtype."""
    table = as_array("scalars", scalars)
    if table.size == updates == 0:
        return np.empty((0, count))
    if table.shape != (updates, count):
        raise ValueError(
            f"scalars: expected shape ({updates}, {count}), a row for each pair in rows, "
            f"got {table.shape}"
        )
    if table.dtype.kind not in "uif":
        raise TypeError(f"scalars: expected real numbers, got {table.dtype}")
    table = np.array(table, np.float64, order="C")
    wrong = ~(np.abs(table) <= _LARGEST[dtype])
    if wrong.any():
        i, j = (int(at[0]) for at in wrong.nonzero())
        raise ValueError(
            f"scalars: expected finite numbers that {dtype} can hold, got {table[i, j]} "
            f"at [{i}, {j}]"
        )
    return table


def _finite_number(argument: str, number: Any, dtype: np.dtype) -> float:
    if type(number) is not float and not isinstance(number, Real):
        raise TypeError(f"{argument}: expected a finite number, got {number!r}")
    try:
        value = float(number)
    except OverflowError:
        value = math.inf
    if not abs(value) <= _LARGEST[dtype]:
        raise ValueError(
            f"{argument}: expected a finite number that {dtype} can hold, got {value!r}"
        )
    return value


def matrix(argument: str, value: Any, axes: tuple[str, str]) -> np.ndarray:
    """The value as an array with two axes and at least one row and one column."""
    array = as_array(argument, value)
    if array.ndim != 2:
        raise ValueError(
            f"{argument}: expected shape ({', '.join(axes)}), got {array.ndim} axes {array.shape}"
        )
    for axis, length in zip(axes, array.shape, strict=True):
        if length == 0:
            raise ValueError(f"{argument}: expected {axis} >= 1, got shape {array.shape}")
    return array


def as_array(argument: str, value: Any) -> np.ndarray:
    """The value as an array; ValueError for rows of different lengths and for masked numbers."""
    if np.ma.is_masked(value):
        raise ValueError(
            f"{argument}: expected an array without a mask, got masked numbers: fill them in, or "
            "leave their rows out"
        )
    if hasattr(value, "toarray"):
        raise TypeError(
            f"{argument}: expected a dense array, got {type(value).__name__}: its toarray() is one"
        )
    try:
        return np.asarray(value)
    except ValueError as error:
        raise ValueError(f"{argument}: expected an array, got what is none: {error}") from None


def same_type(argument: str, dtype: np.dtype, other: str, expected: np.dtype) -> None:
    """Raise TypeError unless both dtypes are the same."""
    if dtype != expected:
        raise TypeError(f"{argument}: expected {expected}, the dtype of {other}, got {dtype}")


def finite(argument: str, array: np.ndarray, expected: str = "finite numbers") -> None:
    """Raise ValueError naming the first element that is NaN or infinite."""
    if array.dtype.kind != "f":
        return
    rows = max(1, _BLOCK // max(1, array[0].size))
    for start in range(0, len(array), rows):
        block = array[start : start + rows]
        good = np.isfinite(block)
        if not good.all():
            at = tuple(int(i) for i in np.argwhere(~good)[0])
            where = ", ".join(str(i) for i in (start + at[0], *at[1:]))
            raise ValueError(f"{argument}: expected {expected}, got {block[at]} at [{where}]")


def readable(array: np.ndarray) -> np.ndarray:
    """The array, C-contiguous and aligned, in a form that compiled kernels take without a copy.

    Numba compiles a kernel again for a read-only array. Kernels never write to X or Y, so a
    read-only array goes to them as a view that does not carry the flag.
    """
    array = np.require(array, requirements=("C", "A"))
    return array if array.flags.writeable else np.asarray(_View(array))


class _View:
    """The memory of an array without its read-only flag."""

    def __init__(self, array: np.ndarray) -> None:
        self.owner = array  # keeps the memory alive as long as the view
        interface = dict(array.__array_interface__)
        interface["data"] = (interface["data"][0], False)
        self.__array_interface__ = interface

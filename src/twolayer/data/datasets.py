"""Data to run on: real sets that come with scikit-learn, and synthetic sets of any shape.

Inputs and regression targets are standardized. Since the network has no offsets, real inputs end in
a column of ones, which gives the first layer one.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from ..losses import Loss
from ..network import Network, Shape, enough_memory, float_type, one_of
from ..texts import missing
from .bundled import BUNDLED


class Dataset(NamedTuple):
    """A named set: X (n, d); Y (n, K), or (n,) labels; the loss that fits Y; the K outputs."""

    name: str
    X: np.ndarray
    Y: np.ndarray
    loss: str
    K: int


def load(name: str, dtype: Any = "float32") -> Dataset:
    """One of `BUNDLED`; X and regression targets are of `dtype`, labels are integers.

    Raises ValueError for an unknown name, RuntimeError where scikit-learn is not installed.
    Source: the toy datasets of scikit-learn.
    """
    one_of("data set", name, BUNDLED)
    dtype = float_type("dtype", dtype)
    try:
        import sklearn.datasets
    except ImportError:
        raise RuntimeError(
            missing(f"data set {name}: comes with", "scikit-learn", "bench")
        ) from None
    X, Y = getattr(sklearn.datasets, f"load_{name}")(return_X_y=True)
    X = np.column_stack([standardize(X), np.ones(len(X))]).astype(dtype)
    loss, _, _, K = BUNDLED[name]
    if loss == "squared":
        Y = standardize(Y.reshape(len(Y), K)).astype(dtype)
    elif loss == "logistic":
        Y = 2 * Y - 1
    return Dataset(name, X, Y, loss, K)


def synthetic(
    shape: Shape, loss: str | Loss = "squared", dtype: Any = "float32", seed: int = 0
) -> Dataset:
    """Independent X ~ N(0, 1) and random targets that fit the loss.

    Arguments: shape, of which M is not used; loss, by name or itself; dtype float32 or float64;
    seed for NumPy's default generator. Raises ValueError for an unknown loss, for K > 1 with the
    logistic loss, MemoryError for a shape that cannot fit.
    """
    dtype = float_type("dtype", dtype)
    net = Network(loss=loss)
    n, d, _, K = shape
    net.check_outputs(K)
    enough_memory(f"data with n={n}, d={d}, K={K}", shape.bytes(dtype))
    random = np.random.default_rng(seed)
    X = random.standard_normal((n, d), dtype)
    Y = net.objective.targets.draw(random, n, K, dtype)
    return Dataset(f"synthetic {net.loss}", X, Y, net.loss, K)


def standardize(X: np.ndarray) -> np.ndarray:
    """(X − mean) / standard deviation, a column at a time; a constant column becomes zeros."""
    deviation = X.std(axis=0)
    return (X - X.mean(axis=0)) / np.where(deviation > 0, deviation, 1)

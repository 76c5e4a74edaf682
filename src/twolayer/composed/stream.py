"""Plans for data larger than memory: blocks of rows pass through a plan of any local variant.

A thread reads ahead, so that an epoch takes as long as the disk or the arithmetic, whichever is
slower. Sums of blocks are added in the order of the rows, in float64.
"""

from __future__ import annotations

import contextlib
from collections import deque
from collections.abc import Generator, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import numpy as np

from ..data.sources import Source, block_rows, check_finite, source
from ..interface import Engine, Plan, Problem, Variant, Weights, check_threads, checks
from ..network import Network, Parameters, Shape

BLOCK = 16 << 20  # bytes of X and Y
_BUFFERS = 3  # one in use, two on their way

_Block = tuple[np.ndarray, np.ndarray]


def plan(
    variant: Variant, net: Network, X: Any, Y: Any, theta: Parameters, threads: int | None = None
) -> Plan:
    """A plan over X and Y that stay on disk.

    Arguments: as for `Variant.plan`, but X (n, d) and Y, (n, K) or (n,), of any real dtype, are
    paths of .npy files or Zarr arrays, memory maps or arrays. The dtype is that of theta. The
    values are checked when they are read first: NaN or infinity in X shows as ValueError in the
    first epoch. Raises ValueError for a variant that is not on the CPU.
    """
    if variant.device not in ("cpu", "any"):
        raise ValueError(
            f"variant {variant.name} runs on {variant.device}: expected one that runs on cpu for "
            "data that is read in blocks"
        )
    theta = checks.check_parameters(net, theta)
    X, Y = _Inputs(source(X, "X"), theta), source(Y, "Y")
    if len(Y) != len(X):
        raise ValueError(f"Y: expected one target a sample, {len(X)} rows as in X, got {Y.shape}")
    classes = len(theta.W) if Y.ndim == 1 else 0  # labels are taken as rows of as many numbers
    rows = block_rows(BLOCK, (X.source, Y), theta.V.dtype.itemsize, classes)
    reader = _Reader(net, X, Y, theta, rows)
    X_first, Y_first = reader.read(0, rows, reader.buffers[0])
    inner = variant.plan(net, X_first, Y_first, theta, check_threads(threads), "cpu")
    shape = inner.shape._replace(n=len(X))
    engine = Stream(Problem(net, shape, inner.dtype, inner.threads), inner.engine, reader)
    return Plan(engine, X, Y, theta, inner.variant)


class _Inputs:
    """X as a plan sees it: a shape and the dtype that it is read in."""

    def __init__(self, X: Source, theta: Parameters) -> None:
        d = theta.V.shape[1]
        if X.dtype.kind not in "buif":
            raise ValueError(f"{X.name}: expected X of real numbers, got dtype {X.dtype}")
        if X.ndim != 2 or X.shape[1] != d or len(X) == 0:
            raise ValueError(f"{X.name}: expected X of shape (n, {d}), got {X.shape}")
        self.source, self.shape, self.dtype = X, X.shape, theta.V.dtype

    def __len__(self) -> int:
        return len(self.source)


class _Reader:
    """Blocks of X and Y in buffers, checked."""

    def __init__(self, net: Network, X: _Inputs, Y: Source, theta: Parameters, rows: int) -> None:
        self.net, self.X, self.Y, self.rows = net, X, Y, rows
        self.dtype, self.K = X.dtype, len(theta.W)
        self.buffers = [X.source.buffer(rows, X.dtype) for _ in range(_BUFFERS)]
        self._finite: set[tuple[int, int]] = set()  # which rows of X were found to be

    def read(self, start: int, stop: int, buffer: Any) -> _Block:
        """Rows start to stop: X as it is read, Y checked and as the plan takes it."""
        X = self.X.source.fetch(start, stop, buffer)
        if (start, len(X)) not in self._finite:
            check_finite(self.X.source.name, X, start)
            self._finite.add((start, len(X)))
        Y = self.Y.rows(start, stop)
        shape = Shape(len(X), X.shape[1], 1, self.K)
        try:
            return X, checks.check_targets(self.net, Y, shape, self.dtype)
        except (ValueError, TypeError) as error:
            raise type(error)(f"{error}, in rows {start} to {stop - 1} of {self.Y.name}") from None

    def blocks(self, first: int, last: int) -> Generator[_Block, None, None]:
        """The blocks of these rows in their order, read ahead by a thread."""
        starts = iter(range(first, last, self.rows))
        free = deque(self.buffers)
        pending: deque[tuple[Future[_Block], Any]] = deque()
        with ThreadPoolExecutor(1, "twolayer-reader") as pool:

            def submit() -> None:
                start = next(starts, None)
                if start is not None:
                    buffer = free.popleft()
                    stop = min(last, start + self.rows)
                    pending.append((pool.submit(self.read, start, stop, buffer), buffer))

            for _ in range(_BUFFERS - 1):
                submit()
            while pending:
                future, buffer = pending.popleft()
                submit()
                yield future.result()
                free.append(buffer)


class Stream(Engine):
    """An engine for one block, all rows through it. Rows are ranges of their numbers."""

    def __init__(self, problem: Problem, inner: Engine, reader: _Reader) -> None:
        super().__init__(problem)
        self.inner, self.reader = inner, reader
        _, d, M, K = self.shape
        self._totals = np.zeros((M, d)), np.zeros((K, M))

    def weights(self) -> Weights:
        self._weights = self.inner.weights()
        return self._weights

    def hold(self, X: Any, Y: Any) -> tuple[range, range]:
        rows = range(self.shape.n)
        return rows, rows

    def backpropagate(self, X: range, Y: range, theta: Any, gradient: Any) -> float:
        total = 0.0
        for of_weights in self._totals:
            of_weights[...] = 0
        for share, x, y in self._blocks(X):
            loss = self.inner.backpropagate(*self.inner.hold(x, y), theta, gradient)
            total += share * loss
            for of_weights, slope in zip(self._totals, self._weights.get(gradient), strict=True):
                of_weights += share * slope
        with np.errstate(all="ignore"):
            values = Parameters(*(of_weights.astype(self.dtype) for of_weights in self._totals))
        self._weights.put(values, gradient)
        return total

    def loss(self, X: range, Y: range, theta: Any, gradient: Any) -> float:
        total = 0.0
        for share, x, y in self._blocks(X):
            total += share * self.inner.loss(*self.inner.hold(x, y), theta, gradient)
        return total

    def _blocks(self, rows: range) -> Iterator[tuple[float, np.ndarray, np.ndarray]]:
        """Of each block its share of the rows, and its X and Y."""
        with contextlib.closing(self.reader.blocks(rows.start, rows.stop)) as blocks:
            for X, Y in blocks:
                yield len(X) / len(rows), X, Y

    def forward(self, X: np.ndarray, theta: Any, F: np.ndarray) -> None:
        self.inner.forward(X, theta, F)

"""Samples spread over a Dask cluster: a local variant runs on each chunk, where the chunk lies.

Chunks stay on the workers together with their plans. An epoch is one graph: θ goes out, a task a
chunk gives its share of L and ∇L, and a tree of sums brings them back. Neither the chunks nor the
order of the sums depends on the workers, and a chunk runs on one thread, so the bits don't either.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from .. import variants
from ..interface import Engine, Plan, Problem, Variant, check_threads
from ..machine.forks import renewed
from ..network import Network, Parameters, Shape
from . import cluster

LOCAL = "numba-fused"  # what runs on a chunk

_CHUNKS = 8  # of data that come in none, so that a few workers share them evenly
_LEAST_BYTES = 1 << 22  # of such a chunk: less is computed before Dask has sent it a task
_MOST_BYTES = 1 << 27
_FAN_IN = 8  # shares that one task adds

Share = tuple[float, Parameters]  # of L and ∇L


class Chunk:
    """Rows of X and Y from row `start` on, and a plan for them. It travels without the plan."""

    def __init__(self, start: int, net: Network, X: np.ndarray, Y: np.ndarray) -> None:
        self.start = start
        self.problem = net, X, Y
        self._plan: Plan | None = None
        self._turn = renewed(self, "_turn")

    def __reduce__(self) -> Any:
        return Chunk, (self.start, *self.problem)

    def __sizeof__(self) -> int:
        return sum(array.nbytes for array in self.problem[1:])  # Dask places tasks by it

    def plan(self, theta: Parameters) -> Plan:
        """The plan, made if there is none; raises what `Variant.plan` does."""
        if self._plan is None:
            try:
                self._plan = local_variant().plan(*self.problem, theta, threads=1)
            except (ValueError, TypeError) as error:
                raise type(error)(
                    f"{error}, in the chunk that begins at row {self.start}"
                ) from None
            X, Y = self._plan.X, self._plan.Y  # no second copy
            labels = Y.shape[1] < self._plan.shape.K  # as the engine keeps rows with a single 1
            self.problem = self.problem[0], X, Y[:, 0].astype(np.int64) if labels else Y
        return self._plan

    def share(self, theta: Parameters, rows: slice, weight: float) -> Share:
        """L and ∇L over some of its rows, times the weight."""
        with self._turn:
            plan = self.plan(theta)
            plan.weights.put(theta, plan.weights.theta)  # unchecked, as a descent may diverge
            loss, gradient = plan.gradient(rows)
        with np.errstate(all="ignore"):
            for slopes in gradient:
                slopes *= weight
        return weight * loss, gradient


def local_variant() -> Variant:
    """What runs on a chunk, looked up by its name when it is needed."""
    return variants.get(LOCAL)


def _prepare(chunk: Chunk, theta: Parameters) -> None:
    chunk.plan(theta)


def _share(chunk: Chunk, *arguments: Any) -> Share:
    return chunk.share(*arguments)


def _add(shares: list[Share]) -> Share:
    """The sum, from the left; what a task returned is never written to."""
    loss, gradient = shares[0][0], Parameters(*(slopes.copy() for slopes in shares[0][1]))
    with np.errstate(all="ignore"):
        for other_loss, other in shares[1:]:
            loss += other_loss
            for slopes, more in zip(gradient, other, strict=True):
                slopes += more
    return loss, gradient


class Dask(Engine):
    """θ and its update here, X and Y, NumPy or Dask arrays, on the workers.

    Rows are ranges of their numbers.
    """

    def __init__(self, problem: Problem) -> None:
        super().__init__(problem)
        self._here = local_variant().make(problem)  # for predictions
        self._here_weights = self._here.weights()
        self._client = cluster.client(self.threads)
        self._owner = os.getpid()

    def hold(self, X: Any, Y: Any) -> tuple[range, range]:
        self._data = X, Y
        self._starts = _boundaries(X, Y)
        self._chunks: list[Any] = [None] * (len(self._starts) - 1)
        self._place()
        # A task makes all plans, so that no epoch has to; θ comes with each epoch.
        theta = self.weights().theta
        for weights in theta:
            weights[...] = 0
        self._compute(lambda: self._preparation(theta))
        return range(self.shape.n), range(self.shape.n)

    def _place(self) -> bool:
        """Bring the chunks that no worker has to the workers; whether there were any."""
        lost = [
            i for i, chunk in enumerate(self._chunks)
            if chunk is None or chunk.status in ("cancelled", "lost")
        ]  # fmt: skip
        X, Y = self._data
        if isinstance(X, np.ndarray):
            for i in lost:
                start, stop = self._starts[i : i + 2]
                chunk = Chunk(start, self.net, X[start:stop], Y[start:stop])
                self._chunks[i] = cluster.scatter(self._client, chunk)
        else:
            from dask import delayed

            X_blocks, Y_blocks = (array.to_delayed().ravel() for array in (X, Y))
            make = delayed(Chunk, pure=False)
            made = [make(self._starts[i], self.net, X_blocks[i], Y_blocks[i]) for i in lost]
            for i, chunk in zip(lost, self._client.compute(made), strict=True):
                self._chunks[i] = chunk
        return bool(lost)

    def _preparation(self, theta: Parameters) -> Any:
        """The task that makes all plans."""
        from dask import delayed

        sent, prepare = delayed(Parameters, pure=False)(*theta), delayed(_prepare, pure=False)
        return delayed(list, pure=False)([prepare(chunk, sent) for chunk in self._chunks])

    def _sum(self, rows: range, theta: Parameters) -> Any:
        """The task that gives L and ∇L over the rows."""
        from dask import delayed

        share, add = delayed(_share, pure=False), delayed(_add, pure=False)
        sent = delayed(Parameters, pure=False)(*theta)
        tasks = []
        for i, chunk in enumerate(self._chunks):
            start = self._starts[i]
            first, last = max(rows.start, start), min(rows.stop, self._starts[i + 1])
            if first < last:
                weight = (last - first) / len(rows)
                tasks.append(share(chunk, sent, slice(first - start, last - start), weight))
        while len(tasks) > 1:
            tasks = [add(tasks[i : i + _FAN_IN]) for i in range(0, len(tasks), _FAN_IN)]
        return tasks[0]

    def _compute(self, task: Callable[[], Any]) -> Any:
        cluster.check_process(self._owner)
        while True:
            try:
                return cluster.result(self._client, task(), self._chunks)
            except cluster.DataLost:
                if not self._place():
                    raise

    def backpropagate(self, X: range, Y: range, theta: Parameters, gradient: Parameters) -> float:
        loss, (gradient.V[...], gradient.W[...]) = self._compute(lambda: self._sum(X, theta))
        return loss

    def forward(self, X: np.ndarray, theta: Parameters, F: np.ndarray) -> None:
        self._here_weights.put(theta, self._here_weights.theta)
        self._here.forward(X, self._here_weights.theta, F)


@dataclass(frozen=True)
class DaskVariant(Variant):
    """A variant that also takes Dask and Zarr arrays, whose chunks are loaded by the workers."""

    def plan(
        self, net: Network, X: Any, Y: Any, theta: Parameters, threads: int | None = None,
        device: str | None = None,
    ) -> Plan:  # fmt: skip
        """As `Variant.plan`; X (n, d) and Y may be Dask or Zarr arrays.

        The chunks are those of a Dask array X along its first axis. threads is the number of
        workers where there is no `distributed.Client` and they are started on this machine. Raises
        ClusterLost where the scheduler does not answer.
        """
        reason = self.unavailable()
        if reason or not (_is_lazy(X) or _is_lazy(Y)):
            return super().plan(net, X, Y, theta, threads, device)
        self.on(device or self.device)
        threads = check_threads(threads)
        X, Y = _aligned(X, Y)
        if net.from_outside():
            raise ValueError(f"variant {self.name} {self.refusal(net, Shape(1, 1, 1, 1), X.dtype)}")
        X_first, Y_first = cluster.client(threads).compute([X[:1], Y[:1]], sync=True)
        first = local_variant().plan(net, X_first, Y_first, theta, threads)
        shape = first.shape._replace(n=len(X))
        engine = Dask(Problem(net, shape, first.dtype, threads))
        return Plan(engine, X, Y, first.theta, self.name)


def _is_lazy(array: Any) -> bool:
    """Whether it is a Dask or Zarr array; without those packages there are none."""
    kinds = ((sys.modules.get("dask.array"), "Array"), (sys.modules.get("zarr"), "Array"))
    return any(
        module is not None and isinstance(array, getattr(module, name)) for module, name in kinds
    )


def _aligned(X: Any, Y: Any) -> tuple[Any, Any]:
    """X and Y as Dask arrays with the same chunks of rows and all of their columns."""
    from dask.array import Array, asarray

    chosen = isinstance(X, Array)
    stored = getattr(X, "shards", None) or getattr(X, "chunks", None) or (1,)  # of a Zarr array
    X, Y = asarray(X), asarray(Y)
    if X.ndim != 2:
        raise ValueError(f"X: expected shape (n, d), got {X.ndim} axes {X.shape}")
    if np.isnan(X.shape[0]):
        raise ValueError(
            "X: expected a Dask array that knows its number of rows, got one that does not: "
            "X.compute_chunk_sizes() finds it"
        )
    if not Y.ndim or len(Y) != len(X):
        raise ValueError(f"Y: expected one target a sample, {len(X)} rows as in X, got {Y.shape}")
    if not chosen:
        X = X.rechunk({0: max(1, round(_chunk_rows(X, Y) / stored[0])) * stored[0]})
    rows = tuple(size for size in X.chunks[0] if size)
    return X.rechunk((rows, -1)), Y.rechunk((rows, *[-1] * (Y.ndim - 1)))


def _boundaries(X: Any, Y: Any) -> list[int]:
    """The rows at which chunks begin, and n."""
    if isinstance(X, np.ndarray):
        return [*range(0, len(X), _chunk_rows(X, Y)), len(X)]
    return [0, *map(int, np.cumsum(X.chunks[0]))]


def _chunk_rows(X: Any, Y: Any) -> int:
    """Rows of a chunk where the data come in none."""
    size = X.nbytes + Y.nbytes
    count = max(min(_CHUNKS, size // _LEAST_BYTES), -(-size // _MOST_BYTES), 1)
    return -(-len(X) // count)


def _workspace(shape: Shape, itemsize: int, threads: int) -> int:
    return itemsize * shape.n * (shape.d + shape.K)  # what workers on this machine hold


VARIANT = DaskVariant(
    "dask",
    "cluster",
    f"samples spread over a Dask cluster, {LOCAL} on each chunk",
    Dask,
    _workspace,
    ("dask", "distributed"),
    by_name=True,  # workers have not loaded anybody's file
)

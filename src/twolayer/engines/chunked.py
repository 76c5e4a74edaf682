"""Engines whose compiled code takes a record for each chunk of the samples."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from itertools import pairwise
from typing import Any

import numpy as np

from ..interface import Engine, Problem
from ..kernels.cpu import blocks, epochs, loops
from ..kernels.cpu.epochs import Kernels, Rule
from ..kernels.cpu.records import records
from ..kernels.formulas.updates import UPDATES, Update, part
from ..machine.buffers import together
from ..machine.threads import numba_threads
from .blocking import SMALL
from .packed import FlatWeights


def as_labels(Y: np.ndarray) -> np.ndarray:
    """The place of the 1 in each row of Y (n, K), (n, 1); Y where other numbers are not 0."""
    if Y.shape[1] == 1 or np.count_nonzero(Y) != len(Y):
        return Y
    if Y.shape[1] > 2 ** (np.finfo(Y.dtype).nmant + 1):
        return Y  # a label of so many may be no number of the dtype
    labels = Y.argmax(axis=1)
    one_each = (np.take_along_axis(Y, labels[:, None], axis=1) == 1).all()
    return labels[:, None].astype(Y.dtype) if one_each else Y


class ChunkedEngine(Engine):
    """A subclass gives `kernels` and `record`, calls `_allocate`, and may choose more.

    Its threads share chunks of the samples, unless it runs on one.
    """

    kernels: Kernels
    record: np.dtype
    parallel = True
    _tried = (
        False  # a plan first tries its engine on one row, so that what its epochs run is compiled
    )

    def _allocate(
        self, chunks: int, sizes: Mapping[str, tuple[int, int]], numbers: Mapping[str, Any]
    ) -> None:
        """Make buffers of these sizes, and the records; numbers, what else the records hold."""
        size = self.shape.M * (self.shape.d + self.shape.K)
        plain = {"size": size, "alone": size < SMALL}
        self._numbers = self.shape._asdict() | plain | dict(numbers)
        self._buffers, self._chunks = together(sizes, self.dtype), chunks
        self._rule: Rule | None = None  # which the records have
        self._bind()
        part(UPDATES["descend"], self.dtype)  # a plan's first step finds its update compiled

    def _bind(self) -> None:
        """Make the records, for the buffers and the numbers there are."""
        count = max(map(len, self._buffers.values()))
        self._records = records(self.record, count, self._numbers, self._buffers)

    def _need(self, name: str, code: Callable[[], int]) -> None:
        """Have the address of code that the records lack so far."""
        if name not in self._numbers:
            self._set(name, code())

    def _set(self, name: str, value: int) -> None:
        self._numbers[name] = self._records[name] = value

    def chunks_of(self, rows: int) -> int:
        """The number of chunks that so many rows are cut into."""
        return loops.chunk_count(rows, self._chunks)

    def _shares(self, rows: int) -> tuple[int, int]:
        """In how many chunks so many rows are taken, and by how many threads, 0 without a pool."""
        count = 1 if self._chunks == 1 else self.chunks_of(rows)
        if count == 1 and (self._chunks == 1 or rows > 1 or self._tried):
            return 1, 0
        return count, min(count, self.threads)

    def _way(self, rows: int) -> tuple[Any, int, int]:
        """The kernel of an epoch or update over so many rows, its chunks and its threads."""
        if "chunk" not in self._numbers:
            kernels, dtype = self.kernels, self.dtype
            self._set("finish", epochs.finish(self.record, dtype))
            self._set("settle", kernels.settle(dtype) if kernels.settle else 0)
            self._set("chunk", kernels.chunk(dtype))
        count, threads = self._shares(rows)
        return epochs.epoch(threads > 0), count, threads

    def _run(self, threads: int, kernel: Any, *arguments: Any) -> Any:
        """Call compiled code, with so many threads of Numba's pool."""
        if threads == 0:
            return kernel(*arguments)
        with numba_threads(threads):
            return kernel(*arguments)

    def _over_chunks(self, address: int, X: np.ndarray, Y: np.ndarray, theta: Any) -> float:
        """The sum of what a kernel at an address gives for the chunks, divided by the rows."""
        count, threads = self._shares(len(X))
        kernel = epochs.over_chunks(threads > 0)
        return self._run(threads, kernel, self._records, address, X, Y, theta, count)

    def weights(self) -> FlatWeights:
        return FlatWeights(self.shape, self.dtype)

    def backpropagate(self, X: np.ndarray, Y: np.ndarray, theta: Any, gradient: Any) -> float:
        loss = self._epoch(X, Y, theta, gradient, 0)
        self._tried = True
        return loss

    def update(self, X: Any, Y: Any, weights: Any, update: Update, scalars: Any) -> float:
        self._follow(weights, update, scalars)
        return self._epoch(X, Y, weights.theta, weights.gradient, 1)

    def updates(
        self, X: Any, Y: Any, weights: Any, update: Update, scalars: np.ndarray,
        bounds: np.ndarray,
    ) -> np.ndarray:  # fmt: skip
        # The weights know these as the present scalars, and the last update leaves them so.
        self._follow(weights, update, tuple(scalars[-1].tolist()))
        try:
            return self._all_updates(X, Y, weights, scalars, bounds)
        except BaseException:
            weights.forget()  # the scalars are those of some update in between
            raise

    def _all_updates(
        self, X: Any, Y: Any, weights: Any, scalars: np.ndarray, bounds: np.ndarray
    ) -> np.ndarray:
        losses, rows = np.empty(len(bounds)), bounds[:, 1] - bounds[:, 0]
        ends = (rows[1:] != rows[:-1]).nonzero()[0] + 1  # of runs of batches of one size
        for start, stop in pairwise((0, *ends.tolist(), len(rows))):
            kernel, count, threads = self._way(int(rows[start]))
            self._run(
                threads, epochs.updates(), self._records,
                epochs.epoch_address(kernel, self.record, self.dtype), X, Y, weights.theta,
                weights.gradient, scalars[start:stop], bounds[start:stop], count,
                losses[start:stop],
            )  # fmt: skip
        return losses

    def _follow(self, weights: Any, update: Update, scalars: tuple[float, ...]) -> None:
        """Have the records tell how θ changes."""
        rule = weights.rule(update, scalars)
        if rule is not self._rule:
            self._rule = rule
            for name, value in rule._asdict().items():
                self._set(name, value)

    def _epoch(self, X: np.ndarray, Y: np.ndarray, theta: Any, gradient: Any, update: int) -> float:
        """L and ∇L; where `update` is 1, θ is changed by the rule of the records."""
        kernel, count, threads = self._way(len(X))
        return self._run(threads, kernel, self._records, X, Y, theta, gradient, update, count)

    def forward(self, X: np.ndarray, theta: Any, F: np.ndarray) -> None:
        self._over_chunks(self.kernels.predict(self.dtype), X, F, theta)


class LoopEngine(ChunkedEngine):
    """Goes through the samples one by one."""

    record = loops.CHUNK

    def __init__(self, problem: Problem) -> None:
        super().__init__(problem)
        self.kernels = loops.kernels(self.net.sigma, self.net.objective)
        chunks = loops.chunk_count(self.shape.n, self.threads) if self.parallel else 1
        self._allocate(chunks, loops.buffers(self.shape, chunks), {})


class BlockEngine(ChunkedEngine):
    """Goes through blocks of samples, with passes for σ, ℓ and h over a block."""

    def _bind(self) -> None:
        self._numbers["features"] = blocks.features(self.net.sigma, self.dtype)
        super()._bind()

    def hold(self, X: np.ndarray, Y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Y (n, K) as it is, or as labels (n, 1) where a single 1 in each row is all there is."""
        objective, dtype = self.net.objective, self.dtype
        Y = as_labels(Y) if objective.label_columns else Y
        if Y.shape[1] == self.shape.K:
            self._need("losses", lambda: blocks.losses(objective, dtype))
        else:
            self._need("labels", lambda: blocks.labels(objective, dtype))
        return X, Y

    def loss(self, X: np.ndarray, Y: np.ndarray, theta: Any, gradient: Any) -> float:
        self._need("values", lambda: blocks.values(self.net.sigma, self.dtype))
        assert self.kernels.loss is not None
        return self._over_chunks(self.kernels.loss(self.dtype), X, Y, theta)

    def forward(self, X: np.ndarray, theta: Any, F: np.ndarray) -> None:
        self._need("values", lambda: blocks.values(self.net.sigma, self.dtype))
        self._need("links", lambda: blocks.links(self.net.objective, self.dtype))
        super().forward(X, theta, F)

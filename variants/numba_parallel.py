"""Per-sample loops on several threads: each chunk of samples adds into a gradient of its own."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from ..engines.chunked import LoopEngine
from ..interface import Problem, Variant
from ..interface.corners import both_sides
from ..kernels.cpu import loops
from ..network import Shape


class Decisions(NamedTuple):
    """What an epoch does for some shapes only."""

    chunks: bool  # several, on several threads


class NumbaParallel(LoopEngine):
    """One chunk a thread; the sums of the chunks are added in the order of their numbers."""

    def __init__(self, problem: Problem) -> None:
        super().__init__(problem)
        self.decisions = Decisions(loops.chunk_count(self.shape.n, self.threads) > 1)


def _workspace(shape, itemsize, threads):
    sizes = loops.buffers(shape, loops.chunk_count(shape.n, threads)).values()
    return itemsize * sum(count * size for count, size in sizes)


def _corners(itemsize: int, threads: int) -> Iterator[Shape]:
    yield from both_sides(
        lambda shape: loops.chunk_count(shape.n, threads) > 1, range(1, 1 << 20), 3, 5, 2
    )


VARIANT = Variant(
    "numba-parallel",
    "cpu",
    "per-sample loops under prange, a gradient buffer a chunk",
    NumbaParallel,
    _workspace,
    corners=_corners,
)

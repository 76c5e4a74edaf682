"""Cache-sized blocks of samples on several threads: BLAS for the products, the rest fused."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

from ..engines.blocking import whole_rows
from ..engines.chunked import BlockEngine
from ..interface import Problem, Variant
from ..interface.corners import both_sides
from ..kernels.cpu import blas, loops
from ..machine.hardware import cache_sizes
from ..machine.threads import blas_threads
from ..network import Shape


def block_rows(shape: Shape, itemsize: int, threads: int) -> int:
    """Rows of a block, 16 to 512: its X, Z, S, G, U and Y take half of the second-level cache."""
    row = itemsize * (shape.d + 3 * shape.M + 2 * shape.K)
    return min(shape.n, whole_rows(max(16, min(512, cache_sizes(threads)[2] // 2 // row))))


class Blocking(NamedTuple):
    """How an epoch is cut."""

    chunks: int  # of the samples; more than one are shared among threads
    rows: int  # of a block


def blocking(shape: Shape, itemsize: int, threads: int) -> Blocking:
    """The sizes for a problem."""
    return Blocking(loops.chunk_count(shape.n, threads), block_rows(shape, itemsize, threads))


class Decisions(NamedTuple):
    """What an epoch does for some shapes only."""

    chunks: bool  # several, on several threads
    blocks: bool  # a second one in a chunk, shorter than the first


def decisions(shape: Shape, cut: Blocking) -> Decisions:
    """What is decided for a shape that is cut so."""
    return Decisions(cut.chunks > 1, -(-shape.n // cut.chunks) > cut.rows)


class NumbaBlas(BlockEngine):
    """One chunk of blocks a thread; no array grows with n."""

    kernels, record = blas.KERNELS, blas.CHUNK

    def __init__(self, problem: Problem) -> None:
        super().__init__(problem)
        cut = blocking(self.shape, self.dtype.itemsize, self.threads)
        self.decisions = decisions(self.shape, cut)
        numbers = {"rows": cut.rows, "gemm": blas.gemm_address(self.dtype)}
        self._allocate(cut.chunks, blas.buffers(self.shape, *cut), numbers)

    def _run(self, threads: int, kernel: Any, *arguments: Any) -> Any:
        with blas_threads(1):
            return super()._run(threads, kernel, *arguments)


def _workspace(shape, itemsize, threads):
    sizes = blas.buffers(shape, *blocking(shape, itemsize, threads)).values()
    return itemsize * sum(count * size for count, size in sizes)


def _corners(itemsize: int, threads: int) -> Iterator[Shape]:
    def decide(shape: Shape) -> Decisions:
        return decisions(shape, blocking(shape, itemsize, threads))

    many = range(1, 1 << 20)
    yield from both_sides(lambda shape: decide(shape).chunks, many, 3, 5, 2)
    yield from both_sides(lambda shape: decide(shape).blocks, many, 3, 5, 2)


VARIANT = Variant(
    "numba-blas",
    "cpu",
    "cache-sized blocks of samples under prange, BLAS for the products, everything else fused",
    NumbaBlas,
    _workspace,
    corners=_corners,
)

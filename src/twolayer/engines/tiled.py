"""The engine of those CUDA variants that launch one kernel a product."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np

from ..kernels.cuda.driver.launch import Launch, bound
from ..kernels.cuda.memory.copies import padded
from ..network import Parameters, Shape
from .cuda import CudaEngine, Sums
from .cuda_facts import elements, multiprocessors
from .cuda_memory import Rows
from .planes import share_of

_MOST_PARTS = 4096
_MOST_WAVES = 4  # of blocks of the kernel between the products
_WORK = 16  # multiplications and additions of a large GPU in the time of a byte from its memory


def parts_of(
    n: int, tile: Any, rows: int, columns: int, slots: int, least: int, itemsize: int
) -> tuple[int, int]:
    """In how many parts to make a sum over n samples of rows × columns, and the samples of a part.

    `slots` blocks run at a time. All parts cost as many waves of blocks as their tiles need, each
    of a share of the samples, and each part is written and read once.
    """
    tiles = -(-rows // tile.rows) * -(-columns // tile.columns)
    best = math.inf, 1, n
    for wanted in range(1, max(1, min(_MOST_PARTS, n // least)) + 1):
        share = -(-n // (wanted * tile.depth)) * tile.depth
        parts = -(-n // share)
        waves = -(-tiles * parts // slots)
        work = 2 * slots * waves * share * tile.rows * tile.columns
        cost = work + _WORK * 2 * parts * rows * columns * itemsize
        best = min(best, (cost, parts, share))
    return best[1:]


class TiledEngine(CudaEngine):
    """A or Z and S = σ′(A), and U of all samples in global memory; G takes the place of A or S.

    With few outputs A = X Vᵀ is stored as it is, U = σ(A) Wᵀ changes it on its way, and after ℓ and
    Δ one kernel makes Δᵀ Z and G of it; then Gᵀ X in parts, and the sums of the parts with the
    update: six launches an epoch. With many, σ and σ′ are in the epilogue of X Vᵀ, and
    U = Z Wᵀ, Δᵀ Z and G = (Δ W) ⊙ S are products too: seven.
    """

    sizes = (16, 32, 64, 128)  # extents of tiles
    least_share = 256  # samples of a part of a sum over samples

    @classmethod
    def candidates(cls, shape: Shape, dtype: str) -> list[Any]:
        """The large tiles of float32, of 8 × 8 or 8 × 16 results a thread."""
        large = dtype == "float32" and min(shape.n, shape.M) > 64
        return [{"tile": "square"}, {"tile": "wide"}] if large else [{"tile": "square"}]

    def _multiplier(self) -> Any:
        """How tiles are multiplied."""
        from ..kernels.cuda import products
        from ..kernels.cuda.tensorcores import doubles

        if self.dtype == np.float32:
            return products.register_tile
        capability = self._cuda.get_current_device().compute_capability
        return doubles.at_once if capability >= (9, 0) else doubles.in_halves

    def _tile(self, rows: int, columns: int) -> Any:
        """The tile for a product of that size, not much larger than it."""
        from ..kernels.cuda import products
        from ..kernels.cuda.tensorcores import doubles

        height, width = (
            next((size for size in self.sizes if size >= extent), self.sizes[-1])
            for extent in (rows, columns)
        )
        if self.dtype == np.float64:
            return doubles.tile_for(height, width)
        tile = products.tile_for(height, width)
        if tile == products.LARGE and self._multiplier() is products.register_tile:
            if self.parameters["tile"] == "wide":
                return products.WIDE
            like = tile, products.TALL, products.SLIM
            tile = min(like, key=lambda tile: products.area(tile, rows, columns))
        return tile

    def _parts(self, tile: Any, rows: int, columns: int) -> tuple[int, int]:
        """In how many parts a sum over samples is made, and the samples of a part."""
        from ..kernels.cuda.products import resident

        slots = multiprocessors() * resident(self.dtype.name, tile)
        least = self.least_share
        return parts_of(self.shape.n, tile, rows, columns, slots, least, self.dtype.itemsize)

    @property
    def _few(self) -> bool:
        """Whether the outputs' sums fit into registers."""
        from ..kernels.cuda import head

        return self.shape.K <= head.OUTPUTS

    def _parts_of_W(self) -> tuple[int, int]:
        """As `_parts`, of Δᵀ Z."""
        from ..kernels.cuda import head
        from ..kernels.cuda.memory import packing

        n, _, M, K = self.shape
        if not self._few:
            return self._parts(self._tile(K, M), K, padded(M, self.dtype))
        blocks = head.resident(K) * multiprocessors()
        columns = -(-M // packing.COLUMNS)
        share = share_of(n, columns, blocks, max(1, _MOST_WAVES * blocks // columns))
        return -(-n // share), share

    def _device_bytes(self) -> int:
        n, d, M, K = self.shape
        ld_d, ld_M, ld_K = (padded(size, self.dtype) for size in (d, M, K))
        parts_V, _ = self._parts(self._tile(M, d), M, ld_d)
        parts_W, _ = self._parts_of_W()
        held = (1 if self._few else 2) * ld_M + ld_K
        items = n * held + parts_V * M * ld_d + parts_W * K * ld_M
        return self.dtype.itemsize * (items + elements(self.shape, self.dtype))

    def _prepare(self) -> int:
        from ..kernels.cuda import epilogues, head
        from ..kernels.cuda.memory.slices import unchanged
        from ..kernels.cuda.products import blocks, product

        n, d, M, K = self.shape
        dtype, multiplier = self.dtype.name, self._multiplier()
        ld_d, ld_M, ld_K = (padded(size, self.dtype) for size in (d, M, K))
        self._S, self._U = self._empty(n, ld_M), self._empty(n, ld_K)
        self._Z = self._S if self._few else self._empty(n, ld_M)

        def launcher(
            rows: int | None, columns: int, along: tuple[bool, bool], epilogue: Any, depth: int = 0,
            change: Any = unchanged,
        ) -> Callable[..., Launch]:  # fmt: skip
            """The launch for A, B, C and D of a product with so many rows, or a row a sample."""
            # A row a sample and few columns: more and smaller blocks, for those have little to do.
            tile = self._tile(rows or (n if columns > 16 else min(n, 64)), columns)
            kernel = product(dtype, tile, along, epilogue, multiplier, change)
            width = padded(columns, self.dtype)
            share = self._parts(tile, rows, width)[1] if rows else depth

            def launch(A: Any, B: Any, C: Any, D: Any) -> Launch:
                height, parts = (rows, -(-len(A) // share)) if rows else (len(A), 1)
                grid = (blocks(tile, height, width), 1, parts)
                return bound(kernel, grid, tile.threads, (A, B, C, D, height, width, share))

            return launch

        sigma = self.net.sigma
        if self._few:
            self._hidden = launcher(None, M, (True, True), epilogues.plain, ld_d)
            self._outputs = launcher(None, K, (True, True), epilogues.plain, ld_M, sigma.value)
            self._head = head.head(sigma, K, dtype)
        else:
            self._hidden = launcher(None, M, (True, True), epilogues.activate(sigma), ld_d)
            self._outputs = launcher(None, K, (True, True), epilogues.plain, ld_M)
            self._backward = launcher(None, M, (True, False), epilogues.times, ld_K)
            self._sum_W = launcher(K, M, (False, False), epilogues.partial)
        self._sum_V = launcher(M, d, (False, False), epilogues.partial)
        parts_V, self._share_V = self._parts(self._tile(M, d), M, ld_d)
        parts_W, self._share_W = self._parts_of_W()
        self._gVs, self._gWs = self._empty(parts_V, M * ld_d), self._empty(parts_W, K * ld_M)
        self._threads = epilogues.THREADS
        self._losses = self._cuda.device_array(-(-n // self._threads), np.float64)
        self._loss_kernel = epilogues.loss_of_rows(self.net.objective)
        self._link_kernel = epilogues.link_of_rows(self.net.objective)
        return parts_V

    def _rows_of(self, rows: int) -> tuple[Any, ...]:
        """Views of Z, S, U, gVs, gWs and losses for so many rows."""
        parts = (-(-rows // share) for share in (self._share_V, self._share_W, self._threads))
        arrays = (self._Z, self._S, self._U, self._gVs, self._gWs, self._losses)
        lengths = (rows, rows, rows, *parts)
        return tuple(array[:length] for array, length in zip(arrays, lengths, strict=True))

    def _loss_rows(self, X: Rows, Y: Any, theta: Parameters) -> tuple[list[Launch], Any]:
        Z, S, U, _, _, losses = self._rows_of(len(X))
        return [
            self._hidden(X.array, theta.V, Z, S),
            self._outputs(Z, theta.W, U, U),
            bound(self._loss_kernel, len(losses), self._threads, (U, Y, losses)),
        ], losses

    def _sum_rows(self, X: Rows, Y: Any, theta: Parameters) -> tuple[list[Launch], Sums]:
        Z, S, U, gVs, gWs, _ = self._rows_of(len(X))
        launches, losses = self._loss_rows(X, Y, theta)
        if self._few:
            from ..kernels.cuda import head
            from ..kernels.cuda.memory import packing

            grid = -(-self.shape.M // packing.COLUMNS), len(gWs)
            arguments = Z, U, theta.W, gWs, S, self.shape.M, self._share_W
            launches.append(bound(self._head, grid, head.THREADS, arguments))
        else:
            launches += [self._sum_W(U, Z, gWs, gWs), self._backward(U, theta.W, S, S)]
        launches.append(self._sum_V(S, X.array, gVs, gVs))
        return launches, (gVs, gWs, losses)

    def _predict_rows(self, X: Any, theta: Parameters, F: np.ndarray) -> None:
        Z, S, U, *_ = self._rows_of(len(X))
        self._hidden(X, theta.V, Z, S)()
        self._outputs(Z, theta.W, U, U)()
        blocks = -(-len(X) // self._threads)
        bound(self._link_kernel, blocks, self._threads, (U, self.shape.K))()
        F[...] = U.copy_to_host()[:, : F.shape[1]]

"""The plan on tensor cores whose large products are made from packed float16 numbers."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache, partial
from typing import Any, NamedTuple

import numpy as np

from ..kernels.cuda.driver.launch import Launch, bound
from ..kernels.cuda.memory.copies import padded
from ..network import Shape
from .cuda import CudaPlan, Sums, compute_capability, multiprocessors

# For smaller problems tiles of 128 × 128 are too few, or too empty.
_LEAST = Shape(1024, 48, 48, 1)
_TILE = 128
_WIDTHS = (128, 112, 96)  # of tiles of Gᵀ X
_MOST_WAVES = 4  # of blocks that a sum over samples is made in


class Products(NamedTuple):
    """How A = X Vᵀ and Gᵀ X are made from packed matrices: kernels, and how they are launched.

    hidden is Kernel(X, V, xr, vr, W, A, Us, rows, M, d), sums is Kernel(G, X, gr, xc, gVs, M, d,
    ld, share, rows); threads and bytes of dynamic shared memory are for the one and the other.
    Tiles of A are 128 × 128: one a block, or, where `persistent`, all of them by so many blocks as
    run at a time. Tiles of Gᵀ X are 128 × `columns`, one a block for each share of the samples.
    """

    hidden: Any
    sums: Any
    threads: tuple[int, int]
    shared: tuple[int, int]
    resident: int  # blocks that a multiprocessor runs at a time
    persistent: bool
    columns: int


def mma_products(sigma: Any, shape: Shape) -> Products:
    """By mma.sync, from compute capability 8.0 on."""
    from ..kernels.cuda.tensorcores import mma

    columns = min(_WIDTHS, key=lambda width: (-(-shape.d // width) * width, -width))
    return Products(
        mma.hidden(sigma, shape.K), mma.sums(columns=columns), (mma.THREADS, mma.THREADS),
        (mma.SHARED_HIDDEN, mma.SHARED_SUMS), mma.BLOCKS_PER_MULTIPROCESSOR, False, columns,
    )  # fmt: skip


def wgmma_products(sigma: Any, shape: Shape, pairs: int = 1) -> Products:
    """By wgmma, of compute capability 9.0 alone; `pairs` of warpgroups take turns at tiles of A."""
    from ..kernels.cuda.tensorcores import ring, wgmma

    return Products(
        wgmma.hidden(sigma, shape.K, pairs), wgmma.sums(), (ring.threads(pairs), ring.threads(1)),
        (wgmma.SHARED, wgmma.SHARED), 1, True, _TILE,
    )  # fmt: skip


ENGINES: dict[str, Callable[[Any, Shape], Products]] = {
    "wgmma in turns": partial(wgmma_products, pairs=2),
    "wgmma": wgmma_products,
    "mma": mma_products,
}


def pays(shape: Shape, dtype: np.dtype) -> bool:
    """Whether a problem is made for the plan, and large enough for its tiles."""
    from ..kernels.cuda.head import OUTPUTS

    large = all(size >= least for size, least in zip(shape, _LEAST, strict=True))
    return dtype == np.float32 and shape.K <= OUTPUTS and large


@cache
def share_of(rows: int, tiles: int, blocks: int, most: int) -> int:
    """How many samples of so many rows each of at most `most` parts of a sum takes, 128 at a time.

    A part costs the time of its samples and about 128 more; `blocks` tiles are made at a time.
    """
    slabs = -(-rows // _TILE)

    def time(parts: int) -> int:
        return -(-tiles * parts // blocks) * (-(-slabs // parts) + 1)

    return -(-slabs // min(range(1, min(slabs, most) + 1), key=time)) * _TILE


class PlanesPlan(CudaPlan):
    """A and packed G of all samples in global memory; X is packed once, V anew in every epoch.

    Packing V, A = X Vᵀ with parts of U in its epilogue, ℓ and Δ, Δᵀ Z with G = (Δ W) ⊙ σ′(A), Gᵀ X
    in parts, and the sums of the parts with the update: six launches an epoch. Rows that are not
    all of X are packed before.
    """

    @classmethod
    def candidates(cls, shape: Shape, dtype: str) -> list[Any]:
        """The engines that the device has."""
        hopper = compute_capability() == (9, 0)
        return [{"engine": name} for name in ENGINES if hopper or not name.startswith("wgmma")]

    def _sizes(self) -> dict[str, Any]:
        """Shapes of the buffers of float32 or uint32."""
        from ..kernels.cuda import head
        from ..kernels.cuda.memory.packing import COLUMNS, padded_columns, padded_rows, words

        n, d, M, K = self.shape
        ld_d, ld_M = padded(d, self.dtype), padded(M, self.dtype)
        self._blocks_V = self._products.resident * multiprocessors()
        self._blocks_W = head.resident(K) * multiprocessors()
        self._tiles_V = _tiles(M) * -(-d // self._products.columns)
        self._tiles_W = padded_columns(M) // COLUMNS
        self._parts_V = self._most_parts(self._tiles_V, self._blocks_V)
        self._parts_W = self._most_parts(self._tiles_W, self._blocks_W)
        return {
            "A": (n, ld_M),
            "Us": _tiles(M) * n * K,
            "Delta": (n, K),
            "X": words(n, d),
            "V": words(M, d),
            "G": words(n, M),
            "xr": padded_rows(n),
            "vr": padded_rows(M),
            "gr": padded_rows(M),
            "gVs": (self._parts_V, M * ld_d),
            "gWs": (self._parts_W, K * ld_M),
        }

    def _most_parts(self, tiles: int, blocks: int) -> int:
        """Parts of a sum over all samples, which a sum over fewer has not more of."""
        most = max(1, _MOST_WAVES * blocks // tiles)
        return -(-self.shape.n // share_of(self.shape.n, tiles, blocks, most))

    def _device_bytes(self) -> int:
        self._products = ENGINES[self.parameters["engine"]](self.net.sigma, self.shape)
        items = sum(int(np.prod(size)) for size in self._sizes().values())
        return 4 * items + 8 * _tiles(self.shape.n)

    def _prepare(self) -> None:
        from ..kernels.cuda import head
        from ..kernels.cuda.memory import packing

        n, K = self.shape.n, self.shape.K
        sizes = self._sizes()
        kinds = {name: np.uint32 if name in "XVG" else np.float32 for name in sizes}
        self._buffers = {
            name: self._cuda.device_array(size, kinds[name]) for name, size in sizes.items()
        }
        self._losses = self._cuda.device_array(-(-n // head.THREADS), np.float64)
        self._maximum = self._cuda.to_device(np.zeros(1, np.uint32))
        self._loss_kernel = head.loss_of_parts(self.net.objective, K)
        self._link_kernel = head.link_of_parts(self.net.objective)
        self._head = head.head(self.net.sigma, K, packed=True)
        self._pack = packing.pack()
        exponents = self._column_exponents()
        self._shifts_X = self._cuda.to_device(exponents)
        self._shifts_V = self._cuda.to_device(-exponents)
        self._xc = self._cuda.to_device(np.ldexp(np.float32(1), -exponents))
        self._scratch: tuple[Any, Any] | None = None
        planes = self._buffers["X"], self._buffers["xr"]
        self._packed(self.X, self._shifts_X, *planes)()

    def _column_exponents(self) -> np.ndarray:
        """The exponent of each column of X, filled up with zeros."""
        from ..kernels.cuda.memory import packing

        n, d = self.X.shape
        maxima = self._cuda.to_device(np.zeros(d, np.uint32))
        grid = -(-d // packing.THREADS), min(n, 1024)
        bound(packing.column_maxima(), grid, packing.THREADS, (self.X, maxima))()
        exponents = np.zeros(packing.padded_columns(d), np.int32)
        exponents[:d] = packing.column_exponents(maxima.copy_to_host())
        return exponents

    def _packed(self, A: Any, shifts: Any, planes: Any, undo: Any) -> Launch:
        """The launch that packs A (rows, ld)."""
        from ..kernels.cuda.memory import packing

        arguments = A, shifts, planes, undo, len(A), self._maximum
        return bound(self._pack, packing.pack_grid(len(A)), packing.THREADS, arguments)

    def _scratch_for(self, rows: int) -> tuple[Any, Any]:
        """Room for so many packed rows that are not all of X, kept for the next ones."""
        from ..kernels.cuda.memory import packing

        needed = packing.words(rows, self.shape.d)
        if self._scratch is None or self._scratch[0].size < needed:
            self._scratch = None
            self._enough_memory(4 * (needed + packing.padded_rows(rows)))
            self._scratch = (
                self._cuda.device_array(needed, np.uint32),
                self._cuda.device_array(packing.padded_rows(rows), np.float32),
            )
        return self._scratch

    def _forward_rows(self, X: Any, whole: bool) -> tuple[list[Launch], Any, Any, Any, Any]:
        """Launches up to A and the parts of U; packed X, xr, A and Us."""
        _, d, M, K = self.shape
        rows, buffers = len(X), self._buffers
        packed, xr = (buffers["X"], buffers["xr"]) if whole else self._scratch_for(rows)
        launches = [] if whole else [self._packed(X, self._shifts_X, packed, xr)]
        A = buffers["A"][:rows]
        Us = buffers["Us"][: _tiles(M) * rows * K].reshape(_tiles(M), rows, K)
        tiles = _tiles(rows) * _tiles(M)
        grid = min(tiles, self._blocks_V) if self._products.persistent else tiles
        threads, shared = self._products.threads[0], self._products.shared[0]
        arguments = packed, buffers["V"], xr, buffers["vr"], self._dW, A, Us, rows, M, d
        launches += [
            self._packed(self._dV, self._shifts_V, buffers["V"], buffers["vr"]),
            bound(self._products.hidden, grid, threads, arguments, shared),
        ]
        return launches, packed, xr, A, Us

    def _sum_rows(self, X: Any, Y: Any) -> tuple[list[Launch], Sums]:
        from ..kernels.cuda import head

        _, d, M, _ = self.shape
        rows, buffers, ld = len(X), self._buffers, self._dV.shape[1]
        launches, packed, xr, A, Us = self._forward_rows(X, rows == self.shape.n)
        share_V = share_of(rows, self._tiles_V, self._blocks_V, self._parts_V)
        share_W = share_of(rows, self._tiles_W, self._blocks_W, self._parts_W)
        gVs, gWs = buffers["gVs"][: -(-rows // share_V)], buffers["gWs"][: -(-rows // share_W)]
        Delta, G, gr = buffers["Delta"][:rows], buffers["G"], buffers["gr"]
        losses = self._losses[: -(-rows // head.THREADS)]
        of_loss = Us, Y, Delta, xr, losses, self._maximum
        of_head = A, Delta, self._dW, gWs, G, M, share_W, xr, self._maximum, gr
        of_sums = G, packed, gr, self._xc, gVs, M, d, ld, share_V, rows
        threads, shared = self._products.threads[1], self._products.shared[1]
        launches += [
            bound(self._loss_kernel, len(losses), head.THREADS, of_loss),
            bound(self._head, (self._tiles_W, len(gWs)), head.THREADS, of_head),
            bound(self._products.sums, (self._tiles_V, len(gVs)), threads, of_sums, shared),
        ]
        return launches, (gVs, gWs, losses)

    def _predict_rows(self, X: Any, F: np.ndarray) -> None:
        from ..kernels.cuda import head

        launches, *_, Us = self._forward_rows(X, whole=False)
        found = self._buffers["Delta"][: len(X)]
        blocks = -(-len(X) // head.THREADS)
        for launch in (*launches, bound(self._link_kernel, blocks, head.THREADS, (Us, found))):
            launch()
        found.copy_to_host(F)


def _tiles(extent: int) -> int:
    return -(-extent // _TILE)

"""The engine on tensor cores whose large products are made from packed float16 numbers."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache, partial
from typing import Any, NamedTuple

import numpy as np

from ..kernels.cuda.driver.launch import Launch, bound
from ..kernels.cuda.memory.copies import padded
from ..network import Parameters, Shape
from .cuda import CudaEngine, Sums
from .cuda_facts import compute_capability, enough_memory, free_memory, multiprocessors
from .cuda_memory import Rows

# For smaller problems tiles of 128 × 128 are too few, or too empty.
LEAST = Shape(1024, 48, 48, 1)
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
    """Whether a problem is made for the engine, and large enough for its tiles."""
    from ..kernels.cuda.head import OUTPUTS

    large = all(size >= least for size, least in zip(shape, LEAST, strict=True))
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


class Scales(NamedTuple):
    """Exponents of the columns of X (n, d), so that its columns and those of V weigh alike."""

    of_X: Any
    of_V: Any  # what undoes them
    undo: Any  # the same as powers of 2


class PackedRows(Rows):
    """Rows of X (n, ld) with the scales of all of X; packed where they are all.

    planes and undo are as `packing.pack` makes them, None where they are made for a call.
    """

    def __init__(self, array: Any, scales: Scales, planes: Any = None, undo: Any = None) -> None:
        super().__init__(array)
        self.scales, self.planes, self.undo = scales, planes, undo

    def _some(self, array: Any) -> Rows:
        return PackedRows(array, self.scales)


class PlanesEngine(CudaEngine):
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
            "V": words(M, d),
            "G": words(n, M),
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
        from ..kernels.cuda.memory.packing import padded_rows, words

        n, d, *_ = self.shape
        self._products = ENGINES[self.parameters["engine"]](self.net.sigma, self.shape)
        items = sum(int(np.prod(size)) for size in self._sizes().values())
        return 4 * (items + words(n, d) + padded_rows(n)) + 8 * _tiles(n)

    def _prepare(self) -> int:
        from ..kernels.cuda import head
        from ..kernels.cuda.memory import packing

        n, K = self.shape.n, self.shape.K
        sizes = self._sizes()
        kinds = {name: np.uint32 if name in "VG" else np.float32 for name in sizes}
        self._buffers = {
            name: self._cuda.device_array(size, kinds[name]) for name, size in sizes.items()
        }
        self._losses = self._cuda.device_array(-(-n // head.THREADS), np.float64)
        self._maximum = self._cuda.to_device(np.zeros(1, np.uint32))
        self._loss_kernel = head.loss_of_parts(self.net.objective, K)
        self._link_kernel = head.link_of_parts(self.net.objective)
        self._head = head.head(self.net.sigma, K, packed=True)
        self._pack = packing.pack()
        self._scratch: tuple[Any, Any] | None = None
        return self._parts_V

    def hold(self, X: np.ndarray, Y: np.ndarray) -> tuple[Any, Any]:
        """X and Y on the device, X packed as well."""
        (rows, targets), planes = super().hold(X, Y), self._room(len(X))
        scales = self._scales(rows.array)
        self._packed(rows.array, scales.of_X, *planes)()
        return PackedRows(rows.array, scales, *planes), targets

    def _scales(self, X: Any) -> Scales:
        """The scales of the columns of X on the device, filled up with zeros."""
        from ..kernels.cuda.memory import packing

        d = X.shape[1]
        maxima = self._cuda.to_device(np.zeros(d, np.uint32))
        grid = -(-d // packing.THREADS), min(len(X), 1024)
        bound(packing.column_maxima(), grid, packing.THREADS, (X, maxima))()
        exponents = np.zeros(packing.padded_columns(d), np.int32)
        exponents[:d] = packing.column_exponents(maxima.copy_to_host())
        undo = np.ldexp(np.float32(1), -exponents)
        return Scales(*map(self._cuda.to_device, (exponents, -exponents, undo)))

    def _room(self, rows: int) -> tuple[Any, Any]:
        """Room for so many packed rows of X."""
        from ..kernels.cuda.memory import packing

        return (
            self._cuda.device_array(packing.words(rows, self.shape.d), np.uint32),
            self._cuda.device_array(packing.padded_rows(rows), np.float32),
        )

    def _scratch_for(self, rows: int) -> tuple[Any, Any]:
        """Room for so many packed rows that are not all of X, kept for the next ones."""
        from ..kernels.cuda.memory import packing

        needed = packing.words(rows, self.shape.d)
        if self._scratch is None or self._scratch[0].size < needed:
            self._scratch = None
            self._kept.clear()  # which hold on to it
            enough_memory(self.shape, 4 * (needed + packing.padded_rows(rows)), free_memory())
            self._scratch = self._room(rows)
        return self._scratch

    def _packed(self, A: Any, shifts: Any, planes: Any, undo: Any) -> Launch:
        """The launch that packs A (rows, ld)."""
        from ..kernels.cuda.memory import packing

        arguments = A, shifts, planes, undo, len(A), self._maximum
        return bound(self._pack, packing.pack_grid(len(A)), packing.THREADS, arguments)

    def _forward_rows(self, X: Any, theta: Parameters) -> tuple[list[Launch], Any, Any, Any]:
        """Launches up to A and the parts of U; the rows packed, A and Us."""
        _, d, M, K = self.shape
        rows, buffers, launches = len(X), self._buffers, []
        if X.planes is None:
            X = PackedRows(X.array, X.scales, *self._scratch_for(rows))
            launches.append(self._packed(X.array, X.scales.of_X, X.planes, X.undo))
        A = buffers["A"][:rows]
        Us = buffers["Us"][: _tiles(M) * rows * K].reshape(_tiles(M), rows, K)
        tiles = _tiles(rows) * _tiles(M)
        grid = min(tiles, self._blocks_V) if self._products.persistent else tiles
        threads, shared = self._products.threads[0], self._products.shared[0]
        arguments = X.planes, buffers["V"], X.undo, buffers["vr"], theta.W, A, Us, rows, M, d
        launches += [
            self._packed(theta.V, X.scales.of_V, buffers["V"], buffers["vr"]),
            bound(self._products.hidden, grid, threads, arguments, shared),
        ]
        return launches, X, A, Us

    def _loss_rows(self, X: Rows, Y: Any, theta: Parameters) -> tuple[list[Launch], Any]:
        launches, losses, *_ = self._losses_of(X, Y, theta)
        return launches, losses

    def _losses_of(
        self, X: Any, Y: Any, theta: Parameters
    ) -> tuple[list[Launch], Any, Any, Any, Any]:
        """Launches up to the losses; losses, the rows packed, A and Δ."""
        from ..kernels.cuda import head

        launches, X, A, Us = self._forward_rows(X, theta)
        Delta, losses = self._buffers["Delta"][: len(X)], self._losses[: -(-len(X) // head.THREADS)]
        arguments = Us, Y, Delta, X.undo, losses, self._maximum
        launches.append(bound(self._loss_kernel, len(losses), head.THREADS, arguments))
        return launches, losses, X, A, Delta

    def _sum_rows(self, X: Any, Y: Any, theta: Parameters) -> tuple[list[Launch], Sums]:
        from ..kernels.cuda import head

        _, d, M, _ = self.shape
        rows, buffers, ld = len(X), self._buffers, theta.V.shape[1]
        launches, losses, X, A, Delta = self._losses_of(X, Y, theta)
        share_V = share_of(rows, self._tiles_V, self._blocks_V, self._parts_V)
        share_W = share_of(rows, self._tiles_W, self._blocks_W, self._parts_W)
        gVs, gWs = buffers["gVs"][: -(-rows // share_V)], buffers["gWs"][: -(-rows // share_W)]
        G, gr = buffers["G"], buffers["gr"]
        of_head = A, Delta, theta.W, gWs, G, M, share_W, X.undo, self._maximum, gr
        of_sums = G, X.planes, gr, X.scales.undo, gVs, M, d, ld, share_V, rows
        threads, shared = self._products.threads[1], self._products.shared[1]
        launches += [
            bound(self._head, (self._tiles_W, len(gWs)), head.THREADS, of_head),
            bound(self._products.sums, (self._tiles_V, len(gVs)), threads, of_sums, shared),
        ]
        return launches, (gVs, gWs, losses)

    def _predict_rows(self, X: Any, theta: Parameters, F: np.ndarray) -> None:
        from ..kernels.cuda import head

        launches, _, _, Us = self._forward_rows(PackedRows(X, self._scales(X)), theta)
        found = self._buffers["Delta"][: len(X)]
        blocks = -(-len(X) // head.THREADS)
        for launch in (*launches, bound(self._link_kernel, blocks, head.THREADS, (Us, found))):
            launch()
        found.copy_to_host(F)


def _tiles(extent: int) -> int:
    return -(-extent // _TILE)

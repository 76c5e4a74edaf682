"""One kernel a product, by tiles in shared memory and registers: any shape, both dtypes."""

from __future__ import annotations

from ..engines.cuda import CudaVariant
from ..engines.tiled import TiledEngine

VARIANT = CudaVariant(
    "cuda-tiled",
    "cuda",
    "shared-memory and register tiles, one kernel a product, fused epilogues",
    TiledEngine,
    parallel=False,
)

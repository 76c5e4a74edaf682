"""Products on tensor cores: float32 in three passes of TF32, or in one where asked for.

`cuda-tensor` takes three passes and is within 3 · 2⁻²² of each product, near float32's own 2⁻²⁴.
`TF32` takes one, 2⁻¹⁰ of each product, and is no float32: it is not in the list, and who accepts
its error adds it with `tl.variants.add(tl.variants.cuda_tensor.TF32)`.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from ..device import CudaVariant
from ..network import Shape
from ..products import ProductsPlan


class ThreePasses(ProductsPlan):
    """As `ProductsPlan`, each product by three passes of TF32."""

    def _engine(self) -> Any:
        from ..kernels.cuda import tensor

        return tensor.three_passes

    def _tile(self, rows: int, columns: int) -> Any:
        from ..kernels.cuda.tensor import tile_for

        tile = super()._tile(rows, columns)
        return tile_for(tile.rows, tile.columns)


class OnePass(ThreePasses):
    """As `ProductsPlan`, each product by one pass of TF32."""

    def _engine(self) -> Any:
        from ..kernels.cuda import tensor

        return tensor.one_pass


def _refuses(shape: Shape, dtype: np.dtype) -> str | None:
    if dtype == np.float32:
        return None
    return f"is made for float32, got {dtype}: take cuda-tiled"


VARIANT = CudaVariant(
    "cuda-tensor",
    "cuda",
    "tensor cores, three passes of TF32 at near-float32 accuracy",
    ThreePasses,
    parallel=False,
    refuses=_refuses,
)

TF32 = CudaVariant(
    "cuda-tensor-tf32",
    "cuda",
    "tensor cores, one pass of TF32: 11 significant bits",
    OnePass,
    parallel=False,
    refuses=_refuses,
)

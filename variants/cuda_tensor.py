"""Products on tensor cores: float32 in three passes of float16 or TF32, or in one of TF32.

`cuda-tensor` takes three passes. Large problems are packed as two float16 numbers an element, with
exact scales (`PlanesEngine`): within 3 · 2⁻²² of each product and 2⁻³⁹ of the largest that its
scales are made for. Others, and more than 16 outputs, take three passes of TF32, within 3 · 2⁻²² of
each product. float32's own is 2⁻²⁴. `TF32` takes one pass, 2⁻¹⁰ of each product, and is no float32:
it is not in the list, and who accepts its error adds it with
`tl.variants.add(tl.variants.cuda_tensor.TF32)`.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from ..engines.cuda import CudaEngine, CudaVariant
from ..engines.planes import LEAST, PlanesEngine, pays
from ..engines.tiled import TiledEngine
from ..interface import Problem
from ..interface.corners import both_sides
from ..kernels.formulas.activations import ACTIVATIONS
from ..network import Shape


class ThreePasses(TiledEngine):
    """As `TiledEngine`, each product by three passes of TF32."""

    @classmethod
    def candidates(cls, shape: Shape, dtype: str) -> list[Any]:
        """One."""
        return [{}]

    def _multiplier(self) -> Any:
        from ..kernels.cuda.tensorcores import tf32

        return tf32.three_passes

    def _tile(self, rows: int, columns: int) -> Any:
        from ..kernels.cuda.tensorcores.tf32 import tile_for

        tile = super()._tile(rows, columns)
        return tile_for(tile.rows, tile.columns)


class OnePass(ThreePasses):
    """As `TiledEngine`, each product by one pass of TF32."""

    def _multiplier(self) -> Any:
        from ..kernels.cuda.tensorcores import tf32

        return tf32.one_pass


def three_passes(problem: Problem) -> CudaEngine:
    """The engine of three passes that suits the problem.

    The scales of G follow from how steep σ is at most, which nobody knows of a user's own.
    """
    known = problem.net.sigma is ACTIVATIONS.get(problem.net.activation)
    packed = known and pays(problem.shape, problem.dtype)
    return (PlanesEngine if packed else ThreePasses)(problem)


def _corners(itemsize: int, threads: int) -> Iterator[Shape]:
    from ..kernels.cuda.driver.simulated import in_simulator

    if itemsize != 4 or in_simulator():  # where such an epoch takes minutes
        return
    n, d, M, _ = LEAST

    def decide(shape: Shape) -> bool:
        return pays(shape, np.dtype(np.float32))

    yield from both_sides(decide, range(1, 2 * n), d, M, 3)
    yield from both_sides(decide, n, range(1, 2 * d), M, 3)
    yield from both_sides(decide, n, d, range(1, 2 * M), 3)


def _refuses(shape: Shape, dtype: np.dtype) -> str | None:
    if dtype == np.float32:
        return None
    return f"is made for float32, got {dtype}: take cuda-tiled"


VARIANT = CudaVariant(
    "cuda-tensor",
    "cuda",
    "tensor cores, three passes of float16 or TF32 at near-float32 accuracy",
    three_passes,
    parallel=False,
    refuses=_refuses,
    corners=_corners,
)

TF32 = CudaVariant(
    "cuda-tensor-tf32",
    "cuda",
    "tensor cores, one pass of TF32: 11 significant bits",
    OnePass,
    parallel=False,
    refuses=_refuses,
)

"""The interchangeable implementations: one file each, listed here."""

if "." not in __name__:
    raise ImportError(
        "import twolayer.variants instead of variants: this folder is a part of twolayer"
    )

from .. import deferred
from ..interface import Variant
from ..registry import Registry, add_file, listed
from . import (
    cuda_fused,
    cuda_samples,
    cuda_tensor,
    cuda_tiled,
    cupy,
    jax,
    numba_blas,
    numba_fused,
    numba_loops,
    numba_parallel,
    numpy,
    numpy_samples,
    python_loops,
    torch,
)

__all__ = ["REGISTRY", "add", "add_file", "get", "names"]

REGISTRY = listed(
    Registry(
        Variant,
        [
            python_loops.VARIANT,
            numpy_samples.VARIANT,
            numpy.VARIANT,
            numba_loops.VARIANT,
            numba_parallel.VARIANT,
            numba_blas.VARIANT,
            numba_fused.VARIANT,
            *torch.VARIANTS,
            jax.VARIANT,
            cupy.VARIANT,
            cuda_samples.VARIANT,
            cuda_tiled.VARIANT,
            cuda_fused.VARIANT,
            cuda_tensor.VARIANT,
        ],
        later=deferred.VARIANTS,
        group="twolayer.variants",
    )
)

names = REGISTRY.names
get = REGISTRY.get
add = REGISTRY.add

"""The interchangeable implementations: one file each, listed here."""

if "." not in __name__:
    raise ImportError(
        "import twolayer.variants instead of variants: this folder is a part of twolayer"
    )

from ..registry import Registry
from . import (
    numba_blas,
    numba_fused,
    numba_loops,
    numba_parallel,
    numpy,
    numpy_samples,
    python_loops,
)

REGISTRY = Registry(
    module.VARIANT
    for module in (
        python_loops,
        numpy_samples,
        numpy,
        numba_loops,
        numba_parallel,
        numba_blas,
        numba_fused,
    )
)

names = REGISTRY.names
get = REGISTRY.get
add = REGISTRY.add
add_file = REGISTRY.add_file

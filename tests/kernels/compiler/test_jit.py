"""What `jit` forbids Numba to do, read from what Numba did."""

import numba
import numpy as np
import pytest
from numba import config

from twolayer.kernels.compiler import jit

pytestmark = pytest.mark.skipif(bool(config.DISABLE_JIT), reason="nothing is compiled")


def two_loops(x):
    for i in numba.prange(x.size):
        x[i] += 1
    for i in numba.prange(x.size):
        x[i] *= 2


def test_loops_are_not_fused_for_any_signature(folder):
    """What a loop calls through an address may depend on all of the loop before."""
    kernel = jit.jit("loops", parallel=True)(two_loops)
    for dtype in ("float32", "float64", "int64"):
        kernel(np.ones(8, dtype))
        metadata = kernel.get_metadata(kernel.signatures[-1])
        assert not metadata["parfor_diagnostics"].fusion_enabled
        assert not metadata["parfor_diagnostics"].fusion_info

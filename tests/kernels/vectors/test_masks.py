"""No pass over a block stores under a mask: what takes a cycle takes more than ten on some CPUs.

LLVM makes such a store of a loop that leaves some numbers of an array as they are.
"""

import platform
import re

import numpy as np
import pytest
from llvmlite.binding import get_host_cpu_features, llvm_version_info
from numba import from_dtype, njit, types

from twolayer.kernels.compiler.jit import SUMS
from twolayer.kernels.cpu import blocks
from twolayer.kernels.formulas.activations import ACTIVATIONS
from twolayer.kernels.formulas.losses import LOSSES
from twolayer.kernels.formulas.scalars import like, select
from twolayer.network import DTYPES

pytestmark = [
    pytest.mark.compiled,
    pytest.mark.skipif(platform.machine() != "x86_64", reason="reads x86-64 machine code"),
]
# By AVX, whose mask is a vector, and by AVX-512, whose mask has a register of its own.
MASKED = r"\n\tvp?maskmov\w*\t%\w+, %\w+, |\n\tvp?mov\w*\t%\w+, [^\n]*\) \{%k\d\}"
each_dtype = pytest.mark.parametrize(
    "dtype", [DTYPES[0], *(pytest.param(dtype, marks=pytest.mark.slow) for dtype in DTYPES[1:])]
)


def masked(function, dtype, integers):
    """The masked stores of a pass with so many integers after its first argument."""
    compiled = njit(error_model="numpy", fastmath=set(SUMS))(function)
    compiled.compile((from_dtype(np.dtype(dtype)), *[types.int64] * integers))
    (text,) = compiled.inspect_asm().values()
    return re.findall(MASKED, text)


@each_dtype
@pytest.mark.parametrize("name", ACTIVATIONS)
def test_no_activation_stores_under_a_mask(name, dtype):
    for make in (blocks._features, blocks._values):
        assert masked(make(ACTIVATIONS[name]).py_func, dtype, 3) == []


@each_dtype
@pytest.mark.parametrize("name", LOSSES)
def test_no_loss_stores_under_a_mask(name, dtype):
    made = [blocks._losses, blocks._links] + [blocks._labels] * (LOSSES[name].label_row is not None)
    for make in made:
        assert masked(make(LOSSES[name]).py_func, dtype, 5) == []


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("vmaskmovps\t%ymm0, %ymm6, (%rdx,%r10,4)", True),
        ("vmaskmovpd\t(%rdx,%r10,8), %ymm0, %ymm6", False),
        ("vmovups\t%zmm2, 64(%rdx,%r10,4) {%k1}", True),
        ("vmovups\t64(%rdx,%r10,4), %zmm2 {%k1} {z}", False),
        ("vmovaps\t%zmm1, %zmm2 {%k1}", False),
        ("vmovups\t%ymm2, (%rdx,%r10,4)", False),
    ],
)
def test_a_masked_store_is_told_from_a_load_and_a_choice(text, found):
    assert bool(re.findall(MASKED, f"\n\t{text}\n")) == found


@pytest.mark.skipif(llvm_version_info < (22,), reason="earlier LLVM may make none")
@pytest.mark.skipif(not get_host_cpu_features().get("avx2"), reason="has no masks")
def test_a_masked_store_is_found():
    def in_place(kind, A, S, size):
        a = blocks.array_at(kind, A, size)
        for i in range(size):
            a[i] = select(a[i] > like(kind, 0.0), a[i], like(kind, 0.0))

    assert masked(in_place, "float32", 3)

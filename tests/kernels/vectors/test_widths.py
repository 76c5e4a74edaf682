"""Passes over a block run in whole registers on processors for which LLVM prefers half of them,
and none that is kept on the stack crosses a cache line.

The code is compiled for such a processor in a process of its own, and read, wherever the test runs.
"""

import os
import platform
import subprocess
import sys

import pytest

from twolayer.kernels.formulas.activations import ACTIVATIONS

pytestmark = [
    pytest.mark.compiled,
    pytest.mark.skipif(platform.machine() != "x86_64", reason="compiles for x86-64"),
]
FEATURES = "+avx512f,+avx512cd,+avx512bw,+avx512dq,+avx512vl,+avx2,+avx,+fma,+bmi,+bmi2,+popcnt"
PROGRAM = """
import re, sys
import numba, numpy as np
from numba import types

from twolayer.kernels.compiler.jit import SUMS
from twolayer.kernels.cpu import blocks
from twolayer.kernels.formulas import updates
from twolayer.kernels.formulas.activations import ACTIVATIONS
from twolayer.kernels.formulas.losses import LOSSES

passes = {name: (blocks._features(ACTIVATIONS[name]), 3) for name in sys.argv[1:]}
passes["softmax"] = blocks._labels(LOSSES["softmax"]), 5
passes["adam"] = updates._part(updates.UPDATES["adam"]), 6
for name, (function, integers) in passes.items():
    compiled = numba.njit(error_model="numpy", fastmath=set(SUMS))(function.py_func)
    compiled.compile((types.float32, *[types.int64] * integers))
    (text,) = compiled.inspect_asm().values()
    stores = re.findall(r"\\tv?mov[ua]ps\\t%zmm\\d+, [^%\\n]*\\(%", text)
    kept = re.findall(r"\\t(-?\\d*)\\(%rsp\\), %zmm|%zmm\\d+, (-?\\d*)\\(%rsp\\)", text)
    print(name, len(stores), sum(int(a or b or 0) % 64 != 0 for a, b in kept))
"""


@pytest.mark.parametrize(
    "names",
    [["gelu"], pytest.param([n for n in ACTIVATIONS if n != "identity"], marks=pytest.mark.slow)],
    ids=["one", "all"],
)
def test_passes_take_whole_registers_and_keep_them_in_whole_lines(names):
    environment = os.environ | {
        "NUMBA_CPU_NAME": "skylake-avx512", "NUMBA_CPU_FEATURES": FEATURES,
    }  # fmt: skip
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, *names], env=environment, capture_output=True, text=True
    )
    assert not done.returncode, done.stderr
    found = {name: counts for name, *counts in map(str.split, done.stdout.splitlines())}
    assert set(found) == {*names, "softmax", "adam"}
    assert all(int(stores) and not int(crossing) for stores, crossing in found.values()), found

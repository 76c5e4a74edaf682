"""Every variant without a compiler: the kernels run as the Python that they are written in."""

import pytest

PROGRAM = """
import sys
import twolayer as tl
from twolayer.checking import cases, verify

name, *networks = sys.argv[1:]
shapes = [(1, 1, 1, 1), (5, 3, 17, 2), (17, 2, 3, 1), (35, 2, 40, 35), (3, 300, 5, 2)]
for network in networks:
    net = tl.Network(*network.split("-"))
    for dtype in ("float32", "float64"):
        for shape in shapes:
            problem = cases.problem(net, tl.Shape(*shape), dtype)
            result = verify.agreement(tl.variants.get(name), problem)
            assert result.agrees, result
"""


@pytest.mark.parametrize("name", ["numba-loops", "numba-parallel", "numba-blas", "numba-fused"])
def test_agrees_without_a_compiler(name, run_python):
    networks = ("tanh-softmax", "elu-squared", "relu-logistic")
    run_python(PROGRAM, name, *networks, NUMBA_DISABLE_JIT="1")

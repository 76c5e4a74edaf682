"""What the tests of the CUDA kernels' machine code share; it is compiled without a GPU.

Run by make test-cuda, which installs the compiler and the disassembler. What the bars are about is
compiled for both generations, the older one among the slow tests; every activation, loss and dtype
for one of them in turn.
"""

import itertools
import os

import pytest

if os.environ.get("NUMBA_ENABLE_CUDASIM") == "1":
    pytest.skip("the simulator compiles nothing", allow_module_level=True)
pytest.importorskip("numba_cuda", reason="needs numba-cuda: make test-cuda")

from numba import types

from twolayer.kernels.formulas.activations import ACTIVATIONS
from twolayer.kernels.formulas.losses import LOSSES

CAPABILITIES = [(8, 0), (9, 0)]
DTYPES = ["float32", "float64"]
SHARED = 47 << 10  # bytes; the linker takes more without a word
# What a float32 kernel may do in double precision: add up losses.
ADDING_LOSSES = ("DADD", "F2F.F64.F32")
SCALE = ("DMUL", "DADD")
i8, f8 = types.int64, types.float64
F64 = types.Array(f8, 1, "C")


def spread(*axes, slow=lambda *values: False):
    """Each combination with a capability, so that each value of the last axis meets both."""
    last, found = len(axes[-1]), []
    for number, values in enumerate(itertools.product(*axes)):
        capability = CAPABILITIES[(number + number // last) % 2]
        name = "-".join(map(str, (*values, "sm_{}{}".format(*capability))))
        marks = pytest.mark.slow if slow(*values) else ()
        found.append(pytest.param(*values, capability, id=name, marks=marks))
    return found


both = pytest.mark.parametrize(
    "capability",
    [pytest.param((8, 0), id="sm_80", marks=pytest.mark.slow), pytest.param((9, 0), id="sm_90")],
)
# No code to speak of, e^x, and the longest formula: what the kernels that take long are compiled
# with. The slow tests have every activation.
SOME = ["relu", "tanh", "gelu"]
# Kernels of both compile each activation with one of the losses, in turn.
PAIRS = list(zip(ACTIVATIONS, itertools.cycle(LOSSES), strict=False))


def typed(values):
    """All with float32, every fourth with float64, whose functions are the CPU's own."""
    values = list(values)
    return [(one, "float32") for one in values] + [(one, "float64") for one in values[::4]]


def doubles(code, *allowed):
    return [
        operation
        for operation in code.operations
        if (operation.startswith(("DADD", "DMUL", "DFMA", "DSETP", "DMNMX")) or "F64" in operation)
        and not operation.startswith(allowed or ("never",))
    ]


def check(code):
    assert code.stack == 0
    assert code.count("LDL", "STL") == 0
    assert code.shared <= SHARED

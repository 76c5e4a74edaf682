"""The machine code of what multiplies planes of fp16, of packing them, and of the head.

Run by make test-cuda: see cuda_code.py.
"""

import itertools

import pytest
from cuda_code import (  # skips where there is no compiler
    ADDING_LOSSES,
    CAPABILITIES,
    DTYPES,
    F64,
    SOME,
    both,
    check,
    doubles,
    i8,
    spread,
)
from numba import types

from twolayer.checking.cuda.code import machine_code
from twolayer.kernels.cuda import (
    head,
)
from twolayer.kernels.cuda.memory import packing
from twolayer.kernels.cuda.memory.types import matrix_type
from twolayer.kernels.cuda.tensorcores import mma, ring, wgmma
from twolayer.kernels.formulas.activations import ACTIVATIONS
from twolayer.kernels.formulas.losses import LOSSES


def check_wgmma(kernel, signature, pairs, spills=0):
    code = machine_code(kernel, signature, (9, 0, "a"))
    assert code.count("LDL", "STL") <= spills
    assert not doubles(code)
    # A block starts with as many as there are, so that its warpgroups can share them out anew.
    assert code.registers == 65536 // ring.threads(pairs) // 8 * 8
    assert code.count("USETMAXREG") == 2
    assert code.shared + wgmma.SHARED <= 227 << 10
    assert code.count("UBLKCP") >= 2
    # The compiler, when it gives the pipeline up, waits after each product: C7510 and others.
    products = [i for i, op in enumerate(code.operations) if op.startswith("HGMMA")]
    assert len(products) % 12 == 0
    for first in range(0, len(products), 12):
        run = code.operations[products[first] : products[first + 11] + 1]
        assert not any(op.startswith(("WARPGROUP", "R2UR", "BRA", "SYNCS")) for op in run)
        assert len(run) <= 100  # 12 products take 768 cycles
    assert code.count("WARPGROUP.DEPBAR") <= len(products) // 12 + 1
    return code


# gelu, and with more outputs, is below.
@pytest.mark.parametrize("activation", ["tanh", pytest.param("relu", marks=pytest.mark.slow)])
def test_hidden_by_wgmma(activation):
    kernel = wgmma.hidden(ACTIVATIONS[activation], 10)
    check_wgmma(kernel, wgmma.hidden_signature(), 1)


@pytest.mark.parametrize(
    ("activation", "spills"), [pytest.param("tanh", 0, marks=pytest.mark.slow), ("gelu", 12)]
)
def test_hidden_by_wgmma_and_two_pairs(activation, spills):
    kernel = wgmma.hidden(ACTIVATIONS[activation], 10, 2)
    check_wgmma(kernel, wgmma.hidden_signature(), 2, spills)  # none among the products


def test_hidden_by_wgmma_at_its_widest():
    kernel = wgmma.hidden(ACTIVATIONS["gelu"], wgmma.MOST_OUTPUTS)
    check_wgmma(kernel, wgmma.hidden_signature(), 1)


@pytest.mark.parametrize("promote", [False, True])
def test_sums_by_wgmma(promote):
    code = check_wgmma(wgmma.sums(promote), wgmma.sums_signature(), 1)
    assert all("tnspA.tnspB" in rest for _, op, rest in code.lines if op.startswith("HGMMA"))


P, F32 = types.Array(types.uint32, 1, "C"), types.Array(types.float32, 1, "C")
PARTS = types.Array(types.float32, 3, "C")


def check_planes(kernel, arguments, capability, transposed, columns=128):
    code = machine_code(kernel, arguments, capability)
    check(code)
    assert not doubles(code)
    assert code.registers * mma.THREADS * mma.BLOCKS_PER_MULTIPROCESSOR <= 65536
    loop = code.inner_loop("HMMA")
    products = [op for op in loop if op.startswith("HMMA")]
    assert products == ["HMMA.16816.F32"] * (2 * 96 * columns // 128)
    assert len(products) / len(loop) >= (0.54 if columns == 128 else 0.48)
    loads = [op for op in loop if op.startswith("LDSM")]
    assert loads == ["LDSM.16.MT88.4" if transposed else "LDSM.16.M88.4"] * len(loads)
    assert len(loads) == 4 * (4 + -(-columns // 32))
    assert loop.count("LDGSTS.E.BYPASS.128") == 16
    assert sum(op.startswith("BAR") for op in loop) == 1
    assert code.count("STG.E.128") == 4
    return code


OF_PLANES = [*CAPABILITIES, (9, 0, "a")]  # the last is what a launch on compute capability 9.0 has
of_planes = pytest.mark.parametrize(
    "capability", OF_PLANES, ids=lambda c: "sm_" + "".join(map(str, c))
)
HIDDEN = (P, P, F32, F32, matrix_type("float32"), matrix_type("float32"), PARTS, i8, i8, i8)
SUMS = (P, P, F32, F32, matrix_type("float32"), i8, i8, i8, i8, i8)


@of_planes
def test_hidden_of_planes(capability):
    check_planes(mma.hidden(ACTIVATIONS["tanh"], 10), HIDDEN, capability, False)


def test_hidden_of_planes_in_two_stages():
    check_planes(mma.hidden(ACTIVATIONS["tanh"], 10, 2), HIDDEN, OF_PLANES[-1], False)


@of_planes
def test_sums_of_planes(capability):
    check_planes(mma.sums(), SUMS, capability, True)


@pytest.mark.parametrize(
    ("stages", "columns"),
    [
        (2, 128),
        pytest.param(3, 112, marks=pytest.mark.slow),
        pytest.param(3, 96, marks=pytest.mark.slow),
    ],
)
def test_sums_of_planes_in_other_tiles(stages, columns):
    check_planes(mma.sums(stages, columns), SUMS, OF_PLANES[-1], True, columns)


@pytest.mark.parametrize(("pair", "capability"), spread(list(zip(SOME, [0, 1, 16], strict=True))))
def test_outputs_after_hidden_of_planes(pair, capability):
    activation, K = pair
    kernel = mma.hidden(ACTIVATIONS[activation], K)
    code = check_planes(kernel, HIDDEN, capability, False)
    assert code.operations.count("STG.E") == K


@both
def test_packing(capability):
    m = matrix_type("float32")
    for kernel, arguments in (
        (packing.column_maxima(), (m, P)),
        (packing.pack(), (m, types.Array(types.int32, 1, "C"), P, F32, i8, P)),
    ):
        code = machine_code(kernel, arguments, capability)
        check(code)
        assert not doubles(code)
    assert code.count("LDG.E.128") >= 2
    assert code.count("STG.E.128") >= 2
    assert code.count("F2FP.F16.F32.PACK_AB", "F2FP.PACK_AB") >= 8  # two numbers at a time


@pytest.mark.parametrize(
    ("loss", "outputs", "capability"),
    spread(
        ["squared", "squared_logistic", "softmax"],
        [1, 10, 16],
        slow=lambda loss, outputs: outputs < 16 if loss != "softmax" else outputs == 10,
    )
    + spread(["logistic"], [1]),
)
def test_loss_of_parts(loss, outputs, capability):
    m = matrix_type("float32")
    kernel = head.loss_of_parts(LOSSES[loss], outputs)
    code = machine_code(kernel, (PARTS, m, m, F32, F64, P), capability)
    check(code)
    assert not doubles(code, *ADDING_LOSSES)
    code = machine_code(head.link_of_parts(LOSSES[loss]), (PARTS, m), capability)
    check(code)
    assert not doubles(code)


def check_head(activation, outputs, dtype, packed, capability):
    m = matrix_type(dtype)
    kernel = head.head(ACTIVATIONS[activation], outputs, dtype, packed)
    sums = (m, m, m, m, P, i8, i8, F32, P, F32) if packed else (m,) * 5 + (i8, i8)
    code = machine_code(kernel, sums, capability)
    check(code)
    assert dtype == "float64" or not doubles(code)
    registers = code.registers * head.THREADS * head.resident(outputs)
    assert dtype == "float64" or registers <= 65536
    stores = ("STG.E.64",) if packed else ("STG.E.128",)
    assert code.count(*stores) >= 1
    return code


HEADS = list(zip(ACTIVATIONS, itertools.cycle([10, head.OUTPUTS, 1]), strict=False))
HEADS += [("gelu", 1), ("gelu", head.OUTPUTS)]  # the largest formula


@pytest.mark.parametrize(
    ("pair", "capability"),
    spread(HEADS, slow=lambda pair: pair[0] not in SOME or pair == ("gelu", 1)),
)
def test_heads(pair, capability):
    check_head(*pair, "float32", True, capability)


@pytest.mark.parametrize(
    ("dtype", "pair", "capability"),
    spread(DTYPES, HEADS[-2:], slow=lambda dtype, pair: pair == ("gelu", 1)),
)
def test_plain_heads(dtype, pair, capability):
    check_head(*pair, dtype, False, capability)


@both
def test_the_head_does_little_besides_its_sums(capability):
    code = check_head("relu", 10, "float32", True, capability)
    loop = code.inner_loop("FFMA")
    assert sum(op.startswith("FFMA") for op in loop) == 80  # four units, twice ten outputs
    assert len(loop) <= 156
    assert loop.count("LDG.E.128") == 1
    assert loop.count("STG.E.64") == 2

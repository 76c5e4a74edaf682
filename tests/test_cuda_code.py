"""The machine code of the CUDA kernels, compiled for two generations of GPUs without one.

Run by make test-cuda, which installs the compiler and the disassembler.
"""

import os

import numpy as np
import pytest

if os.environ.get("NUMBA_ENABLE_CUDASIM") == "1":
    pytest.skip("the simulator compiles nothing", allow_module_level=True)
pytest.importorskip("numba_cuda", reason="needs numba-cuda: make test-cuda")

from numba import cuda, types

from twolayer.kernels.activations import ACTIVATIONS
from twolayer.kernels.cuda import epilogues, fused, probes, samples, sums, tensor
from twolayer.kernels.cuda.insides import machine_code
from twolayer.kernels.cuda.products import Tile, product
from twolayer.kernels.cuda.types import matrix_type
from twolayer.kernels.losses import LOSSES

CAPABILITIES = [(8, 0), (9, 0)]
DTYPES = ["float32", "float64"]
SHARED = 47 << 10  # bytes; the linker takes more without a word
# What a float32 kernel may do in double precision: add up losses.
ADDING_LOSSES = ("DADD", "F2F.F64.F32")
SCALE = ("DMUL", "DADD")
i8, f8 = types.int64, types.float64
F64 = types.Array(f8, 1, "C")


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


def planted_spill(x):
    buffer = cuda.local.array(400, np.float32)
    for i in range(400):
        buffer[i] = x[0, i]
    for i in range(400):
        x[0, i] = buffer[int(buffer[i])]


def planted_double(x):
    x[0, 0] = x[0, 0] * 1.1


def test_planted_faults_show():
    code = machine_code(cuda.jit(planted_spill), (matrix_type("float32"),))
    with pytest.raises(AssertionError):
        check(code)
    code = machine_code(cuda.jit(planted_double), (matrix_type("float32"),))
    check(code)
    assert doubles(code)


@pytest.mark.parametrize("capability", CAPABILITIES, ids="sm_{0[0]}{0[1]}".format)
@pytest.mark.parametrize("dtype", DTYPES)
def test_samples(dtype, capability):
    m = matrix_type(dtype)
    kernel = samples.gradient(ACTIVATIONS["gelu"], LOSSES["softmax"])
    code = machine_code(kernel, (m,) * 9 + (F64, i8, i8), capability)
    check(code)
    # An atomic addition of float64 is one instruction, ATOM or RED; ℓ is widened for it.
    assert dtype == "float64" or not doubles(code, *ADDING_LOSSES, "RED", "ATOM")
    assert code.count("RED", "ATOM") >= 3
    code = machine_code(
        samples.predict(ACTIVATIONS["tanh"], LOSSES["softmax"]), (m,) * 5 + (i8, i8)
    )
    check(code)
    assert dtype == "float64" or not doubles(code)


@pytest.mark.parametrize("update", [False, True])
@pytest.mark.parametrize("dtype", DTYPES)
def test_finish(dtype, update):
    m = matrix_type(dtype)
    code = machine_code(
        sums.finish(dtype, 32, update), (m, m, F64, m, m, m, m, F64, i8, i8, f8, f8)
    )
    check(code)
    assert dtype == "float64" or not doubles(code, *SCALE, "F2F.F32.F64")


GELU = epilogues.activate(ACTIVATIONS["gelu"])
WIDE = Tile(128, 128, 8, 8, 8)
PRODUCTS = {
    "hidden": (WIDE, (True, True), GELU),
    "hidden, narrow": (Tile(128, 32, 8, 8, 4), (True, True), GELU),
    "outputs": (Tile(128, 16, 8, 8, 4), (True, True), epilogues.plain),
    "backward": (WIDE, (True, False), epilogues.times),
    "sum over samples": (WIDE, (False, False), epilogues.partial),
    "sum over samples, narrow": (Tile(16, 128, 8, 4, 8), (False, False), epilogues.partial),
}


@pytest.mark.parametrize("capability", CAPABILITIES, ids="sm_{0[0]}{0[1]}".format)
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", PRODUCTS)
def test_products(name, dtype, capability):
    tile, along, epilogue = PRODUCTS[name]
    arguments = (matrix_type(dtype),) * 4 + (i8,) * 3
    code = machine_code(product(dtype, tile, along, epilogue), arguments, capability)
    check(code)
    assert code.registers * tile.threads <= 65536
    operation = "FFMA" if dtype == "float32" else "DFMA"
    loop = code.inner_loop(operation)
    share = sum(op.startswith(operation) for op in loop) / len(loop)
    assert share >= (0.8 if tile.height == tile.width == 8 or dtype == "float32" else 0.7)
    assert {op for op in loop if op.startswith("LDS")} == {"LDS.128"}
    loads = [op for op in code.operations if op.startswith("LDG")]
    assert loads
    assert all(".128" in op for op in loads)
    if dtype == "float32":
        assert not doubles(code)
        if tile == WIDE:
            assert code.registers <= 128  # two blocks on a multiprocessor


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("loss", LOSSES)
def test_loss_of_rows(loss, dtype):
    m = matrix_type(dtype)
    code = machine_code(epilogues.loss_of_rows(LOSSES[loss]), (m, m, F64))
    check(code)
    assert dtype == "float64" or not doubles(code, *ADDING_LOSSES)
    code = machine_code(epilogues.link_of_rows(LOSSES[loss]), (m, i8))
    check(code)
    assert dtype == "float64" or not doubles(code)


NARROW = [
    ("float32", 32, 8, 1, "squared"),
    ("float32", 64, 32, 8, "softmax"),
    ("float64", 64, 16, 4, "softmax"),
]


@pytest.mark.parametrize("capability", CAPABILITIES, ids="sm_{0[0]}{0[1]}".format)
@pytest.mark.parametrize(("dtype", "units", "inputs", "outputs", "loss"), NARROW)
def test_fused(dtype, units, inputs, outputs, loss, capability):
    m = matrix_type(dtype)
    kernel = fused.gradient(ACTIVATIONS["tanh"], LOSSES[loss], dtype, units, inputs, outputs)
    code = machine_code(kernel, (m,) * 6 + (F64, i8), capability)
    check(code)
    assert code.count("LDS.128") >= 3
    assert dtype == "float64" or not doubles(code, *ADDING_LOSSES)


@pytest.mark.parametrize("capability", CAPABILITIES, ids="sm_{0[0]}{0[1]}".format)
@pytest.mark.parametrize(("engine", "passes"), [(tensor.one_pass, 1), (tensor.three_passes, 3)])
def test_tensor_products(engine, passes, capability):
    arguments = (matrix_type("float32"),) * 4 + (i8,) * 3
    for along, epilogue in (((True, True), GELU), ((False, False), epilogues.partial)):
        kernel = product("float32", tensor.tile_for(128, 128), along, epilogue, engine)
        code = machine_code(kernel, arguments, capability)
        check(code)
        assert not doubles(code)
        assert code.registers * 256 <= 65536
        loop = code.inner_loop("HMMA")
        products = [op for op in loop if op.startswith("HMMA")]
        assert products == ["HMMA.1688.F32.TF32"] * (16 * passes)
        assert len(products) / len(loop) >= 0.09 + 0.01 * passes


@pytest.mark.parametrize("dtype", DTYPES)
def test_probes(dtype):
    """The ceilings' kernels do nothing but what they are named after."""
    kind = types.float32 if dtype == "float32" else f8
    array = types.Array(kind, 1, "C")
    code = machine_code(probes.stream(dtype), (array, array))
    check(code)
    assert code.count("LDG.E.128") == code.count("STG.E.128") == 1
    code = machine_code(probes.multiply_adds(dtype), (kind, kind, i8, array))
    check(code)
    operation = "FFMA" if dtype == "float32" else "DFMA"
    assert code.count(operation) >= probes.CHAINS
    assert dtype == "float64" or not doubles(code)

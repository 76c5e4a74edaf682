"""The machine code of the CUDA kernels, compiled for two generations of GPUs without one.

Run by make test-cuda, which installs the compiler and the disassembler. What the bars are about is
compiled for both generations; every activation, loss and dtype for one of them in turn.
"""

import itertools
import os
from pathlib import Path

import numpy as np
import pytest

if os.environ.get("NUMBA_ENABLE_CUDASIM") == "1":
    pytest.skip("the simulator compiles nothing", allow_module_level=True)
pytest.importorskip("numba_cuda", reason="needs numba-cuda: make test-cuda")

from numba import cuda, types

from twolayer.kernels.activations import ACTIVATIONS
from twolayer.kernels.cuda import doubles as float64
from twolayer.kernels.cuda import epilogues, fused, probes, products, samples, sums, tensor, updates
from twolayer.kernels.cuda.insides import machine_code
from twolayer.kernels.cuda.products import Tile, blocks, product, resident
from twolayer.kernels.cuda.types import matrix_type
from twolayer.kernels.losses import LOSSES
from twolayer.kernels.updates import UPDATES
from twolayer.products import parts_of

CAPABILITIES = [(8, 0), (9, 0)]
DTYPES = ["float32", "float64"]
SHARED = 47 << 10  # bytes; the linker takes more without a word
# What a float32 kernel may do in double precision: add up losses.
ADDING_LOSSES = ("DADD", "F2F.F64.F32")
SCALE = ("DMUL", "DADD")
i8, f8 = types.int64, types.float64
F64 = types.Array(f8, 1, "C")


def spread(*axes):
    """Each combination with a capability, so that each value of the last axis meets both."""
    last, found = len(axes[-1]), []
    for number, values in enumerate(itertools.product(*axes)):
        capability = CAPABILITIES[(number + number // last) % 2]
        name = "-".join(map(str, (*values, "sm_{}{}".format(*capability))))
        found.append(pytest.param(*values, capability, id=name))
    return found


both = pytest.mark.parametrize("capability", CAPABILITIES, ids="sm_{0[0]}{0[1]}".format)
# Kernels of both compile each activation with one of the losses, in turn.
PAIRS = list(zip(ACTIVATIONS, itertools.cycle(LOSSES), strict=False))


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


@pytest.mark.parametrize(("pair", "dtype", "capability"), spread(PAIRS, DTYPES))
def test_samples(pair, dtype, capability):
    m = matrix_type(dtype)
    activation, loss = ACTIVATIONS[pair[0]], LOSSES[pair[1]]
    code = machine_code(samples.gradient(activation, loss), (m,) * 9 + (F64, i8, i8), capability)
    check(code)
    # An atomic addition of float64 is one instruction, ATOM or RED; ℓ is widened for it.
    assert dtype == "float64" or not doubles(code, *ADDING_LOSSES, "RED", "ATOM")
    assert code.count("RED", "ATOM") >= 3


@pytest.mark.parametrize(("loss", "dtype", "capability"), spread(LOSSES, DTYPES))
def test_predictions_of_samples(loss, dtype, capability):
    m = matrix_type(dtype)
    kernel = samples.predict(ACTIVATIONS["tanh"], LOSSES[loss])
    code = machine_code(kernel, (m,) * 5 + (i8, i8), capability)
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


@pytest.mark.parametrize(("name", "dtype", "capability"), spread(UPDATES, DTYPES))
def test_updates(name, dtype, capability):
    update = UPDATES[name]
    scalars = update.formula.__code__.co_argcount - 2 - update.slots
    arguments = (matrix_type(dtype),) * (2 + update.slots) + (i8, types.UniTuple(f8, scalars))
    code = machine_code(updates.elementwise(update), arguments, capability)
    check(code)
    assert dtype == "float64" or not doubles(code, "F2F.F32.F64")


def activate(name):
    return epilogues.activate(ACTIVATIONS[name])


WIDE = products.LARGE
PRODUCTS = {
    "hidden": (WIDE, (True, True), activate("gelu")),
    "hidden, narrow": (Tile(128, 32, 8, 8, 4), (True, True), activate("gelu")),
    "outputs": (Tile(128, 16, 8, 8, 4), (True, True), epilogues.plain),
    "backward": (WIDE, (True, False), epilogues.times),
    "sum over samples": (WIDE, (False, False), epilogues.partial),
    "sum over samples, tall": (products.TALL, (False, False), epilogues.partial),
    "sum over samples, narrow": (Tile(16, 128, 8, 4, 8), (False, False), epilogues.partial),
}


def compiled(dtype, *arguments, capability=(9, 0)):
    signature = (matrix_type(dtype),) * 4 + (i8,) * 3
    return machine_code(product(dtype, *arguments), signature, capability)


def engine_64(capability):
    return float64.at_once if capability >= (9, 0) else float64.in_halves


def check_loads(code):
    loads = [op for op in code.operations if op.startswith(("LDG.", "LDGSTS"))]
    assert loads
    assert all(".128" in op for op in loads)


def check_product(tile, along, epilogue, capability):
    code = compiled("float32", tile, along, epilogue, capability=capability)
    check(code)
    check_loads(code)
    assert not doubles(code)
    assert code.registers <= 128  # as many blocks on a multiprocessor as `resident` says
    loop = code.inner_loop("FFMA")
    share = sum(op.startswith("FFMA") for op in loop) / len(loop)
    assert share >= (0.85 if tile in (products.LARGE, products.TALL) else 0.66)
    # An asynchronous copy may begin with a few words read to nowhere.
    assert loop.count("LDS.128") == tile.depth * (tile.height + tile.width) // 4
    assert sum(op.startswith("LDS") for op in loop) <= loop.count("LDS.128") + 3


def check_float64_product(tile, along, epilogue, capability):
    """On tensor cores, which are busy longer than it takes to issue all the rest."""
    tile = tensor.tile_for(min(tile.rows, 128), tile.columns)
    code = compiled("float64", tile, along, epilogue, engine_64(capability), capability=capability)
    check(code)
    check_loads(code)
    assert code.registers * tile.threads <= 65536
    loop = code.inner_loop("DMMA")
    wide = capability >= (9, 0)
    made = [op for op in loop if op.startswith("DMMA")]
    assert len(made) == tile.height * tile.width * tile.depth // 8 // (2 if wide else 1)
    assert not any(op.startswith("DFMA") for op in loop)
    # Four a cycle and multiprocessor: 128 multiply-adds of tensor cores, or an instruction each.
    assert len(loop) <= len(made) * (16 if wide else 8)


@both
@pytest.mark.parametrize("name", PRODUCTS)
def test_products(name, capability):
    check_product(*PRODUCTS[name], capability)


@pytest.mark.parametrize(("name", "capability"), spread(PRODUCTS))
def test_float64_products(name, capability):
    check_float64_product(*PRODUCTS[name], capability)


@pytest.mark.parametrize(
    ("activation", "dtype", "capability"),
    spread([name for name in ACTIVATIONS if name != "gelu"], DTYPES),
)
def test_activations_after_a_product(activation, dtype, capability):
    check_it = check_product if dtype == "float32" else check_float64_product
    check_it(WIDE, (True, True), activate(activation), capability)


@pytest.mark.parametrize(("loss", "dtype", "capability"), spread(LOSSES, DTYPES))
def test_loss_of_rows(loss, dtype, capability):
    m = matrix_type(dtype)
    code = machine_code(epilogues.loss_of_rows(LOSSES[loss]), (m, m, F64), capability)
    check(code)
    assert dtype == "float64" or not doubles(code, *ADDING_LOSSES)
    code = machine_code(epilogues.link_of_rows(LOSSES[loss]), (m, i8), capability)
    check(code)
    assert dtype == "float64" or not doubles(code)


@pytest.mark.parametrize(
    ("n", "tile", "rows", "columns", "parts", "full"),
    [
        (60_000, WIDE, 1024, 784, 14, 0.989),
        (100_000, WIDE, 128, 784, 37, 0.981),
        (60_000, Tile(16, 128, 8, 4, 8), 10, 1024, 132, 1.0),
        (1_000_000, Tile(32, 16, 8, 4, 4), 32, 8, 2084, 0.987),
        (1_000, WIDE, 128, 784, 3, 0.079),
        (100, WIDE, 128, 784, 1, 0.026),
    ],
)
def test_parts_fill_the_device(n, tile, rows, columns, parts, full):
    """A sum over samples takes whole waves of the blocks that run at a time, in few parts."""
    slots = 132 * resident("float32", tile)
    found, share = parts_of(n, tile, rows, columns, slots, 256, 4)
    assert found == parts
    assert share % tile.depth == 0
    assert (found - 1) * share < n <= found * share
    tiles = blocks(tile, rows, columns) * found
    assert tiles / (slots * -(-tiles // slots)) == pytest.approx(full, abs=1e-3)


def check_fused(pair, dtype, units, inputs, outputs, capability):
    m = matrix_type(dtype)
    activation, loss = ACTIVATIONS[pair[0]], LOSSES[pair[1]]
    kernel = fused.gradient(activation, loss, dtype, units, inputs, outputs)
    code = machine_code(kernel, (m,) * 6 + (F64, i8), capability)
    check(code)
    assert code.count("LDS.128") >= 3
    assert dtype == "float64" or not doubles(code, *ADDING_LOSSES)


@both
def test_fused(capability):
    check_fused(("tanh", "squared"), "float32", 32, 8, 1, capability)


@pytest.mark.parametrize(("pair", "dtype", "capability"), spread(PAIRS, DTYPES))
def test_fused_at_its_widest(pair, dtype, capability):
    inputs, outputs = (32, 8) if dtype == "float32" else (16, 4)
    check_fused(pair, dtype, fused.UNITS[-1], inputs, outputs, capability)


def check_tensor(engine, passes, along, epilogue, capability):
    tile = tensor.tile_for(128, 128)
    code = compiled("float32", tile, along, epilogue, engine, capability=capability)
    check(code)
    assert not doubles(code)
    assert code.registers * 256 <= 65536
    loop = code.inner_loop("HMMA")
    made = [op for op in loop if op.startswith("HMMA")]
    assert made == ["HMMA.1688.F32.TF32"] * (16 * passes)
    assert len(made) / len(loop) >= (0.19 if passes == 3 else 0.1)


@both
@pytest.mark.parametrize(("engine", "passes"), [(tensor.one_pass, 1), (tensor.three_passes, 3)])
def test_tensor_products(engine, passes, capability):
    check_tensor(engine, passes, (False, False), epilogues.partial, capability)


@pytest.mark.parametrize(("activation", "capability"), spread(ACTIVATIONS))
def test_activations_after_a_tensor_product(activation, capability):
    check_tensor(tensor.three_passes, 3, (True, True), activate(activation), capability)


ALONG, ACROSS = (True, True), (False, False)
TENSOR_TILE = tensor.tile_for(128, 128)
PAGE = {
    "float32, sum over samples": ("float32", WIDE, ACROSS, epilogues.partial),
    "float32, tanh in the epilogue": ("float32", WIDE, ALONG, activate("tanh")),
    "float64, sum over samples": (
        "float64", TENSOR_TILE, ACROSS, epilogues.partial, float64.at_once,
    ),
    "three passes of TF32, tanh in the epilogue": (
        "float32", TENSOR_TILE, ALONG, activate("tanh"), tensor.three_passes,
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", PAGE)
def test_the_page_says_what_the_compiler_makes(name):
    code = compiled(*PAGE[name])
    operation = "HMMA" if "TF32" in name else "DMMA" if "float64" in name else "FFMA"
    loop = code.inner_loop(operation)
    share = f"{sum(op.startswith(operation) for op in loop)} of {len(loop)} {operation}"
    row = f"| {name} | {code.registers} | {share} |"
    assert row in (Path(__file__).parents[1] / "docs" / "gpu.md").read_text(encoding="utf-8")


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

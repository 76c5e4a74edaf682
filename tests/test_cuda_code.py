"""The machine code of the CUDA kernels, compiled for two generations of GPUs without one.

Run by make test-cuda, which installs the compiler and the disassembler. What the bars are about is
compiled for both generations; every activation, loss and dtype for one of them in turn.
"""

import itertools
import os
import re
from pathlib import Path

import numpy as np
import pytest

if os.environ.get("NUMBA_ENABLE_CUDASIM") == "1":
    pytest.skip("the simulator compiles nothing", allow_module_level=True)
pytest.importorskip("numba_cuda", reason="needs numba-cuda: make test-cuda")

from numba import cuda, types

from twolayer import Shape
from twolayer.checking.cuda import accuracy
from twolayer.checking.cuda.code import machine_code
from twolayer.engines import tuning
from twolayer.engines.planes import PlanesEngine
from twolayer.engines.tiled import TiledEngine, parts_of
from twolayer.kernels.cuda import (
    epilogues,
    fused,
    head,
    probes,
    products,
    samples,
    sums,
    updates,
)
from twolayer.kernels.cuda.memory import packing
from twolayer.kernels.cuda.memory.copies import vector
from twolayer.kernels.cuda.memory.types import matrix_type
from twolayer.kernels.cuda.products import Tile, blocks, product, resident
from twolayer.kernels.cuda.tensorcores import doubles as float64
from twolayer.kernels.cuda.tensorcores import mma, ring, tf32, wgmma
from twolayer.kernels.formulas.activations import ACTIVATIONS
from twolayer.kernels.formulas.losses import LOSSES
from twolayer.kernels.formulas.updates import UPDATES
from twolayer.variants.cuda_fused import CudaFused

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


both = pytest.mark.parametrize("capability", CAPABILITIES, ids="sm_{0[0]}{0[1]}".format)
# No code to speak of, e^x, and the longest formula: what the kernels that take long are compiled
# with. `samples` and the slow tests have every activation.
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


@pytest.mark.parametrize(("case", "capability"), spread(typed(PAIRS)))
def test_samples(case, capability):
    pair, dtype = case
    m = matrix_type(dtype)
    activation, loss = ACTIVATIONS[pair[0]], LOSSES[pair[1]]
    code = machine_code(samples.gradient(activation, loss), (m,) * 9 + (F64, i8, i8), capability)
    check(code)
    # An atomic addition of float64 is one instruction, ATOM or RED; ℓ is widened for it.
    assert dtype == "float64" or not doubles(code, *ADDING_LOSSES, "RED", "ATOM")
    assert code.count("RED", "ATOM") >= 3


of_losses = pytest.mark.parametrize(
    ("loss", "dtype", "capability"),
    spread(LOSSES, DTYPES, slow=lambda loss, dtype: dtype == "float64" and loss != "softmax"),
)


@of_losses
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
        sums.finish(dtype, 32, update), (m, m, F64, m, m, m, m, F64, i8, i8, f8, F64)
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
    "sum over samples, slim": (products.SLIM, (False, False), epilogues.partial),
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
    wide = tile in (products.LARGE, products.TALL, products.SLIM)
    assert share >= (0.84 if wide else 0.66)
    # An asynchronous copy may begin with a few words read to nowhere.
    assert loop.count("LDS.128") == tile.depth * (tile.height + tile.width) // 4
    assert sum(op.startswith("LDS") for op in loop) <= loop.count("LDS.128") + 3


def check_float64_product(tile, along, epilogue, capability):
    """On tensor cores, which are busy longer than it takes to issue all the rest."""
    tile = tf32.tile_for(min(tile.rows, 128), tile.columns)
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
    ("case", "capability"),
    spread(
        typed(name for name in ACTIVATIONS if name != "gelu"),
        slow=lambda case: case[0] not in SOME,
    ),
)
def test_activations_after_a_product(case, capability):
    activation, dtype = case
    check_it = check_product if dtype == "float32" else check_float64_product
    check_it(WIDE, (True, True), activate(activation), capability)


@of_losses
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
        (60_000, products.TALL, 1024, 784, 5, 0.985),
        (100_000, products.SLIM, 128, 784, 40, 0.985),
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


def check_division(pair, dtype, division, columns, K, capability):
    m = matrix_type(dtype)
    activation, loss = ACTIVATIONS[pair[0]], LOSSES[pair[1]]
    kernel = fused.gradient(activation, loss, dtype, division, columns, K)
    code = machine_code(kernel, (m,) * 6 + (F64, i8), capability)
    check(code)
    assert code.count("LDG.E.128") >= columns // vector(dtype)
    assert code.registers * division.threads <= 65536
    assert dtype == "float64" or not doubles(code, *ADDING_LOSSES)
    return code


def check_fused(pair, dtype, M, columns, K, capability):
    for division in fused.divisions(dtype, M, columns, K):
        check_division(pair, dtype, division, columns, K, capability)


def longest_loop(code):
    """The operations of the longest loop that returns to its start and holds no end of a kernel."""
    loops = []
    for address, operation, operands in code.lines:
        target = re.search(r"0x([0-9a-f]+)", operands) if operation == "BRA" else None
        if target:
            loop = [op for at, op, _ in code.lines if int(target[1], 16) <= at <= address]
            loops.append([] if "EXIT" in loop else loop)
    return max(loops, key=len)


@both
@pytest.mark.parametrize(("warps", "most"), [(16, 45), (8, 40.5)])
def test_fused_does_little_more_than_it_must(warps, most, capability):
    """Of a sample's 32 units: 19 multiply-adds, 18 instructions for σ and σ′, and all the rest."""
    found = fused.divisions("float32", 32, 8, 1)
    division = next(one for one in found if one.warps == warps)
    code = check_division(("tanh", "squared"), "float32", division, 8, 1, capability)
    assert division.ahead
    loop = longest_loop(code)
    a_sample = len(loop) / (2 * division.samples)  # two groups of samples a time round
    print(f"{a_sample} instructions a sample, {code.registers} registers")
    assert a_sample <= most
    assert sum(op.startswith("MUFU") for op in loop) == 2 * 2 * division.units
    assert not any(op.startswith(("LDS", "STS", "BAR")) for op in loop)


@both
def test_fused_with_more_outputs(capability):
    check_fused(("tanh", "squared"), "float32", 32, 8, 3, capability)


@pytest.mark.parametrize(
    ("case", "capability"),
    spread(typed(PAIRS), slow=lambda case: case[0][0] not in (*SOME, "elu")),
)
def test_fused_at_its_widest(case, capability):
    pair, dtype = case
    columns, K = (32, 8) if dtype == "float32" else (16, 4)
    check_fused(pair, dtype, fused.UNITS[-1], columns, K, capability)


@pytest.mark.parametrize(
    ("dtype", "columns", "K"),
    [
        ("float32", 8, 2), ("float32", 32, 1), ("float64", 12, 4),  # close to what registers hold
        *(
            pytest.param(*one, marks=pytest.mark.slow)
            for one in [("float32", 4, 1), ("float64", 4, 4), ("float64", 16, 1)]
        ),
    ],
)  # fmt: skip
def test_fused_with_as_many_units_a_lane_as_fit(dtype, columns, K):
    check_fused(("gelu", "softmax"), dtype, fused.UNITS[-1], columns, K, (9, 0))


@both
@pytest.mark.parametrize(
    ("name", "units", "steps"), [("tanh", 2, 18), ("sigmoid", 2, 14), ("silu", 2, 19)]
)
def test_a_function_and_its_slope_share_what_they_can(name, units, steps, capability):
    """`units` instructions of the unit for 2ˣ and 1/x, and so many that compute in all."""
    value, slope = ACTIVATIONS[name].value, ACTIVATIONS[name].slope

    def kernel(x, z, s):
        a = x[0, 0]
        z[0, 0] = value(a)
        s[0, 0] = slope(a)

    code = machine_code(cuda.jit(kernel), (matrix_type("float32"),) * 3, capability)
    check(code)
    assert code.count("MUFU") == units
    assert not code.count("BRA", "CALL") - 1  # the last one, which stops at itself
    computing = code.count("F", "MUFU") + sum(
        operation.startswith("LOP3") for operation in code.operations
    )
    assert computing <= steps


@pytest.mark.parametrize("name", accuracy.FUNCTIONS)
def test_the_search_for_the_largest_errors(name):
    kernel = accuracy.kernel_of(*accuracy.FUNCTIONS[name])
    code = machine_code(kernel, (i8, F64, types.Array(types.uint32, 1, "C")))
    check(code)


def check_tensor(engine, passes, along, epilogue, capability):
    tile = tf32.tile_for(128, 128)
    code = compiled("float32", tile, along, epilogue, engine, capability=capability)
    check(code)
    assert not doubles(code)
    assert code.registers * 256 <= 65536
    loop = code.inner_loop("HMMA")
    made = [op for op in loop if op.startswith("HMMA")]
    assert made == ["HMMA.1688.F32.TF32"] * (16 * passes)
    assert len(made) / len(loop) >= (0.19 if passes == 3 else 0.1)


@both
@pytest.mark.parametrize(("engine", "passes"), [(tf32.one_pass, 1), (tf32.three_passes, 3)])
def test_tensor_products(engine, passes, capability):
    check_tensor(engine, passes, (False, False), epilogues.partial, capability)


@pytest.mark.parametrize(("activation", "capability"), spread(SOME))
def test_activations_after_a_tensor_product(activation, capability):
    check_tensor(tf32.three_passes, 3, (True, True), activate(activation), capability)


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


@pytest.mark.parametrize(("activation", "spills"), [("tanh", 0), ("gelu", 12)])
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


@pytest.mark.parametrize(("stages", "columns"), [(2, 128), (3, 112), (3, 96)])
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
        slow=lambda loss, outputs: outputs < 16 and loss != "softmax",
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


@pytest.mark.parametrize(("dtype", "pair", "capability"), spread(DTYPES, HEADS[-2:]))
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


ALONG, ACROSS = (True, True), (False, False)
TENSOR_TILE = tf32.tile_for(128, 128)
PAGE = {
    "float32, sum over samples": ("float32", WIDE, ACROSS, epilogues.partial),
    "float32, tanh in the epilogue": ("float32", WIDE, ALONG, activate("tanh")),
    "float64, sum over samples": (
        "float64", TENSOR_TILE, ACROSS, epilogues.partial, float64.at_once,
    ),
    "three passes of TF32, tanh in the epilogue": (
        "float32", TENSOR_TILE, ALONG, activate("tanh"), tf32.three_passes,
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
    # What the loop itself costs would be taken for the device's limit.
    loop = code.innermost(operation)
    assert sum(op.startswith(operation) for op in loop) >= 0.95 * len(loop)
    assert dtype == "float64" or not doubles(code)


@pytest.mark.parametrize("model", ["H100", "H200"])
def test_what_the_shipped_table_chooses_is_a_candidate(model, monkeypatch):
    """One that is none any more would be passed over in silence."""
    engines = {one.__name__: one for one in (CudaFused, PlanesEngine, TiledEngine)}
    monkeypatch.setattr("twolayer.engines.planes.compute_capability", lambda: (9, 0))
    for name, best in tuning._shipped(f"NVIDIA {model}").items():
        kind, dtype, *sizes = name.split()
        shape = Shape(*(int(size.partition("<=")[2]) for size in sizes))
        assert best in engines[kind].candidates(shape, dtype), name

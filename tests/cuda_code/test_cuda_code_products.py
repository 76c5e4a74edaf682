"""The machine code of products by tiles, in registers and on tensor cores, and their epilogues.

Run by make test-cuda: see cuda_code.py.
"""

from pathlib import Path

import pytest
from cuda_code import (  # skips where there is no compiler
    SOME,
    both,
    check,
    doubles,
    i8,
    spread,
    typed,
)

from twolayer.checking.cuda.code import machine_code
from twolayer.engines.tiled import parts_of
from twolayer.kernels.cuda import (
    epilogues,
    products,
)
from twolayer.kernels.cuda.memory.types import matrix_type
from twolayer.kernels.cuda.products import Tile, blocks, product, resident
from twolayer.kernels.cuda.tensorcores import doubles as float64
from twolayer.kernels.cuda.tensorcores import tf32
from twolayer.kernels.formulas.activations import ACTIVATIONS


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


@pytest.mark.parametrize(("name", "capability"), spread(PRODUCTS, slow=lambda name: "," in name))
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
    assert row in (Path(__file__).parents[2] / "docs" / "lab" / "gpu.md").read_text(
        encoding="utf-8"
    )

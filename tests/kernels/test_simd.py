"""The register tiles: their arithmetic for every height and width, and their machine code."""

import os
import platform
import re
import subprocess
import sys
from functools import partial

import llvmlite.binding as llvm
import numpy as np
import pytest
from llvmlite import ir
from numba import njit

from twolayer.kernels.compiler import target
from twolayer.kernels.compiler.target import TARGET, Target
from twolayer.kernels.cpu.vectors import simd, tiles
from twolayer.kernels.cpu.vectors.panels import Panel, packers, panel_size, panels_of
from twolayer.kernels.cpu.vectors.simd import Operand
from twolayer.network import DTYPES

pytestmark = pytest.mark.compiled


@njit
def multiply(address, C, a, rows_apart, columns_apart, b, accumulate, length):
    """C (rows, lanes) [+]= a b for a with these strides of groups and in them."""
    simd.product(
        address, C[0, 0], Panel(np.int64(C.ctypes.data), C.shape[1], C.shape[1]),
        Operand(np.int64(a.ctypes.data), *rows_apart, *columns_apart),
        Panel(np.int64(b.ctypes.data), C.shape[1], C.shape[1]), len(C), length, accumulate,
    )  # fmt: skip


@njit
def spread(address, out, step, x):
    simd.spread(
        address, x[0, 0], out.ctypes.data, step, x.ctypes.data, x.shape[1], x.shape[0], x.shape[1]
    )


@njit
def dot_rows(address, out, z, w, M, lanes):
    """out (rows,) = Z w for packed z (rows, M) and w (1, M)."""
    Z, W = panels_of(z, len(out), M, lanes), panels_of(w, 1, M, lanes)
    simd.dots(address, np.int64(out.ctypes.data), Z, W, 0)


def small_integers(random, *shape, dtype):
    """Numbers whose products and sums are exact, so that any order gives the same."""
    return random.integers(-8, 9, shape).astype(dtype)


def width(dtype):
    return TARGET.lanes(np.dtype(dtype).itemsize)


@pytest.mark.parametrize("layout", ["rows", "columns", "spread", "spread columns"])
@pytest.mark.parametrize("vectors", [1, 2])
@pytest.mark.parametrize("rows", [1, 2, 3, 5, 7, 12, 13, 27, 40])
@pytest.mark.parametrize("dtype", DTYPES)
def test_product_for_every_height(dtype, rows, vectors, layout):
    random = np.random.default_rng(rows)
    lanes = vectors * width(dtype)
    H = TARGET.height
    plain, scaled, _, spreading = simd.addresses(np.dtype(dtype))
    for length in (1, 2, 7, 33):
        a = small_integers(random, rows, length, dtype=dtype)
        b = small_integers(random, length, lanes, dtype=dtype)
        C = small_integers(random, rows, lanes, dtype=dtype)
        held, strides = a, ((H * length, length), (H, 1))
        if layout == "columns":
            held, strides = np.ascontiguousarray(a.T), ((H, 1), (H * rows, rows))
        elif layout.startswith("spread"):
            source = a if layout == "spread" else np.ascontiguousarray(a.T)
            step = H * len(source) + 3
            held = np.full(step * (source.shape[1] // H + 1), np.nan, dtype)
            spread(spreading, held, step, source)
            strides = ((H * H, H), (step, 1))
            if layout == "spread columns":
                strides = strides[::-1]
        for address, accumulate, expected in (
            (plain, False, a @ b),
            (plain, True, C + a @ b),
            (scaled, False, C * (a @ b)),
        ):
            found = C.copy()
            multiply(address, found, held, *strides, b, accumulate, length)
            assert (found == expected).all()


@pytest.mark.parametrize("M", [1, 15, 16, 17, 32, 33, 48, 100])
@pytest.mark.parametrize("dtype", DTYPES)
def test_dots_over_panels(dtype, M):
    random = np.random.default_rng(M)
    lanes, rows = 2 * width(dtype), 5
    z = small_integers(random, rows, M, dtype=dtype)
    w = small_integers(random, 1, M, dtype=dtype)
    zp = np.zeros(panel_size(rows, M, lanes), dtype)
    wp = np.zeros(panel_size(1, M, lanes), dtype)
    pack, _ = packers()
    pack(z, zp, lanes)
    pack(w, wp, lanes)
    out = np.empty(rows, dtype)
    dot_rows(simd.addresses(np.dtype(dtype)).dots, out, zp, wp, M, lanes)
    assert (out == (z @ w.T)[:, 0]).all()


@pytest.mark.skipif(platform.machine() != "x86_64", reason="reads x86-64 machine code")
@pytest.mark.parametrize("dtype", DTYPES)
def test_the_inner_loop_keeps_its_sums_in_registers(dtype):
    text = next(
        asm
        for signature, asm in compiled_addresses().inspect_asm().items()
        if str(signature[0]) == dtype
    )
    tall = whole_tiles(text, r"vfmadd231p[sd]\s.*, (%[xyz]mm\d+)$", TARGET.height)
    assert tall
    assert not any("rsp" in body for body in tall)


def whole_tiles(text, multiply_add, height):
    """The loops that add one step to each of the sums of a tile, two vectors wide."""
    loops = re.finditer(r"(\.LBB\w+):((?:(?!\.LBB\w+:).)*?)\n\t(?:j|b\.)\w+\t\1\n", text, re.DOTALL)
    bodies = [loop[2] for loop in loops]  # what branches back to its own label
    sums = [re.findall(multiply_add, body, re.MULTILINE) for body in bodies]
    return [
        body
        for body, registers in zip(bodies, sums, strict=True)
        if len(registers) == len(set(registers)) == 2 * height
    ]


# triple, processor, its vectors, multiply-add with the register of its sum
OTHERS = {
    "avx2": ("x86_64-linux-gnu", "haswell", Target(32, 16), r"vfmadd231p[sd]\s.*, (%ymm\d+)$"),
    "avx512": (
        "x86_64-linux-gnu", "skylake-avx512", Target(64, 32), r"vfmadd231p[sd]\s.*, (%zmm\d+)$",
    ),
    "neon": ("aarch64-linux-gnu", "neoverse-n1", Target(16, 32), r"fmla\s(v\d+)\.[42][sd],"),
}  # fmt: skip


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", OTHERS)
def test_other_machines_keep_their_sums_in_registers_too(name, dtype):
    triple, processor, vectors, multiply_add = OTHERS[name]
    llvm.initialize_all_targets()
    llvm.initialize_all_asmprinters()
    try:
        backend = llvm.Target.from_triple(triple)
    except RuntimeError:
        pytest.skip(f"this LLVM does not compile for {triple}")
    module, real = ir.Module(), ir.FloatType() if dtype == "float32" else ir.DoubleType()
    module.triple = triple
    for emit in (
        partial(tiles.product_function, scaled=False), partial(tiles.product_function, scaled=True),
        tiles.dots_function, tiles.spread_function,
    ):  # fmt: skip
        emit(module, real, vectors)
    for function in module.functions:
        if not function.is_declaration:
            function.linkage = "external"  # nobody here calls them
    compiled = llvm.parse_assembly(str(module))
    machine = backend.create_target_machine(cpu=processor, opt=3)
    options = llvm.create_pipeline_tuning_options(speed_level=3)
    passes = llvm.create_pass_builder(machine, options)
    passes.getModulePassManager().run(compiled, passes)
    tall = whole_tiles(machine.emit_assembly(compiled), multiply_add, vectors.height)
    # The product and the scaled one. The loop over the last few k, beside the one over whole groups
    # of them, may keep a broadcast number on the stack.
    assert sum(not re.search(r"rsp|\[sp", body) for body in tall) >= 2


def compiled_addresses():
    """`addresses` compiled in this process: code from the disk has no listing."""

    @njit
    def addresses(kind):
        return simd._addresses(kind)

    for dtype in DTYPES:
        addresses(np.dtype(dtype).type(0))
    return addresses


def test_the_variable_sets_width_and_registers_and_so_the_tiles():
    assert target._chosen("32").heights == (6, 4, 2, 1)
    assert target._chosen("64").heights == target._chosen("16x32").heights == (12, 8, 4, 2, 1)
    assert target._chosen("16x32").lanes(4) == target._chosen("32").lanes(8) == 4


@pytest.mark.parametrize("text", ["", "24", "32x32", "wide"])
def test_a_variable_that_makes_no_sense_is_refused(text):
    with pytest.raises(ValueError, match=f"{target.VARIABLE}: expected one of 16, 16x32, 32, 64"):
        target._chosen(text)


FORCED = """
import twolayer as tl
from twolayer.checking import cases, verify
from twolayer.kernels.compiler.target import TARGET

assert TARGET == {expected}, TARGET
variant = tl.variants.get("numba-fused")
H = TARGET.height
for net in (tl.Network("tanh", "softmax"), tl.Network("relu", "logistic")):
    for result in verify.verify(variant, net, "{dtype}", 1):
        assert result.agrees, result
net = tl.Network("tanh", "squared")
# A tile of each height over the rows, over d and over K; X spread and as it lies.
for rows in (H, H + 1, 2 * H - 1, 6 * H + 3):
    for d, M, K in ((H, 32, 1), (2 * H - 1, 33, H - 1), (3 * H + 1, 65, 2 * H - 1)):
        case = cases.problem(net, tl.Shape(rows, d, M, K), "{dtype}")
        result = verify.agreement(variant, case, 1)
        assert result.agrees, result
"""


narrower = pytest.mark.parametrize(
    "text", ["32", *(pytest.param(text, marks=pytest.mark.slow) for text in ("16", "16x32"))]
)


def runs_here(text):
    """What the variable's text stands for; skips where this machine's vectors are narrower."""
    expected = target.TARGETS[text]
    if expected.vector_bytes > TARGET.vector_bytes:
        pytest.skip("this machine's vectors are narrower")
    return expected


# What is compiled anew takes seconds; the tiles themselves run with both dtypes below.
@narrower
@pytest.mark.parametrize("dtype", [DTYPES[0], pytest.param(DTYPES[1], marks=pytest.mark.slow)])
def test_other_vectors_agree_too(dtype, text, run_python):
    """SSE's, NEON's and AVX2's vectors, numbers of registers and tiles, wherever the tests run."""
    program = FORCED.format(expected=tuple(runs_here(text)), dtype=dtype)
    run_python(program, **{target.VARIABLE: text})


@narrower
def test_tiles_of_other_vectors_compute_the_same(text):
    """The tests of this file that run tiles and copies, with the tiles of other processors."""
    runs_here(text)
    done = subprocess.run(
        [
            sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", __file__,
            "-k", "every_height or dots_over",
        ],
        env=os.environ | {target.VARIABLE: text}, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout

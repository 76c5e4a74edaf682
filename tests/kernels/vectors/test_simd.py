"""The register tiles: their arithmetic for every height and width, and their machine code."""

import os
import platform
import re
import subprocess
import sys
from itertools import product
from pathlib import Path

import llvmlite.binding as llvm
import numpy as np
import pytest
from llvmlite import ir
from numba import njit

from twolayer.kernels.compiler import target
from twolayer.kernels.compiler.target import TARGET, Target
from twolayer.kernels.cpu.vectors import simd, tiles
from twolayer.kernels.cpu.vectors.lanes import (
    dots_function,
    spread_function,
    transpose_function,
)  # fmt: skip
from twolayer.kernels.cpu.vectors.panels import Panel
from twolayer.kernels.cpu.vectors.simd import Operand
from twolayer.network import DTYPES

pytestmark = pytest.mark.compiled


def multiply(address, C, lanes, a, rows_apart, columns_apart, b, how, length):
    """C[:, :lanes] =, += or *= a b[:, :lanes] for a with these strides of groups and in them."""
    simd.product(
        address, C[0, 0], Panel(np.int64(C.ctypes.data), C.shape[1], lanes),
        Operand(np.int64(a.ctypes.data), *rows_apart, *columns_apart),
        Panel(np.int64(b.ctypes.data), b.shape[1], lanes), len(C), length, how,
    )  # fmt: skip


def spread(address, out, step, x):
    simd.spread(
        address, x[0, 0], np.int64(out.ctypes.data), step, np.int64(x.ctypes.data), x.shape[1],
        x.shape[0], x.shape[1],
    )  # fmt: skip


FORMS = {
    "compiled": (njit(multiply), njit(spread), lambda dtype: simd.addresses(np.dtype(dtype))),
    "interpreted": (
        multiply,
        spread,
        lambda dtype: simd.Addresses(*[simd._PLAIN] * 4),
    ),
}


def small_integers(random, *shape, dtype):
    """Numbers whose products and sums are exact, so that any order gives the same."""
    return random.integers(-8, 9, shape).astype(dtype)


def width(dtype):
    return TARGET.lanes(np.dtype(dtype).itemsize)


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("layout", ["rows", "columns", "spread", "spread columns"])
@pytest.mark.parametrize("vectors", [0, 1, 2])
@pytest.mark.parametrize("rows", [1, 2, 3, 5, 7, 12, 13, 27, 40])
@pytest.mark.parametrize("dtype", DTYPES)
def test_product_for_every_height(dtype, rows, vectors, layout, form):
    """For 0 vectors a part of one."""
    multiply, spread, addresses = FORMS[form]
    random, H = np.random.default_rng(rows), TARGET.height
    code = addresses(dtype)
    for lanes in (vectors * width(dtype),) if vectors else range(1, width(dtype)):
        for length, apart in product((1, 2, 7, 33), (0, 1)):
            a = small_integers(random, rows, length, dtype=dtype)
            b = small_integers(random, length, lanes + apart, dtype=dtype)
            C = small_integers(random, rows, lanes + 3, dtype=dtype)
            held, strides = a, ((H * length, length), (H, 1))
            if layout == "columns":
                held, strides = np.ascontiguousarray(a.T), ((H, 1), (H * rows, rows))
            elif layout.startswith("spread"):
                source = a if layout == "spread" else np.ascontiguousarray(a.T)
                step = H * len(source) + 3
                held = np.full(step * (source.shape[1] // H + 1), np.nan, dtype)
                spread(code.spread, held, step, source)
                strides = ((H * H, H), (step, 1))
                if layout == "spread columns":
                    strides = strides[::-1]
            before, total = C[:, :lanes], a @ b[:, :lanes]
            for how, expected in (
                (tiles.WRITE, total), (tiles.ADD, before + total), (tiles.SCALE, before * total),
            ):  # fmt: skip
                found = C.copy()
                multiply(code.product, found, lanes, held, *strides, b, how, length)
                assert (found[:, :lanes] == expected).all(), (lanes, length)
                assert (found[:, lanes:] == C[:, lanes:]).all(), (lanes, length)


@pytest.mark.skipif(platform.machine() != "x86_64", reason="reads x86-64 machine code")
@pytest.mark.parametrize("dtype", DTYPES)
def test_the_inner_loop_keeps_its_sums_in_registers(dtype):
    (text,) = compiled_addresses(dtype).inspect_asm().values()
    tall = whole_tiles(text, r"vfmadd231p[sd]\s.*, (%[xyz]mm\d+)$", 2 * TARGET.height)
    assert tall
    assert not any(map(on_the_stack, tall))


def whole_tiles(text, multiply_add, sums, additions=None):
    """The loops that add to each of so many sums, so many times in all: once where not told."""
    loops = re.finditer(r"(\.LBB\w+):((?:(?!\.LBB\w+:).)*?)\n\t(?:j|b\.)\w+\t\1\n", text, re.DOTALL)
    bodies = [loop[2] for loop in loops]  # what branches back to its own label
    found = [re.findall(multiply_add, body, re.MULTILINE) for body in bodies]
    return [
        body
        for body, registers in zip(bodies, found, strict=True)
        if (len(registers), len(set(registers))) == (additions or sums, sums)
    ]


VECTOR_ON_THE_STACK = r"[xyz]mm\d+, [^\n]*\(%rsp|\(%rsp[^\n]*[xyz]mm"


def on_the_stack(body):
    return re.search(r"rsp|\[sp", body)


# triple, processor, its vectors, multiply-add with the register of its sum
OTHERS = {
    "avx2": ("x86_64-linux-gnu", "haswell", Target(32, 16), r"vfmadd231p[sd]\s.*, (%ymm\d+)$"),
    "avx512": (
        "x86_64-linux-gnu", "skylake-avx512", Target(64, 32), r"vfmadd231p[sd]\s.*, (%zmm\d+)$",
    ),
    "neon": ("aarch64-linux-gnu", "neoverse-n1", Target(16, 32), r"fmla\s(v\d+)\.[42][sd],"),
}  # fmt: skip


@pytest.mark.parametrize(
    ("name", "dtype"),
    [
        pytest.param(name, dtype, marks=() if DTYPES[number % 2] == dtype else pytest.mark.slow)
        for number, name in enumerate(OTHERS)
        for dtype in DTYPES
    ],
)
def test_other_machines_keep_their_sums_in_registers_too(name, dtype):
    triple, processor, vectors, multiply_add = OTHERS[name]
    if triple.startswith("aarch64") and llvm.llvm_version_info < (22,):
        pytest.skip("earlier LLVM keeps some sums of NEON on the stack, which is slower, not wrong")
    llvm.initialize_all_targets()
    llvm.initialize_all_asmprinters()
    try:
        backend = llvm.Target.from_triple(triple)
    except RuntimeError:
        pytest.skip(f"this LLVM does not compile for {triple}")
    module, real = ir.Module(), ir.FloatType() if dtype == "float32" else ir.DoubleType()
    module.triple = triple
    for emit in (tiles.product_function, dots_function, spread_function, transpose_function):
        emit(module, real, vectors)
    for function in module.functions:
        if not function.is_declaration:
            function.linkage = "external"  # nobody here calls them
    compiled = llvm.parse_assembly(str(module))
    machine = backend.create_target_machine(cpu=processor, opt=3)
    options = llvm.create_pipeline_tuning_options(speed_level=3)
    passes = llvm.create_pass_builder(machine, options)
    passes.getModulePassManager().run(compiled, passes)
    text = machine.emit_assembly(compiled)
    code = {part.partition("_f")[0]: part for part in re.split(r"^twolayer_", text, flags=re.M)}
    tiles_of = {"product_2": 2, "product_1": 1}
    if name != "neon":  # whose vectors have no masks: lanes are read one by one
        tiles_of["product_0"] = 1
    for function, width in tiles_of.items():
        tall = whole_tiles(code[function], multiply_add, width * vectors.height)
        # The loop over the last few k, beside the one over whole groups of them, may keep a
        # broadcast number on the stack.
        assert not all(map(on_the_stack, tall)), function
    if vectors.vector_bytes > 16:  # steps one after another
        sums, whole = 2 * vectors.height, vectors.height
        forms = [4, whole, 4] if vectors.registers >= 32 else [whole] * 3
        unrolled = []
        for steps in set(forms):
            found = whole_tiles(code["product_2"], multiply_add, sums, sums * steps)
            assert len(found) == forms.count(steps)
            unrolled += found
        assert not any(re.search(VECTOR_ON_THE_STACK, body) for body in unrolled)
    sums = 8 if vectors.registers < 32 else 16
    of_dots = whole_tiles(code["dots"], multiply_add, sums, additions=16)
    assert len(of_dots) == 3  # for one column, two and four
    assert not any(map(on_the_stack, of_dots))


def compiled_addresses(dtype):
    """`addresses` compiled in this process: code from the disk has no listing."""

    @njit
    def addresses(kind):
        return simd._addresses(kind)

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


def runs_here(text):
    """What the variable's text stands for; skips where this machine's vectors are narrower."""
    expected = target.TARGETS[text]
    if expected.vector_bytes > TARGET.vector_bytes:
        pytest.skip("this machine's vectors are narrower")
    return expected


@pytest.mark.slow  # all is compiled anew; the tiles themselves are below
@pytest.mark.parametrize("text", ["16", "16x32", "32"])
@pytest.mark.parametrize("dtype", DTYPES)
def test_other_vectors_agree_too(dtype, text, run_python):
    """SSE's, NEON's and AVX2's vectors, numbers of registers and tiles, wherever the tests run."""
    program = FORCED.format(expected=tuple(runs_here(text)), dtype=dtype)
    run_python(program, **{target.VARIABLE: text})


@pytest.mark.slow
@pytest.mark.parametrize("text", ["16", "16x32", "32"])
def test_tiles_of_other_vectors_compute_the_same(text):
    """The tests of this file that run tiles and copies, with the tiles of other processors."""
    runs_here(text)
    done = subprocess.run(
        [
            sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", Path(__file__).parent,
            "-k", "compiled and float32 and (every_height or any)",
        ],
        env=os.environ | {target.VARIABLE: text}, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout

"""The machine code of the kernels that take samples one by one, and of what ends an epoch.

Run by make test-cuda: see cuda_code.py.
"""

import re

import numpy as np
import pytest
from cuda_code import (  # skips where there is no compiler
    ADDING_LOSSES,
    DTYPES,
    F64,
    PAIRS,
    SCALE,
    SOME,
    both,
    check,
    doubles,
    f8,
    i8,
    spread,
    typed,
)
from numba import cuda, types

from twolayer import Shape
from twolayer.checking.cuda import accuracy
from twolayer.checking.cuda.code import machine_code
from twolayer.engines import tuning
from twolayer.engines.planes import PlanesEngine
from twolayer.engines.tiled import TiledEngine
from twolayer.kernels.cuda import (
    epilogues,
    fused,
    probes,
    samples,
    sums,
    updates,
)
from twolayer.kernels.cuda.memory.copies import vector
from twolayer.kernels.cuda.memory.types import matrix_type
from twolayer.kernels.formulas.activations import ACTIVATIONS
from twolayer.kernels.formulas.losses import LOSSES
from twolayer.kernels.formulas.updates import UPDATES
from twolayer.variants.cuda_fused import CudaFused


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


def long(case):
    """Whether a pair with a dtype is among the slow tests."""
    return case[0][0] not in (*SOME, "elu")


@pytest.mark.parametrize(("case", "capability"), spread(typed(PAIRS), slow=long))
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


@of_losses
def test_loss_of_rows(loss, dtype, capability):
    m = matrix_type(dtype)
    code = machine_code(epilogues.loss_of_rows(LOSSES[loss]), (m, m, F64), capability)
    check(code)
    assert dtype == "float64" or not doubles(code, *ADDING_LOSSES)
    code = machine_code(epilogues.link_of_rows(LOSSES[loss]), (m, i8), capability)
    check(code)
    assert dtype == "float64" or not doubles(code)


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
    spread(typed(PAIRS), slow=long),
)
def test_fused_at_its_widest(case, capability):
    pair, dtype = case
    columns, K = (32, 8) if dtype == "float32" else (16, 4)
    check_fused(pair, dtype, fused.UNITS[-1], columns, K, capability)


@pytest.mark.parametrize(
    ("dtype", "columns", "K"),
    [
        ("float32", 32, 1), ("float64", 12, 4),  # close to what registers hold
        *(
            pytest.param(*one, marks=pytest.mark.slow)
            for one in [("float32", 8, 2), ("float32", 4, 1), ("float64", 4, 4), ("float64", 16, 1)]
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

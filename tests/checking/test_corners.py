"""Every decision of the variants is taken both ways where `verify` compares, on tiny blocks too."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
from batch import Batch

import twolayer as tl
from twolayer.checking import cases, exact, verify
from twolayer.engines import blocking
from twolayer.kernels.compiler.target import TARGET
from twolayer.kernels.cpu import loops
from twolayer.machine.hardware import cpu_count
from twolayer.network import DTYPES, Shape
from twolayer.variants import numba_fused

NAMES = ("numpy", "numba-parallel", "numba-blas", "numba-fused")
NET = tl.Network("tanh", "squared")


def compared(name, dtype):
    """The decisions of each engine at the corners of a variant, by its shape; all agree."""
    seen = {}
    variant = tl.variants.get(name)

    def make(problem):
        engine = variant.make(problem)
        seen[engine.shape] = engine.decisions
        return engine

    for result in verify.corners(replace(variant, make=make), NET, dtype):
        assert result.agrees, result
    return seen


def one_sided(seen):
    """The decisions that no two shapes take differently which differ by one in one size."""
    fields = next(iter(seen.values()))._fields
    neighbours = [
        (one, other)
        for one in seen
        for other in seen
        if sorted(b - a for a, b in zip(one, other, strict=True)) == [0, 0, 0, 1]
    ]
    return [
        field
        for field in fields
        if not any(getattr(seen[a], field) != getattr(seen[b], field) for a, b in neighbours)
    ]


@pytest.mark.skipif(cpu_count() < 2, reason="one CPU decides for one chunk")
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", NAMES)
def test_every_decision_is_compared_on_both_sides(name, dtype):
    if TARGET.lanes(4 if dtype == "float32" else 8) < 4:
        pytest.skip("dot products never pay in so short vectors")
    seen = compared(name, dtype)
    assert one_sided(seen) == []
    for shape in seen:
        rest = {other: decisions for other, decisions in seen.items() if other != shape}
        assert one_sided(rest), f"nothing is lost without {shape}"


@pytest.mark.parametrize("threads", [3, 8, 64])
def test_corners_lie_on_both_sides_for_any_number_of_threads(threads):
    found = numba_fused._corners(4, threads)
    seen = {s: blocking.decisions(s, blocking.blocking(s, 4, threads)) for s in found}
    assert one_sided(seen) == []


def test_a_spread_x_has_a_second_block_in_a_chunk():
    assert any(decisions.spread_blocks for decisions in compared("numba-fused", "float32").values())


class Wrong(Batch):
    """Right but for 23 inputs, where it decides differently."""

    def differentiate(self, X, Y, theta, gradient):
        loss = super().differentiate(X, Y, theta, gradient)
        gradient.V[-1, -1] += X.shape[1] == 23
        return loss


def test_corners_of_a_users_variant_are_compared():
    corners = [Shape(8, 22, 3, 1), Shape(8, 23, 3, 1)]
    told = tl.Variant("wrong", "cpu", "", Wrong, corners=lambda itemsize, threads: corners)
    found = [*verify.corners(told, NET, "float64"), *exact.exact(told, "float64")]
    assert {result.shape for result in found if not result.agrees} == {corners[1]}
    assert sum(result.shape == corners[1] for result in found) == 2


def in_seven_chunks(shape, itemsize, threads):
    """Blocks of 13 rows, parts of one group of inputs, whatever the number of threads."""
    rows, lanes = min(13, shape.n), blocking.lane_count(itemsize)
    step = blocking.spread_step(Shape(shape.n, 16, 32, 1), rows, itemsize)
    return blocking.Blocking(
        chunks=loops.chunk_count(shape.n, 7),
        few=0,
        rows=rows,
        lanes=lanes,
        height=TARGET.height,
        depth=TARGET.height,
        step=step if shape.d > 2 else 0,
        by_dots=blocking.dots_pay(shape.M, shape.K, lanes),
        alone=shape.d * shape.M < 1000,
    )


@pytest.mark.parametrize("dtype", DTYPES)
def test_thirteen_rows_in_seven_chunks_agree(dtype, monkeypatch):
    monkeypatch.setattr(numba_fused, "blocking", in_seven_chunks)
    fused = tl.variants.get("numba-fused")
    shape = Shape(128, 29, 37, 5)
    for net in (NET, tl.Network("relu", "softmax")):
        result = verify.agreement(fused, cases.problem(net, shape, dtype), threads=1)
        assert result.agrees, result
    plan = fused.plan(*cases.integers(shape, dtype, 0)[1:], threads=1)
    assert plan.engine._cut.chunks == 7
    assert plan.engine.decisions.spread_blocks
    assert plan.engine.decisions.parts
    monkeypatch.setattr(cases, "EXACT_SHAPES", {dtype: (shape, Shape(128, 2, 65, 1))})
    for result in exact.exact(fused, dtype, threads=1):
        assert result.agrees, result


# Changes of the kernels that no case of one block, part, panel and chunk can see.
MUTANTS = {
    "as it is": ("fused", "", ""),
    "strides of the spread groups exchanged": (
        "simd", "HEIGHT * HEIGHT, HEIGHT, step, 1", "step, HEIGHT, HEIGHT * HEIGHT, 1",
    ),
    "strides in the spread groups exchanged": (
        "simd", "HEIGHT * HEIGHT, HEIGHT, step, 1", "HEIGHT * HEIGHT, 1, step, HEIGHT",
    ),
    "offset of a part of d dropped": ("simd", "(column // HEIGHT * a.column_group)", "0"),
    "offset of a panel of U dropped": (
        "fused", "u, w = panel(by_rows, q)", "u, w = panel(by_rows, 0)",
    ),
    "offset of a panel of Z dropped": ("fused", "z, first = panel(Z, p)", "z, first = panel(Z, 0)"),
    "two chunks added up": ("fused", "range(1, chunks)", "range(1, min(2, chunks))"),
    "losses of two chunks added up": (
        "records", "for c in range(chunks)", "for c in range(min(2, chunks))",
    ),
    "an update one element short": (
        "fused", "(c + 1) * size // parts", "(c + 1) * size // parts - 1",
    ),
    "the last elements not updated": (
        "fused", "(c + 1) * size // parts", "(c + 1) * (size - 8) // parts",
    ),
    "chunks one row short": (
        "fused", "(c + 1) * n // chunks", "(c + 1) * n // chunks - (chunks > 1)",
    ),
    "a second block not added": ("fused", "cut.depth, start > 0)", "cut.depth, False)"),
    "the other form of W not brought up to date": (
        "fused", "        transpose(weights.W, weights.Wt)", "        pass",
    ),
    "chunks for blas one row short": (
        "blas", "(c + 1) * n // chunks", "(c + 1) * n // chunks - (chunks > 1)",
    ),
    "two chunks of loops added up": ("loops", "range(1, chunks)", "range(1, min(2, chunks))"),
}  # fmt: skip

# Each change is made in the module itself, interpreted, and what verify finds first is printed.
PROGRAM = """
import inspect, json, sys
import twolayer as tl
from twolayer.checking import cases, exact, verify
from twolayer.engines import blocking
from twolayer.kernels.cpu import blas, fused, loops, records
from twolayer.kernels.cpu.vectors import simd
from twolayer.variants import numba_blas, numba_fused

sys.path[:0] = sys.argv[1:]
from test_corners import MUTANTS, in_seven_chunks

cases.EXACT_SHAPES = {"float64": ()}
exact._LONGEST = float("inf")  # no case is left out, however slow this machine is
numba_fused.blocking = in_seven_chunks
blocking.lane_count = lambda itemsize: 8
numba_blas.blocking = lambda shape, itemsize, threads: numba_blas.Blocking(
    loops.chunk_count(shape.n, 7), min(13, shape.n)
)

def found(name):
    variant = tl.variants.get(name)
    results = (str(one) for one in exact.exact(variant, "float64", 1) if not one.agrees)
    return next(results, "")

VARIANTS = {
    "simd": "numba-fused", "records": "numba-fused", "fused": "numba-fused",
    "blas": "numba-blas", "loops": "numba-parallel",
}
modules = {"simd": simd, "records": records, "fused": fused, "blas": blas, "loops": loops}
sources = {name: inspect.getsource(module) for name, module in modules.items()}
results = {}
def run(name, source):
    exec(compile(source, modules[name].__file__, "exec"), modules[name].__dict__)

for mutant, (name, old, new) in MUTANTS.items():
    assert old in sources[name], mutant
    run(name, sources[name].replace(old, new))
    if name in ("simd", "records"):
        run("fused", sources["fused"])  # takes the names of the others anew
    loops._LEAST_ROWS = 4
    loops.chunk_count = lambda n, threads: max(1, min(7, n // 4))
    results[mutant] = found(VARIANTS[name])
    run(name, sources[name])
    run("fused", sources["fused"])
print(json.dumps(results))
"""


def test_mutants_are_caught(run_python):
    found = json.loads(
        run_python(PROGRAM, Path(__file__).parent, Path(__file__).parents[1], NUMBA_DISABLE_JIT="1")
    )
    assert found.pop("as it is") == ""
    assert [mutant for mutant, what in found.items() if not what] == []


def test_corners_that_cannot_be_told_are_a_failure():
    """Of the variant alone, which is compared on all the rest."""

    def corners(itemsize, threads):
        raise ZeroDivisionError("no caches")

    variant = replace(tl.variants.get("numpy"), corners=corners)
    (result,) = verify.corners(variant, NET, "float64")
    assert not result.agrees
    assert "corners: ZeroDivisionError: no caches" in str(result)
    assert all(result.agrees for result in exact.exact(variant, "float64"))

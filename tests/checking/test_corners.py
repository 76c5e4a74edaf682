"""Every decision of the variants is taken both ways where `verify` compares, on tiny blocks too."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
from batch import Batch

import twolayer as tl
from twolayer.checking import cases, exact, verify
from twolayer.engines import blocking
from twolayer.kernels.compiler.target import TARGET, VARIABLE
from twolayer.kernels.cpu import loops
from twolayer.kernels.cpu.vectors import simd
from twolayer.kernels.cpu.vectors.panels import panel_count, panel_size
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
    """Blocks of 13 rows, parts of one group of inputs, whatever the number of threads.

    Rows of one block are shared in three parts of the hidden units, but fewer than 5 in one. Up to
    four hidden units lie plain.
    """
    rows, lanes = min(13, shape.n), blocking.lane_count(itemsize)
    step = simd.spread_step(rows, itemsize)
    plain = shape.M <= 4
    parts = 1 if plain else min(3, panel_count(shape.M, lanes))
    inputs = shape.d + shape.K
    return blocking.Blocking(
        chunks=loops.chunk_count(shape.n, 7),
        few=5,
        parts=parts,
        shared=rows if parts > 1 else 0,
        rows=rows,
        most=rows,
        lanes=lanes,
        height=TARGET.height,
        depth=TARGET.height,
        step=step if shape.d > 2 else 0,
        by_dots=blocking.dots_pay(shape, lanes),
        alone=shape.d * shape.M < 1000,
        plain=plain,
        size=shape.M * inputs if plain else panel_size(inputs, shape.M, lanes),
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
    for other, what in (
        (Shape(13, 29, 37, 5), "shared_units"),
        (Shape(128, 29, 3, 5), "few_units"),
    ):
        for net in (NET, tl.Network("relu", "softmax")):
            result = verify.agreement(fused, cases.problem(net, other, dtype), threads=1)
            assert result.agrees, result
        decided = fused.plan(*cases.integers(other, dtype, 0)[1:], threads=1).engine.decisions
        assert getattr(decided, what)
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
        "fused", "w, first = panel(Wt, q)", "w, first = panel(Wt, 0)",
    ),
    "offset of a panel of Z dropped": (
        "fused", "z, start = panel(Z, p)", "z, start = panel(Z, 0)",
    ),
    "offset of a part of Wt dropped": (
        "fused", "from_row(kind, w, theta.start + start)", "from_row(kind, w, start)",
    ),
    "Wt of a part at the wrong place": (
        "fused", "from_row(kind, out, weights.start + start)", "from_row(kind, out, start)",
    ),
    "a second block not added": ("fused", "cut.depth, start > 0)", "cut.depth, False)"),
    "two chunks added up": ("epochs", "range(1, chunks)", "range(1, min(2, chunks))"),
    "losses of two chunks added up": (
        "records", "for c in range(chunks)", "for c in range(min(2, chunks))",
    ),
    "an update one element short": (
        "epochs", "(c + 1) * size // chunks", "(c + 1) * size // chunks - 1",
    ),
    "the last elements not updated": (
        "epochs", "(c + 1) * size // chunks", "(c + 1) * (size - 8) // chunks",
    ),
    "an update of a part one element short": (
        "epochs", 'record["scalars"], first, size', 'record["scalars"], first, size - 1',
    ),
    "chunks one row short": (
        "epochs", "(c + 1) * n // chunks", "(c + 1) * n // chunks - (chunks > 1)",
    ),
    "the first chunk's targets for all": ("epochs", "y + y_row * start", "y"),
    "nothing settled after an update": (
        "epochs", 'follow(first["settle"], first, kind, of_theta)', "pass",
    ),
    "a second part of U not added": ("few_samples", "range(1, parts)", "range(2, parts)"),
    "a third part of U not added": ("few_samples", "range(1, parts)", "range(1, min(2, parts))"),
    "a part of the units not updated": (
        "few_samples", 'prange(parts):\n        of_part(\n            records[t]["backward"]',
        'prange(max(1, parts - 1)):\n        of_part(\n            records[t]["backward"]',
    ),
    "a panel of a part left out": (
        "few_samples", "(part + 1) * panels // parts", "part * panels // parts + 1",
    ),
    "an update of a panel one row short": ("few_samples", "rows * w.lanes", "(rows - 1) * w.lanes"),
    "W of a part not updated": ("few_samples", "renew(kind, w, gW, W.rows, record, base)", "pass"),
    "a gradient of one panel kept": ("few_samples", "p if keep else 0", "0"),
    "nothing settled after an update of a part": (
        "few_samples", "settle_part(record, mine)", "pass",
    ),
    "tail lanes lost": (
        "few_units", "while start < columns", "while start + width <= columns",
    ),
    "a second vector lost": ("few_units", "start += lanes", "start += 2 * width"),
    "a second block of few units not added": (
        "few_units", "gradient, start > 0)", "gradient, False)",
    ),
    "a second block of one row of few units not added": (
        "few_units", "1), ADD if add else WRITE", "1), WRITE",
    ),
    "W of few units at the wrong place": (
        "few_units", "turned(as_it_lies(theta + skip, M))", "turned(as_it_lies(theta, M))",
    ),
    "a label off by one": ("blocks", "y, array_at(kind, work", "(y + 1) % K, array_at(kind, work"),
    "chunks of loops one row short": (
        "loops", "range(rows):\n            forward_sample(x[i], V, W, a, z",
        "range(rows - (rows > 8)):\n            forward_sample(x[i], V, W, a, z",
    ),
    "a second block for blas lost": ("blas", "range(0, rows, record", "range(0, 1, record"),
}  # fmt: skip

# Each change is made in the module itself, interpreted, and what verify finds first is printed.
PROGRAM = """
import inspect, json, sys
import twolayer as tl
from twolayer.checking import cases, exact, verify
from twolayer.kernels.cpu import (
    blas, blocks, epochs, few_samples, few_units, fused, loops, records
)
from twolayer.kernels.cpu.vectors import simd
from twolayer.variants import numba_blas, numba_fused

sys.path[:0] = sys.argv[1:]
from test_corners import MUTANTS, in_seven_chunks

cases.EXACT_SHAPES = {"float64": ()}
exact._LONGEST = float("inf")  # no case is left out, however slow this machine is
numba_fused.blocking = in_seven_chunks
numba_blas.blocking = lambda shape, itemsize, threads: numba_blas.Blocking(
    loops.chunk_count(shape.n, 7), min(13, shape.n)
)

# A module takes names of those before it.
modules = {
    module.__name__.rpartition(".")[2]: module
    for module in (simd, records, blocks, epochs, fused, few_samples, few_units, blas, loops)
}
sources = {name: inspect.getsource(module) for name, module in modules.items()}

def run(changed, old, new):
    for name, module in modules.items():
        source = sources[name].replace(old, new) if name == changed else sources[name]
        exec(compile(source, module.__file__, "exec"), module.__dict__)
    loops._LEAST_ROWS = 4
    loops.chunk_count = lambda n, threads: max(1, min(7, n // 4))
    numba_blas.NumbaBlas.kernels = blas.KERNELS

def results(name):
    variant = tl.variants.get(name)
    net = tl.Network("tanh", "softmax")  # integers have no labels; these are quick, too
    for n, M, K in ((9, 17, 3), (30, 17, 3), (30, 3, 3), (9, 17, 16), (30, 17, 16)):
        case = cases.problem(net, tl.Shape(n, 3, M, K), "float64")
        yield verify.agreement(variant, cases.labelled(case), 1)
    yield from exact.exact(variant, "float64", 1)

found = {}
for mutant, (name, old, new) in MUTANTS.items():
    assert old in sources[name], mutant
    run(name, old, new)
    variant = {"blas": "numba-blas", "loops": "numba-parallel"}.get(name, "numba-fused")
    found[mutant] = next((str(one) for one in results(variant) if not one.agrees), "")
print(json.dumps(found))
"""


@pytest.mark.slow
def test_mutants_are_caught(run_python):
    folders = Path(__file__).parent, Path(__file__).parents[1]
    short = {VARIABLE: "32", "NUMBA_DISABLE_JIT": "1"}  # panels of 8 numbers
    found = json.loads(run_python(PROGRAM, *folders, **short))
    assert found.pop("as it is") == ""
    assert [mutant for mutant, what in found.items() if not what] == []


def test_corners_that_cannot_be_told_are_a_failure():
    """Of the variant alone, which is compared on all the rest."""

    def corners(itemsize, threads):
        raise ZeroDivisionError("no caches")

    variant = replace(tl.variants.get("numpy"), corners=corners)
    (result,) = verify.corners(variant, NET, "float64")
    assert not result.agrees
    assert "(its corners): ZeroDivisionError: no caches" in str(result)
    assert all(result.agrees for result in exact.exact(variant, "float64"))

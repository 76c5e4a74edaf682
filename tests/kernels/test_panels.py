"""Panels, weights in panels, and the buffers of a chunk: what is written is read, and no more."""

from inspect import signature
from itertools import pairwise

import numpy as np
import pytest

import twolayer as tl
from twolayer.checking import cases
from twolayer.engines.blocking import blocking
from twolayer.engines.packed import PackedWeights
from twolayer.interface.weights import Weights
from twolayer.kernels.cpu import chunks
from twolayer.kernels.cpu.records import record_type, records
from twolayer.kernels.cpu.vectors import panels, simd
from twolayer.kernels.cpu.vectors.panels import panel_size
from twolayer.kernels.formulas.updates import UPDATES
from twolayer.machine.buffers import together
from twolayer.machine.hardware import cpu_count
from twolayer.network import DTYPES
from twolayer.variants import numba_fused

COLUMNS = [1, 3, 4, 5, 7, 8, 9, 16, 17, 31]
LANES = 8


def packed(matrix, fill=np.nan):
    flat = np.full(panel_size(*matrix.shape, LANES), fill, matrix.dtype)
    panels.pack(matrix, flat, LANES)
    return flat


@pytest.mark.parametrize("rows", [1, 3, 8])
@pytest.mark.parametrize("columns", COLUMNS)
def test_panels_hold_the_matrix_and_zeros(columns, rows):
    matrix = np.arange(1.0, rows * columns + 1).reshape(rows, columns)
    flat = packed(matrix)
    assert (panels.unpack(flat, rows, columns, LANES) == matrix).all()
    assert flat.sum() == matrix.sum()
    assert (flat != 0).sum() == matrix.size


@pytest.mark.parametrize("columns", COLUMNS)
def test_every_number_lies_where_the_address_rule_says(columns):
    rows = 3
    matrix = np.arange(1.0, rows * columns + 1).reshape(rows, columns)
    flat = packed(matrix)
    P = panels.panels_of(flat, rows, columns, LANES)
    for p in range(panels.panel_count(columns, LANES)):
        at, view = panels.panel(P, p), panels.view(P, p)
        assert at.lanes == at.step == (LANES // 2 if columns - p * LANES <= LANES // 2 else LANES)
        assert at.address == flat.ctypes.data + p * rows * LANES * 8
        width = min(LANES, columns - p * LANES)
        assert (view[:, :width] == matrix[:, p * LANES : p * LANES + width]).all()
        assert panels.from_row(P.kind, at, 2).address == view[2:].ctypes.data
    after = panels.after(P, 2, 5)
    assert after.address == flat.ctypes.data + flat.nbytes


@pytest.mark.parametrize("columns", COLUMNS)
def test_what_was_made_of_the_padding_becomes_0_again(columns):
    matrix = np.arange(1.0, 3 * columns + 1).reshape(3, columns)
    flat = packed(matrix)
    expected = flat.copy()
    flat[flat == 0] = np.nan
    panels.clear(panels.panels_of(flat, 3, columns, LANES))
    assert (flat == expected).all()


SHAPES = [(1, 1, 1, 1), (50, 16, 32, 1), (131, 37, 33, 40), (700, 40, 65, 3)]


def plan_of(shape, dtype, threads=1):
    case = cases.problem(tl.Network("sigmoid", "squared"), tl.Shape(*shape), dtype)
    return tl.variants.get("numba-fused").plan(*case[1:], threads)


@pytest.mark.parametrize("K", COLUMNS)
@pytest.mark.parametrize("M", COLUMNS)
def test_the_other_form_of_w_in_theta_is_its_transpose(M, K):
    shape, dtype = tl.Shape(20, 3, M, K), np.dtype("float64")
    size = panel_size(3 + K, M, LANES)
    cut = blocking(shape, 8, 1)._replace(lanes=LANES, by_dots=False, plain=False, size=size)
    numbers = shape._asdict() | cut._asdict() | simd.addresses(dtype)._asdict()
    weights = PackedWeights(shape, dtype, cut, records(chunks.CHUNK, 1, numbers, {}))
    weights.theta.fill(np.nan)
    V, W = np.ones((M, 3)), np.arange(1.0, K * M + 1).reshape(K, M)
    weights.put(tl.Parameters(V, W), weights.theta)
    expected = np.concatenate([packed(V.T), packed(W), packed(W.T)])
    assert (weights.theta == expected).all()


@pytest.mark.compiled
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", SHAPES)
def test_a_block_fills_its_buffers(shape, dtype):
    """What is past them is found by guard pages (test_memory_guards)."""
    plan = plan_of(shape, dtype)
    sizes = numba_fused._buffers(plan.shape, blocking(plan.shape, plan.dtype.itemsize, 1))
    buffers = plan.engine._buffers
    assert buffers.keys() == sizes.keys()
    for array in buffers.values():
        array.fill(np.nan)
    plan.step(0.1)
    for name, (count, size) in sizes.items():
        assert len(buffers[name]) == count
        written = np.isfinite(buffers[name][:, :size])
        if name == "X":  # groups of inputs lie a little apart, and the last may be short
            assert not size or written.any(axis=1).all()
        elif name != "sums":  # scratch, of which a loss takes what it needs
            assert written.all(), name


@pytest.mark.compiled
@pytest.mark.skipif(cpu_count() < 2, reason="needs two CPUs")
def test_threads_that_share_the_hidden_units_fill_their_buffers():
    plan = plan_of((40, 300, 100, 3), "float32", 2)
    cut, buffers = plan.engine._cut, plan.engine._buffers
    sizes = chunks.buffers(plan.shape, cut)
    for array in buffers.values():
        array.fill(np.nan)
    plan.step(0.1)
    assert np.isfinite(buffers["total"][:, : sizes["total"][1]]).all()
    units = [buffers[name][:, : sizes[name][1]] for name in ("Z", "S")]
    assert all(0 < np.isfinite(part).sum() < part.size for array in units for part in array)
    assert np.isnan(buffers["gradient"]).all()  # of a chunk, of which there is one


@pytest.mark.compiled
@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("shape", SHAPES)
def test_the_workspace_is_what_is_allocated(shape, threads):
    if threads > cpu_count():
        pytest.skip("needs two CPUs")
    variant = tl.variants.get("numba-fused")
    case = cases.problem(tl.Network("tanh", "squared"), tl.Shape(*shape), "float32")
    plan = variant.plan(*case[1:], threads)
    weights = plan.weights
    arrays = [*plan.engine._buffers.values()]
    if not plan.engine._cut.plain:
        arrays += [weights.theta, weights.gradient]
    rounded_up = 128 * sum(map(len, plan.engine._buffers.values()))
    declared = variant.workspace(plan.shape, 4, threads)
    assert declared <= sum(array.nbytes for array in arrays) <= declared + rounded_up


@pytest.mark.compiled
@pytest.mark.parametrize("shape", SHAPES)
def test_updates_leave_the_padding_at_0_and_both_forms_of_w_alike(shape):
    """Adam with ε = 0 makes NaN of the padding."""
    plan = plan_of(shape, "float64")
    weights, zeros = plan.weights, tl.Parameters(*(0 * w for w in plan.theta))
    plan.slots = [zeros, zeros]
    for update, scalars in (
        (UPDATES["adam"], (0.01, 0.9, 0.1, 0.99, 0.01, 0.0, 1.0)),
        (UPDATES["descend"], (0.01,)),
    ):
        plan.update(update, scalars)
        plan.slots = []
        repacked = weights.room()
        weights.put(plan.theta, repacked)
        assert np.isfinite(repacked).all()
        assert (weights.theta == repacked).all()


@pytest.mark.compiled
@pytest.mark.parametrize("name", UPDATES)
def test_updates_in_panels_are_those_of_arrays(name):
    """On both sides of a second thread and of a second block."""
    update = UPDATES[name]
    shape = (1100, 20, 35, 6)
    count = len(signature(update.formula).parameters) - 2 - update.slots
    scalars = (0.01, 0.9, 0.1, 0.99, 0.01, 1e-3, 1.0)[:count]
    plan = plan_of(shape, "float64")
    plain = Weights(plan.shape, plan.dtype)
    plain.put(plan.theta, plain.theta)
    slots = [tl.Parameters(*(abs(w) for w in plan.theta))] * update.slots
    plan.slots, plain.slots = slots, tuple(tl.Parameters(*(w.copy() for w in s)) for s in slots)
    for rows in (slice(0, 64), slice(700, 701), None, slice(5, 1000)):
        loss, gradient = plan.gradient(rows)
        assert plan.update(update, scalars, rows) == loss
        plain.put(gradient, plain.gradient)
        plain.apply(update, scalars)
        found, expected = (plan.theta, *plan.slots), (plain.theta, *plain.slots)
        for arrays, others in zip(found, expected, strict=True):
            for one, other in zip(arrays, others, strict=True):
                np.testing.assert_allclose(one, other, rtol=1e-13, atol=1e-15)


@pytest.mark.compiled
@pytest.mark.parametrize("shape", SHAPES)
def test_a_loss_alone_is_the_loss_and_writes_no_gradient(shape):
    plan = plan_of(shape, "float32")
    for rows in (None, slice(0, 1), slice(shape[0] // 2, shape[0])):
        expected, _ = plan.gradient(rows)
        plan.weights.gradient.fill(np.nan)
        theta = plan.weights.theta.copy()
        assert plan.loss(rows) == expected
        assert np.isnan(plan.weights.gradient).all()
        assert (plan.weights.theta == theta).all()


@pytest.mark.parametrize("dtype", DTYPES)
def test_buffers_of_a_chunk_lie_together_and_share_no_line(dtype):
    dtype = np.dtype(dtype)
    sizes = {"a": (3, 5), "b": (3, 0), "c": (3, 64), "of two": (2, 7), "d": (3, 33)}
    arrays = together(sizes, dtype)
    assert {name: array.shape for name, array in arrays.items() if name != "of two"} == {
        name: size for name, size in sizes.items() if name != "of two"
    }
    assert len(arrays["of two"]) == 2
    lines = [
        (row.ctypes.data // 128, (row.ctypes.data + row.nbytes - 1) // 128)
        for c in range(3)
        for row in (array[c] for array in arrays.values() if len(array) == 3 and array.size)
    ]
    assert all(array.ctypes.data % 128 == 0 for array in arrays.values())
    assert all(end < start for (_, end), (start, _) in pairwise(lines))


def test_a_buffer_that_the_first_chunk_lacks_begins_with_the_second():
    """Also where there are more records than chunks: more parts of the hidden units."""
    kind = record_type(("Z", "gradient"))
    arrays = {"Z": np.empty((5, 16)), "gradient": np.empty((2, 16))}
    made = records(kind, 5, {}, arrays)
    assert made["Z"].tolist() == [row.ctypes.data for row in arrays["Z"]]
    assert made["gradient"].tolist() == [0, *(row.ctypes.data for row in arrays["gradient"]), 0, 0]

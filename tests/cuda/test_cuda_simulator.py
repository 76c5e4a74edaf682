"""The arithmetic of the CUDA kernels, in the simulator with blocks run by our checker."""

import gc
import itertools
import json
import weakref
from pathlib import Path

import numpy as np
import pytest
from numba import cuda
from numba.cuda.simulator.kernel import FakeCUDAKernel
from numba.extending import register_jitable

import twolayer as tl
from twolayer.checking import cases
from twolayer.checking.cuda.blocks import check_blocks
from twolayer.checking.verify import agreement
from twolayer.kernels.formulas.activations import ACTIVATIONS
from twolayer.kernels.formulas.losses import LOSSES
from twolayer.kernels.formulas.updates import UPDATES, Update
from twolayer.network import DTYPES

NAMES = [name for name in tl.variants.names() if name.startswith("cuda-")]


# Both have an edge along each axis; the second has more than a warp of samples.
SMALL, LARGER = tl.Shape(7, 3, 5, 2), tl.Shape(37, 6, 9, 4)


def agreements():
    """Each σ, ℓ and dtype in turn, all combinations where they are quick; all variants larger.

    Of cuda-fused as many σ as there are ℓ: each takes seconds here, and the slow tests have all.
    """
    pairs = list(zip(ACTIVATIONS, itertools.cycle(LOSSES), strict=False))
    for name in NAMES:
        made_for = [d for d in DTYPES if not tl.variants.get(name).refuses(SMALL, np.dtype(d))]
        if name == "cuda-samples":
            found = itertools.product(itertools.product(ACTIVATIONS, LOSSES), made_for)
        else:  # a loss that comes again does so with the other dtype
            found = (
                (pair, made_for[(number + number // len(LOSSES)) % len(made_for)])
                for number, pair in enumerate(pairs)
                if name != "cuda-fused" or number < len(LOSSES)
            )
        small = [(name, pair, dtype, SMALL) for pair, dtype in found]
        yield from small + [(name, ("tanh", "squared"), dtype, LARGER) for dtype in made_for]


@pytest.mark.parametrize(
    ("name", "pair", "dtype", "shape"),
    [
        pytest.param(name, pair, dtype, shape, id=f"{name}-{'-'.join(pair)}-{dtype}-{shape.n}")
        for name, pair, dtype, shape in agreements()
    ],
)
def test_agrees(name, pair, dtype, shape, monkeypatch):
    monkeypatch.setattr("twolayer.checking.verify.STEPS", 1 if shape is SMALL else 2)
    result = agreement(tl.variants.get(name), cases.problem(tl.Network(*pair), shape, dtype))
    assert result.agrees, result


@pytest.mark.slow
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("pair", list(itertools.product(ACTIVATIONS, LOSSES)), ids="-".join)
@pytest.mark.parametrize("name", NAMES)
def test_all_combinations_agree(name, pair, dtype):
    variant = tl.variants.get(name)
    if reason := variant.refuses(LARGER, np.dtype(dtype)):
        pytest.skip(reason)
    result = agreement(variant, cases.problem(tl.Network(*pair), LARGER, dtype))
    assert result.agrees, result


@pytest.mark.parametrize("name", NAMES)
def test_memory_that_is_not_free_is_refused(name, monkeypatch):
    from numba.cuda.simulator.cudadrv import devices

    free = devices._MemoryInfo(1 << 20, 1 << 30)
    monkeypatch.setattr(devices.FakeCUDAContext, "get_memory_info", lambda self: free)
    made = []
    monkeypatch.setattr(cuda, "device_array", lambda *a, **k: made.append(a))
    monkeypatch.setattr(cuda, "to_device", lambda *a, **k: made.append(a))
    _, net, X, Y, theta = cases.problem(tl.Network(), tl.Shape(30_000, 8, 8, 1), "float32")
    with pytest.raises(MemoryError, match=r"needs 0\.0\d GiB of its memory, 0\.00 GiB are free"):
        tl.variants.get(name).plan(net, X, Y, theta)
    assert not made


@pytest.mark.parametrize("name", NAMES)
def test_one_of_each_agrees(name, monkeypatch):
    monkeypatch.setattr("twolayer.checking.verify.STEPS", 1)
    net = tl.Network("sigmoid", "logistic")
    result = agreement(tl.variants.get(name), cases.problem(net, tl.Shape(1, 1, 1, 1), "float32"))
    assert result.agrees, result


@pytest.mark.parametrize(
    ("name", "dtype", "shape"),
    [
        ("cuda-tiled", "float32", (70, 18, 35, 17)),
        ("cuda-tiled", "float32", (40, 66, 17, 1)),
        pytest.param("cuda-tensor", "float32", (40, 66, 17, 1), marks=pytest.mark.slow),
        pytest.param("cuda-tensor", "float32", (70, 18, 35, 17), marks=pytest.mark.slow),
        pytest.param("cuda-tiled", "float32", (131, 3, 65, 2), marks=pytest.mark.slow),
        pytest.param("cuda-tiled", "float64", (70, 66, 17, 33), marks=pytest.mark.slow),
    ],
)
def test_tiles_of_every_size_agree(name, dtype, shape, monkeypatch):
    """Sums in parts, more than one tile along each axis, and tiles as large as on a device."""
    monkeypatch.setattr("twolayer.checking.verify.STEPS", 0)
    monkeypatch.setattr("twolayer.engines.tiled.TiledEngine.least_share", 16)
    net = tl.Network("sigmoid", "softmax")  # whose σ(0) is not 0, in rows and units that are none
    result = agreement(tl.variants.get(name), cases.problem(net, tl.Shape(*shape), dtype))
    assert result.agrees, result


def test_a_product_without_its_barrier_shows(monkeypatch):
    """The checker sees in a real kernel what it sees in a small one."""
    from twolayer.checking.cuda import blocks

    case = cases.problem(tl.Network(), tl.Shape(40, 18, 20, 3), "float32")
    module = blocks.simulated_module()
    monkeypatch.setattr(module, "syncthreads", lambda self: None)
    monkeypatch.setattr(blocks, "simulated_module", lambda: module)
    with check_blocks():
        assert not agreement(tl.variants.get("cuda-tiled"), case).agrees


@pytest.mark.parametrize("dtype", DTYPES)
def test_wide_and_long_problems_agree_in_one_kernel(dtype, monkeypatch):
    """All inputs, units and outputs that the kernel takes, and more samples than its blocks."""
    monkeypatch.setattr("twolayer.checking.verify.STEPS", 0)
    monkeypatch.setattr("twolayer.engines.cuda_facts._MULTIPROCESSORS", 2)
    d, K = (32, 8) if dtype == "float32" else (16, 4)
    case = cases.problem(tl.Network("elu", "softmax"), tl.Shape(67, d, 64, K), dtype)
    result = agreement(tl.variants.get("cuda-fused"), case)
    assert result.agrees, result
    case = cases.problem(tl.Network("elu", "softmax"), tl.Shape(8, d + 1, 64, K), dtype)
    with pytest.raises(ValueError, match=r"^variant cuda-fused is made for .*: take cuda-tiled$"):
        tl.variants.get("cuda-fused").plan(*case[1:])


@pytest.mark.parametrize(
    ("dtype", "M", "d", "K"),
    [
        ("float32", 5, 3, 1),
        pytest.param("float32", 32, 8, 1, marks=pytest.mark.slow),
        ("float32", 60, 10, 3),
        ("float64", 20, 6, 2),
    ],
)
def test_samples_read_ahead_agree(dtype, M, d, K, monkeypatch):
    """Warps with none, one and several pairs of groups of samples, and with part of a group.

    Half of the rows, of which L and ∇L are compared as well, are half as many groups.
    """
    from twolayer.engines import tuning
    from twolayer.kernels.cuda import fused
    from twolayer.kernels.cuda.memory.copies import padded

    monkeypatch.setattr("twolayer.checking.verify.STEPS", 0)
    monkeypatch.setattr("twolayer.engines.cuda_facts._MULTIPROCESSORS", 1)
    variant, net = tl.variants.get("cuda-fused"), tl.Network("tanh", "squared")
    for division in fused.divisions(dtype, M, padded(d, dtype), K):
        assert division.ahead or division.warps == 16
        n = (4 * division.warps - 3) * division.samples + division.samples // 2 + 1
        case = cases.problem(net, tl.Shape(n, d, M, K), dtype)
        with tuning.forced({"warps": division.warps}):
            result = agreement(variant, case)
        assert result.agrees, result


@pytest.mark.filterwarnings("ignore::RuntimeWarning")
def test_the_search_for_the_largest_errors_runs():
    from twolayer.checking.cuda import accuracy
    from twolayer.kernels.cuda import elementary

    found = accuracy.elementary_errors(every=1 << 21, blocks=1)
    assert set(found) == {"ex2", "rcp", *elementary.ULP}
    for name, error in found.items():
        assert 0 < error.ulp <= elementary.ULP.get(name, 0.501), (name, error)


def test_tensor_products_are_as_accurate_as_they_say():
    """One pass within 2⁻¹⁰ of each product, three within 3 · 2⁻²² and float32's own sums."""
    from twolayer.kernels.cuda import epilogues
    from twolayer.kernels.cuda.products import product
    from twolayer.kernels.cuda.tensorcores import tf32

    random = np.random.default_rng(0)
    A, B = (random.standard_normal((rows, 24)).astype(np.float32) for rows in (37, 20))
    exact, size = A.astype(float) @ B.T.astype(float), abs(A).astype(float) @ abs(B).T.astype(float)
    errors = {}
    for engine in (tf32.one_pass, tf32.three_passes):
        C, unused = np.zeros((37, 20), np.float32), np.zeros((37, 20), np.float32)
        tile = tf32.tile_for(32, 16)
        kernel = product("float32", tile, (True, True), epilogues.plain, engine)
        kernel[(4, 1, 1), tile.threads](A, B, C, unused, 37, 20, 24)
        errors[engine] = (abs(C - exact) / size).max()
    assert 2.0**-16 < errors[tf32.one_pass] <= 2.0**-10
    assert errors[tf32.three_passes] <= 3 * 2.0**-22 + 9 * 2.0**-23


@pytest.mark.parametrize("tile", ["LARGE", "TALL", "SLIM"])
def test_sums_over_samples_by_the_largest_tiles(tile):
    """In two parts, the second one with a slice that ends early, and tiles that leave C."""
    from twolayer.kernels.cuda import epilogues, products

    random = np.random.default_rng(0)
    tile = getattr(products, tile)
    A, B = (random.standard_normal((21, columns)).astype(np.float32) for columns in (132, 140))
    C = np.full((2, 132 * 140), np.nan, np.float32)
    kernel = products.product("float32", tile, (False, False), epilogues.partial)
    kernel[(products.blocks(tile, 132, 140), 1, 2), tile.threads](A, B, C, C.copy(), 132, 140, 16)
    np.testing.assert_allclose(C[0], (A[:16].T @ B[:16]).ravel(), rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(C[1], (A[16:].T @ B[16:]).ravel(), rtol=1e-5, atol=1e-5)


def test_one_pass_is_an_explicit_choice():
    from twolayer.variants import cuda_tensor

    assert cuda_tensor.TF32.name not in tl.variants.names()
    case = cases.problem(tl.Network("tanh", "squared"), tl.Shape(40, 9, 11, 2), "float32")
    assert not agreement(cuda_tensor.TF32, case).agrees  # it is no float32
    plan = cuda_tensor.TF32.plan(*case[1:])
    loss, _ = plan.gradient()
    expected, _ = tl.variants.get("numpy").plan(*case[1:]).gradient()
    assert abs(loss - expected) <= 0.01 * expected
    wide = cases.problem(tl.Network(), tl.Shape(3, 2, 2, 1), "float64")
    with pytest.raises(ValueError, match=r"made for float32, got float64: take cuda-tiled$"):
        cuda_tensor.TF32.plan(*wide[1:])


def three_slots(w, g, a, b, c, mu):
    return w - mu * g, a + g, b + a, c + b


MORE = Update("three_slots", register_jitable(three_slots), 3)  # than kernels are made for


@pytest.mark.parametrize("name", ["cuda-samples", "cuda-tiled"])
@pytest.mark.parametrize("update", [*UPDATES.values(), MORE], ids=lambda update: update.name)
def test_updates_on_the_device_are_those_on_the_host(name, update):
    case = cases.problem(tl.Network("tanh", "softmax"), tl.Shape(9, 3, 5, 2), "float64")
    plans = [tl.variants.get(which).plan(*case[1:]) for which in (name, "numpy")]
    scalars = (0.5,) * (update.formula.__code__.co_argcount - 2 - update.slots)
    for plan in plans:
        plan.slots = [theta._make(map(abs, theta)) for theta in [plan.theta] * update.slots]
        for rows in (None, slice(2, 7)):
            plan.update(update, scalars, rows)
    for found, expected in zip(plans[0].theta, plans[1].theta, strict=True):
        np.testing.assert_allclose(found, expected, rtol=1e-12, atol=1e-12)
    for slot, expected in zip(plans[0].slots, plans[1].slots, strict=True):
        for a, b in zip(slot, expected, strict=True):
            np.testing.assert_allclose(a, b, rtol=1e-12, atol=1e-12)


def descend_by_all_ways(plan):
    """L of steps, gradients, losses and updates of all rows and of some."""
    rows, descend = slice(2, 7), UPDATES["descend"]
    found = [plan.step(0.1), plan.gradient()[0], plan.gradient(rows)[0], plan.loss()]
    return [*found, plan.loss(rows), plan.update(descend, (0.2,), rows), plan.step(0.3)]


@pytest.mark.parametrize("name", NAMES)
def test_what_comes_again_configures_no_launch(name, monkeypatch):
    """Launches are bound to the same rows once."""
    case = cases.problem(tl.Network("relu", "squared"), tl.Shape(9, 3, 5, 2), "float32")
    plan, right = (tl.variants.get(which).plan(*case[1:]) for which in (name, "numpy"))
    losses = [descend_by_all_ways(right) for _ in range(2)]
    found = [descend_by_all_ways(plan)]
    monkeypatch.setattr(FakeCUDAKernel, "__getitem__", None)
    found.append(descend_by_all_ways(plan))
    np.testing.assert_allclose(found, losses, rtol=1e-5)
    assert found[0] != found[1]
    gone = weakref.ref(plan.engine)
    gc.disable()
    try:
        del plan
        assert gone() is None  # its memory on the device is free before anybody collects garbage
    finally:
        gc.enable()


@pytest.mark.parametrize("name", NAMES)
def test_more_slices_than_are_kept(name, monkeypatch):
    monkeypatch.setattr("twolayer.engines.cuda.MOST_KEPT", 3)
    monkeypatch.setattr("twolayer.engines.cuda_memory.MOST_KEPT", 2)
    case = cases.problem(tl.Network("tanh", "squared"), tl.Shape(9, 3, 5, 2), "float32")
    plan, right = (tl.variants.get(which).plan(*case[1:]) for which in (name, "numpy"))
    for start in [0, 1, 2, 3, 0, 4]:
        for rows in (slice(start, start + 4), None):
            assert plan.loss(rows) == pytest.approx(right.loss(rows), rel=1e-5)
    assert len(plan.engine._kept) <= 3


@pytest.mark.parametrize("K", [2, 18])
def test_a_loss_alone_launches_no_gradient(K, monkeypatch):
    case = cases.problem(tl.Network("tanh", "squared"), tl.Shape(9, 3, 5, K), "float32")
    plan = tl.variants.get("cuda-tiled").plan(*case[1:])
    launched, configure = [], FakeCUDAKernel.__getitem__

    def counted(self, grid):
        launched.append(grid)
        return configure(self, grid)

    monkeypatch.setattr(FakeCUDAKernel, "__getitem__", counted)
    assert plan.gradient()[0] == plan.gradient()[0]
    gradient = len(launched)
    assert plan.loss() == plan.gradient()[0]
    assert (gradient, len(launched) - gradient) == (6 if K == 2 else 7, 4)


@pytest.mark.parametrize("name", NAMES)
def test_what_was_held_first_stays(name):
    """Each data set that an engine holds is its own."""
    net = tl.Network("tanh", "squared")
    data = [cases.problem(net, tl.Shape(n, 3, 5, 2), "float32") for n in (9, 7)]
    engine = tl.variants.get(name).plan(*data[0][1:]).engine
    weights = engine.weights()
    weights.put(data[0].theta, weights.theta)
    held = [engine.hold(case.X, case.Y) for case in data]
    for (X, Y), case in zip(held, data, strict=True):
        found = engine.backpropagate(X, Y, weights.theta, weights.gradient)
        expected, slopes = tl.loss_and_gradient(net, data[0].theta, case.X, case.Y)
        assert found == pytest.approx(expected, rel=1e-5)
        for a, b in zip(weights.get(weights.gradient), slopes, strict=True):
            np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5)


def test_bench_runs_on_the_device(monkeypatch, tmp_path):
    """Its figures mean nothing here: the simulator's events have no clock."""
    from twolayer.cli.commands.racing import gpu
    from twolayer.cli.options import select_variants
    from twolayer.machine.store import Store

    monkeypatch.setattr("twolayer.measuring.device_clock._MOST_PLANS", 2)
    there = select_variants(None, None, "cuda")
    records = gpu.measure(
        there, tl.Network(), [tl.Shape(9, 3, 4, 1)], "float64", lambda: None,
        tmp_path / "figures.json", repetitions=2, warm_up=0.0, size=1 << 8,
    )  # fmt: skip
    skipped = {record["variant"]: record["skipped"] for record in records}
    assert list(skipped) == [variant.name for variant in there]
    assert [name for name in NAMES if skipped[name]] == ["cuda-tensor"]
    assert skipped["torch"] == "needs the package torch"
    assert "take cuda-tiled" in skipped["cuda-tensor"]
    kept = {one.variant for one in Store().select(kind="epoch", device="cuda")}
    assert kept == {name for name, why in skipped.items() if not why}
    written = json.loads((tmp_path / "figures.json").read_text(encoding="utf-8"))
    page = (Path(__file__).parents[2] / "docs/reference/json.md").read_text(encoding="utf-8")
    keys = {f"results[].{key}" for result in written["results"] for key in result}
    assert {key for key in keys | written.keys() if f"`{key}`" not in page} == {
        "ceilings",
        "results",
    }


def test_the_parts_of_the_check_for_a_gpu_run(monkeypatch):
    """As far as the simulator goes: it has neither registers, libraries nor a clock."""
    tools = Path(__file__).parents[2] / "tools/gpu"
    monkeypatch.syspath_prepend(tools)
    import gpu_parts

    from twolayer.variants.cuda_samples import CudaSamples

    monkeypatch.setattr("twolayer.checking.verify.STEPS", 1)
    monkeypatch.setattr("twolayer.measuring.device_clock._MOST_PLANS", 1)
    monkeypatch.setattr("twolayer.measuring.timing.warm_up", lambda call, *_: call())
    monkeypatch.setattr("twolayer.measuring.device_clock.TIME", 0.0)
    monkeypatch.setattr("twolayer.measuring.device_clock._LEAST", 1)
    monkeypatch.setattr(gpu_parts.device_clock.record, "__defaults__", (2, 0.0))
    monkeypatch.setattr(gpu_parts.device_clock, "SHAPES", (tl.Shape(9, 3, 4, 1),))
    candidates = {"float32": [{"quick": 1}, {"quick": 2}], "float64": [{"quick": 1}]}
    found_for = staticmethod(lambda shape, dtype: candidates[dtype])
    monkeypatch.setattr(CudaSamples, "candidates", found_for)
    found = dict(gpu_parts.race("cuda-samples"))
    tuned, *raced = found
    assert tuned == "tuning float32 n=9 d=3 M=4 K=1"
    assert raced == ["float32 n=9 d=3 M=4 K=1", "float64 n=9 d=3 M=4 K=1"]
    assert found[tuned]["kept as"] == "CudaSamples float32 n<=16 d<=4 M<=4 K<=1"
    assert all(isinstance(seconds, float) for seconds in found[tuned]["seconds"].values())
    assert all(found[key]["skipped"] == "" and found[key]["error"] <= 1 for key in raced)
    monkeypatch.setattr(gpu_parts.gpu_tables, "HELD_OUT", (tl.Shape(33, 5, 3, 2),))
    found = dict(gpu_parts.odd("cuda-tiled"))
    assert list(found) == ["float32 n=33 d=5 M=3 K=2", "float64 n=33 d=5 M=3 K=2"]
    assert all(values["skipped"] == "" and values["error"] <= 1 for values in found.values())
    monkeypatch.setattr(gpu_parts, "BLOCKS", 1)
    assert dict(gpu_parts.launches("cuda-samples"))["seconds"] > 0
    monkeypatch.setattr(gpu_parts, "ACTIVATIONS", ["relu"])
    monkeypatch.setattr(gpu_parts.cases, "adversarial", lambda net, dtype: [])
    found = dict(gpu_parts.agreement("cuda-samples"))
    assert [values["checked"] for values in found.values()] == [1] * 10
    assert not any(values["wrong"] for values in found.values())
    monkeypatch.setattr(CudaSamples, "update", lambda *_: np.empty(1 << 50))  # too much memory
    found = dict(gpu_parts.agreement("cuda-samples")).values()
    assert {(v["checked"], len(v["wrong"]), len(v["undecided"])) for v in found} == {(0, 0, 1)}
    assert dict(gpu_parts.cublas("")) == {"skipped": "needs the package torch"}

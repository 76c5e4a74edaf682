"""The asv suite: found, complete, the same on every machine, and every benchmark runs."""

import hashlib
import importlib
import json
import os
import pkgutil
import re
import subprocess
import sys
from functools import cache
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

import twolayer

ROOT = Path(__file__).parents[2]
REFERENCE = "47e61f17a4c0abd1cba4194f7448da9c13eadac14adff3ffb94da39996459169"

sys.path.insert(0, str(ROOT))
import benchmarks  # noqa: E402
from benchmarks import common, ratio, reference, updates  # noqa: E402

sys.path.remove(str(ROOT))

KINDS = re.compile("(time|track|peakmem)_")
CLASSES = [
    member
    for info in pkgutil.iter_modules(benchmarks.__path__, "benchmarks.")
    for module in [importlib.import_module(info.name)]
    for name, member in vars(module).items()
    if isinstance(member, type) and member.__module__ == module.__name__ and name[0] != "_"
    if any(KINDS.match(attribute) for attribute in dir(member))
]
METHODS = [
    pytest.param(cls, name, id=f"{cls.__module__}.{cls.__name__}.{name}")
    for cls in CLASSES
    for name in dir(cls)
    if KINDS.match(name)
]
TIMED = [method for method in METHODS if method.values[1].startswith("time_")]
TRACKED = [method for method in METHODS if method.values[1].startswith("track_")]


def asv(*arguments: str) -> subprocess.CompletedProcess[str]:
    # asv hands PYTHONPATH on under this name only.
    path = {"ASV_PYTHONPATH": os.environ["PYTHONPATH"]} if "PYTHONPATH" in os.environ else {}
    return subprocess.run(
        [sys.executable, "-m", "asv", *arguments],
        cwd=ROOT,
        env={**os.environ, **path},
        capture_output=True,
        text=True,
        check=False,
    )


def discover(folder: Path, **changes: str) -> dict[str, dict]:
    """The suite as asv finds it in a fresh process."""
    code = "import sys; from asv_runner.discovery import list_benchmarks as found; "
    code += "found(sys.argv[1], open(sys.argv[2], 'w'))"
    path = folder / "found.json"
    subprocess.run(
        [sys.executable, "-c", code, str(ROOT / "benchmarks"), str(path)],
        env={**os.environ, **changes},
        check=True,
    )
    return {entry["name"]: entry for entry in json.loads(path.read_text())}


def test_asv_accepts_the_suite():
    result = asv("check", "-E", f"existing:{sys.executable}")
    assert result.returncode == 0, result.stdout + result.stderr
    assert "No problems found" in result.stdout


def test_asv_finds_what_the_modules_define(tmp_path):
    found = discover(tmp_path)
    names = {f"{p.id.removeprefix('benchmarks.')}" for p in METHODS}
    assert set(found) == names


def test_params_do_not_depend_on_the_machine(tmp_path):
    """One CPU, no GPU and no optional package give the same series as this machine."""
    here = discover(tmp_path)
    hidden = tmp_path / "hidden"
    hidden.mkdir()
    for package in ("torch", "jax", "cupy", "sklearn", "dask"):
        (hidden / f"{package}.py").write_text("raise ImportError")
    path = os.pathsep.join(filter(None, [str(hidden), os.environ.get("PYTHONPATH")]))
    there = discover(tmp_path, PYTHONPATH=path, CUDA_VISIBLE_DEVICES="", NUMBA_NUM_THREADS="1")
    assert there == here


@pytest.mark.parametrize("cls", CLASSES, ids=lambda cls: f"{cls.__module__}.{cls.__name__}")
def test_version_is_set_by_hand(cls):
    """asv's own hash covers the text of the method, not the helpers."""
    assert isinstance(cls.version, str)


@pytest.mark.parametrize(("cls", "name"), TRACKED)
def test_tracked_numbers_have_a_unit(cls, name):
    assert getattr(cls, "unit", "unit") != "unit"


def test_pages_have_a_readable_name_of_their_own_for_each(tmp_path):
    names = [entry.get("pretty_name") for entry in discover(tmp_path).values()]
    assert all(names)
    assert len(set(names)) == len(names)


@pytest.mark.parametrize(("cls", "name"), TIMED)
def test_timed_benchmarks_take_one_sample_a_process(cls, name):
    assert cls.repeat == 1
    assert cls.rounds >= 7 or "TWOLAYER_ASV_ROUNDS" in os.environ


def cheap(cls) -> tuple:
    """A parameter set that takes little time."""
    params = getattr(cls, "params", ())
    if not params:
        return ()
    variant = "numpy" if "numpy" in params[0] else params[0][0]
    names = cls.param_names[1:]
    return (variant, *(256 if n == "n" else v[0] for n, v in zip(names, params[1:], strict=True)))


@pytest.mark.parametrize(("cls", "name"), METHODS)
def test_benchmark_runs(cls, name, monkeypatch):
    monkeypatch.setattr(ratio, "_SECONDS", 0.0)
    monkeypatch.setattr(ratio, "_BLOCK", 0.0)
    monkeypatch.setattr(common, "first_epoch", cache(common.first_epoch))  # a process, not four
    params = cheap(cls)
    instance = cls()
    if hasattr(instance, "setup"):
        instance.setup(*params)
        instance.setup(*params)  # asv does, too
    value = getattr(instance, name)(*params)
    if name.startswith("track_"):
        assert isinstance(value, float)
        assert np.isfinite(value)
        assert value > 0
    else:
        assert value is None


@pytest.mark.parametrize(("cls", "name"), TIMED)
def test_first_call_is_not_timed(cls, name, monkeypatch):
    """setup makes it, because it may compile."""
    instance = cls()
    calls = []
    plan = SimpleNamespace(X=None)
    for method in ("step", "gradient", "predict", "update"):
        setattr(plan, method, lambda *arguments, method=method: calls.append(method))
    monkeypatch.setattr(sys.modules[cls.__module__], "plan", lambda *arguments: plan)
    instance.setup(*cheap(cls))
    assert len(calls) == 1
    getattr(instance, name)(*cheap(cls))
    assert calls[1:] == calls[:1]


def test_every_optimizer_is_there_to_be_timed():
    assert twolayer.optimizers.names() == updates.OPTIMIZERS


@pytest.mark.parametrize("optimizer", updates.OPTIMIZERS)
def test_updates_take_one_batch_after_the_other(optimizer, monkeypatch):
    rows = []
    plan = SimpleNamespace(update=lambda formula, scalars, batch: rows.append(batch))
    monkeypatch.setattr(updates, "plan", lambda *arguments: plan)
    few = updates.Few()
    few.setup("numpy", f"{optimizer} batch=2048")
    assert len(plan.slots) == twolayer.optimizers.get(optimizer)().formula.slots
    for _ in range(2):
        few.time_update("numpy", f"{optimizer} batch=2048")
    assert rows == [slice(0, 2048), slice(2048, 4096), slice(0, 2048)]


def test_an_optimizer_that_a_revision_lacks_is_not_available(monkeypatch):
    monkeypatch.delitem(twolayer.optimizers.REGISTRY._entries, "adam")
    with pytest.raises(NotImplementedError, match="this revision has no adam"):
        updates.Few().setup("numpy", "adam batch=32")


def test_plans_are_made_once():
    assert common.plan("numpy", common.BASE) is common.plan("numpy", common.BASE)


@pytest.mark.parametrize(
    ("name", "shape"),
    [
        ("no-such-variant", common.BASE),
        ("python-loops", common.BASE),
        ("numpy-samples", common.BASE._replace(n=65536)),
    ],
)
def test_what_cannot_run_is_not_available(name, shape):
    with pytest.raises(NotImplementedError, match=name):
        common.plan(name, shape)


def test_unavailable_variant_gives_its_reason(monkeypatch):
    monkeypatch.setattr(type(common.variant("numpy")), "unavailable", lambda self: "needs a moon")
    with pytest.raises(NotImplementedError, match="numpy: needs a moon"):
        common.variant("numpy")


@pytest.mark.parametrize("name", common.DATA_SETS)
def test_data_sets_fit_their_networks(name):
    _, X, Y, theta = common.problem(name)
    assert X.dtype == Y.dtype == theta.V.dtype == np.float32
    assert theta.V.shape == (common.HIDDEN, X.shape[1])
    assert np.isfinite(common.plan("numpy", name).gradient()[0])


def test_failing_child_is_reported():
    with pytest.raises(RuntimeError, match="no-such-variant"):
        common.first_epoch("no-such-variant")


def test_side_by_side_finds_a_ratio(monkeypatch):
    """A clock that only the two functions advance: 3 ms and 2 ms a call."""
    now = [0.0]

    def taking(seconds):
        def function():
            now[0] += seconds

        return function

    monkeypatch.setattr(ratio.time, "perf_counter", lambda: now[0])
    found = ratio.side_by_side(taking(3e-3), taking(2e-3), seconds=1.0, block=0.015)
    assert found == pytest.approx(1.5)


def test_reference_is_frozen():
    """Ratios on record are in units of this file: it is never changed."""
    assert hashlib.sha256(Path(reference.__file__).read_bytes()).hexdigest() == REFERENCE


@pytest.mark.parametrize("chunks", [1, 2, 3])
def test_reference_is_an_epoch(chunks):
    random = np.random.default_rng(0)
    n, d, M, K = 101, 7, 19, 3
    X, Y, V, W = (
        random.standard_normal(shape).astype(np.float32)
        for shape in ((n, d), (n, K), (M, d), (K, M))
    )
    A = X.astype(np.float64) @ V.T.astype(np.float64)
    S = np.clip(A, -4.97, 4.97) ** 2
    Z = np.clip(A, -4.97, 4.97) * (135135 + S * (17325 + S * (378 + S)))
    Z /= 135135 + S * (62370 + S * (3150 + S * 28))
    error = Z @ W.T - Y
    G = (2 * error @ W) * (1 - Z * Z)
    step = reference.Reference(X, Y, V, W, chunks)
    loss = step.step(0.1)
    assert abs(Z - np.tanh(A)).max() < 2e-4
    assert loss == pytest.approx((error**2).sum() / n, rel=1e-5)
    np.testing.assert_allclose(step.W, W - 0.1 * 2 * error.T @ Z / n, rtol=0, atol=1e-5)
    np.testing.assert_allclose(step.Vt.T, V - 0.1 * G.T @ X / n, rtol=0, atol=1e-5)

"""Compiled code on disk: never the wrong one, and found again by the next process."""

import ast
import contextlib
import importlib.util
import os
import shutil
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numba
import numpy as np
import pytest
from numba import config
from numba.core.dispatcher import Dispatcher

import twolayer as tl
from twolayer.kernels.compiler import jit

pytestmark = pytest.mark.skipif(bool(config.DISABLE_JIT), reason="nothing is compiled")
PACKAGE = Path(tl.__file__).parent


def copy_of_the_package(parent, name="twolayer"):
    ignored = shutil.ignore_patterns("__pycache__")
    shutil.copytree(PACKAGE, parent / name, ignore=ignored)  # follows the links
    return parent / name


def kept(folder):
    return sorted(folder.rglob("*.code"))


def hits(kernel):
    return sum(kernel.stats.cache_hits.values())


def misses(kernel):
    return sum(kernel.stats.cache_misses.values())


def half(x):
    total = x.dtype.type(0)
    for i in range(x.size):
        total += x[i] / 3
    return total


def test_recipes_that_share_a_function(folder):
    """With `reassoc` the sum is vectorized, so that both code and result differ."""
    x = np.random.default_rng(0).standard_normal(1001).astype("float32")
    results, codes = {}, {}
    for attempt in range(2):
        for recipe, flags in (("strict", jit.STRICT), ("sums", jit.SUMS)):
            kernel = jit.jit(recipe, fastmath=flags)(half)
            result = kernel(x)
            assert (hits(kernel), misses(kernel)) == (attempt, 1 - attempt)
            assert results.setdefault(recipe, result) == result
            if attempt == 0:
                (codes[recipe],) = kernel.inspect_asm().values()
    assert results["strict"] != results["sums"]
    assert codes["strict"] != codes["sums"]


def test_options_under_one_name_are_told_apart(folder):
    x = np.ones(64, "float32")
    for options in ({"fastmath": jit.STRICT}, {"fastmath": jit.SUMS}, {"fastmath": ()}):
        kernel = jit.jit("same", **options)(half)
        kernel(x)
        assert misses(kernel) == 1
    assert len(kept(folder)) == 3


def make_power(exponent):
    def power(x):
        return x**exponent

    return power


def test_closures_and_signatures_are_told_apart(folder):
    for attempt in range(2):
        for exponent in (2, 3):
            kernel = jit.jit("closures")(make_power(exponent))
            assert kernel(5.0) == 5.0**exponent
            assert kernel(5) == 5**exponent
            assert hits(kernel) == 2 * attempt
    assert len(kept(folder)) == 4


# Edits and upgrades

EDITED = """
import gc
import numpy as np
import twolayer as tl
from numba.core.dispatcher import Dispatcher

net = tl.Network("relu", "squared")
X = np.arange(1, 7, dtype="float32").reshape(3, 2)
theta = tl.Parameters(np.ones((2, 2), "float32"), np.ones((1, 2), "float32"))
plan = tl.variants.get("numba-loops").plan(net, X, np.zeros((3, 1), "float32"), theta)
F = plan.predict(X)
plan.step(0.0)
print(F.ravel().tolist())
print(sorted({
    k.py_func.__module__.removeprefix("twolayer.kernels.")
    for k in gc.get_objects()
    if issubclass(type(k), Dispatcher) and k.py_func.__module__.startswith("twolayer.")
    and k.stats.cache_misses and type(k._cache).__name__ == "_Cache"
}))
"""


@pytest.mark.slow
def test_an_edit_compiles_what_imports_the_file_and_nothing_else(run_python, tmp_path):
    package = copy_of_the_package(tmp_path)
    result = [6.0, 14.0, 22.0]  # 2 relu(x₁ + x₂)
    formula = "return select(a <= like(a, 0.0), like(a, 0.0), a)"
    kernels = ["cpu.epochs", "cpu.loops"]

    def edit(file, old, new):
        path = package / f"{file}.py"
        text = path.read_text()
        assert text.count(old) == 1
        path.write_text(text.replace(old, new))

    def found():
        return [*map(ast.literal_eval, run_python(EDITED, folder=tmp_path).split("\n")[:2])]

    assert found() == [result, [*kernels, "formulas.updates"]]
    edit("variants/numba_loops", "on one thread.", "on one thread!")
    edit("variants/jax", "JAX, as its users", "Jax, as its users")
    edit("network", "import meant, parts", "import meant, parts  # of texts")
    assert found() == [result, []]
    doubled = formula.replace(", a)", ", a + a)")
    edit("kernels/formulas/activations", formula, doubled)
    assert found() == [[2 * number for number in result], kernels]
    edit("kernels/formulas/activations", doubled, formula)
    assert found() == [result, []]


def test_code_that_nobody_used_for_long_is_removed(folder):
    jit.jit("stale")(half)(np.ones(3))
    (old,) = kept(folder)
    os.utime(old, (1e9, 1e9))
    jit.jit("stale")(half)(np.ones(3, np.float32))
    assert old not in kept(folder)
    assert len(kept(folder)) == 1


def test_code_that_is_used_stays(folder):
    jit.jit("stale")(half)(np.ones(3))
    (used,) = kept(folder)
    os.utime(used, (1e9, 1e9))
    jit.jit("stale")(half)(np.ones(3))  # from disk
    jit.jit("stale")(half)(np.ones(3, np.float32))
    assert len(kept(folder)) == 2


@pytest.mark.parametrize("module", ["numba", "llvmlite", "np"])
def test_an_upgrade_is_noticed(folder, monkeypatch, module):
    before = jit.cache_folder()
    monkeypatch.setattr(getattr(jit, module), "__version__", "99.0")
    jit.cache_folders.cache_clear()
    after = jit.cache_folder()
    assert before != after
    assert before.parent == after.parent == folder


def test_another_python_is_noticed(folder, monkeypatch):
    before = jit.cache_folder()
    monkeypatch.setattr("platform.python_version", lambda: "3.99.0")
    jit.cache_folders.cache_clear()
    assert jit.cache_folder() != before


def test_an_edit_in_a_users_own_file_is_noticed(folder, tmp_path):
    def compiled(text):
        path = tmp_path / "own.py"
        path.write_text(text)
        spec = importlib.util.spec_from_file_location("own", path)
        module = importlib.util.module_from_spec(spec)
        exec(compile(text, path, "exec"), vars(module))
        return jit.jit("own")(module.f)

    assert compiled("def f(x):\n    return x + 1\n")(1) == 2
    assert compiled("def f(x):\n    return x + 2\n")(1) == 3
    again = compiled("def f(x):\n    return x + 2\n")
    assert again(1) == 3
    assert hits(again) == 1


def test_folders_that_nobody_used_for_long_are_removed(folder):
    old, recent = folder / "old", folder / "recent"
    for path in (old, recent):
        path.mkdir(parents=True)
        (path / "x.code").write_bytes(b"x")
    os.utime(old, (1e9, 1e9))
    jit.cache_folder()
    assert not old.exists()
    assert recent.exists()


# Damage


@pytest.mark.parametrize("damage", ["cut", "empty", "flipped", "folder", "foreign"])
def test_damaged_code_is_compiled_again(folder, damage):
    jit.jit("damage")(half)(np.ones(3))
    (path,) = kept(folder)
    whole = path.read_bytes()
    path.unlink()
    if damage == "folder":
        path.mkdir()
    else:
        middle = len(whole) // 2
        flipped = whole[:middle] + bytes([whole[middle] ^ 1]) + whole[middle + 1 :]
        cases = {"cut": whole[:middle], "empty": b"", "flipped": flipped, "foreign": b"x" * 1000}
        path.write_bytes(cases[damage])
    kernel = jit.jit("damage")(half)
    jit._tell.cache_clear()
    told = pytest.warns(RuntimeWarning, match="compiled code is not kept: .*directory")
    with told if damage == "folder" else contextlib.nullcontext():
        assert kernel(np.ones(3)) == 1.0
    assert misses(kernel) == 1
    if damage != "folder":
        assert len(path.read_bytes()) == len(whole)
        again = jit.jit("damage")(half)
        assert again(np.ones(3)) == 1.0
        assert hits(again) == 1
    assert [file for file in path.parent.iterdir() if file != path] == []


def test_a_folder_that_is_lost_later_is_told(folder):
    kernel = jit.jit("nowhere")(half)
    shutil.rmtree(folder)
    folder.write_text("a file where the folder belongs")
    jit._tell.cache_clear()
    with pytest.warns(RuntimeWarning, match="compiled code is not kept: .*[Nn]ot a directory"):
        assert kernel(np.ones(3)) == 1.0


# The next process

COMPILE = """
import gc
import twolayer as tl
from twolayer.checking import cases
from twolayer.measuring import roofline
from twolayer.kernels.formulas.updates import UPDATES
from numba.core.dispatcher import Dispatcher

roofline.probe("float32", 2, 0.001)
roofline.probe("float32", 1, 0.001)
for loss in ("logistic", "softmax"):
    _, net, X, Y, theta = cases.problem(tl.Network("elu", loss), tl.Shape(90, 5, 6, 3), "float32")
    Y = Y.argmax(axis=1) if loss == "softmax" else Y  # labels
    for name in tl.variants.names():
        variant = tl.variants.get(name)
        if variant.device == "cpu" and name.startswith("num") and not variant.unavailable():
            plan = variant.plan(net, X, Y, theta)
            plan.step(0.1)
            plan.slots = [plan.theta]
            plan.update(UPDATES["descend_with_momentum"], (0.1, 0.9))
            plan.predict(X)
# What stands for an object that is gone cannot be asked by isinstance.
found = [k for k in gc.get_objects() if issubclass(type(k), Dispatcher)]
found = [k for k in found if k.py_func.__module__.startswith("twolayer.") and k.signatures]
hits = sum(sum(k.stats.cache_hits.values()) for k in found)
missed = sorted({k.py_func.__qualname__ for k in found if k.stats.cache_misses})
made = {k.py_func.__module__ + "." + k.py_func.__qualname__.partition(".")[0] for k in found}
print(hits, sum(len(k.signatures) for k in found), missed)
print(sorted(made))
"""


def factories():
    """The functions that make kernels, and the kernels that stand by themselves, by module."""
    for path in sorted((PACKAGE / "kernels").rglob("*.py")):
        tree = ast.parse(path.read_text())
        for node in tree.body:
            if isinstance(node, ast.FunctionDef) and any(
                isinstance(inner, ast.FunctionDef)
                and any(
                    isinstance(decorator, ast.Call) and ast.unparse(decorator.func) == "jit"
                    for decorator in inner.decorator_list
                )
                for inner in ast.walk(node)
            ):
                place = path.relative_to(PACKAGE).with_suffix("").parts
                yield ".".join(("twolayer", *place, node.name))


def test_a_second_process_compiles_nothing(run_python):
    first = run_python(COMPILE).split("\n")
    missing = set(factories()) - set(ast.literal_eval(first[1]))
    assert not missing, "no CPU variant compiled these"
    hits, kernels, missed = run_python(COMPILE).split("\n")[0].split(" ", 2)
    assert missed == "[]"
    assert int(hits) == int(kernels)
    assert int(kernels) > 10


OWN = """
from twolayer.kernels.compiler.jit import jit

def make(number):
    @jit("own")
    def add(x):
        return x + number
    return add
"""
AT_ONCE = """
import sys
sys.path.insert(0, sys.argv[1])
import own

hits = 0
for number in range(15):
    kernel = own.make(number)
    assert kernel(1000) == 1000 + number
    hits += sum(kernel.stats.cache_hits.values())
print(hits)
"""


def test_processes_that_compile_at_once_keep_all_their_kernels(run_python, tmp_path):
    (tmp_path / "own.py").write_text(OWN)

    def run(_):
        return int(run_python(AT_ONCE, tmp_path, NUMBA_CACHE_DIR=str(tmp_path)))

    with ThreadPoolExecutor(3) as pool:
        list(pool.map(run, range(3)))
    assert run(0) == 15
    assert len(kept(tmp_path)) == 15


def load(package, name):
    spec = importlib.util.spec_from_file_location(
        name, package / "__init__.py", submodule_search_locations=[str(package)]
    )
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module


@pytest.mark.slow  # regress loads two revisions into one process in each of its tests
def test_two_copies_in_one_process(tmp_path):
    package = copy_of_the_package(tmp_path, "other")
    path = package / "kernels/formulas/losses.py"
    text = path.read_text()
    formula = "return (u - y) * (u - y)"
    assert text.count(formula) == 1
    path.write_text(text.replace(formula, "return like(u, 3.0) * (u - y) * (u - y)"))
    try:
        other = load(package, "twolayer_other")
        X = np.random.default_rng(0).standard_normal((40, 3))
        Y, theta = X[:, :1].copy(), tl.Network().init(3, 4, 1, "float64")
        for name in ("numpy", "numba-loops", "numba-parallel"):
            one, two = (
                module.loss_and_gradient(module.Network(), module.Parameters(*theta), X, Y, name)
                for module in (tl, other)
            )
            assert two[0] == pytest.approx(3 * one[0], rel=1e-12)
            assert isinstance(two[1], other.Parameters)
            assert not isinstance(two[1], tl.Parameters)
            for here, there in zip(one[1], two[1], strict=True):
                np.testing.assert_array_equal(here, there)
        assert other.kernels.compiler.jit.cache_folder() != jit.cache_folder()
        # Calls of whose records are equal to another copy's take longer to find their kernel.
        assert other.kernels.cpu.chunks.CHUNK != tl.kernels.cpu.chunks.CHUNK
        assert other.kernels.formulas.losses.LOSSES is not tl.kernels.formulas.losses.LOSSES
    finally:
        for name in [name for name in sys.modules if name.startswith("twolayer_other")]:
            del sys.modules[name]


def test_the_global_settings_of_numba_are_left_alone():
    before = config.CACHE_DIR
    kernel = jit.jit("settings")(half)
    assert before == config.CACHE_DIR
    assert isinstance(kernel, Dispatcher)
    assert numba.njit(half).stats.cache_path is None

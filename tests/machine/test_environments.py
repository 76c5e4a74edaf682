"""What users set in their environment: respected, told in one sentence, and a part of the keys."""

import os
import subprocess
import sys

import numba
import pytest

import twolayer as tl
from twolayer.checking import cases
from twolayer.interface import check_threads
from twolayer.kernels.compiler import settings, target
from twolayer.machine import given, hardware
from twolayer.measuring import roofline

BOUND = """
import os
import twolayer as tl
from twolayer.checking import cases

case = cases.problem(tl.Network("tanh", "squared"), tl.Shape(4000, 7, 9, 3), "float32")
cpus = len(os.sched_getaffinity(0))
for _ in range(2):
    plan = tl.variants.get("numba-parallel").plan(*case[1:], threads=cpus)
    plan.step(0.1)
from twolayer.machine.given import unbound
print(cpus, plan.threads, len(os.sched_getaffinity(0)))
with unbound():
    print(len(os.sched_getaffinity(0)))
print(len(os.sched_getaffinity(0)))
"""

two_cpus = pytest.mark.skipif(hardware.cpu_count() < 2, reason="needs two CPUs")


@two_cpus
@pytest.mark.skipif(not hasattr(os, "sched_getaffinity"), reason="needs affinity masks")
def test_an_openmp_that_binds_threads_takes_no_cpus_away(run_python):
    before, inside, after = run_python(BOUND, OMP_PROC_BIND="true").splitlines()
    cpus, threads, left = before.split()
    assert threads == cpus == inside
    assert after == left


@pytest.fixture
def bound(monkeypatch):
    """The main thread is tied to the first of four CPUs."""
    monkeypatch.setattr(given, "_at_import", {0, 1, 2, 3})
    monkeypatch.setattr(given, "_of_this_thread", lambda: {0})
    for name in given.VARIABLES:
        monkeypatch.delenv(name, raising=False)


@pytest.mark.usefixtures("bound")
@pytest.mark.parametrize(
    ("name", "value", "cpus"),
    [
        ("HOME", "/", 1),  # whoever ties a thread without OpenMP wants it so
        *((name, "whatever", 4) for name in given.VARIABLES),
        ("GOMP_CPU_AFFINITY", "0", 1),
        ("GOMP_CPU_AFFINITY", "0 3", 2),
        ("GOMP_CPU_AFFINITY", "0-2,9", 3),
        ("GOMP_CPU_AFFINITY", "0-7:2", 2),
        ("GOMP_CPU_AFFINITY", "8-9", 4),  # none of ours: OpenMP ignores it too
    ],
)
def test_cpus_where_openmp_binds(monkeypatch, name, value, cpus):
    monkeypatch.setenv(name, value)
    assert len(given.allowed_cpus()) == cpus


LIMITS = ("NUMBA_NUM_THREADS", "OMP_THREAD_LIMIT")


@pytest.mark.parametrize("name", LIMITS)
def test_fewer_threads_by_a_variable(monkeypatch, name):
    monkeypatch.setattr(hardware, "cpu_count", lambda: 8)
    monkeypatch.setattr(numba.config, "NUMBA_NUM_THREADS", 8)
    monkeypatch.setenv(name, "3")
    assert check_threads(None) == check_threads(3) == 3
    with pytest.raises(ValueError, match=f"^threads: expected 1 to 3, as {name} has it, got 4$"):
        check_threads(4)
    monkeypatch.setenv(name, "64")
    assert check_threads(None) == 8


def test_fewer_threads_by_numbas_own_setting(monkeypatch):
    monkeypatch.setattr(hardware, "cpu_count", lambda: 8)
    monkeypatch.setattr(numba.config, "NUMBA_NUM_THREADS", 5)
    assert hardware.thread_limit() == (5, "the threads of Numba")


@two_cpus
def test_the_threads_of_a_plan_are_those_that_run(variant):
    case = cases.problem(tl.Network("tanh", "squared"), tl.Shape(5, 3, 4, 2), "float32")
    for threads in (1, 2):
        plan = variant.plan(*case[1:], threads=threads)
        chosen = tl.variants.get(plan.variant)  # for `auto` another
        assert plan.threads == plan.engine.threads == (threads if chosen.parallel else 1)


@pytest.mark.parametrize(
    ("name", "wrong", "right"),
    [
        ("NUMBA_NUM_THREADS", ["0", "-1", "all", "", "1.5"], [" 2 "]),
        ("NUMBA_THREADING_LAYER", ["nix", "", "OMP"], ["default", "workqueue", "safe"]),
        ("NUMBA_CPU_FEATURES", ["nix", "+avx,sse", "+avx,"], ["", "+avx2,-sse4.1"]),
    ],
)
def test_numba_would_not_work(name, wrong, right):
    for value in wrong:
        with pytest.raises(ValueError, match=rf"^{name}: expected .*, got "):
            settings.check_environment({name: value})
    for value in right:
        settings.check_environment({name: value})


def test_a_threading_layer_that_is_not_installed_is_told(monkeypatch):
    monkeypatch.setitem(sys.modules, "numba.np.ufunc.tbbpool", None)
    with pytest.raises(ValueError, match=r"where it is installed, got 'tbb'"):
        settings.check_environment({"NUMBA_THREADING_LAYER": "tbb"})


def test_a_command_says_that_numba_would_not_start():
    command = [sys.executable, "-c", "from twolayer.cli import app; app()", "list"]
    environment = os.environ | {"NUMBA_NUM_THREADS": "0"}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert done.stderr == "NUMBA_NUM_THREADS: expected a positive integer, got '0'\n"


def test_nothing_is_timed_without_compiled_code(monkeypatch):
    monkeypatch.setattr(numba.config, "DISABLE_JIT", 1)
    with pytest.raises(RuntimeError, match=r"^NUMBA_DISABLE_JIT is set, and times without"):
        roofline.probe()


@pytest.mark.parametrize(
    ("features", "vector_bytes"),
    [("", 16), ("+sse2,+avx", 16), ("+avx,+avx2,+fma", 32), ("+avx2,+avx512f", 64),
     ("+avx2,-avx512f", 32)],
)  # fmt: skip
def test_vectors_are_those_of_the_features_that_numba_is_told(monkeypatch, features, vector_bytes):
    monkeypatch.setattr(target.config, "CPU_FEATURES", features)
    assert target._host().vector_bytes == vector_bytes


MATTER = """
NUMBA_NUM_THREADS NUMBA_OPT NUMBA_BOUNDSCHECK NUMBA_DEBUG_JIT NUMBA_DISABLE_JIT NUMBA_CPU_NAME
NUMBA_CPU_FEATURES NUMBA_THREADING_LAYER NUMBA_THREADING_LAYER_PRIORITY NUMBA_LOOP_VECTORIZE
OPENBLAS_CORETYPE OPENBLAS_NUM_THREADS GOTO_NUM_THREADS OMP_NUM_THREADS OMP_PROC_BIND OMP_PLACES
OMP_THREAD_LIMIT OMP_WAIT_POLICY OMP_DYNAMIC OMP_SCHEDULE GOMP_CPU_AFFINITY GOMP_SPINCOUNT
KMP_AFFINITY KMP_BLOCKTIME MKL_NUM_THREADS MKL_ENABLE_INSTRUCTIONS MKL_DEBUG_CPU_TYPE MKL_CBWR
BLIS_NUM_THREADS VECLIB_MAXIMUM_THREADS NPY_DISABLE_CPU_FEATURES XLA_FLAGS JAX_ENABLE_X64
JAX_PLATFORMS PYTORCH_CUDA_ALLOC_CONF TORCH_ALLOW_TF32_CUBLAS_OVERRIDE CUDA_VISIBLE_DEVICES
NVIDIA_TF32_OVERRIDE MALLOC_ARENA_MAX LD_PRELOAD GLIBC_TUNABLES TWOLAYER_VECTOR_BYTES
"""
DO_NOT = """
HOME PATH PWD LANG TERM COLUMNS PYTHONPATH PYTHONHASHSEED TWOLAYER_STORE NUMBA_CACHE_DIR
NUMBA_COLOR_SCHEME NUMBA_DUMP_ASSEMBLY NUMBA_SHOW_HELP CUDA_HOME CUDA_VERSION CUPY_CACHE_DIR
TORCH_HOME TORCHINDUCTOR_CACHE_DIR TRITON_CACHE_DIR JAX_COMPILATION_CACHE_DIR
NVIDIA_REQUIRE_CUDA KMP_DUPLICATE_LIB_OK KMP_INIT_AT_FORK
"""


@pytest.mark.parametrize("name", [*MATTER.split(), *DO_NOT.split()])
def test_the_store_knows_what_a_time_depends_on(monkeypatch, name):
    monkeypatch.delitem(given.ENVIRONMENT, name, raising=False)
    signature = hardware.signature.__wrapped__
    before = signature()["variables"]
    monkeypatch.setenv(name, "1")  # by a library, since
    assert signature()["variables"] == before
    monkeypatch.setitem(given.ENVIRONMENT, name, "1")
    assert (signature()["variables"] != before) is (name in MATTER.split())


def test_the_store_knows_what_a_file_of_numba_sets(monkeypatch, tmp_path):
    """As Numba takes it: from the current folder, where no variable says otherwise."""
    monkeypatch.chdir(tmp_path)
    file = tmp_path / ".numba_config.yaml"
    found = hardware.signature.__wrapped__
    before = set(found()["variables"])
    file.write_text("opt: 0\nboundscheck: true\ncache_dir: /elsewhere\n")
    assert set(found()["variables"]) - before == {"NUMBA_OPT=0", "NUMBA_BOUNDSCHECK=1"}
    assert hardware.environment()["NUMBA_OPT"] == "0"
    monkeypatch.setitem(given.ENVIRONMENT, "NUMBA_OPT", "2")
    assert "NUMBA_OPT=2" in found()["variables"]
    monkeypatch.delenv("NUMBA_NUM_THREADS", raising=False)
    file.write_text("num_threads: 0\n")
    with pytest.raises(ValueError, match=r"^NUMBA_NUM_THREADS: expected a positive integer"):
        settings.check_environment()
    for nothing in ("", "- 1\n", "a: [\n"):
        file.write_text(nothing)
        assert set(found()["variables"]) - before <= {"NUMBA_OPT=2"}


def test_a_process_is_started_without_what_a_library_has_set(monkeypatch):
    monkeypatch.setitem(given.ENVIRONMENT, "MKL_NUM_THREADS", "3")
    for name in ("MKL_NUM_THREADS", "OMP_NUM_THREADS", "MINE"):
        monkeypatch.setenv(name, "1")
    found = hardware.environment()
    assert [found.get(name) for name in ("MKL_NUM_THREADS", "OMP_NUM_THREADS", "MINE")] == [
        "3", None, "1"
    ]  # fmt: skip


@pytest.mark.parametrize("key", sorted(hardware.signature()))
def test_figures_are_found_on_the_same_machine_only(key, monkeypatch, tmp_path):
    store = tl.machine.store.Store(tmp_path / "store.sqlite")
    tl.machine.store.keep(store, "a figure", {"seconds": 1.0})
    assert len(tl.machine.store.find(store, "a figure")) == 1
    changed = hardware.signature() | {key: "another"}
    monkeypatch.setattr(hardware, "signature", lambda: changed)
    assert tl.machine.store.find(store, "a figure") == []

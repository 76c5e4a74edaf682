"""The peers, PyTorch and JAX: optional, imported late, and gone without a trace after a call."""

import importlib.util
import os
import shutil
import sys

import numpy as np
import pytest

import twolayer as tl
from twolayer.checking import cases

PEERS = {"torch": "torch", "torch-compile": "torch", "jax": "jax"}
two_cpus = pytest.mark.skipif(tl.machine.hardware.cpu_count() < 2, reason="needs two CPUs")


@pytest.fixture(params=PEERS)
def peer(request):
    variant = tl.variants.get(request.param)
    if reason := variant.unavailable():
        pytest.skip(f"{variant.name} {reason}")
    return variant


def make_plan(variant, threads=None, dtype="float32"):
    case = cases.problem(tl.Network("tanh", "softmax"), tl.Shape(300, 7, 9, 3), dtype)
    return variant.plan(case.net, case.X, case.Y, case.theta, threads)


@pytest.mark.parametrize("name", PEERS)
def test_a_missing_package_is_the_reason(name, monkeypatch):
    find_spec = importlib.util.find_spec

    def without(module, package=None):
        return None if module == PEERS[name] else find_spec(module, package)

    monkeypatch.setattr(importlib.util, "find_spec", without)
    variant = tl.variants.get(name)
    assert variant.unavailable() == f"needs the package {PEERS[name]}"
    with pytest.raises(RuntimeError, match=f"needs the package {PEERS[name]}"):
        make_plan(variant)


def test_a_missing_compiler_is_the_reason(monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: True)
    monkeypatch.setattr(shutil, "which", lambda name: None)
    monkeypatch.setenv("CXX", "no-such-compiler")
    reason = tl.variants.get("torch-compile").unavailable()
    assert reason == "needs the C++ compiler no-such-compiler"


def test_importing_twolayer_imports_no_peer(run_python):
    code = (
        "import sys, twolayer\n"
        "[variant.unavailable() for variant in twolayer.variants.REGISTRY]\n"
        "print({'torch', 'jax'} & set(sys.modules))"
    )
    assert run_python(code).strip() == "set()"


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_step_moves_the_parameters_against_the_gradient(peer, dtype):
    plan = make_plan(peer, 1, dtype)
    before = plan.theta
    loss, gradient = plan.gradient()
    assert plan.step(0.5) == pytest.approx(loss, rel=1e-6)
    for old, slope, new in zip(before, gradient, plan.theta, strict=True):
        assert new.dtype == dtype
        assert not np.array_equal(new, old)
        np.testing.assert_allclose(new, old - np.asarray(0.5, dtype) * slope, rtol=1e-5, atol=1e-6)
    assert plan.step(0.5) < loss


@two_cpus
@pytest.mark.parametrize("name", ["torch", "torch-compile"])
@pytest.mark.parametrize("threads", [1, 2])
def test_pytorchs_threads_are_used_and_put_back(name, threads, monkeypatch):
    torch = pytest.importorskip("torch")
    if reason := tl.variants.get(name).unavailable():
        pytest.skip(reason)
    initial = torch.get_num_threads()
    torch.set_num_threads(3 - threads)
    try:
        plan = make_plan(tl.variants.get(name), threads)
        inside = []
        item = torch.Tensor.item
        monkeypatch.setattr(
            torch.Tensor, "item", lambda self: inside.append(torch.get_num_threads()) or item(self)
        )
        plan.step(0.1)
        assert inside == [threads]
        assert torch.get_num_threads() == 3 - threads
    finally:
        torch.set_num_threads(initial)


BUSY = """
import sys
import psutil
import twolayer as tl
from twolayer.checking import cases

case = cases.problem(tl.Network("tanh", "softmax"), tl.Shape(20000, 64, 128, 10), "float32")
plan = tl.variants.get(sys.argv[1]).plan(*case[1:5], threads=int(sys.argv[2]))
plan.step(1e-6)

def used():
    return {t.id: t.user_time + t.system_time for t in psutil.Process().threads()}

before, total = used(), 0.0
while total < 0.6:  # seconds of CPUs; the kernel counts them in hundredths
    plan.step(1e-6)
    spent = [seconds - before.get(thread, 0.0) for thread, seconds in used().items()]
    total = sum(spent)
print(sum(seconds > 0.1 * total for seconds in spent))
"""


@two_cpus
@pytest.mark.skipif(sys.platform != "linux", reason="other systems count CPU time by process")
@pytest.mark.parametrize("name", [*PEERS, "numpy", "numba-fused"])
@pytest.mark.parametrize("threads", [1, 2])
def test_so_many_threads_are_busy_as_were_asked_for(name, threads, run_python):
    if reason := tl.variants.get(name).unavailable():
        pytest.skip(reason)
    assert int(run_python(BUSY, name, threads)) == threads


def test_the_environment_is_as_before_once_jax_has_started(run_python):
    pytest.importorskip("jax")
    code = (
        "import os, twolayer as tl\n"
        "from twolayer.checking import cases\n"
        "case = cases.problem(tl.Network(), tl.Shape(9, 2, 3, 1), 'float32')\n"
        "tl.variants.get('jax').plan(*case[1:5], threads=1)\n"
        "print(os.environ.get('PJRT_NPROC'))"
    )
    assert run_python(code).strip() == "None"
    assert run_python(code, PJRT_NPROC="2").strip() == "2"


def test_jax_keeps_its_own_precision():
    jax = pytest.importorskip("jax")
    before = jax.numpy.ones(1, "float32").dtype, jax.config.jax_enable_x64
    make_plan(tl.variants.get("jax"), dtype="float64").step(0.1)
    assert (jax.numpy.ones(1, "float32").dtype, jax.config.jax_enable_x64) == before


def test_more_plans_than_pytorch_allows_compilations():
    """PyTorch refuses a function that it compiled too often; plans share none."""
    dynamo = pytest.importorskip("torch._dynamo")
    variant = tl.variants.get("torch-compile")
    if reason := variant.unavailable():
        pytest.skip(reason)
    with dynamo.config.patch(recompile_limit=1):
        for n in (20, 30, 40):
            case = cases.problem(tl.Network("identity", "squared"), tl.Shape(n, 2, 3, 1), "float32")
            plan = variant.plan(case.net, case.X, case.Y, case.theta, 1)
            assert np.isfinite(plan.step(0.1))


FORK = """
import os, sys, warnings
import twolayer as tl
from twolayer.checking import cases

case = cases.problem(tl.Network(), tl.Shape(300, 7, 9, 3), "float32")
variant = tl.variants.get(sys.argv[1])
plan = variant.plan(case.net, case.X, case.Y, case.theta)
warnings.simplefilter("ignore")  # JAX and newer Pythons warn of forks beside threads
child = os.fork()
if child == 0:
    for call in (lambda: plan.step(0.1), lambda: variant.plan(*case[1:5])):
        try:
            call()
        except RuntimeError as error:
            print(error, flush=True)
    os._exit(0)
print("status", os.waitpid(child, 0)[1])
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system cannot fork")
def test_a_forked_process_is_told_why_it_cannot_go_on(peer, run_python):
    output = run_python(FORK, peer.name)
    assert output.count("was forked from process") == 2
    assert "status 0" in output

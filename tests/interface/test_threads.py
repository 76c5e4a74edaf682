"""Several Python threads, and the thread settings of others."""

import threading
from concurrent.futures import ThreadPoolExecutor

import numba
import numpy as np
import pytest
from threadpoolctl import ThreadpoolController

import twolayer as tl
from twolayer.checking import cases
from twolayer.kernels.cpu import epochs
from twolayer.machine import threads
from twolayer.machine.hardware import cpu_count

NET = tl.Network("tanh", "softmax")
SHAPE = tl.Shape(700, 7, 30, 3)  # enough for numba-fused to run in parallel
X = cases.problem(NET, SHAPE, "float32").X
two_cpus = pytest.mark.skipif(cpu_count() < 2, reason="needs two CPUs")


def make_plan(variant, count=1, seed=0):
    _, net, X, Y, theta = cases.problem(NET, SHAPE, "float32", seed)
    return variant.plan(net, X, Y, theta, count)


def bits(plan, steps=4):
    losses = [plan.step(0.1) for _ in range(steps)]
    return [losses, *(array.tobytes() for array in (*plan.theta, plan.predict(X[:50])))]


def at_once(functions):
    """The results of functions that start together, each in a Python thread of its own."""
    start = threading.Barrier(len(functions))

    def run(function):
        start.wait(60)
        return function()

    with ThreadPoolExecutor(len(functions)) as pool:
        return list(pool.map(run, functions))


@two_cpus
def test_the_shape_runs_in_parallel():
    assert make_plan(tl.variants.get("numba-fused"), 2).engine._cut.chunks > 1


@two_cpus
def test_different_plans_in_several_python_threads(variant):
    seeds = range(4)
    expected = [bits(make_plan(variant, 1 + seed % 2, seed)) for seed in seeds]
    plans = [make_plan(variant, 1 + seed % 2, seed) for seed in seeds]
    assert at_once([lambda plan=plan: bits(plan) for plan in plans]) == expected


@two_cpus
def test_plans_made_in_several_python_threads(variant):
    expected = bits(make_plan(variant, 2))
    assert at_once([lambda: bits(make_plan(variant, 2))] * 2) == [expected] * 2


def test_one_plan_in_several_python_threads(variant):
    alone, shared = make_plan(variant), make_plan(variant)
    expected = sorted((alone.step(0.1) for _ in range(12)), reverse=True)
    X = np.ones((7, shared.shape.d), shared.dtype)

    def work():
        losses = []
        for _ in range(3):
            losses.append(shared.step(0.1))
            shared.gradient(slice(5, 60))
            assert np.isfinite(shared.predict(X)).all()
        return losses

    losses = sorted((loss for part in at_once([work] * 4) for loss in part), reverse=True)
    assert losses == expected
    assert [a.tobytes() for a in shared.theta] == [a.tobytes() for a in alone.theta]


def blas_settings():
    threads._blas_pools()  # loads the libraries
    return [
        pool.num_threads for pool in ThreadpoolController().select(user_api="blas").lib_controllers
    ]


@two_cpus
@pytest.mark.parametrize("outside", [1, 2])
@pytest.mark.parametrize("count", [1, 2])
def test_settings_of_blas_are_put_back(variant, count, outside):
    blas_settings()
    with ThreadpoolController().limit(limits=outside, user_api="blas"):
        before = blas_settings()
        plan = make_plan(variant, count)
        assert blas_settings() == before
        for call in (lambda: plan.step(0.1), plan.gradient, lambda: plan.predict(X)):
            call()
            assert blas_settings() == before
        with pytest.raises(ValueError, match="mu"):
            plan.step(np.nan)
        assert blas_settings() == before


OVERLAP = """
import threading
from threadpoolctl import ThreadpoolController
from twolayer.machine import threads

threads._blas_pools()  # loads the libraries
pools = ThreadpoolController().select(user_api="blas").lib_controllers
settings = lambda: {pool.num_threads for pool in pools}
before = settings()
inside, leave = threading.Event(), threading.Event()
seen = []

def first():
    with threads.blas_threads(1):
        inside.set()
        leave.wait(60)
    seen.append(("first left", settings()))

def same():
    inside.wait(60)
    with threads.blas_threads(1):
        seen.append(("same", settings()))
        leave.set()
        stay.wait(60)
        seen.append(("same leaves", settings()))

def other():
    leave.wait(60)
    with threads.blas_threads(2):
        seen.append(("other", settings()))

stay = threading.Event()
workers = [threading.Thread(target=target) for target in (first, same, other)]
for worker in workers: worker.start()
leave.wait(60)
workers[0].join(0.2)  # gives the two others time to do what they must not do yet
workers[2].join(0.2)
stay.set()
for worker in workers: worker.join(60)
assert seen[:2] == [("same", {1}), ("same leaves", {1})], seen
assert sorted(seen[2:]) == [("first left", {2}), ("other", {2})], seen
assert settings() == before == {2}, settings()
"""


@two_cpus
def test_settings_of_blas_are_put_back_by_threads_that_overlap(run_python):
    run_python(OVERLAP, OPENBLAS_NUM_THREADS="2")


def watch(monkeypatch, look):
    """Have that done at every call of a kernel."""

    def watched(kernel):
        def run(*arguments):
            look()
            return kernel(*arguments)

        return run

    for name in ("epoch", "over_chunks"):
        made = getattr(epochs, name)
        monkeypatch.setattr(epochs, name, lambda parallel, made=made: watched(made(parallel)))


@two_cpus
def test_blas_has_one_thread_while_numba_has_several(monkeypatch):
    plan = make_plan(tl.variants.get("numba-blas"), 2)
    seen = []
    watch(
        monkeypatch,
        lambda: seen.extend(pool.num_threads for pool in threads._blas_pools()),
    )
    plan.gradient()
    plan.predict(X)
    assert len(seen) >= 2
    assert set(seen) == {1}


@two_cpus
def test_a_plan_asks_numba_for_its_threads(monkeypatch):
    """Where Numba was set to fewer before."""
    _, net, X, Y, theta = cases.problem(NET, tl.Shape(4000, 7, 9, 3), "float32")
    plan = tl.variants.get("numba-fused").plan(net, X, Y, theta, 2)
    seen = []
    watch(monkeypatch, lambda: seen.append(numba.get_num_threads()))
    before = numba.get_num_threads()
    numba.set_num_threads(1)
    try:
        plan.step(0.1)
        plan.predict(X)
    finally:
        numba.set_num_threads(before)
    assert seen == [2, 2]


def test_settings_of_blas_are_put_back_after_an_error():
    before = blas_settings()
    with pytest.raises(KeyError), threads.blas_threads(1 if before[0] != 1 else 2):
        raise KeyError
    assert blas_settings() == before


@two_cpus
def test_settings_of_numba_are_put_back(variant):
    import numba

    before = numba.get_num_threads()
    make_plan(variant, 1).step(0.1)
    assert numba.get_num_threads() == before


MANY = """
import sys, threading
import twolayer as tl
from twolayer.checking import cases

import numba
net = tl.Network("tanh", "softmax")
_, _, X, Y, theta = cases.problem(net, tl.Shape(300, 7, 9, 3), "float32")
results = []

def work(name):
    plan = tl.variants.get(name).plan(net, X, Y, theta, 2)
    results.append([name, *(plan.step(0.1) for _ in range(20))])

names = [n for n in ("numba-parallel", "numba-blas") for _ in range(3)]
workers = [threading.Thread(target=work, args=(name,)) for name in names]
for worker in workers: worker.start()
for worker in workers: worker.join()
assert len(results) == 6
assert len(set(map(tuple, results))) == 2, results
print(numba.threading_layer())
"""


@two_cpus
@pytest.mark.parametrize("layer", ["default", "workqueue"])
def test_python_threads_do_not_kill_the_process(layer, run_python):
    printed = run_python(MANY, NUMBA_THREADING_LAYER=layer).strip()
    assert printed == layer or layer == "default"


COMPILED = """
import gc
import twolayer as tl
from numba.core.registry import CPUDispatcher
from twolayer.checking import cases
from twolayer.kernels.cpu import epochs

case = cases.problem(tl.Network("tanh", "squared"), tl.Shape(4000, 7, 90, 3), "float32")
plan = tl.variants.get("numba-fused").plan(*case[1:], threads=2)
def compiled():
    kernels = [k for k in gc.get_objects() if type(k) is CPUDispatcher]
    found = [len(epochs.epoch(parallel).signatures) for parallel in (True, False)]
    return *found, sum(len(k.signatures) for k in kernels)
before = compiled()
plan.step(0.1)
assert compiled() == before, (before, compiled())
print(*before[:2])
"""


@two_cpus
@pytest.mark.compiled
def test_making_a_plan_compiles_what_its_epochs_run_and_no_more(run_python):
    assert run_python(COMPILED) == "1 0\n"

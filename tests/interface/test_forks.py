"""Forked processes: what works in them, and what says why it does not."""

import os
import re
from pathlib import Path

import numpy as np
import pytest

import twolayer as tl
from twolayer.checking import cases
from twolayer.machine import forks
from twolayer.machine.hardware import cpu_count

two_cpus = pytest.mark.skipif(cpu_count() < 2, reason="needs two CPUs")
can_fork = pytest.mark.skipif(not hasattr(os, "fork"), reason="this system cannot fork")


FORK = """
import os, sys, warnings
import numpy as np
import twolayer as tl
from twolayer.checking import cases

warnings.simplefilter("ignore", DeprecationWarning)  # newer Pythons warn of forks beside threads
name, before = sys.argv[1:]
net = tl.Network("tanh", "softmax")
_, _, X, Y, theta = cases.problem(net, tl.Shape(4000, 32, 32, 3), "float32")
variant = tl.variants.get(name)
plan = None
if before == "plan":
    plan = variant.plan(net, X, Y, theta, 2)
    plan.step(0.1)
elif before == "probe":
    from twolayer.measuring.roofline import probe
    probe(threads=2, seconds=0.01)
elif before == "other":
    import numba
    @numba.njit(parallel=True)
    def total(x):
        s = 0.0
        for i in numba.prange(x.size):
            s += x[i]
        return s
    total(np.ones(100))

child = os.fork()
if child == 0:
    try:
        if plan is None:
            plan = variant.plan(net, X, Y, theta, 2)
        print("loss", plan.step(0.1), flush=True)
    except RuntimeError as error:
        print(error, flush=True)
    os._exit(0)
print("status", os.waitpid(child, 0)[1])
"""
SENTENCE = "was forked from process"
PARALLEL = ("numba-parallel", "numba-blas", "numba-fused")
# Of what has no threads of its own, numpy stands for these where tests are to be quick.
ALONE = ("python-loops", "numpy-samples", "numba-loops")
NAMES = [
    pytest.param(name, marks=pytest.mark.slow) if name in ALONE else name
    for name in tl.variants.names()
    if name.startswith(("python", "num"))  # others have threads that others made
]


@two_cpus
@can_fork
@pytest.mark.parametrize("before", ["nothing", "plan"])
@pytest.mark.parametrize("name", NAMES)
def test_forked_process_works_or_says_why_not(name, before, run_python):
    output = run_python(FORK, name, before)
    assert "status 0" in output
    if before == "plan" and name in PARALLEL:
        assert SENTENCE in output
        assert "multiprocessing.get_context('spawn')" in output
    else:
        assert "loss " in output


@two_cpus
@can_fork
@pytest.mark.parametrize("before", ["probe", "other"])
def test_a_pool_that_others_launched_counts(before, run_python):
    output = run_python(FORK, "numba-parallel", before)
    assert "status 0" in output
    assert SENTENCE in output


HELD = """
import os, sys, threading, warnings
import numpy as np
import twolayer as tl
from twolayer.checking import cases
from twolayer.machine import threads

warnings.simplefilter("ignore", DeprecationWarning)  # newer Pythons warn of forks beside threads
what = sys.argv[1]
_, net, X, Y, theta = cases.problem(tl.Network("tanh", "softmax"), tl.Shape(50, 7, 9, 3), "float32")
plan = tl.variants.get("numpy").plan(net, X, Y, theta, 1)
inside, leave = threading.Event(), threading.Event()

def use():
    if what == "plan":
        return plan.step(0.1)
    if what == "blas":
        with threads.blas_threads(2):
            pass
    if what == "numba":
        with threads.numba_threads(2):
            pass

def hold():
    holding = {
        "plan": lambda: plan._turn,
        "blas": lambda: threads.blas_threads(1),
        "numba": lambda: threads._one_at_a_time,
    }[what]()
    with holding:
        inside.set()
        leave.wait(100)

threads._blas_pools()
if what == "numba":  # as the workqueue layer has it, but with no thread that a child would lack
    threads._pool_launched = lambda: False
    threads.numba.threading_layer = lambda: "workqueue"
holder = threading.Thread(target=hold)
holder.start()
inside.wait(100)
child = os.fork()
if child == 0:
    use()
    os._exit(7)
for _ in range(100):
    done, status = os.waitpid(child, os.WNOHANG)
    if done:
        break
    threading.Event().wait(0.1)
else:
    os.kill(child, 9)
    os.waitpid(child, 0)
    status = "waits"
leave.set()
holder.join(100)
use()  # and the parent's locks are as they were
print(status if isinstance(status, str) else os.waitstatus_to_exitcode(status))
"""


@two_cpus
@can_fork
@pytest.mark.parametrize("what", ["plan", "blas", "numba"])
def test_a_child_forked_while_a_thread_holds_a_lock_does_not_wait(what, run_python):
    assert run_python(HELD, what).strip() == "7"


def test_every_lock_is_made_anew_for_a_child(variant):
    """By what runs in a child after a fork, run here."""
    case = cases.problem(tl.Network("tanh", "softmax"), tl.Shape(70, 7, 30, 3), "float32")
    plan = variant.plan(case.net, case.X, case.Y, case.theta, 1)
    held = plan._turn
    with held:
        forks._after_fork()
        assert plan._turn is not held
        assert np.isfinite(plan.step(0.1))


def test_no_lock_is_forgotten():
    """A lock is a `renewed` one, in every module."""
    package = Path(tl.__file__).parent
    for path in (*package.rglob("*.py"), *(package / "variants").rglob("*.py")):
        if path.name != "forks.py":
            assert not re.search(r"\b(R?Lock|Semaphore)\(\)", path.read_text()), path

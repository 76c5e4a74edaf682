"""What a plan holds and a step allocates is what the variant declares."""

import tracemalloc

import numpy as np
import pytest

import twolayer as tl
from twolayer.checking import cases
from twolayer.checking.verify import ORACLE
from twolayer.composed import cluster
from twolayer.engines.packed import FlatWeights
from twolayer.machine.hardware import cpu_count
from twolayer.network import DTYPES


def peak_of_step(variant, n):
    cluster.close()  # its threads allocate too
    net, shape = tl.Network("tanh", "softmax"), tl.Shape(n, 3, 16, 16)
    _, _, X, Y, theta = cases.problem(net, shape, "float32")
    plan = variant.plan(net, X, Y, theta, 1)
    plan.step(0.1)
    tracemalloc.start()
    try:
        plan.step(0.1)
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


def test_step_allocates_no_array_that_grows_with_n(variant):
    if variant.device == "cluster":
        pytest.skip("the graph of an epoch grows with the number of chunks")
    least = 64 if variant.name == ORACLE else 2048  # more than the rows of any block
    growth = peak_of_step(variant, 2 * least) - peak_of_step(variant, least)
    assert growth < least  # a byte a row


MEMORY = """
import sys
import numpy as np
import twolayer as tl

def status(key):
    with open("/proc/self/status") as lines:
        return next(int(line.split()[1]) << 10 for line in lines if line.startswith(key))

variant = tl.variants.get(sys.argv[1])
net = tl.Network("tanh", "squared")
n = 1 << 22
X = np.ones((n, 1), "float32")
Y = np.ones((n, 1), "float32")
theta = net.init(1, 4, 1)
plan = variant.plan(net, X[:100], Y[:100], theta, 1)
plan.step(0.1)
before = status("VmRSS")
plan = variant.plan(net, X, Y, theta, 1)
with open("/proc/self/clear_refs", "w") as file:
    file.write("5")  # forgets the largest size that the process had
plan.step(1e-3)
plan.step(1e-3)
print(status("VmHWM") - before, variant.workspace(plan.shape, 4, 1))
"""


# They compute sample by sample, so that they take a second more than the others.
LONG = ("numba-loops", "numba-parallel")


@pytest.mark.parametrize(
    "name",
    [
        pytest.param(name, marks=pytest.mark.slow) if name in LONG else name
        for name in tl.variants.names()
        if name.startswith("num")
    ],
)
def test_no_more_memory_is_used_than_declared(name, run_python):
    reason = tl.variants.get(name).unavailable()
    if reason or name == "numpy-samples":
        pytest.skip(f"{name} {reason or 'takes minutes for so many samples'}")
    try:
        open("/proc/self/clear_refs", "w").close()
    except OSError:
        pytest.skip("this system does not tell how much memory a process had at most")
    used, declared = map(int, run_python(MEMORY, name).split())
    assert used < declared + (1 << 22)  # a byte a row beyond what it said


def memory_of(plan):
    """Bytes of the arrays that a plan holds beyond X, Y and two copies of θ, each memory once.

    θ and ∇L in panels are no such copies.
    """
    weights, own = plan.weights, (plan.X, plan.Y)
    if type(weights) is tl.Weights:
        own += (*weights.theta, *weights.gradient)
    elif type(weights) is FlatWeights:
        own += (weights.theta, weights.gradient)
    seen = {base_of(array).ctypes.data for array in own}
    total = 0
    for value in (*vars(plan.engine).values(), *vars(weights).values()):
        value = list(value.values()) if isinstance(value, dict) else value
        for array in value if isinstance(value, (tuple, list)) else (value,):
            if isinstance(array, np.ndarray) and base_of(array).ctypes.data not in seen:
                seen.add(base_of(array).ctypes.data)
                total += base_of(array).nbytes
    return total


def base_of(array):
    while isinstance(array.base, np.ndarray):
        array = array.base
    return array


WIDE = [  # what one size alone takes is most of it; more rows than blocks in each of two threads
    tl.Shape(300, 3, 700, 900), tl.Shape(600, 900, 70, 2), tl.Shape(6000, 9, 5, 3),
    tl.Shape(600, 1, 2000, 1), tl.Shape(600, 2000, 1, 1), tl.Shape(600, 1, 1, 2000),
]  # fmt: skip


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", [n for n in tl.variants.names() if n.startswith("numba")])
def test_a_plan_declares_what_it_holds(name, dtype):
    variant = tl.variants.get(name)
    net = tl.Network("tanh", "squared")
    for shape in WIDE:
        for threads in range(1, min(2, cpu_count()) + 1):
            case = cases.problem(net, shape, dtype)
            plan = variant.plan(net, case.X, case.Y, case.theta, threads)
            held = memory_of(plan)
            declared = variant.workspace(shape, np.dtype(dtype).itemsize, threads)
            lines = 2048 + 512 * threads  # that rows begin on
            assert declared <= held <= declared + lines, (shape, threads)

"""What kernels touch: nothing beside their arrays, and the right place however far away it is."""

import os
import subprocess
import sys

import pytest

import twolayer as tl
from twolayer.kernels.target import TARGET, TARGETS, VARIABLE
from twolayer.network import DTYPES

pytestmark = [
    pytest.mark.compiled,
    pytest.mark.skipif(sys.platform != "linux", reason="asks Linux for pages"),
]

# argv: variants, dtype, threads. Prints "all ran"; what is under way stands in the last line.
GUARDED = """
import ctypes, mmap, sys
import numpy as np
import twolayer as tl
from twolayer import cases

libc = ctypes.CDLL(None, use_errno=True)
kept = []

def guarded(array, at_end):
    \"\"\"A copy that ends, or begins, at a page that nobody may touch.\"\"\"
    page = mmap.PAGESIZE
    room = -(-array.nbytes // page) * page
    memory = mmap.mmap(-1, room + 2 * page)
    base = ctypes.addressof(ctypes.c_char.from_buffer(memory))
    for guard in (base, base + page + room):
        if libc.mprotect(ctypes.c_void_p(guard), ctypes.c_size_t(page), 0):
            raise OSError(ctypes.get_errno(), "mprotect")
    kept.append(memory)
    start = page + (room - array.nbytes if at_end else 0)
    view = np.frombuffer(memory, array.dtype, array.size, start).reshape(array.shape)
    view[...] = array
    return view

names, dtype, threads = sys.argv[1].split(","), sys.argv[2], int(sys.argv[3])
net = tl.Network("tanh", "squared")
SHAPES = (
    (1, 1, 1, 1), (2, 3, 5, 2), (13, 17, 31, 3), (7, 16, 33, 17), (61, 29, 65, 5), (25, 40, 32, 33),
    (97, 11, 15, 1), (500, 18, 35, 2), (40, 300, 17, 2), (1100, 5, 48, 4),
)
if "poke" in sys.argv:  # what a read of one number too many does
    X = guarded(np.zeros(3, dtype), "end" in sys.argv)
    place = X.ctypes.data + (X.nbytes if "end" in sys.argv else -1)
    print("poked", flush=True)
    ctypes.c_char.from_address(place).value
    sys.exit()
for name in names:
    for shape in SHAPES:
        for at_end in (True, False):
            print(name, dtype, shape, "the end" if at_end else "the start", flush=True)
            case = cases.problem(net, tl.Shape(*shape), dtype)
            X, Y, V, W, more = (
                guarded(a, at_end) for a in (case.X, case.Y, *case.theta, case.X[::-1])
            )
            plan = tl.variants.get(name).plan(net, X, Y, tl.Parameters(V, W), threads)
            assert plan.X is X or np.shares_memory(plan.X, X)
            for array in (X, Y, V, W):
                assert np.isfinite(array).all()
            # What a plan allocated for θ and F, at a guard too, as far as it keeps them plainly.
            plan.V, plan.W = (guarded(a, at_end) for a in (plan.V, plan.W))
            for part in vars(plan):
                value = vars(plan)[part]
                if isinstance(value, np.ndarray) and part.startswith("_") and value.size and \\
                        value.flags.c_contiguous and value.ndim < 3:
                    setattr(plan, part, guarded(value, at_end))
            if hasattr(plan, "_bind"):
                plan._arguments = plan._bind(plan.X, plan.Y)
            plan.theta = tl.Parameters(V, W)
            plan.step(0.1)
            plan.gradient(slice(shape[0] // 2, shape[0]))
            plan.predict(more)
            F = guarded(np.empty(Y.shape, Y.dtype), at_end)
            plan._forward(more, F)
print("all ran")
"""
NAMES = [name for name in tl.variants.names() if name.startswith("numba")]


def run_guarded(*arguments, **environment):
    done = subprocess.run(
        [sys.executable, "-c", GUARDED, *map(str, arguments)],
        env=os.environ | environment, capture_output=True, text=True, check=False, timeout=300,
    )  # fmt: skip
    return done.returncode, done.stdout.strip().rpartition("\n")[2], done.stderr


@pytest.mark.parametrize("side", ["end", "start"])
def test_a_guard_page_kills_who_touches_it(side):
    code, last, _ = run_guarded("numpy", "float32", 1, "poke", side)
    assert (code, last) == (-11, "poked")  # SIGSEGV


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("threads", [1, 2])
def test_nothing_beside_an_array_is_touched(threads, dtype):
    if threads > tl.machine.cpu_count():
        pytest.skip("needs two CPUs")
    code, last, error = run_guarded(",".join(NAMES), dtype, threads)
    assert (code, last) == (0, "all ran"), f"{last}: {error}"


@pytest.mark.slow
@pytest.mark.parametrize("text", ["16", "16x32", "32"])
@pytest.mark.parametrize("dtype", DTYPES)
def test_nothing_beside_an_array_is_touched_with_other_vectors(dtype, text):
    if TARGETS[text].vector_bytes > TARGET.vector_bytes:
        pytest.skip("this machine's vectors are narrower")
    code, last, error = run_guarded("numba-fused", dtype, 1, **{VARIABLE: text})
    assert (code, last) == (0, "all ran"), f"{last}: {error}"

"""What kernels touch: nothing beside their arrays, and the right place however far away it is."""

import os
import subprocess
import sys

import pytest

import twolayer as tl
from twolayer.kernels.compiler.target import TARGET, TARGETS, VARIABLE
from twolayer.network import DTYPES

pytestmark = [
    pytest.mark.compiled,
    pytest.mark.skipif(sys.platform != "linux", reason="asks Linux for pages"),
]

GUARD = """
import ctypes, mmap, sys
import numpy as np
import twolayer as tl

libc = ctypes.CDLL(None, use_errno=True)
kept = []

def guarded(array, at_end):
    \"\"\"A copy that ends, or begins, at a page that nobody may touch.\"\"\"
    page = mmap.PAGESIZE
    room = max(1, -(-array.nbytes // page)) * page
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

"""
# argv: variants, dtype, threads. Prints "all ran"; what is under way stands in the last line.
GUARDED = """
from twolayer.checking import cases
from twolayer.kernels.cpu import blas, loops
from twolayer.kernels.formulas.updates import UPDATES
from twolayer.variants import numba_blas, numba_fused

names, dtype, threads = sys.argv[1].split(","), sys.argv[2], int(sys.argv[3])
squared, softmax = (tl.Network("tanh", loss) for loss in ("squared", "softmax"))
SHAPES = (
    (1, 1, 1, 1), (2, 3, 5, 2), (13, 17, 31, 3), (7, 16, 33, 17), (61, 29, 65, 5), (25, 40, 32, 33),
    (97, 11, 15, 1), (9, 23, 33, 2), (14, 35, 40, 1), (500, 18, 35, 2), (40, 300, 17, 2),
    (1100, 5, 48, 4), (1100, 7, 3, 4), (61, 40, 2, 5), (40, 300, 100, 3), (24, 400, 300, 9),
)
SIZES = {
    "numba-fused": lambda engine: numba_fused._buffers(engine.shape, engine._cut),
    "numba-blas": lambda engine: blas.buffers(
        engine.shape, *numba_blas.blocking(engine.shape, engine.dtype.itemsize, engine.threads)
    ),
}
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
            net = softmax if shape[0] % 2 and shape[3] > 1 else squared
            case = cases.problem(net, tl.Shape(*shape), dtype)
            if net is softmax:
                case = cases.labelled(case)
            X, Y, V, W, more = (
                guarded(a, at_end) for a in (case.X, case.Y, *case.theta, case.X[::-1])
            )
            plan = tl.variants.get(name).plan(net, X, Y, tl.Parameters(V, W), threads)
            assert plan.X is X or np.shares_memory(plan.X, X)
            for array in (X, Y, V, W):
                assert np.isfinite(array).all()
            # What was allocated, at a guard too: θ and ∇L in their own form, workspaces.
            engine, weights = plan.engine, plan.weights
            for part, value in list(vars(engine).items()):
                if isinstance(value, np.ndarray) and value.dtype == dtype and value.ndim < 3:
                    setattr(engine, part, guarded(value, at_end))
            for part in ("theta", "gradient"):
                arrays = getattr(weights, part)
                alone = isinstance(arrays, np.ndarray)
                held = [guarded(a, at_end) for a in ([arrays] if alone else arrays)]
                setattr(weights, part, held[0] if alone else tl.Parameters(*held))
            # Buffers of exactly the sizes that they must have.
            sizes = SIZES.get(name, lambda engine: loops.buffers(engine.shape, engine._chunks))
            engine._buffers = {
                part: guarded(np.full(size, np.nan, dtype), at_end)
                for part, size in sizes(engine).items()
            }
            engine._bind()
            engine.hold(X, Y)  # which has addresses of code put into the records
            plan.Y = guarded(plan.Y, at_end)  # may be labels
            plan.theta = tl.Parameters(V, W)
            plan.step(0.1)
            plan.gradient(slice(shape[0] // 2, shape[0]))
            plan.slots = [tl.Parameters(0 * V, 0 * W)]
            weights.slots = tuple(guarded(slot, at_end) for slot in weights.slots)
            plan.update(UPDATES["descend_with_momentum"], (0.1, 0.9))
            plan.update(UPDATES["descend_with_momentum"], (0.1, 0.9), slice(0, min(7, shape[0])))
            plan.loss()
            plan.predict(more)
            F = guarded(np.empty(Y.shape, Y.dtype), at_end)
            engine.forward(more, weights.theta, F)
print("all ran")
"""
NAMES = [name for name in tl.variants.names() if name.startswith("numba")]


def run_guarded(*arguments, program=GUARDED, **environment):
    done = subprocess.run(
        [sys.executable, "-c", GUARD + program, *map(str, arguments)],
        env=os.environ | environment, capture_output=True, text=True, check=False, timeout=300,
    )  # fmt: skip
    return done.returncode, done.stdout.strip().rpartition("\n")[2], done.stderr


@pytest.mark.parametrize("side", ["end", "start"])
def test_a_guard_page_kills_who_touches_it(side):
    code, last, _ = run_guarded("numpy", "float32", 1, "poke", side)
    assert (code, last) == (-11, "poked")  # SIGSEGV


@pytest.mark.parametrize(
    ("threads", "dtype"),
    [
        (2, "float32"),
        pytest.param(1, "float32", marks=pytest.mark.slow),
        pytest.param(1, "float64", marks=pytest.mark.slow),
        pytest.param(2, "float64", marks=pytest.mark.slow),
    ],
)
def test_nothing_beside_an_array_is_touched(threads, dtype):
    if threads > tl.machine.hardware.cpu_count():
        pytest.skip("needs two CPUs")
    code, last, error = run_guarded(",".join(NAMES), dtype, threads)
    assert (code, last) == (0, "all ran"), error


@pytest.mark.slow
@pytest.mark.parametrize("text", ["16", "16x32", "32"])
@pytest.mark.parametrize("dtype", DTYPES)
def test_nothing_beside_an_array_is_touched_with_other_vectors(dtype, text):
    if TARGETS[text].vector_bytes > TARGET.vector_bytes:
        pytest.skip("this machine's vectors are narrower")
    code, last, error = run_guarded("numba-fused", dtype, 1, **{VARIABLE: text})
    assert (code, last) == (0, "all ran"), error


# argv: dtype. Each size of what a call reads and writes, at a guard.
EDGES = """
from numba import njit
from twolayer.kernels.compiler.target import TARGET
from twolayer.kernels.cpu.vectors import simd
from twolayer.kernels.cpu.vectors.panels import Panel
from twolayer.kernels.cpu.vectors.tiles import ADD, SCALE, WRITE

dtype = np.dtype(sys.argv[1])
width, H, code = TARGET.lanes(dtype.itemsize), TARGET.height, simd.addresses(dtype)

@njit
def product(how, C, a, b):
    (rows, lanes), length = C.shape, len(b)
    to, left, right = np.int64(C.ctypes.data), np.int64(a.ctypes.data), np.int64(b.ctypes.data)
    simd.product(
        code.product, C[0, 0], Panel(to, lanes, lanes), simd.as_it_lies(left, length),
        Panel(right, lanes, lanes), rows, length, how,
    )

@njit
def dots(address, out, a, b):
    of_a, length = simd.lying_rows(out[0, 0], np.int64(a.ctypes.data), a.shape[1])
    of_b, _ = simd.lying_rows(out[0, 0], np.int64(b.ctypes.data), a.shape[1])
    place = np.int64(out.ctypes.data), len(a)
    simd.dots(address, out[0, 0], place, of_a, of_b, length, (len(a), len(b)), True)

@njit
def transpose(address, out, a):
    to, source = np.int64(out.ctypes.data), np.int64(a.ctypes.data)
    simd.transpose(address, a[0, 0], to, len(a), source, a.shape[1], len(a), a.shape[1])

def call(function, address, *shapes):
    for at_end in (True, False):
        print(function.__name__, *shapes, "the end" if at_end else "the start", flush=True)
        kept.clear()
        function(address, *(guarded(np.zeros(shape, dtype), at_end) for shape in shapes))

for lanes in (*range(1, width + 1), 2 * width):
    for rows in (1, 2, H - 1, H + 1):
        for how in (WRITE, ADD, SCALE):
            call(product, how, (rows, lanes), (rows, 5), (5, lanes))
for length in range(1, 3 * width + 2):
    for rows, columns in ((1, 1), (3, 2), (5, 3), (8, 4), (9, 5)):
        call(dots, code.dots, (columns, rows), (rows, length), (columns, length))
for rows in range(1, 2 * width + 2):
    for columns in (1, width - 1, width, width + 1, 2 * width + 1):
        call(transpose, code.transpose, (columns, rows), (rows, columns))
print("all ran")
"""


@pytest.mark.parametrize("dtype", DTYPES)
def test_calls_of_every_size_touch_nothing_beside_their_arrays(dtype):
    code, last, error = run_guarded(dtype, program=EDGES)
    assert (code, last) == (0, "all ran"), error


# A file without contents, of which only the pages that are touched cost anything.
FAR = """
import sys, tempfile
import numpy as np
from numba import njit
from twolayer.kernels.cpu.vectors import simd
from twolayer.kernels.cpu.vectors.panels import Panel
from twolayer.kernels.cpu.vectors.simd import Length, Operand, Rows
from twolayer.kernels.cpu.vectors.tiles import WRITE
from twolayer.kernels.compiler.target import TARGET

H = TARGET.height
STRIDE = 2**30 + 8  # elements from one row to the next, or from one group to the next


@njit
def multiply(address, C, cs, a, at, ar, ac, ak, b, bs, rows, lanes, length):
    simd.product(
        address, C[0], Panel(np.int64(C.ctypes.data), cs, lanes),
        Operand(np.int64(a.ctypes.data), at, ar, ac, ak),
        Panel(np.int64(b.ctypes.data), bs, lanes), rows, length, WRITE,
    )


@njit
def spread(address, out, step, x, xs, rows, columns):
    simd.spread(address, x[0], out.ctypes.data, step, x.ctypes.data, xs, rows, columns)


@njit
def dots(address, out, step, z, row, panel, w, panels, shape):
    at, width = np.int64(z.ctypes.data), w.shape[1]
    of_w = np.int64(w.ctypes.data)
    simd.dots(
        address, z[0], (np.int64(out.ctypes.data), step), Rows(at, row, panel, at, row),
        Rows(of_w, 0, width, of_w, 0), Length(panels, 0, 0), shape, False,
    )


@njit
def transpose(address, out, step, a, a_step, rows, columns):
    to, source = np.int64(out.ctypes.data), np.int64(a.ctypes.data)
    simd.transpose(address, out[0], to, step, source, a_step, rows, columns)


random = np.random.default_rng(0)
numbers = lambda *shape: random.integers(-8, 9, shape).astype(dtype)
dtype = np.dtype(sys.argv[1])
lanes = 2 * TARGET.lanes(dtype.itemsize)
product, dot, copy, turn = simd.addresses(dtype)
with tempfile.NamedTemporaryFile() as file:
    size = (2 * H + 4) * STRIDE
    file.truncate(size * dtype.itemsize)
    far = np.memmap(file.name, dtype, "r+", shape=(size,))

    def fill(matrix, stride):
        for i, row in enumerate(matrix):
            far[i * stride : i * stride + len(row)] = row

    # The rows of a, then its columns, then b, then C, are far apart.
    rows, length = 2 * H - 1, 5
    a, b = numbers(rows, length), numbers(length, lanes)
    C = np.empty((rows, lanes), dtype)
    fill(a, STRIDE)
    apart = H * STRIDE, STRIDE
    multiply(product, C.reshape(-1), lanes, far, *apart, H, 1, b, lanes, rows, lanes, length)
    assert (C == a @ b).all(), "rows of a"
    a = numbers(5, 2 * H - 1)
    b = numbers(2 * H - 1, lanes)
    C = np.empty((5, lanes), dtype)
    fill(a.T, STRIDE)
    multiply(product, C.reshape(-1), lanes, far, H, 1, *apart, b, lanes, 5, lanes, rows)
    assert (C == a @ b).all(), "columns of a"
    fill(b, STRIDE)
    along = H * rows, rows, H, 1
    multiply(product, C.reshape(-1), lanes, a, *along, far, STRIDE, 5, lanes, rows)
    assert (C == a @ b).all(), "rows of b"
    a, b = numbers(2 * H - 1, 5), numbers(5, lanes)
    multiply(product, far, STRIDE, a, H * 5, 5, H, 1, b, lanes, 2 * H - 1, lanes, 5)
    for i, row in enumerate(a @ b):
        assert (far[i * STRIDE : i * STRIDE + lanes] == row).all(), "rows of C"

    x = numbers(5, 3 * H + 1)
    fill(x, STRIDE)
    step = H * 8
    out = np.empty(4 * step, dtype)
    spread(copy, out, step, far, STRIDE, 5, 3 * H + 1)
    for j in range(3 * H + 1):
        assert (out[j // H * step + j % H :][: 5 * H : H] == x[:, j]).all(), "spread from far"
    spread(copy, far, STRIDE, x, 3 * H + 1, 5, 3 * H + 1)
    for j in range(3 * H + 1):
        assert (far[j // H * STRIDE + j % H :][: 5 * H : H] == x[:, j]).all(), "spread to far"

    z, w = numbers(4, 3, lanes), numbers(4, lanes)
    fill(z.reshape(4, -1), STRIDE)
    out = np.empty(6, dtype)
    dots(dot, out, 3, far, lanes, STRIDE, w, 4, (3, 2))
    expected = np.einsum("pil,pl->i", z, w)
    assert (out.reshape(2, 3) == expected).all(), "panels of dots"
    fill(z.transpose(1, 0, 2).reshape(3, -1), STRIDE)
    dots(dot, out, 3, far, STRIDE, lanes, w, 4, (3, 2))
    assert (out.reshape(2, 3) == expected).all(), "rows of dots"
    near = z.transpose(1, 0, 2).ravel()
    dots(dot, far, STRIDE, near, 4 * lanes, lanes, w, 4, (3, 2))
    for c in range(2):
        assert (far[c * STRIDE : c * STRIDE + 3] == expected).all(), "columns of dots"

    a = numbers(7, 5)
    fill(a, STRIDE)
    out = np.empty((5, 7), dtype)
    transpose(turn, out.reshape(-1), 7, far, STRIDE, 7, 5)
    assert (out == a.T).all(), "rows of a transpose"
    transpose(turn, far, STRIDE, a.reshape(-1), 5, 7, 5)
    for c in range(5):
        assert (far[c * STRIDE : c * STRIDE + 7] == a[:, c]).all(), "columns of a transpose"
    del far
print("all right")
"""


@pytest.mark.parametrize("dtype", ["float32", pytest.param("float64", marks=pytest.mark.slow)])
def test_offsets_beyond_32_bits(dtype, run_python):
    """Operands that lie 2³⁰ elements and more apart, up to beyond 2³⁴."""
    assert run_python(FAR, dtype) == "all right\n"


# A plan reads all of X once to find NaN in it; its kernels read the rows they are asked for.
FAR_ROWS = """
import sys, tempfile
import numpy as np
import twolayer as tl
from twolayer.checking import cases

name, dtype = sys.argv[1:]
n, d = 2**31 // 1000 + 100, 1000  # the last rows begin beyond element 2^31
few = 40
net = tl.Network("tanh", "squared")
case = cases.problem(net, tl.Shape(few, d, 5, 2), dtype)
with tempfile.NamedTemporaryFile() as file:
    file.truncate(n * d * case.X.itemsize)
    far = np.memmap(file.name, dtype, "r+", shape=(n, d))
    far[n - few :] = case.X
    X = np.asarray(far)
    make = lambda X, Y: tl.variants.get(name).plan(net, X, Y, case.theta, 1)
    near = make(case.X, case.Y)
    plan = make(case.X, case.Y)
    plan.X = X
    plan.Y = np.zeros((n, 2), dtype)
    plan.Y[n - few :] = case.Y
    plan.shape = plan.shape._replace(n=n)
    loss, gradient = plan.gradient(slice(n - few, n))
    expected, slopes = near.gradient()
    assert loss == expected
    assert all((a == b).all() for a, b in zip(gradient, slopes)), name
    assert (plan.predict(X[n - few :]) == near.predict(case.X)).all()
    del X, far
print("all right")
"""


@pytest.mark.parametrize("name", NAMES)
def test_rows_beyond_32_bits(name, run_python):
    assert run_python(FAR_ROWS, name, "float32") == "all right\n"

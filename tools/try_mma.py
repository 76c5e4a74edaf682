"""Try the kernels of mma.sync on a GPU: right against float64, and how fast, in half a minute.

    python tools/try_mma.py

Prints a line of JSON for each try, the small shapes first.
"""

import contextlib
import json
import time
from functools import cache

import numpy as np
from numba import cuda, types

from twolayer.kernels.activations import ACTIVATIONS
from twolayer.kernels.cuda import mma
from twolayer.kernels.cuda.insides import in_simulator

SMALL, WIDE, NARROW = (300, 330, 200, 3), (60000, 784, 1024, 10), (100000, 784, 128, 10)
SCALE = 2.0**-29
PERIOD = 1280  # rows that repeat, so that the host packs and multiplies few
MATRIX, VECTOR = types.Array(types.float32, 2, "C"), types.Array(types.float32, 1, "C")
PLANES, PARTS = types.Array(types.uint32, 1, "C"), types.Array(types.float32, 3, "C")
INTEGER = types.int64
HIDDEN = (PLANES, PLANES, VECTOR, VECTOR, MATRIX, MATRIX, PARTS) + (INTEGER,) * 3
SUMS = (PLANES, PLANES, VECTOR, VECTOR, MATRIX) + (INTEGER,) * 5


def numbers(random, rows, columns):
    """Below 2^15, of very different size."""
    P = random.normal(size=(rows, columns)) * 2.0 ** random.integers(-6, 3, (rows, columns))
    return (P * (2**14 / abs(P).max())).astype(np.float32)


def packed(P, rows):
    """The planes of P, repeated up to so many rows."""
    height, width = -(-len(P) // 128), -(-P.shape[1] // 64)
    full = np.zeros((128 * height, 64 * width), np.float32)
    full[: len(P), : P.shape[1]] = P
    hi = full.astype(np.float16)
    r, c = np.indices((128, 64))
    where = (r * 64 + (c // 8 ^ r & 7) * 8 + c % 8).ravel()
    planes = np.empty((height, width, 2, 8192), np.float16)
    for number, plane in enumerate((hi, (full - hi).astype(np.float16))):
        blocks = plane.reshape(height, 128, width, 64).transpose(0, 2, 1, 3)
        planes[:, :, number, where] = blocks.reshape(height, width, 8192)
    blocks = planes.reshape(height, -1).view(np.uint32)
    return blocks[np.arange(-(-rows // 128)) % height].ravel()


@cache
def operand(seed, rows, columns, period):
    """A matrix of float64 that repeats, and its planes on the device."""
    P = numbers(np.random.default_rng(seed), min(rows, period), columns)
    return P.astype(float), cuda.to_device(packed(P, rows))


@cache
def expected(n, d, M):
    """X Vᵀ, and the sums of the factors' sizes."""
    X, V = operand(1, n, d, PERIOD)[0], operand(2, M, d, M)[0] * SCALE
    return X @ V.T, abs(X) @ abs(V).T


@cache
def expected_sums(n, d, M):
    """Gᵀ X, and the sums of the factors' sizes."""
    X, G = operand(1, n, d, PERIOD)[0], operand(3, n, M, PERIOD)[0] * SCALE
    times = np.bincount(np.arange(n) % len(X), minlength=len(X))[:, None]
    return G.T @ (times * X), abs(G).T @ (times * abs(X))


def launch(kernel, signature, grid, shared, arguments, repeats):
    """Registers, blocks a multiprocessor and median milliseconds."""
    found = {}
    if not in_simulator():
        from numba.cuda.cudadrv.driver import binding, driver

        begin = time.time()
        kernel.compile(signature)
        function = kernel.overloads[signature]._codelibrary.get_cufunc()
        name = binding.CUfunction_attribute.CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES
        driver.cuKernelSetAttribute(name, shared, function.handle, function.device.id)
        found["registers"] = function.attrs.regs
        with contextlib.suppress(Exception):  # a figure less is better than none
            found["blocks"] = cuda.current_context().get_active_blocks_per_multiprocessor(
                function, mma.THREADS, shared
            )
        found["compile s"] = round(time.time() - begin, 1)
    bound = kernel[grid, mma.THREADS, 0, shared]
    bound(*arguments)
    cuda.synchronize()
    times = []
    for _ in range(repeats):
        begin, end = cuda.event(), cuda.event()
        begin.record()
        bound(*arguments)
        end.record()
        end.synchronize()
        times.append(begin.elapsed_time(end))
    if times:
        found["ms"] = round(float(np.median(times)), 4)
    return found


def compared(found, exact, size):
    """Largest error in 2^-22 of the sum of the factors' sizes; NaN counts."""
    return round(float(np.max(abs(found - exact) / size) * 2**22), 3)


def hidden(shape, K, stages, repeats):
    """X Vᵀ and the parts of U."""
    n, d, M, _ = shape
    X, Xp = operand(1, n, d, PERIOD)
    _, Vp = operand(2, M, d, M)
    period, ld = len(X), -(-M // 4) * 4
    W = np.zeros((max(K, 1), ld), np.float32)
    W[:, :M] = np.random.default_rng(0).normal(size=(len(W), M))
    inputs = [cuda.to_device(x) for x in (np.ones(n, np.float32), np.full(M, SCALE, np.float32), W)]
    A = cuda.to_device(np.full((n, ld), np.nan, np.float32))
    Us = cuda.to_device(np.full((mma.tiles(M), n, max(K, 1)), np.nan, np.float32))
    grid, shared = mma.tiles(n) * mma.tiles(M), mma.shared_bytes(stages)
    kernel = mma.hidden(ACTIVATIONS["tanh"], K, stages)
    found = launch(kernel, HIDDEN, grid, shared, [Xp, Vp, *inputs, A, Us, n, M, d], repeats)
    A, Us = A.copy_to_host(), Us.copy_to_host()
    exact, size = expected(n, d, M)
    found["error"] = compared(A[:period, :M], exact, size)
    found["padding"] = bool((A[:, M:] == 0).all())
    found["repeats"] = all(
        np.array_equal(A[i : i + period], A[: min(period, n - i)]) for i in range(0, n, period)
    )
    if K:
        U = np.tanh(A[:period, :M].astype(float)) @ W[:, :M].T
        found["error of U"] = float(abs(Us[:, :period].sum(0) - U).max() / abs(U).max())
        found["repeats"] &= all(
            np.array_equal(Us[:, i : i + period], Us[:, : min(period, n - i)])
            for i in range(0, n, period)
        )
    return found


def sums(shape, parts, columns, stages, repeats):
    """Gᵀ X."""
    n, d, M, _ = shape
    if n > PERIOD:
        n = -(-n // 128) * 128  # whole blocks repeat
    _, Xp = operand(1, n, d, PERIOD)
    _, Gp = operand(3, n, M, PERIOD)
    ld, share = -(-d // 4) * 4, -(-n // (128 * parts)) * 128
    factors = [cuda.to_device(x) for x in (np.full(M, SCALE, np.float32), np.ones(d, np.float32))]
    gVs = cuda.to_device(np.full((parts, M * ld), np.nan, np.float32))
    grid, shared = (mma.tiles(M) * mma.tiles(d, columns), parts), mma.shared_bytes(stages)
    arguments = [Gp, Xp, *factors, gVs, M, d, ld, share, n]
    found = launch(mma.sums(stages, columns), SUMS, grid, shared, arguments, repeats)
    gV = gVs.copy_to_host().sum(0, dtype=float).reshape(M, ld)
    found["error"] = compared(gV[:, :d], *expected_sums(n, d, M))
    found["padding"] = bool((gV[:, d:] == 0).all())
    return found


def tries():
    """Functions and their arguments."""
    for stages in (3, 2):
        yield hidden, SMALL, 3, stages, 0
        yield sums, SMALL, 2, 128, stages, 0
    yield sums, SMALL, 2, 112, 3, 0
    for K, stages in ((10, 3), (10, 2), (0, 3), (10, 4)):
        yield hidden, WIDE, K, stages, 10
    for parts, columns, stages in (
        (14, 112, 3), (14, 128, 3), (14, 112, 2), (9, 112, 3), (33, 112, 3), (14, 112, 4),
    ):  # fmt: skip
        yield sums, WIDE, parts, columns, stages, 10
    yield hidden, NARROW, 10, 3, 10
    yield sums, NARROW, 37, 112, 3, 10


def main():
    """Run all tries."""
    for function, *arguments in tries():
        begin = time.time()
        found = function(*arguments)
        n, d, M, _ = arguments[0]
        if "ms" in found:
            found["TFLOP/s"] = round(2e-9 * n * d * M / found["ms"], 1)
        line = {"try": function.__name__, "arguments": arguments, **found}
        print(json.dumps({**line, "s": round(time.time() - begin, 1)}), flush=True)


if __name__ == "__main__":
    main()

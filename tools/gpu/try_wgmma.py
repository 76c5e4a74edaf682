"""Try the kernels of wgmma on a GPU: right against float64, and how fast, in less than a minute.

    python tools/gpu/try_wgmma.py

Each try is a process of its own with a time limit, so that one that hangs or faults does not end
the others; they take turns on the GPU. Prints a line of JSON for each shape of a try.
"""

import contextlib
import fcntl
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

SHAPE = 60000, 784, 1024, 10
PERIOD = 1280  # rows that repeat, so that the host packs and multiplies few
LIMIT = 50  # seconds for all tries
TURN = 10  # seconds that a try waits for its turn


def pack(P, rows):
    """Planes of fp16 of the rows of P, repeated up to `rows`; len(P) is a multiple of 128 then."""
    height, width = -(-len(P) // 128), -(-P.shape[1] // 64)
    padded = np.zeros((128 * height, 64 * width), np.float32)
    padded[: len(P), : P.shape[1]] = P
    high = padded.astype(np.float16)
    low = (padded - high.astype(np.float32)).astype(np.float16)
    r, c = np.arange(128)[:, np.newaxis], np.arange(64)
    place = (r * 64 + ((c // 8) ^ (r & 7)) * 8 + c % 8).ravel()
    planes = np.empty((height, width, 2, 8192), np.float16)
    for number, plane in enumerate((high, low)):
        blocks = plane.reshape(height, 128, width, 64).transpose(0, 2, 1, 3)
        planes[:, :, number, place] = blocks.reshape(height, width, 8192)
    blocks = planes.reshape(height, -1).view(np.uint32)
    return blocks[np.arange(-(-rows // 128)) % height].reshape(-1), padded


def numbers(rng, rows, columns, real_rows):
    """rows × columns below 2^15 with entries of very different size, and zero from `real_rows`."""
    P = rng.normal(size=(rows, columns)) * 2.0 ** rng.integers(-6, 3, size=(rows, columns))
    P *= 2**14 / np.abs(P).max()
    P[real_rows:] = 0
    return P.astype(np.float32)


def allow(kernel, signature, size):
    """Let the kernel have so many bytes of dynamic shared memory."""
    from numba.cuda.cudadrv.driver import binding, driver

    kernel.compile(signature)
    function = kernel.overloads[signature]._codelibrary.get_cufunc()
    attribute = binding.CUfunction_attribute.CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES
    driver.cuKernelSetAttribute(attribute, size, function.handle, function.device.id)
    return function.attrs.regs


@contextlib.contextmanager
def turn():
    """Have the GPU alone, but do not wait long for another that may hang."""
    with (Path(tempfile.gettempdir()) / "try_wgmma.lock").open("w") as file:
        end = time.time() + TURN
        while time.time() < end:
            with contextlib.suppress(BlockingIOError):
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            time.sleep(0.02)
        yield


def launch(kernel, signature, grid, threads, arguments, repeats):
    """Launch, and return the registers and the median seconds of `repeats` more launches."""
    from numba import cuda

    from twolayer.kernels.cuda.tensorcores import wgmma

    registers = allow(kernel, signature, wgmma.SHARED)
    bound = kernel[grid, threads, 0, wgmma.SHARED]
    seconds = []
    with turn():
        bound(*arguments)
        cuda.synchronize()
        for _ in range(repeats):
            begin, end = cuda.event(), cuda.event()
            begin.record()
            bound(*arguments)
            end.record()
            end.synchronize()
            seconds.append(begin.elapsed_time(end) / 1e3)
    return registers, float(np.median(seconds)) if seconds else None


def hidden(shape, pairs, repeats, grid=None, name="tanh"):
    """X Vᵀ and the parts of U."""
    from numba import cuda

    from twolayer.kernels.cuda.tensorcores import ring, wgmma
    from twolayer.kernels.formulas.activations import ACTIVATIONS

    n, d, M, K = shape
    rng = np.random.default_rng(1)
    period = min(PERIOD, -(-n // 128) * 128)
    X, V = numbers(rng, period, d, min(n, period)), numbers(rng, M, d, M)
    ld, tiles = -(-M // 4) * 4, -(-M // 128)
    xr = np.ones(n, np.float32)
    vr = (2.0 ** rng.integers(-30, -28, size=M)).astype(np.float32)
    W = np.zeros((K, ld), np.float32)
    W[:, :M] = rng.normal(size=(K, M))
    Xp, _ = pack(X, n)
    Vp, _ = pack(V, M)
    A = cuda.to_device(np.full((n, ld), np.nan, np.float32))
    Us = cuda.to_device(np.full((tiles, n, K), np.nan, np.float32))
    arguments = [cuda.to_device(x) for x in (Xp, Vp, xr, vr, W)] + [A, Us, n, M, d]
    if grid is None:
        grid = cuda.get_current_device().MULTIPROCESSOR_COUNT
    kernel = wgmma.hidden(ACTIVATIONS[name], K, pairs)
    signature = wgmma.hidden_signature()
    registers, seconds = launch(kernel, signature, grid, ring.threads(pairs), arguments, repeats)
    exact = X.astype(np.float64) @ V.astype(np.float64).T * vr
    size = np.abs(X).astype(np.float64) @ np.abs(V).astype(np.float64).T * vr
    A, Us = A.copy_to_host(), Us.copy_to_host()
    first = min(n, period)
    wrong = np.abs(A[:first, :M] - exact[:first]) / size[:first]
    others = sum(
        int((A[i : i + period] != A[: len(A[i : i + period])]).any(1).sum())
        + int((Us[:, i : i + period] != Us[:, : len(A[i : i + period])]).any((0, 2)).sum())
        for i in range(period, n, period)
    )
    U = Us[:, :period].sum(0, dtype=np.float64)
    exact_U = np.asarray(ACTIVATIONS[name].value(A[:period, :M].astype(np.float64))) @ W[:, :M].T
    return {
        "error of A, 2^-22": float(np.max(wrong) * 2**22),
        "rows wrong": int((~(wrong < 2**-18).all(1)).sum()),
        "rows unlike their equals": others,
        "error of U": float(np.abs(U - exact_U).max() / np.abs(exact_U).max()),
        "padding is 0": bool((A[:, M:] == 0).all()),
        "registers": registers,
        "ms": seconds and seconds * 1e3,
        "TFLOP/s": seconds and 2e-12 * n * d * M / seconds,
    }


def sums(shape, parts, repeats, promote=False, leading=8192, stride=1024):
    """Gᵀ X."""
    from numba import cuda

    from twolayer.kernels.cuda.tensorcores import ring, wgmma

    n, d, M, _ = shape
    rng = np.random.default_rng(2)
    period = min(PERIOD, -(-n // 128) * 128)
    padded = -(-n // 128) * 128
    X, G = numbers(rng, period, d, min(n, period)), numbers(rng, period, M, min(n, period))
    ld = -(-d // 4) * 4
    Gp, _ = pack(G, padded)
    Xp, _ = pack(X, padded)
    gr = (2.0 ** rng.integers(-30, -28, size=M)).astype(np.float32)
    xc = np.ones(d, np.float32)
    share = -(-padded // 128 // parts) * 128
    gVs = cuda.to_device(np.full((parts, M * ld), np.nan, np.float32))
    arguments = [cuda.to_device(x) for x in (Gp, Xp, gr, xc)] + [gVs, M, d, ld, share, padded]
    kernel = wgmma.sums(promote, ring.ACROSS._replace(leading=leading, stride=stride))
    signature = wgmma.sums_signature()
    grid = -(-M // 128) * -(-d // 128), parts
    registers, seconds = launch(kernel, signature, grid, ring.threads(1), arguments, repeats)
    exact = size = 0
    whole, rest = divmod(padded, period)
    for times, rows in ((whole, period), (1, rest)):
        A, B = G[:rows].astype(np.float64), X[:rows].astype(np.float64)
        exact = exact + times * (A.T @ B)
        size = size + times * (np.abs(A).T @ np.abs(B))
    gV = gVs.copy_to_host().sum(0, dtype=np.float64).reshape(M, ld)
    scale = gr[:, np.newaxis].astype(np.float64)
    wrong = np.abs(gV[:, :d] / scale - exact) / size
    return {
        "error, 2^-22": float(np.max(wrong) * 2**22),
        "elements wrong": int((~(wrong < 2**-14)).sum()),
        "padding is 0": bool((gV[:, d:] == 0).all()),
        "registers": registers,
        "ms": seconds and seconds * 1e3,
        "TFLOP/s": seconds and 2e-12 * n * d * M / seconds,
    }


SMALL = 300, 200, 330, 3
TRIES = {  # the function, its arguments, and whether the large shape follows
    "hidden, 1 pair": (hidden, {"pairs": 1}, True),
    "hidden, 2 pairs": (hidden, {"pairs": 2}, True),
    "sums": (sums, {"parts": 14}, True),
    "sums, promoted": (sums, {"parts": 14, "promote": True}, True),
    "sums, 9 parts": (sums, {"parts": 9}, True),
    "sums, other strides": (sums, {"parts": 2, "leading": 1024, "stride": 8192}, False),
    "sums, equal strides": (sums, {"parts": 2, "leading": 8192, "stride": 8192}, False),
}


def one(name):
    """Run a try: small first, then large and timed."""
    function, options, large = TRIES[name]
    for shape, repeats in ((SMALL, 0), (SHAPE, 10))[: 1 + large]:
        if shape is SMALL and "parts" in options:
            found = function(shape, repeats=repeats, **{**options, "parts": 2})
        else:
            found = function(shape, repeats=repeats, **options)
        print(json.dumps({"try": name, "shape": shape, **found}), flush=True)


def main():
    """Run all tries."""
    begin, processes = time.time(), {}
    for name in TRIES:
        command = [sys.executable, __file__, name]
        processes[name] = subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
    for name, process in processes.items():
        try:
            out, err = process.communicate(timeout=max(0.1, LIMIT - (time.time() - begin)))
        except subprocess.TimeoutExpired:
            process.kill()
            out, err = process.communicate()
            err += f"\nstopped after {LIMIT} s"
        print(out, end="")
        if process.returncode:
            print(json.dumps({"try": name, "failed": process.returncode, "says": err[-600:]}))
        sys.stdout.flush()
    print(json.dumps({"s": time.time() - begin}))


if __name__ == "__main__":
    one(sys.argv[1]) if len(sys.argv) > 1 else main()

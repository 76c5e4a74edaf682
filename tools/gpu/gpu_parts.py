"""The parts of tools/gpu/gpu_check.py: each a function that yields what it finds, step by step."""

from __future__ import annotations

import contextlib
import shutil
import statistics
import subprocess
import sys
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path
from typing import Any

import gpu_counters
import gpu_tables
import numpy as np

import twolayer as tl
from twolayer.checking import cases, verify
from twolayer.checking.answers import Answers
from twolayer.kernels.formulas.activations import ACTIVATIONS
from twolayer.kernels.formulas.losses import LOSSES
from twolayer.measuring import device_clock, timing
from twolayer.measuring.race import held
from twolayer.network import DTYPES
from twolayer.variants import jax

NET, ODD_NET = tl.Network("tanh", "squared"), tl.Network("tanh", "softmax")
SQUARE = 8192  # rows and columns of cuBLAS's largest product
INSTRUCTIONS = {"ex2": 2.1, "rcp": 1.0}  # ULP at most; NVIDIA documents 2 of exp2f
BLOCKS = 7  # of epochs on one sample
TINY = """
import twolayer as tl
from twolayer.checking import cases
case = cases.problem(tl.Network("tanh", "softmax"), tl.Shape(70, 7, 9, 3), "float32")
plan = tl.variants.get("{name}").plan(*case[1:])
plan.step(0.01)
plan.predict(case.X)
"""
Found = Iterator[tuple[str, Any]]


def field() -> dict[str, tl.Variant]:
    """Every variant that is made for a GPU by its name, as it runs there."""
    listed = [v.on("cuda") for v in tl.variants.REGISTRY if "cuda" in v.devices]
    return {variant.name: variant for variant in (*listed, jax.THREE_PASSES)}


def versions(_: str) -> Found:
    """The device, packages, and where the toolkit's library comes from."""
    from cuda.pathfinder import load_nvidia_dynamic_lib
    from numba import cuda

    device = cuda.get_current_device()
    name = getattr(device, "name", "a GPU without a name")
    name = name.decode() if isinstance(name, bytes) else name
    capability = ".".join(map(str, device.compute_capability))
    yield "device", f"{name}, compute capability {capability}"
    with contextlib.suppress(OSError):
        yield "driver", Path("/proc/driver/nvidia/version").read_text().splitlines()[0]
    for package in ("numba-cuda", "cuda-bindings", "cuda-core", "nvidia-nvvm", "nvidia-nvjitlink"):
        with contextlib.suppress(metadata.PackageNotFoundError):
            yield package, metadata.version(package)
    yield "libnvvm", str(load_nvidia_dynamic_lib("nvvm").abs_path)


def race(name: str) -> Found:
    """A variant or peer on every shape in float32, and on the first in float64.

    A variant of this project chooses its parameters there first.
    """
    for dtype, shapes in (("float32", device_clock.SHAPES), ("float64", device_clock.SHAPES[:1])):
        for shape in shapes:
            variant = field()[name]
            if gpu_tables.ours(name) and not variant.refuses(shape, np.dtype(dtype)):
                kept, seconds = device_clock.tune(
                    variant, NET, shape, dtype, repetitions=15, warm_up=0.1
                )
                if seconds:
                    yield f"tuning {dtype} {shape}", {"kept as": kept, "seconds": seconds}
            yield f"{dtype} {shape}", device_clock.record(field()[name], NET, shape, dtype)


def agreement(name: str) -> Found:
    """Every activation and every loss in both dtypes, on a ragged shape and on hard inputs.

    And all rows of the shapes that nothing was tuned on.
    """
    variant = field()[name]
    networks = [tl.Network(activation, "squared") for activation in ACTIVATIONS]
    networks += [tl.Network("tanh", loss) for loss in LOSSES if loss != "squared"]
    for net in networks:
        for dtype in DTYPES:
            problems = [cases.problem(net, tl.Shape(61, 7, 31, 3), dtype)]
            problems += cases.adversarial(net, dtype)
            results = [
                verify.agreement(variant, case)
                for case in problems
                if not variant.refuses(case.shape, case.X.dtype)
            ]
            yield f"{net.activation}, {net.loss}, {dtype}", _checked(results)
    for dtype in DTYPES:
        for shape in gpu_tables.HELD_OUT:
            case = cases.problem(ODD_NET, shape, dtype)
            if not variant.refuses(shape, case.X.dtype):
                result = verify.agreement(variant, case)
                yield f"{dtype} {shape}", _checked([result]) | {"error": result.ratio}


def _checked(results: list[verify.Agreement]) -> dict[str, Any]:
    """How many were decided, and the sentences of those that were wrong, or found no memory."""
    return {
        "checked": sum(not result.undecided for result in results),
        "wrong": [str(result) for result in results if result.wrong],
        "undecided": [str(result) for result in results if result.undecided],
    }


def odd(name: str) -> Found:
    """The time on shapes that nothing was tuned on."""
    for dtype in DTYPES:
        for shape in gpu_tables.HELD_OUT:
            yield f"{dtype} {shape}", device_clock.record(field()[name], ODD_NET, shape, dtype)


def launches(name: str) -> Found:
    """The host's seconds of an epoch on one sample, nearly all of them launches and waiting."""
    case = cases.problem(tl.Network("relu", "squared"), tl.Shape(1, 4, 4, 1), "float32")
    run = held(field()[name], Answers(*case[1:]))
    blocks = [timing.block(run) for _ in range(BLOCKS)]
    yield "seconds", statistics.median(blocks)
    yield "blocks", blocks


def ceilings(_: str) -> Found:
    """Multiply-adds in registers and copies of memory."""
    for dtype in DTYPES:
        yield dtype, device_clock.ceilings(dtype)._asdict()


def cublas(_: str) -> Found:
    """Operations a second of cuBLAS by way of PyTorch: a large square, and A of each shape."""
    reason = field()["torch"].unavailable()
    if reason:
        yield "skipped", reason
        return
    import torch

    square = (SQUARE, SQUARE, SQUARE)
    shapes = [square, *((n, d, M) for n, d, M, _ in device_clock.SHAPES)]
    for label, dtype, precision, sizes in (
        ("float32", torch.float32, "highest", shapes),
        ("TF32", torch.float32, "high", shapes),
        ("float16", torch.float16, "high", [square]),
    ):
        torch.set_float32_matmul_precision(precision)
        for n, d, M in sizes:
            X, V = (torch.randn(rows, d, device="cuda", dtype=dtype) for rows in (n, M))
            A = torch.empty(n, M, device="cuda", dtype=dtype)
            seconds = device_clock.best(lambda X=X, V=V, A=A: torch.matmul(X, V.T, out=A))
            yield f"{label}, {n} × {d} × {M}", 2 * n * d * M / seconds


def sanitizer(name: str) -> Found:
    """Memory and race checkers on a tiny shape; what they print where they find something."""
    program = shutil.which("compute-sanitizer")
    if program is None:
        yield "skipped", "compute-sanitizer is not installed"
        return
    for tool in ("memcheck", "racecheck", "synccheck"):
        command = [program, "--tool", tool, "--error-exitcode", "9", sys.executable, "-c"]
        done = subprocess.run(
            [*command, TINY.format(name=name)], capture_output=True, text=True, check=False
        )
        wrong = [] if done.returncode == 0 else [(done.stdout + done.stderr)[-4000:]]
        yield tool, {"status": done.returncode, "wrong": wrong}


def counters(name: str) -> Found:
    """Time, registers, issue slots and memory of each kernel of an epoch, where ncu is there."""
    if gpu_counters.program() is None:
        yield "skipped", "ncu is not installed"
        return
    for shape in device_clock.SHAPES:
        if not field()[name].refuses(shape, np.dtype("float32")):
            yield str(shape), gpu_counters.measure(name, shape)


def registers(_: str) -> Found:
    """Registers of the products as the driver loads them, and as the toolkit alone builds them."""
    from numba import cuda, types

    from twolayer.checking.cuda import code
    from twolayer.kernels.cuda import epilogues, products
    from twolayer.kernels.cuda.memory.types import matrix_type

    capability = tuple(cuda.get_current_device().compute_capability)
    for dtype in DTYPES:
        tile = products.Tile(128, 128, 8, 8, 8)
        kernel = products.product(dtype, tile, (False, False), epilogues.partial)
        signature = (matrix_type(dtype),) * 4 + (types.int64,) * 3
        kernel.compile(signature)
        loaded = max(kernel.get_regs_per_thread().values())
        built = code.machine_code(kernel, signature, capability).registers
        yield dtype, {"loaded": loaded, "built": built}


def elementary(_: str) -> Found:
    """Largest errors of the GPU's own elementary functions over all float32, in ULP."""
    from twolayer.checking.cuda import accuracy
    from twolayer.kernels.cuda.elementary import ULP

    bounds = INSTRUCTIONS | ULP
    for name, (ulp, x) in accuracy.elementary_errors().items():
        wrong = [] if ulp <= bounds[name] else [f"{ulp:.3g} ULP at {x!r} instead of {bounds[name]}"]
        yield name, {"ulp": ulp, "bound": bounds[name], "at": repr(x), "wrong": wrong}

"""Everything that needs a GPU, in one command of at most ten minutes.

    python tools/gpu_check.py [--json gpu.json] [--minutes 10] [--docs docs/gpu.md]

Versions and where the toolkit comes from; the registers that the driver's kernels have beside those
of the machine code that needs no GPU; ceilings, those of cuBLAS too; every variant and every peer
on every shape; what an epoch's launches cost; the agreement of every variant with the oracle;
compute-sanitizer on tiny shapes where it is installed. Each part is a process of its own, which is
cut at its limit. The file is written after every part; what a part found before it was cut is kept.
"""

from __future__ import annotations

import argparse
import contextlib
import datetime
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Iterator
from importlib import metadata
from pathlib import Path
from typing import Any, NamedTuple

import gpu_tables
import numpy as np

import twolayer as tl
from twolayer import cases, gpu, verify
from twolayer.cli import gpu as bench
from twolayer.cli import output, tables
from twolayer.kernels.activations import ACTIVATIONS
from twolayer.kernels.losses import LOSSES
from twolayer.machine import fingerprint
from twolayer.network import DTYPES

OWN = "cuda-"  # how the names of the variants in Numba CUDA begin
NET = tl.Network("tanh", "squared")
SQUARE = 8192  # rows and columns of cuBLAS's largest product
TINY = """
import twolayer as tl
from twolayer import cases
case = cases.problem(tl.Network("tanh", "softmax"), tl.Shape(70, 7, 9, 3), "float32")
plan = tl.variants.get("{name}").plan(*case[1:])
plan.step(0.01)
plan.predict(case.X)
"""
Found = Iterator[tuple[str, Any]]


def field() -> list[tl.Variant]:
    """Every variant that is made for a GPU, as it runs there."""
    return [v.on("cuda") for v in tl.variants.REGISTRY if "cuda" in v.devices]


def versions(_: str) -> Found:
    """The machine, packages, the toolkit's library, and registers as loaded and as built."""
    yield "machine", fingerprint()
    for name in ("numba-cuda", "cuda-bindings", "cuda-core", "nvidia-nvvm", "nvidia-nvjitlink"):
        with contextlib.suppress(metadata.PackageNotFoundError):
            yield name, metadata.version(name)
    from cuda.pathfinder import load_nvidia_dynamic_lib

    yield "libnvvm", str(load_nvidia_dynamic_lib("nvvm").abs_path)
    from numba import cuda, types

    from twolayer.kernels.cuda import epilogues, insides, products
    from twolayer.kernels.cuda.types import matrix_type

    capability = tuple(cuda.get_current_device().compute_capability)
    for dtype in DTYPES:
        tile = products.Tile(128, 128, 8, 8, 8)
        kernel = products.product(dtype, tile, (False, False), epilogues.partial)
        signature = (matrix_type(dtype),) * 4 + (types.int64,) * 3
        kernel.compile(signature)
        loaded = max(kernel.get_regs_per_thread().values())
        built = insides.machine_code(kernel, signature, capability).registers
        yield f"registers, {dtype}", {"loaded": loaded, "built": built}


def ceilings(_: str) -> Found:
    """Multiply-adds in registers and copies of memory."""
    for dtype in DTYPES:
        yield dtype, gpu.ceilings(dtype)._asdict()


def cublas(_: str) -> Found:
    """Operations a second of cuBLAS by way of PyTorch: a large square, and A of each shape."""
    reason = tl.variants.get("torch").on("cuda").unavailable()
    if reason:
        yield "skipped", reason
        return
    import torch

    sizes = [(SQUARE, SQUARE, SQUARE), *((n, d, M) for n, d, M, _ in bench.SHAPES)]
    for name, precision in (("float32", "highest"), ("TF32", "high")):
        torch.set_float32_matmul_precision(precision)
        for n, d, M in sizes:
            X, V = (torch.randn(rows, d, device="cuda") for rows in (n, M))
            A = torch.empty(n, M, device="cuda")
            seconds = gpu.best(lambda X=X, V=V, A=A: torch.matmul(X, V.T, out=A))
            yield f"{name}, {n} × {d} × {M}", 2 * n * d * M / seconds


def race(name: str) -> Found:
    """A variant or peer on every shape in float32, and on the first in float64."""
    variant = tl.variants.get(name).on("cuda")
    for dtype, shapes in (("float32", bench.SHAPES), ("float64", bench.SHAPES[:1])):
        for shape in shapes:
            yield f"{dtype} {shape}", bench.record(variant, NET, shape, dtype)


def launches(_: str) -> Found:
    """The host's seconds of an epoch on one sample, nearly all of them launches and waiting."""
    case = cases.problem(tl.Network("relu", "squared"), tl.Shape(1, 4, 4, 1), "float32")
    for variant in field():
        if variant.unavailable() is None:
            plan = variant.plan(*case[1:])
            times = [gpu.timed(lambda plan=plan: plan.step(0.0))[1] for _ in range(200)]
            yield variant.name, float(np.median(times[50:]))


def agreement(name: str) -> Found:
    """Every activation and every loss in both dtypes, on a ragged shape and on hard inputs."""
    variant = tl.variants.get(name).on("cuda")
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
            wrong = [str(result) for result in results if not result.agrees]
            key = f"{net.activation}, {net.loss}, {dtype}"
            yield key, {"checked": len(results), "wrong": wrong}


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


class Part(NamedTuple):
    """A part by its function's name and what it is for, and the seconds that it may take."""

    name: str
    limit: float


def groups() -> list[list[Part]]:
    """All parts in their order. Those of a group run at the same time: they measure no time."""
    everyone = [variant.name for variant in field() if variant.unavailable() is None]
    own = [name for name in everyone if name.startswith(OWN)]
    return [
        *([Part(name, 60)] for name in ("versions", "ceilings", "cublas")),
        *([Part(f"race {name}", 90)] for name in everyone),
        [Part("launches", 60)],
        [Part(f"agreement {name}", 200) for name in own],
        [Part(f"sanitizer {name}", 120) for name in own],
    ]


def run(group: Iterable[Part], end: float, command: Iterable[str]) -> dict[str, Any]:
    """What the parts found, each by `command NAME FILE`, cut at its limit or at `end`."""
    found: dict[str, Any] = {}
    begun = time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        running = []
        for number, part in enumerate(group):
            if begun >= end:
                found[part.name] = {"cut": "before it began"}
                continue
            file, log = Path(folder, f"{number}.json"), Path(folder, f"{number}.log")
            with log.open("wb") as stream:
                process = subprocess.Popen(
                    [*command, part.name, str(file)],
                    stdout=stream, stderr=stream, start_new_session=True,
                )  # fmt: skip
            running.append((part, process, file, log))
        for part, process, file, log in running:
            problem = {}
            try:
                process.wait(max(0.0, min(begun + part.limit, end) - time.monotonic()))
                if process.returncode:
                    problem = {"failed": log.read_text(errors="replace")[-4000:]}
            except subprocess.TimeoutExpired:
                problem = {"cut": f"after {time.monotonic() - begun:.0f} s"}
                os.killpg(process.pid, signal.SIGKILL)
                with contextlib.suppress(subprocess.TimeoutExpired):
                    process.wait(5)  # one that hangs in the driver stays
            kept = json.loads(file.read_text()) if file.exists() else {}
            found[part.name] = kept | problem
    return found


def work(name: str, file: Path) -> None:
    """Run a part here, and write what it found after each of its steps."""
    function, _, argument = name.partition(" ")
    found = {}
    output.write_json(file, found)
    for key, value in globals()[function](argument):
        found[key] = value
        output.write_text(file, json.dumps(found, indent=1, default=str) + "\n")


def complaints(found: dict[str, Any]) -> list[str]:
    """A line for everything that failed, was cut, disagrees, or was found by a checker."""
    lines = []
    for part, values in found.items():
        if not isinstance(values, dict):
            continue
        for word in ("failed", "cut"):
            if word in values:
                lines.append(f"{part}: {word}: {values[word].strip().splitlines()[-1]}")
        for key, value in values.items():
            if isinstance(value, dict):
                lines += [f"{part}, {key}: {text}" for text in value.get("wrong", ())]
                if "disagrees" in value.get("skipped", ""):
                    lines.append(f"{part}, {key}: {value['skipped']}")
    return lines


def main() -> int:
    """Run all parts and write what they found; 1 where something disagrees, failed or was cut."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--json", type=Path, default=Path("gpu.json"))
    parser.add_argument("--minutes", type=float, default=10, help="everything is cut at these")
    parser.add_argument("--docs", type=Path, help="write the tables between the markers here")
    parser.add_argument("--part", nargs=2, metavar=("NAME", "FILE"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.part:
        work(options.part[0], Path(options.part[1]))
        return 0
    output.check_writable("json", options.json)
    reasons = {v.name: v.unavailable() for v in field()}
    if all(reason for name, reason in reasons.items() if name.startswith(OWN)):
        print("\n".join(f"{name}: {reason}" for name, reason in reasons.items()), file=sys.stderr)
        return 1
    end = time.monotonic() + 60 * options.minutes
    found: dict[str, Any] = {"date": datetime.date.today().isoformat(), "unavailable": reasons}
    for group in groups():
        begun = time.monotonic()
        found |= run(group, end, [sys.executable, __file__, "--part"])
        output.write_json(options.json, found)
        names = ", ".join(part.name for part in group)
        print(f"{names}: {time.monotonic() - begun:.0f} s", file=sys.stderr)
    print(gpu_tables.markdown(found))
    if options.docs:
        text = options.docs.read_text(encoding="utf-8")
        text = tables.between_markers(options.docs, text, gpu_tables.markdown(found), "gpu")
        output.write_text(options.docs, text)
    wrong = complaints(found)
    print("\n".join(wrong) or f"All figures are in {options.json}", file=sys.stderr)
    return int(bool(wrong))


if __name__ == "__main__":
    sys.exit(main())

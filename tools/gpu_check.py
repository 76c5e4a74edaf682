"""Everything that needs a GPU, in one command of at most ten minutes.

    python tools/gpu_check.py [--json gpu.json] [--minutes 10]

Versions and where the toolkit comes from; every variant's agreement with the oracle; the registers
that the driver's kernels have beside those of the machine code that needs no GPU; ceilings and
every variant on every shape; what a launch costs; compute-sanitizer on tiny shapes where it is
installed. What did not fit into the time is named in the file, which is written after every part.
"""

from __future__ import annotations

import argparse
import datetime
import json
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np

import twolayer as tl
from twolayer import cases, gpu, verify
from twolayer.cli import gpu as bench
from twolayer.kernels.activations import ACTIVATIONS
from twolayer.kernels.losses import LOSSES
from twolayer.machine import fingerprint
from twolayer.network import DTYPES

TINY = """
import twolayer as tl
from twolayer import cases
case = cases.problem(tl.Network("tanh", "softmax"), tl.Shape(70, 7, 9, 3), "float32")
plan = tl.variants.get("{name}").plan(*case[1:])
plan.step(0.01)
plan.predict(case.X)
"""


def field() -> list[tl.Variant]:
    """The variants in Numba CUDA."""
    return [v for v in tl.variants.REGISTRY if v.name.startswith("cuda-")]


def versions() -> dict[str, Any]:
    """The machine, the packages that matter here, and the folders of the toolkit's libraries."""
    names = ("numba-cuda", "cuda-bindings", "cuda-core", "nvidia-nvvm", "nvidia-nvjitlink")
    found = {}
    for name in names:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            found[name] = "none"
    from cuda.pathfinder import load_nvidia_dynamic_lib

    found["libnvvm"] = str(load_nvidia_dynamic_lib("nvvm").abs_path)
    return {"machine": fingerprint(), "packages": found}


def agreement() -> dict[str, Any]:
    """Every variant on every activation, loss and dtype, on ragged shapes and hard inputs."""
    found = {}
    for variant in field():
        results = [
            result
            for activation in ACTIVATIONS
            for loss in LOSSES
            for dtype in DTYPES
            for result in verify.verify(variant, tl.Network(activation, loss), dtype)
        ]
        wrong = [str(result) for result in results if not result.agrees]
        found[variant.name] = {"checked": len(results), "wrong": wrong}
    return found


def registers() -> dict[str, Any]:
    """Registers of the tiled product, as loaded by the driver and as built without one."""
    from numba import cuda, types

    from twolayer.kernels.cuda import epilogues, insides, products
    from twolayer.kernels.cuda.types import matrix_type

    capability = tuple(cuda.get_current_device().compute_capability)
    found = {}
    for dtype in DTYPES:
        tile = products.Tile(128, 128, 8, 8, 8)
        kernel = products.product(dtype, tile, (False, False), epilogues.partial)
        signature = (matrix_type(dtype),) * 4 + (types.int64,) * 3
        kernel.compile(signature)
        loaded = max(kernel.get_regs_per_thread().values())
        built = insides.machine_code(kernel, signature, capability).registers
        found[dtype] = {"loaded": loaded, "built": built}
    return found


def races() -> dict[str, Any]:
    """Ceilings, and every variant on every shape, in both dtypes."""
    found: dict[str, Any] = {}
    for dtype in DTYPES:
        roof = gpu.ceilings(dtype)
        shapes = [*bench.SHAPES] if dtype == "float32" else [*bench.SHAPES[:1]]
        net = tl.Network("tanh", "squared")
        found[dtype] = {
            "flops": roof.flops,
            "bandwidth": roof.bandwidth,
            "results": bench.bench([*tl.variants.REGISTRY], net, shapes, dtype),
        }
    return found


def launches() -> dict[str, Any]:
    """The host's seconds of an epoch on one sample, nearly all of them launches and waiting."""
    found = {}
    case = cases.problem(tl.Network("relu", "squared"), tl.Shape(1, 4, 4, 1), "float32")
    for variant in field():
        plan = variant.plan(*case[1:])
        times = [gpu.timed(lambda plan=plan: plan.step(0.0))[1] for _ in range(200)]
        found[variant.name] = float(np.median(times[50:]))
    return found


def sanitizer() -> dict[str, Any]:
    """Memory and race checkers on tiny shapes; what they print where they find something."""
    program = shutil.which("compute-sanitizer")
    if program is None:
        return {"skipped": "compute-sanitizer is not installed"}
    found = {}
    for variant in field():
        for tool in ("memcheck", "racecheck", "synccheck"):
            command = [program, "--tool", tool, "--error-exitcode", "9", sys.executable, "-c"]
            done = subprocess.run(
                [*command, TINY.format(name=variant.name)],
                capture_output=True, text=True, check=False, timeout=120,
            )  # fmt: skip
            report = "" if done.returncode == 0 else (done.stdout + done.stderr)[-4000:]
            found[f"{variant.name} {tool}"] = {"status": done.returncode, "report": report}
    return found


PARTS: tuple[Callable[[], dict[str, Any]], ...] = (
    versions, registers, races, launches, agreement, sanitizer,
)  # fmt: skip


def main() -> int:
    """Run all parts and write what they found; 1 where something disagrees or failed."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--json", type=Path, default=Path("gpu.json"))
    parser.add_argument("--minutes", type=float, default=10, help="no part starts after these")
    options = parser.parse_args()
    for variant in field():
        if reason := variant.unavailable():
            print(f"{variant.name}: {reason}", file=sys.stderr)
            return 1
    end = time.monotonic() + 60 * options.minutes
    found: dict[str, Any] = {"date": datetime.datetime.now().astimezone().isoformat()}
    failed = False
    for part in PARTS:
        begun = time.monotonic()
        if begun > end:
            found[part.__name__] = {"skipped": "no time was left"}
            continue
        try:
            found[part.__name__] = part()
        except Exception as error:  # the other parts' figures are worth having
            found[part.__name__] = {"failed": f"{type(error).__name__}: {error}"}
            failed = True
        print(f"{part.__name__}: {time.monotonic() - begun:.0f} s", file=sys.stderr)
        options.json.write_text(json.dumps(found, indent=1, default=str) + "\n")
    wrong = [text for v in found.get("agreement", {}).values() if isinstance(v, dict)
             for text in v.get("wrong", ())]  # fmt: skip
    print("\n".join(wrong) or f"All figures are in {options.json}")
    return int(failed or bool(wrong))


if __name__ == "__main__":
    sys.exit(main())

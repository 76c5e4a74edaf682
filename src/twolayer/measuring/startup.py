"""What a process pays before its first epoch is done, measured in processes of their own."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from ..interface import Variant
from ..machine import hardware
from ..machine.given import unbound
from .race import STEP_SIZE, Workload

# Where compilers keep code: Numba, torch.compile and Triton.
_CODE_FOLDERS = ("NUMBA_CACHE_DIR", "TORCHINDUCTOR_CACHE_DIR", "TRITON_CACHE_DIR")
_TIMEOUT = 300  # seconds


class Start(NamedTuple):
    """Seconds from the start of Python until the first epoch is done; making data is left out.

    cold: with nothing compiled. cached: with compiled code on disk, that of the fastest process.
    failure: why there are none.
    """

    cold: float | None = None
    cached: float | None = None
    failure: str = ""


def start(
    variant: Variant, workload: Workload, threads: int, files: Sequence[Path] = (), repeats: int = 2
) -> Start:
    """Measure a variant, which other processes know by its name.

    files: with variants, that a new process needs to know.
    repeats: processes with compiled code on disk.
    """
    request = _request(variant, workload, threads, files)
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        environment = _without_code(folder)
        try:
            cold, *cached = (_process(request, environment) for _ in range(1 + repeats))
        except RuntimeError as error:
            return Start(failure=str(error))
    return Start(cold, min(cached))


def once(variant: Variant, workload: Workload, threads: int, cold: bool) -> float:
    """Seconds of one process until its first step, with nothing compiled or with what is on disk.

    Raises RuntimeError where it fails.
    """
    request = _request(variant, workload, threads, ())
    if not cold:
        return _process(request, hardware.environment())
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        return _process(request, _without_code(folder))


def _request(
    variant: Variant, workload: Workload, threads: int, files: Sequence[Path]
) -> dict[str, Any]:
    return {
        "variant": variant.name,
        "device": variant.device,
        "net": (workload.net.activation, workload.net.loss),
        "shape": workload.shape,
        "dtype": workload.dtype,
        "dataset": workload.dataset,
        "threads": threads,
        "files": [str(path.resolve()) for path in files],
    }


def _without_code(folder: str) -> dict[str, str]:
    """Variables of a process whose compiled code is kept below a folder."""
    return hardware.environment() | {key: str(Path(folder) / key) for key in _CODE_FOLDERS}


def _process(request: dict[str, Any], environment: dict[str, str]) -> float:
    package, _, _ = __name__.partition(".")
    source = str(Path(__file__).parents[2])
    path = os.pathsep.join(filter(None, [source, environment.get("PYTHONPATH")]))
    begun = time.monotonic()
    try:
        with unbound():
            done = subprocess.run(
                [sys.executable, "-c", f"from {package}.measuring import startup; startup.main()"],
                input=json.dumps(request), env=environment | {"PYTHONPATH": path},
                capture_output=True, text=True, check=False, timeout=_TIMEOUT,
            )  # fmt: skip
    except subprocess.TimeoutExpired:
        raise RuntimeError(f"took more than {_TIMEOUT} s") from None
    if done.returncode:
        lines = done.stderr.strip().splitlines() or [f"exit code {done.returncode}"]
        raise RuntimeError(lines[-1])
    ended, making_data = json.loads(done.stdout.splitlines()[-1])
    return float(ended - begun - making_data)


def main() -> None:
    """Do what the request on stdin says, then print when it was done and what the data took."""
    from .. import variants
    from ..network import Network, Shape

    request = json.load(sys.stdin)
    for file in request["files"]:
        variants.add_file(file)
    workload = Workload(
        Network(*request["net"]), Shape(*request["shape"]), request["dtype"], request["dataset"]
    )
    begun = time.monotonic()
    answers = workload.load()
    making_data = time.monotonic() - begun
    variant = variants.get(request["variant"]).on(request["device"])
    plan = variant.plan(*answers.problem, request["threads"])
    plan.step(STEP_SIZE)
    ended = time.monotonic()
    answers.hold(plan)
    print(json.dumps([ended, making_data]))

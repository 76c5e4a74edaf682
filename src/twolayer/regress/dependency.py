"""Two versions of a dependency on one revision: two environments, whose processes take turns."""

from __future__ import annotations

import contextlib
import hashlib
import json
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from importlib import metadata
from pathlib import Path
from typing import Any

from ..machine import lines
from .processes.messages import begun, end, reply
from .processes.sides import FAR, LIMIT, unpaired
from .revisions import Revision, cache_folder
from .run import Run, Unusable
from .suite import Benchmark

_PACKAGES = ("numpy", "numba", "scipy", "threadpoolctl", "psutil", "platformdirs")
_TURN = 0.03  # seconds of blocks in a turn
_BLOCK = 0.003  # seconds of calls that are timed together, at least one call
_WARM_UP = 0.05  # seconds before them: after a pause threads come back slowly
_ORDER = ("base", "head", "head", "base")
_ROUNDS = 2  # in that order at least


def environment(name: str, version: str, side: str) -> Path:
    """A Python with the packages of this one, but for that version; made once and kept.

    Raises ValueError where they cannot be installed together.
    """
    if name not in _PACKAGES:
        raise ValueError(f"--dep: expected one of {', '.join(_PACKAGES)}, got {name!r}")
    pins = [f"{p}=={version if p == name else metadata.version(p)}" for p in _PACKAGES]
    key = hashlib.sha256("\0".join([sys.version, *pins]).encode()).hexdigest()[:16]
    folder = cache_folder() / "environments" / key
    python = folder / "bin" / "python"
    complete = folder / "complete"
    if not complete.exists():
        pip = [str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
        for command in ([sys.executable, "-m", "venv", "--clear", str(folder)], [*pip, *pins]):
            done = subprocess.run(command, capture_output=True, text=True, check=False)
            if done.returncode:
                last = (done.stderr.strip().splitlines() or ["no reason given"])[-1]
                raise ValueError(f"{side}: {name} {version} cannot be installed: {last}")
        complete.touch()
    return python


@dataclass
class Turns(Run):
    """A run in which each side has a process, and the two take turns block by block."""

    pythons: dict[str, Path] = field(default_factory=dict)

    def _alone(self) -> None:
        """Each side is."""

    def _process(self, number: int, todo: list[Benchmark]) -> None:
        """Measure in a fresh pair of processes; where one dies, the benchmark it was at failed."""
        total = len(todo)
        while todo:
            pair = {side: self._start(side, todo) for side in ("base", "head")}
            try:
                while todo:
                    benchmark = todo[0]
                    self.progress(benchmark.name, total - len(todo), total)
                    about = {"benchmark": benchmark.name, "process": number}
                    found = self._turns(pair, benchmark, number)
                    lines.append(self.path, about | found)
                    todo = todo[1:]
                    self.progress(benchmark.name, total - len(todo), total)
                    if "died" in found:
                        break
            finally:
                for worker in pair.values():
                    end(worker)

    def _turns(
        self, pair: dict[str, subprocess.Popen[str]], benchmark: Benchmark, number: int
    ) -> dict[str, Any]:
        """Blocks of both sides on one benchmark, or why there are none."""
        found: dict[str, list[list[float]]] = {"base": [], "head": []}
        if number < 0:
            limits = {"base": LIMIT, "head": FAR * LIMIT}
            first = {
                s: _tell(w, ["try", benchmark.name, limits[s]], self.patience)
                for s, w in pair.items()
            }
            if record := unpaired(first["base"], first["head"]):
                return (
                    record | {"died": True} if any("died" in f for f in first.values()) else record
                )
            error = {side: answer["error"] for side, answer in first.items()}
            return {"kind": "right", "error": error}
        order = _ORDER if number % 2 == 0 else _ORDER[::-1]
        over = time.perf_counter() + 2 * self.seconds
        while time.perf_counter() < over or len(found["base"]) < _ROUNDS:
            for turns in found.values():
                turns.append([])
            for side in order:
                answer = _tell(pair[side], ["time", benchmark.name, 0.0], self.patience)
                if "blocks" not in answer:
                    return answer
                blocks = sorted(answer["blocks"])
                found[side][-1].append(blocks[len(blocks) // 4])
        return {"kind": "timing"} | found

    def _start(self, side: str, todo: Sequence[Benchmark]) -> subprocess.Popen[str]:
        revision: Revision = self.base if side == "base" else self.head
        request = self._request("turns", todo) | {
            "side": side, side: str(revision.folder), "seconds": _TURN, "warm_up": _WARM_UP,
            "block": _BLOCK,
        }  # fmt: skip
        worker = begun(subprocess.DEVNULL, str(self.pythons[side]))
        answer = _tell(worker, request, self.patience)
        if "ready" not in answer:
            end(worker)
            raise Unusable(f"{side}: {revision.label} cannot be imported: {answer['sentence']}")
        return worker


def _tell(worker: subprocess.Popen[str], message: Any, patience: float) -> dict[str, Any]:
    """Write a line and read the answer; a worker that died or hangs gives a failure."""
    assert worker.stdin is not None
    line, hung = "", False
    with contextlib.suppress(BrokenPipeError):
        worker.stdin.write(json.dumps(message) + "\n")
        worker.stdin.flush()
        line, hung = reply(worker, patience)
    if not line:
        death = (
            f"did nothing for {patience:g} s" if hung else f"died with exit code {worker.wait()}"
        )
        return {"kind": "failed", "sentence": f"a process {death}", "died": True}
    answer: dict[str, Any] = json.loads(line)
    return answer

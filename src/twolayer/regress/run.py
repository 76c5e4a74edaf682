"""A run: processes that measure both sides, until all is decided or the time is over."""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from ..machine import lines
from ..machine.store import machine_hash
from ..network import Shape
from . import costs
from .costs import Cost
from .decide import LOOKS, Decision, decide, decided
from .revisions import Revision, cache_folder

SECONDS = 0.3  # of blocks for a benchmark in a process
LIMIT = 260.0  # seconds for all processes; four are run in any case
TOO_LITTLE = 0.05  # of an epoch: a run whose median smallest visible change is larger says nothing
_TOOL = Path(__file__).resolve().parents[3]
WORKER = Path(__file__).with_name("worker.py")


class Benchmark(NamedTuple):
    """A variant on a shape, and the name that reports call it by. device: its own where None."""

    variant: str
    shape: Shape
    activation: str = "tanh"
    loss: str = "squared"
    dtype: str = "float32"
    device: str | None = None

    @property
    def name(self) -> str:
        """The variant and its problem."""
        return f"{self.variant} {self.shape}"

    def request(self) -> dict[str, Any]:
        """What a worker needs to know of it."""
        return {**self._asdict(), "shape": list(self.shape), "name": self.name}


@dataclass
class Outcome:
    """What a run found. failed and absent: (benchmark, sentence)."""

    decisions: list[Decision] = field(default_factory=list)
    costs: list[Cost] = field(default_factory=list)
    failed: list[tuple[str, str]] = field(default_factory=list)
    absent: list[tuple[str, str]] = field(default_factory=list)
    seconds: float = 0.0

    @property
    def exit_code(self) -> int:
        """0 no regression, 1 a regression, 2 a benchmark failed, 3 too little was measured."""
        if self.failed:
            return 2
        slower = any(decision.verdict == "slower" for decision in self.decisions)
        if slower or any(cost.verdict == "worse" for cost in self.costs):
            return 1
        enough = [d for d in self.decisions if d.processes >= LOOKS[0]]
        visible = sorted(decision.visible for decision in enough)
        if not visible or len(enough) < len(self.decisions):
            return 3
        return 3 if visible[len(visible) // 2] > TOO_LITTLE else 0


class Unusable(ValueError):
    """A revision that cannot be imported."""


@dataclass
class Run:
    """Two revisions, the benchmarks, and the file that results are added to.

    progress(benchmark, done, total): called as benchmarks begin and end; complain(sentence).
    """

    base: Revision
    head: Revision
    suite: Sequence[Benchmark]
    path: Path
    threads: int | None = None
    seconds: float = SECONDS
    limit: float = LIMIT
    looks: Sequence[int] = LOOKS
    progress: Callable[[str, int, int], None] = lambda name, done, total: None
    complain: Callable[[str], None] = lambda sentence: None

    def measure(self, compile_times: bool = True) -> Outcome:
        """Go on from what the file holds, to the end; the same file then gives the same outcome."""
        start = time.perf_counter()
        compiled = self._compile_times() if compile_times else []
        limit = time.perf_counter() + self.limit
        longest = 0.0
        for number in range(self.looks[-1]):
            begun = time.perf_counter()
            if number >= self.looks[0] and begun + longest > limit:
                break
            found = self._read()
            todo = self._undecided(found, number)
            if not todo:
                break
            had = {(r["benchmark"], r["process"]) for r in found}
            self._process(number, [b for b in todo if (b.name, number) not in had])
            longest = max(longest, time.perf_counter() - begun)
        outcome = self.outcome()
        outcome.costs += compiled
        outcome.seconds = time.perf_counter() - start
        return outcome

    def end(self) -> None:
        """Mark the file as that of a run that ended: the next one begins anew."""
        lines.append(self.path, {"kind": "end"})

    def outcome(self) -> Outcome:
        """What the file's records say."""
        found = self._read()
        names = {benchmark.name: benchmark.variant for benchmark in self.suite}
        timings = [r for r in found if r["kind"] == "timing" and r["benchmark"] in names]
        sentences: dict[str, dict[str, str]] = {"failed": {}, "absent": {}}
        for record in found:
            if record["kind"] in sentences:
                sentences[record["kind"]].setdefault(record["benchmark"], record["sentence"])
        return Outcome(
            decide({name: [r for r in timings if r["benchmark"] == name] for name in names}, names),
            costs.compare(timings, names),
            [*sentences["failed"].items()],
            [*sentences["absent"].items()],
        )

    def _read(self) -> list[dict[str, Any]]:
        """The file's records of benchmarks; damaged lines are told of once."""
        told, self._told = getattr(self, "_told", False), True
        found = lines.read(self.path, (lambda sentence: None) if told else self.complain)
        return [record for record in found if "benchmark" in record]

    def _undecided(self, found: list[dict[str, Any]], number: int) -> list[Benchmark]:
        """What the next process measures: the benchmarks that earlier ones did not decide."""
        gone = {r["benchmark"] for r in found if r["kind"] != "timing"}
        over: set[str] = set()
        look = max((look for look in self.looks if look <= number), default=0)
        if look:
            timings: dict[str, list[dict[str, Any]]] = {b.name: [] for b in self.suite}
            for record in found:
                if record["kind"] == "timing" and record["process"] < look:
                    timings[record["benchmark"]].append(record)
            over = decided(decide(timings, {b.name: b.variant for b in self.suite}))
        return [b for b in self.suite if b.name not in over | gone]

    def _process(self, number: int, todo: list[Benchmark]) -> None:
        """Measure in a fresh process; where it dies, the benchmark it was at failed."""
        total = len(todo)
        while todo:
            request = self._request("compare", todo) | {
                "process": number, "seconds": self.seconds, "results": str(self.path),
                "base": str(self.base.folder), "head": str(self.head.folder),
            }  # fmt: skip
            at, done = "", set()
            for message in self._worker(request):
                at = message.get("begin", at)
                done |= {message["done"]} if "done" in message else set()
                self.progress(at, total - len(todo) + len(done), total)
            todo = [benchmark for benchmark in todo if benchmark.name not in done]
            if todo:
                sentence = f"process {number} died of {self._death}"
                if not at or at in done:
                    raise RuntimeError(f"{sentence} before it measured anything")
                about = {"benchmark": at, "process": number, "kind": "failed"}
                lines.append(self.path, about | {"sentence": sentence})
                todo = [benchmark for benchmark in todo if benchmark.name != at]

    def _compile_times(self) -> list[Cost]:
        """Compare what compiling takes; measured once a revision, when nothing is compiled yet."""
        base, head = (self._cold(side) for side in ("base", "head"))

        def again(names: Sequence[str]) -> tuple[dict[str, float], dict[str, float]]:
            found = []
            for side in ("base", "head"):
                with tempfile.TemporaryDirectory() as folder:
                    found.append(self._cold(side, names, Path(folder)))
            return found[0], found[1]

        return costs.compiled(base, head, again)

    def _cold(
        self, side: str, names: Sequence[str] | None = None, empty: Path | None = None
    ) -> dict[str, float]:
        """Seconds of plan and first step by variant; empty: a folder for the compiled code."""
        revision = self.base if side == "base" else self.head
        path = (empty or revision.folder) / "cold.jsonl"
        known = {r["variant"]: r for r in lines.read(path, self.complain)}
        wanted = {b.variant: b for b in self.suite if names is None or b.variant in names}
        todo = [benchmark for name, benchmark in wanted.items() if name not in known]
        with tempfile.TemporaryDirectory() as spare:
            if todo:
                # Code that is there already would be loaded, and no compiling measured.
                there = any(revision.folder.glob("src/*/__pycache__/numba/*"))
                cache = empty or (spare if there else None)
                request = self._request("cold", todo) | {
                    "side": side, side: str(revision.folder), "results": str(path),
                    "cache": cache and str(cache),
                }  # fmt: skip
                at, done = "", 0
                for message in self._worker(request):
                    at = message.get("begin", at)
                    done += "done" in message
                    self.progress(f"{side} compiles {at}", done, len(todo))
        found = lines.read(path, lambda sentence: None)
        return {r["variant"]: r["seconds"] for r in found if "seconds" in r}

    def _request(self, what: str, benchmarks: Sequence[Benchmark]) -> dict[str, Any]:
        return {
            "do": what, "tool": str(_TOOL), "threads": self.threads,
            "benchmarks": [benchmark.request() for benchmark in benchmarks],
        }  # fmt: skip

    def _worker(self, request: dict[str, Any]) -> Iterator[dict[str, Any]]:
        """The messages of a worker. Raises Unusable where a revision cannot be imported."""
        with tempfile.TemporaryFile("w+") as errors:
            worker = subprocess.Popen(
                [sys.executable, str(WORKER)], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                stderr=errors, text=True,
            )  # fmt: skip
            assert worker.stdin is not None and worker.stdout is not None
            try:
                worker.stdin.write(json.dumps(request) + "\n")
                worker.stdin.flush()
                for line in worker.stdout:
                    message = json.loads(line)
                    if "side" in message:
                        revision = self.base if message["side"] == "base" else self.head
                        raise Unusable(
                            f"{message['side']}: {revision.label} cannot be imported: "
                            f"{message['sentence']}"
                        )
                    yield message
                worker.wait()
            finally:
                worker.kill()
                worker.wait()
                worker.stdin.close()
                worker.stdout.close()
            errors.seek(0)
            last = (errors.read().strip().splitlines() or [""])[-1]
            code = worker.returncode
            self._death = f"signal {-code}" if code < 0 else f"exit code {code} {last}".strip()


def results_file(run: Sequence[object], folder: Path | None = None) -> Path:
    """The file for a run of these trees, benchmarks and settings on this machine."""
    text = json.dumps([machine_hash(), *map(str, run)])
    key = hashlib.sha256(text.encode()).hexdigest()[:16]
    return newest(folder or cache_folder() / "results", key)


def newest(folder: Path, key: str) -> Path:
    """The file of a run that was interrupted and goes on, or of a new one."""
    folder.mkdir(parents=True, exist_ok=True)
    numbers = [int(path.stem.rpartition("-")[2]) for path in folder.glob(f"{key}-*.jsonl")]
    last = max(numbers, default=0)
    path = folder / f"{key}-{last}.jsonl"
    ended = not last or any(r.get("kind") == "end" for r in lines.read(path, lambda sentence: None))
    return folder / f"{key}-{last + 1}.jsonl" if ended else path

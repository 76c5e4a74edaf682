"""A run: processes that measure both sides, until all is decided or the time is over."""

from __future__ import annotations

import contextlib
import json
import subprocess
import tempfile
import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import IO, Any, TypeVar

from ..machine import lines
from ..machine.calm import Calm, watched, worst
from . import costs
from .costs import Cost, Note
from .decide import LOOKS, SLOWEST, Decision, decide, decided
from .processes.messages import begun, end, reply
from .processes.sides import SIDES
from .revisions import Revision
from .suite import Benchmark

SECONDS = 0.4  # of blocks for a benchmark in a process
LIMIT = 285.0  # seconds for all that is measured; four processes are run in any case
PAIRS = LOOKS[0]  # of processes that make first steps; an alarm needs as many
TRIAL = -1  # the process in which nothing is timed
DONE = ("right", "timing")  # kinds of records after which a benchmark is measured further
TOO_LITTLE = 0.05  # of an epoch: a run whose median smallest visible change is larger says nothing
Found = TypeVar("Found", Decision, Cost)


@dataclass
class Outcome:
    """What a run found."""

    decisions: list[Decision] = field(default_factory=list)
    costs: list[Cost] = field(default_factory=list)
    notes: list[Note] = field(default_factory=list)
    seconds: float = 0.0
    calm: Calm = field(default_factory=Calm)

    def of(self, kind: str) -> list[Note]:
        """The notes of a kind."""
        return [note for note in self.notes if note.kind == kind]

    @property
    def exit_code(self) -> int:
        """0 no regression, 1 a regression, 2 a benchmark failed, 3 too little was measured."""
        if self.of("failed"):
            return 2
        worse = [*self.of("lost"), *self.of("far")]
        if any(d.regression for d in self.decisions) or not all(n.accepted for n in worse):
            return 1
        if any(cost.regression for cost in self.costs):
            return 1
        times = [d for d in self.decisions if d.kind == "time"]
        enough = [d for d in times if d.processes >= LOOKS[0]]
        visible = sorted(decision.visible for decision in enough)
        if not times and (worse or self.of("repaired") or self.of("new")):
            return 0
        if not visible or len(enough) < len(times):
            return 3
        return 3 if visible[len(visible) // 2] > TOO_LITTLE else 0


class Unusable(ValueError):
    """A revision that cannot be imported."""


@dataclass
class Run:
    """Two revisions, the benchmarks, and the file that results are added to.

    progress(benchmark, done, total): called as benchmarks begin and end; complain(sentence).
    tolerance: the share by which a step may be slower; accepted: names of benchmarks, variants or
    decisions whose cost is wanted.
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
    tolerance: float = 0.0
    accepted: Collection[str] = ()
    patience: float = 180.0  # seconds in which a process must be done with something
    files: Sequence[Path] = ()  # of variants, by their paths in the revisions

    def __post_init__(self) -> None:
        self._told = False
        self.patience = max(self.patience, 6 * self.seconds)  # turns last up to four times as long

    def measure(self, costly: bool = True) -> Outcome:
        """Go on from what the file holds, to the end; the same file then gives the same outcome.

        costly: whether compiling, first calls and memory are compared, too.
        """
        start = time.perf_counter()
        with watched(self._keep_calm):
            if costly:
                self._compile_times()
            self._missing(TRIAL, self.suite)
            self._alone()
            if costly:
                self._starts()
        limit = start + self.limit
        longest = 0.0
        for number in range(self.looks[-1]):
            begun = time.perf_counter()
            todo = self._undecided(number)
            if not todo or (number >= self.looks[0] and begun + longest > limit):
                break
            with watched(self._keep_calm):
                self._missing(number, todo)
            longest = max(longest, time.perf_counter() - begun)
        outcome = self.outcome()
        outcome.seconds = time.perf_counter() - start
        return outcome

    def _keep_calm(self, met: Calm) -> None:
        lines.append(self.path, {"calm": asdict(met)})

    def end(self) -> None:
        """Mark the file as that of a run that ended: the next one begins anew."""
        lines.append(self.path, {"kind": "end"})

    def outcome(self) -> Outcome:
        """What the file's records say."""
        variant_of = {benchmark.name: benchmark.variant for benchmark in self.suite}
        found = [r for r in self._read("benchmark") if r["benchmark"] in variant_of]
        right = [r for r in found if r["kind"] == "right"]
        notes: dict[str, Note] = {}
        for r in sorted(found, key=lambda record: record["kind"] != "failed"):
            if r["kind"] not in DONE:
                note = Note(r["kind"], r["benchmark"], r["sentence"], r.get("seconds"))
                names = {note.benchmark, variant_of[note.benchmark]}
                accepted = not names.isdisjoint(self.accepted)
                notes.setdefault(note.benchmark, note._replace(accepted=accepted))
        decisions = {d.name: d for d in self._decide(self.looks[-1])}
        for record in reversed(self._read("look")):  # the verdict at the first look stays
            decisions |= {d["name"]: Decision(**d) for d in record["decided"]}
        found_costs = [*costs.compiled(self._read("round")), *costs.accuracy(right, variant_of)]
        return Outcome(
            [self._excused(d) for d in decisions.values()],
            [self._excused(cost) for cost in found_costs],
            [*notes.values()], calm=worst(Calm(**r["calm"]) for r in self._read("calm")),
        )  # fmt: skip

    def _excused(self, found: Found) -> Found:
        names = {found.variant}
        if isinstance(found, Decision):
            names |= {found.name, found.name.removesuffix(SLOWEST)}
        wanted = found.regression and not names.isdisjoint(self.accepted)
        return replace(found, excuse="accepted") if wanted else found

    def _read(self, key: str) -> list[dict[str, Any]]:
        """The file's records that have a key; damaged lines are told of once."""
        told, self._told = self._told, True
        found = lines.read(self.path, (lambda sentence: None) if told else self.complain)
        return [record for record in found if key in record]

    def _decide(self, processes: int) -> list[Decision]:
        """The decisions on what the first so many processes found."""
        timings: dict[str, list[dict[str, Any]]] = {b.name: [] for b in self.suite}
        for record in self._read("benchmark"):
            if record["kind"] == "timing" and record["process"] < processes:
                timings.get(record["benchmark"], []).append(record)
        variant_of = {b.name: b.variant for b in self.suite}
        return decide(timings, variant_of, self._read("pair"), self.tolerance)

    def _undecided(self, number: int) -> list[Benchmark]:
        """What the next process measures: the benchmarks that earlier looks did not decide."""
        gone = {r["benchmark"] for r in self._read("benchmark") if r["kind"] not in DONE}
        looked = {record["look"]: record for record in self._read("look")}
        if number in self.looks and number not in looked:
            decisions = self._decide(number)
            over = decided(decisions)
            kept = [d for d in decisions if d.name in over or d.changed]
            looked[number] = {"look": number, "over": [*over], "decided": [*map(asdict, kept)]}
            lines.append(self.path, looked[number])
        for record in looked.values():
            gone |= set(record["over"])
        return [b for b in self.suite if b.name not in gone]

    def _missing(self, number: int, todo: Sequence[Benchmark]) -> None:
        """Have a process measure what it did not yet."""
        had = {(r["benchmark"], r["process"]) for r in self._read("benchmark")}
        self._process(number, [b for b in todo if (b.name, number) not in had])

    def _process(self, number: int, todo: list[Benchmark]) -> None:
        """Measure in a fresh process; where it dies, the benchmark it was at failed."""
        total = len(todo)
        died: dict[str, dict[str, str]] = {}
        broken: dict[str, str] = {}  # the base, where it cannot be imported
        while todo:
            request = self._request("compare", todo) | {
                "process": number, "seconds": self.seconds, "broken": broken, "died": died,
                "base": str(self.base.folder), "head": str(self.head.folder),
            }  # fmt: skip
            at, side, done, death = "", "", set(), "ended"
            try:
                with self._worker(request) as messages:
                    for message in messages:
                        at, side = message.get("begin", at), message.get("at", side)
                        death = message.get("died", death)
                        done |= {message["done"]} if "done" in message else set()
                        self.progress(at, total - len(todo) + len(done), total)
            except Unusable as reason:
                if not str(reason).startswith("base: ") or broken:
                    raise
                broken = {"base": str(reason)}  # the head alone is checked
                continue
            todo = [benchmark for benchmark in todo if benchmark.name not in done]
            if todo:
                sentence = f"{'the trial' if number < 0 else f'process {number}'} {death}"
                if not at or at in done:
                    raise RuntimeError(f"{sentence} before it measured anything")
                if side == "base" and at not in died:  # the head may have repaired it
                    died[at] = {side: sentence}
                    continue
                about = {"benchmark": at, "process": number, "kind": "failed"}
                lines.append(self.path, about | {"sentence": sentence})
                todo = [benchmark for benchmark in todo if benchmark.name != at]

    def _alone(self) -> None:
        """What the base fails at beside the head, but not alone, is the head's failure."""
        doubted = {r["benchmark"] for r in self._read("benchmark") if r.get("fails") == "base"}
        while todo := [b for b in self.suite if b.name in doubted - self._tried_alone().keys()]:
            gone, request = [todo[0].name], self._request("alone", todo) | {"side": "base"}
            try:
                with self._worker(request | {"base": str(self.base.folder)}) as messages:
                    for message in messages:
                        gone = [message.get("begin", gone[0])]
            except Unusable:
                gone = [benchmark.name for benchmark in todo]
            for name in {*gone} - self._tried_alone().keys():  # where it died
                lines.append(self.path, {"alone": name, "kind": "failed"})
        failed = {r["benchmark"] for r in self._read("benchmark") if r["kind"] == "failed"}
        for name, kind in self._tried_alone().items():
            if kind != "failed" and name not in failed:
                about = {"benchmark": name, "process": TRIAL, "kind": "failed"}
                sentence = "the base fails beside the head, and does not alone"
                lines.append(self.path, about | {"sentence": sentence})

    def _tried_alone(self) -> dict[str, str]:
        return {record["alone"]: record["kind"] for record in self._read("alone")}

    def _starts(self) -> None:
        """Pairs of processes, one a side, for the first calls and the memory of each variant."""
        largest = self._largest()
        for pair in range(PAIRS):
            had = {(r["side"], r["variant"]) for r in self._read("pair") if r["pair"] == pair}
            todo = [b for name, b in largest.items() if not {(s, name) for s in SIDES} <= had]
            if todo:
                self._at_once(self._request("start", todo) | {"pair": pair}, f"pair {pair}, ")

    def _compile_times(self) -> None:
        """What compiling takes on both sides at once; a suspicion is measured again."""
        wanted = list(self.suite)
        for number in range(costs.ROUNDS):
            records = self._read("round")
            if number:
                earlier = [r for r in records if r["round"] < number]
                found = costs.compiled(earlier, least=number)
                suspects = {c.variant for c in found if c.verdict != "same"}
                wanted = [b for b in wanted if b.variant in suspects]
            known = {(r["problem"], r["side"]) for r in records if r["round"] == number}
            todo = [b for b in wanted if not {(b.name, s) for s in SIDES} <= known]
            if todo:
                self._cold(number, todo)

    def _largest(self) -> dict[str, Benchmark]:
        """The variants that are right, each on its largest problem."""
        right = self._right()
        largest = sorted(self.suite, key=lambda b: b.shape.n * b.shape.d)
        return {b.variant: b for b in largest if b.name in right}

    def _right(self) -> set[str]:
        return {r["benchmark"] for r in self._read("benchmark") if r["kind"] == "right"}

    def _cold(self, number: int, todo: Sequence[Benchmark]) -> None:
        """Seconds of plan and first step where no compiled code is.

        What a side compiles for the first time is kept, for the other processes.
        """
        request = self._request("cold", todo) | {"round": number}
        sides = zip(SIDES, (self.base, self.head), strict=True)
        with contextlib.ExitStack() as stack:
            empty = {
                name: stack.enter_context(tempfile.TemporaryDirectory())
                for name, revision in sides if revision.compiled()
            }  # fmt: skip
            self._at_once(request, "compiling, ", empty)

    def _at_once(
        self, request: dict[str, Any], title: str, caches: Mapping[str, str] | None = None
    ) -> None:
        """A process for each side, both at the same time: what else runs slows both alike."""
        total = len(request["benchmarks"])
        with contextlib.ExitStack() as stack:
            workers = {}
            for side, revision in zip(SIDES, (self.base, self.head), strict=True):
                own = {"side": side, side: str(revision.folder), "cache": (caches or {}).get(side)}
                workers[side] = stack.enter_context(self._worker(request | own))
            self._follow("head", workers["head"], f"{title}head: ", total)
            with contextlib.suppress(Unusable):  # the trial tells of it
                self._follow("base", workers["base"], f"{title}base: ", total)

    def _follow(
        self, side: str, messages: Iterator[dict[str, Any]], title: str, total: int
    ) -> None:
        """Show a worker's progress and tell of a death; of a head found right, it is a failure."""
        at, finished = "", set()
        for message in messages:
            at = message.get("begin", at)
            finished |= {message["done"]} if "done" in message else set()
            self.progress(f"{title}{at}", len(finished), total)
            if "died" in message:
                sentence = f"a process {message['died']}"
                lost = f"costs of {total - len(finished)} of {total} benchmarks are not compared"
                where = "its end" if at in finished else at or "its start"
                self.complain(f"{side}: {sentence} at {where}: {lost}")
                if at in self._right() - finished and side == "head":
                    about = {"benchmark": at, "process": TRIAL, "kind": "failed"}
                    lines.append(self.path, about | {"sentence": sentence})

    def _request(self, what: str, benchmarks: Sequence[Benchmark]) -> dict[str, Any]:
        return {
            "do": what, "threads": self.threads, "results": str(self.path),
            "benchmarks": [benchmark.request() for benchmark in benchmarks],
            "files": [str(file) for file in self.files],
        }  # fmt: skip

    def names(self) -> tuple[list[tuple[str, list[list[str]]]], list[str]]:
        """The variants that either side brings along, with their devices there, and all it knows.

        Raises Unusable where the files, in neither revision, have any.
        """
        found: dict[str, list[list[str]]] = {}
        known: dict[str, None] = {}
        reason = "--variant-file: expected variants in one of the revisions, got none"
        for side, revision in (("head", self.head), ("base", self.base)):
            try:
                request = self._request("names", ()) | {"side": side, side: str(revision.folder)}
                with self._worker(request) as messages:
                    for message in messages:
                        for name, devices in message.get("names", ()):
                            found.setdefault(name, []).append(devices)
                        known |= dict.fromkeys(message.get("known", ()))
            except Unusable as error:  # of one side it is told where epochs are compared
                reason = str(error)
        if self.files and not found:
            raise Unusable(reason)
        return [*found.items()], [*known]

    @contextlib.contextmanager
    def _worker(self, request: dict[str, Any]) -> Iterator[Iterator[dict[str, Any]]]:
        """A worker's messages; it is ended with the context."""
        with tempfile.TemporaryFile("w+", errors="replace") as errors:
            worker = begun(errors)
            assert worker.stdin is not None
            try:
                with contextlib.suppress(BrokenPipeError):  # it died: no line comes
                    worker.stdin.write(json.dumps(request) + "\n")
                    worker.stdin.flush()
                yield self._messages(worker, errors)
            finally:
                end(worker)

    def _messages(self, worker: subprocess.Popen[str], errors: IO[str]) -> Iterator[dict[str, Any]]:
        """What a worker says, and as the last message what it died of.

        Raises Unusable where a revision cannot be imported.
        """
        while True:
            line, hung = reply(worker, self.patience)
            if not line:
                break
            message = json.loads(line)
            if "side" in message:
                revision = self.base if message["side"] == "base" else self.head
                raise Unusable(
                    f"{message['side']}: {revision.label} cannot be imported: {message['sentence']}"
                )
            yield message
        code = worker.wait()
        if hung:
            yield {"died": f"did nothing for {self.patience:g} s"}
        elif code:
            errors.seek(0)
            last = (errors.read().strip().splitlines() or [""])[-1]
            death = f"signal {-code}" if code < 0 else f"exit code {code} {last}".strip()
            yield {"died": f"died of {death}"}

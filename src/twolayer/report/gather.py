"""Measure what a report needs, and take from the store what this machine has measured before.

Figures that are compared come from one race. A race, a start or a check that was finished is kept;
one of another machine, of other libraries or of other sources is measured anew.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from .. import variants
from ..checking import verify
from ..interface import Variant
from ..machine.calm import Calm, Watch
from ..machine.store import Measurement, Store, machine_hash
from ..measuring import race, roofline, startup, timing
from ..measuring.race import Entry, Result, Workload
from ..measuring.roofline import Roofline
from ..network import DTYPES, Network, Shape
from .study import Study, contenders, workloads

LIMIT = race.LIMIT  # seconds an epoch in the sweeps
MAP_LIMIT = 0.3  # seconds an epoch in the maps, whose fields are smaller

Progress = Callable[[str, int, int], None]


class Gathering:
    """One run: what it looks for, and where.

    Arguments: field, the variants; files, those of them that are no part of the package;
    progress(what, done, total), called before each piece of work and at the end; calm(), called
    before anything is timed; again, whether what was timed while something disturbed is timed anew.
    """

    def __init__(
        self, net: Network, dtype: str, threads: int, field: Sequence[Variant], store: Store,
        files: Sequence[Path] = (), progress: Progress = lambda what, done, total: None,
        calm: Callable[[], None] = lambda: None, again: bool = False,
    ) -> None:  # fmt: skip
        self.field = [variant for variant in field if not variant.unavailable()]
        self.study = Study(net, dtype, threads, list(field), Roofline(0, 0))
        self.store = store
        self.files = files
        self._digest = hashlib.sha256(b"\0".join(path.read_bytes() for path in files)).hexdigest()
        self._progress, self._calm, self._again = progress, calm, again
        self._done = 0
        self._total = 0

    def run(self) -> Study:
        """All of it. KeyboardInterrupt loses the piece of work in hand only."""
        study = self.study
        sweeps, maps = workloads(study.net, study.dtype)
        swept = {w for group in sweeps.values() for w in group}
        mapped = {w for group in maps.values() for w in group} - swept
        self._total = len(swept) + len(mapped) + 2 * len(self.field)
        # A virtual machine's idle CPUs take as long to come back at full speed; before that, the
        # first race would leave out variants as too slow.
        self._roof(seconds=timing.WAKE_UP)
        results: dict[Workload, Result] = {}
        for group in sweeps.values():
            for workload in group:
                if workload not in results:
                    results[workload] = self._race(workload, self.field, LIMIT)
        study.sweeps = {axis: [results[w] for w in group] for axis, group in sweeps.items()}
        rivals = contenders(study.swept)
        for group in maps.values():
            for workload in group:
                if workload not in results:
                    results[workload] = self._race(workload, rivals, MAP_LIMIT)
        study.maps = {axes: [results[w] for w in group] for axes, group in maps.items()}
        for variant in self.field:
            study.starts[variant.name] = self._start(variant)
        for variant in self.field:
            study.agreements[variant.name] = self._agreements(variant)
        for result in results.values():
            result.roof = study.roof
        self._progress("", self._total, self._total)
        return study

    def _about(self, workload: Workload) -> dict[str, Any]:
        """What kept figures must have in common with those looked for."""
        return {
            "activation": workload.net.activation,
            "loss": workload.net.loss,
            "dtype": workload.dtype,
            "threads": self.study.threads,
            **workload.shape._asdict(),
        }

    def _kept(self, kind: str, **about: Any) -> list[Mapping[str, Any]]:
        """The figures of this machine, the newest first."""
        found = self.store.select(kind=kind, machine=machine_hash(), **about)
        return [m.metrics for m in reversed(found) if m.metrics.get("files") == self._digest]

    def _keep(self, kind: str, metrics: Mapping[str, Any], **about: Any) -> None:
        self.store.add(Measurement(kind=kind, metrics={**metrics, "files": self._digest}, **about))

    def _begin(self, what: str) -> None:
        self._progress(what, self._done, self._total)
        self._done += 1

    def _roof(self, seconds: float) -> None:
        """The highest roofs ever found: disturbance can only lower them."""
        about = {"dtype": self.study.dtype, "threads": self.study.threads}
        kept = [Roofline(m["flops"], m["bandwidth"]) for m in self._kept("roofline", **about)]
        found = roofline.probe(self.study.dtype, self.study.threads, seconds=seconds)
        best = Roofline(*map(max, zip(*kept, found, self.study.roof, strict=True)))
        if best not in kept:
            self._keep("roofline", best._asdict(), **about)
        self.study.roof = best

    def _race(self, workload: Workload, field: Sequence[Variant], limit: float) -> Result:
        self._begin(str(workload))
        result = Result(workload, self.study.threads, self.study.roof)
        about = self._about(workload)
        names = {variant.name for variant in field}
        for kept in self._kept("race", **about):
            entries = [_entry(record) for record in kept["entries"] if record["variant"] in names]
            if len(entries) == len(names) and kept["limit"] >= limit and self._good(kept):
                result.entries, result.calm = entries, Calm(**kept["calm"])
                return result
        self._calm()
        self._roof(seconds=0.1)

        def progress(name: str, units: int) -> None:
            self._progress(f"{workload}  {name}", self._done - 1, self._total)

        race.race(result, field, limit=limit, store=self.store, progress=progress)
        if not any(entry.passing for entry in result.entries):
            records, met = [*map(_record, result.entries)], asdict(result.calm)
            self._keep("race", {"entries": records, "limit": limit, "calm": met}, **about)
        return result

    def _good(self, kept: Mapping[str, Any]) -> bool:
        """Whether figures need not be measured again."""
        return not (self._again and Calm(**kept["calm"]).reasons)

    def _start(self, variant: Variant) -> startup.Start:
        base = self.study.base
        self._begin(f"first epoch of {variant.name} in a fresh process")
        about = self._about(base) | {"variant": variant.name}
        for kept in filter(self._good, self._kept("start", **about)):
            self.study.started[variant.name] = Calm(**kept["calm"])
            return startup.Start(kept["cold"], kept["cached"], kept["failure"])
        self._calm()
        watch = Watch()
        found = startup.start(variant, base, self.study.threads, self.files)
        met = self.study.started[variant.name] = watch.calm()
        if not found.failure:
            self._keep("start", found._asdict() | {"calm": asdict(met)}, **about)
        return found

    def _agreements(self, variant: Variant) -> list[verify.Agreement]:
        self._begin(f"accuracy of {variant.name}")
        net, found = self.study.net, []
        for dtype in DTYPES:
            about = {
                "variant": variant.name, "activation": net.activation, "loss": net.loss,
                "dtype": dtype, "threads": self.study.threads,
            }  # fmt: skip
            kept = next(iter(self._kept("accuracy", **about)), None)
            if kept is None:
                checked = list(verify.verify(variant, net, dtype, self.study.threads))
                rows = [
                    [a.case, a.shape, a.ratio, a.quantity, a.failure]
                    for a in checked if not a.undecided
                ]  # fmt: skip
                kept = {"checked": rows}
                if not any(one.failure for one in checked):
                    self._keep("accuracy", kept, **about)
            found += [
                verify.Agreement(
                    variant.name, net, case, Shape(*shape), dtype, ratio, quantity, failure=failure
                )
                for case, shape, ratio, quantity, failure in kept["checked"]
            ]
        return found


def _record(entry: Entry) -> dict[str, Any]:
    return {
        "variant": entry.variant.name,
        "skipped": entry.skipped,
        "blocks": entry.blocks,
        "first_call": entry.first_call,
        "peak_memory": entry.peak_memory,
    }


def _entry(record: Mapping[str, Any]) -> Entry:
    return Entry(**{**record, "variant": variants.get(record["variant"])})

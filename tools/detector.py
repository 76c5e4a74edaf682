"""How often `twolayer regress` raises a false alarm, and what slowdowns it finds.

    python tools/detector.py --runs 20 --results detector.jsonl --write docs/lab/detector.md

Every run is a whole one, of the quick profile, on two copies of the working tree. In one of them a
variant does more in its steps: a chain of multiplications whose length, a share of the step, is set
by timing both, in all steps or in one of ten; it allocates, reads X once more, or takes a lock.
Runs are kept in the results file as they end; after an interruption the same command goes on, on
any machine. The table covers all runs of the file that this detector made.
"""

from __future__ import annotations

import argparse
import contextlib
import shutil
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from itertools import product
from pathlib import Path
from typing import Any

from scipy import stats

from twolayer import regress
from twolayer.kernels.compiler.digest import digest
from twolayer.machine import lines
from twolayer.machine.hardware import fingerprint
from twolayer.machine.store import machine_hash
from twolayer.network import Network
from twolayer.regress.revisions import Revision, export
from twolayer.regress.run import LIMIT, SECONDS, Outcome, Run
from twolayer.regress.suite import benchmarks
from twolayer.showing import tables
from twolayer.showing.output import complain
from twolayer.texts import parts

MARKER = "detector"
PLANTS = {
    "0": "nothing",
    "1": "1%",
    "2": "2%",
    "5": "5%",
    "10": "10%",
    "tenth": "one step of ten twice as slow",
    "allocation": "2 MB allocated and filled",
    "pass": "a pass over X",
    "lock": "a lock that is free",
}
SLOWED = '''

def _slowed(make, plant):
    """The Engine class that does more after each step: see the detector's plants."""
    import threading
    import time

    import numba
    import numpy as np

    tenth = plant == "tenth"
    share = 1.0 if tenth else float(plant) / 100 if plant.isdecimal() else 0.0
    lock = threading.Lock()
    more = {
        "allocation": lambda X: np.ones(1 << 18),
        "pass": lambda X: X.sum(),
        "lock": lambda X: lock.acquire() and lock.release(),
    }.get(plant, lambda X: None)
    steps = iter(range(1 << 62))

    @numba.njit
    def chain(length, x):  # from x known beforehand, the result would be too
        for _ in range(length):
            x = x * 0.999 + 1e-3
        return x

    def fastest(call, *arguments):
        end, least = time.perf_counter() + 0.1, float("inf")
        while time.perf_counter() < end:
            start = time.perf_counter()
            call(*arguments)
            least = min(least, time.perf_counter() - start)
        return least

    chain(1, 0.5)
    call, million = fastest(chain, 0, 0.5), fastest(chain, 1_000_000, 0.5)
    if million < 1e-4:
        raise RuntimeError(f"a million dependent operations took {million:g} s: not carried out")
    lengths = {}

    class Slowed(make):
        length = 0

        def update(self, X, Y, weights, update, scalars):
            key = (self.shape, self.dtype.name)
            if key not in lengths and len(scalars) == 1:  # a descent, which may stand still
                still = super().update, X, Y, weights, update, (0.0,)
                seconds = min(fastest(*still) for _ in range(3))
                lengths[key] = round(max(share * seconds - call, 0) / million * 1_000_000)
            self.length = lengths.get(key, 0)
            loss = super().update(X, Y, weights, update, scalars)
            if not tenth or next(steps) % 10 == 3:
                chain(self.length, 0.5)
            more(X)
            return loss

    return Slowed


def _plant():
    from pathlib import Path

    path = Path(__file__).with_suffix(".plant")  # not a source, so nothing is compiled anew
    return path.read_text()


import dataclasses as _dataclasses

VARIANT = _dataclasses.replace(VARIANT, make=_slowed(VARIANT.make, _plant()))
'''
HALF_BUSY = """
import time
while True:
    end = time.perf_counter() + 0.05
    while time.perf_counter() < end:
        pass
    time.sleep(0.05)
"""


def main() -> None:
    """Make the runs that the results file lacks, print the table, and write it where asked."""
    arguments = _arguments()
    path, common = Path(arguments.results), sources()
    suite = benchmarks(Network(), "float32", arguments.shape or (), arguments.variants)
    if arguments.slowed not in {benchmark.variant for benchmark in suite}:
        raise SystemExit(f"--slowed: expected a variant that is measured, got {arguments.slowed!r}")
    base, head = (export(None, side) for side in ("base", "head"))
    with tempfile.TemporaryDirectory() as folder:
        slowed = _copy(head, arguments.slowed, Path(folder) / "slowed")
        for number, plant, answer in product(
            range(arguments.runs), arguments.plant, arguments.busy
        ):
            busy = answer == "yes"
            about = {
                "number": number, "plant": plant, "busy": busy, **common,
                "slowed": arguments.slowed,
            }  # fmt: skip
            if any(about.items() <= run.items() for run in lines.read(path, complain)):
                continue
            about |= machine()
            _source(slowed.folder, arguments.slowed).with_suffix(".plant").write_text(plant)
            planted = plant != "0"
            results = Path(folder) / f"{number}-{plant}-{busy}"
            run = Run(base, slowed if planted else head, suite, results, seconds=arguments.seconds,
                      limit=arguments.limit)  # fmt: skip
            with _half_busy() if busy else contextlib.nullcontext():
                outcome = run.measure()
            about |= summary(outcome, arguments.slowed if planted else None)
            lines.append(path, about)
            print(_line(about), flush=True)
    runs = [run for run in lines.read(path, complain) if common.items() <= run.items()]
    text = table(runs)
    print(text)
    if arguments.write:
        tables.write_between(Path(arguments.write), text, MARKER)


def sources() -> dict[str, str]:
    """What the runs of one table have in common: the sources that decide."""
    return {"detector": digest([Path(regress.__file__).parent])[:16]}


def machine() -> dict[str, str]:
    """The machine with its libraries, which may be another one from run to run."""
    # "os" names the kernel's build too, which may change between two boots of one machine.
    about = {key: value for key, value in fingerprint().items() if key not in ("sources", "os")}
    return {"machine": machine_hash(about), "cpu": _cpu(about)}


def _cpu(about: dict[str, Any]) -> str:
    return f"{about['cpu']} ({about['cpu_target']}), {about['cpus']} CPUs"


def table(runs: list[dict[str, Any]]) -> str:
    """The figures as Markdown: a row for each slowdown, on a quiet and on a half-busy machine."""
    rows = []
    for busy, plant in product((False, True), PLANTS):
        some = [r for r in runs if (r["plant"], r["busy"]) == (plant, busy)]
        if not some:
            continue
        hits = sum("slowest" not in name for r in some for name in r["found"])
        possible = sum(r["possible"] for r in some)
        seconds = statistics.median(r["seconds"] for r in some)
        found, count = "–", sum(map(_right, some))
        if plant != "0":
            found = f"{count / len(some):.0%} (≥ {_bound(count, len(some), 'greater'):.0%})"
        rows.append([
            PLANTS[plant], "yes" if busy else "no", str(len(some)), _alarms(some), found,
            f"{hits / possible:.0%}" if plant != "0" and possible else "–", f"{seconds:.0f} s",
        ])  # fmt: skip
    heads = [
        "planted", "one core half busy", "runs", "with a false alarm", "found, and nothing else",
        "benchmarks found", "median run",
    ]  # fmt: skip
    note = "In brackets, the bound on the rate that these runs leave with a confidence of 95%."
    cpus = "; ".join(sorted({run["cpu"] for run in runs}))
    source = f"{tables.origin(cpus, 'python tools/detector.py')} {note}"
    return "\n\n".join(filter(None, [tables.markdown_table(heads, rows), _all(runs), source]))


def origin(program: str) -> str:
    """Where a table of all runs of this machine comes from."""
    return tables.origin(_cpu(fingerprint()), f"python {program}")


def _all(runs: list[dict[str, Any]]) -> str:
    """All runs together, whose bounds are narrower than those of a row; nothing without runs."""
    if not runs:
        return ""
    text = f"All {len(runs)} runs together: {_alarms(runs)} with a false alarm"
    changed = [r for r in runs if r["plant"] != "0"]
    if changed:
        right = sum(map(_right, changed))
        bound = _bound(right, len(changed), "greater")
        text += f"; {right} of {len(changed)} slowdowns found, and nothing else (≥ {bound:.0%})"
    text += f"; the longest run took {max(r['seconds'] for r in runs):.0f} s"
    return f"{text}; machines, or sets of libraries: {len({r['machine'] for r in runs})}."


def _alarms(runs: list[dict[str, Any]]) -> str:
    """How many runs have a false alarm, and the bound on their rate from above."""
    count = sum(bool(r["false"]) for r in runs)
    return f"{count} (≤ {_bound(count, len(runs), 'less'):.1%})"


def _bound(count: int, runs: int, side: str) -> float:
    """The bound on a rate, by Clopper and Pearson: "less" from above, "greater" from below."""
    interval = stats.binomtest(count, runs, alternative=side).proportion_ci(0.95)
    return float(interval.high if side == "less" else interval.low)


def _right(run: dict[str, Any]) -> bool:
    """Whether the slowed variant was named, and nothing else."""
    return bool(run["found"]) and not run["false"]


def summary(outcome: Outcome, slowed: str | None) -> dict[str, Any]:
    """What a run found of the variant that was slowed, if any, and what it named for no reason."""
    found, false = [], []
    for d in outcome.decisions:
        if d.variant == slowed and d.kind in ("time", "tail"):
            (found if d.verdict == "slower" else false if d.changed else []).append(d.name)
        elif d.changed and d.variant != slowed:  # whose first call makes the plant, too
            false.append(d.name)
    false += [
        f"{c.variant} {c.kind}"
        for c in outcome.costs
        if c.verdict != "same" and (c.variant, c.kind) != (slowed, "compile")
    ]
    return {
        "found": found,
        "false": false + [f"{n.benchmark} {n.kind}" for n in outcome.notes if n.kind != "absent"],
        "possible": sum(d.variant == slowed and d.kind == "time" for d in outcome.decisions),
        "seconds": outcome.seconds,
    }


def _line(run: dict[str, Any]) -> str:
    found, false = (", ".join(run[key]) or "nothing" for key in ("found", "false"))
    busy = ", half busy" if run["busy"] else ""
    told = f"found: {found}; for no reason: {false}"
    return f"{PLANTS[run['plant']]}{busy}: {run['seconds']:.0f} s, {told}"


def _copy(revision: Revision, variant: str, folder: Path) -> Revision:
    """The revision with the variant slowed down by what a file beside its source says."""
    shutil.copytree(revision.folder, folder, symlinks=True)
    source = _source(folder, variant)
    source.write_text(source.read_text() + SLOWED)
    return Revision(f"{variant} slowed", f"{revision.tree}-slowed", folder)


def _source(folder: Path, variant: str) -> Path:
    return folder / "variants" / f"{variant.replace('-', '_')}.py"


@contextlib.contextmanager
def _half_busy() -> Iterator[None]:
    """Another process that keeps one core busy half of the time."""
    neighbour = subprocess.Popen([sys.executable, "-c", HALF_BUSY])
    try:
        yield
    finally:
        neighbour.kill()
        neighbour.wait()


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--runs", type=int, default=20, help="of each kind")
    parser.add_argument("--plant", nargs="+", default=[*PLANTS], choices=PLANTS,
                        help="percent of a step, or what else is planted")  # fmt: skip
    parser.add_argument("--slowed", default="numba-fused", help="the variant that does more work")
    parser.add_argument("--busy", nargs="+", default=["no"], choices=("no", "yes"),
                        help="whether one core is half busy")  # fmt: skip
    parser.add_argument("--variants", type=parts,
                        help="names with commas between, by default the suite's")  # fmt: skip
    parser.add_argument("--shape", action="append", help="n,d,M,K; by default the suite's")
    parser.add_argument("--seconds", type=float, default=SECONDS)
    parser.add_argument("--limit", type=float, default=LIMIT)
    parser.add_argument("--results", default="detector.jsonl", help="a line for each run")
    parser.add_argument("--write", help="put the table between the markers in this file")
    return parser.parse_args()


if __name__ == "__main__":
    main()

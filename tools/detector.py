"""How often `twolayer regress` raises a false alarm, and what slowdowns it finds.

    python tools/detector.py --runs 20 --results detector.jsonl --write docs/lab/detector.md

Every run is a whole one, of the quick profile, on two copies of the working tree. In one of them
some variants do more in their steps: multiplications that take a share of the step, set by timing
both, in all steps or in one of ten; an allocation, another pass over X, or a lock. In the other one
the same code does all but that.
A run plants up to three kinds at once, each in a variant of its own, another one from run to run;
a run with nothing planted stands alone. Runs are kept in the results file as they end, a line for
each plant; after an interruption the same command goes on, on any machine. The table covers all
lines of the file that this detector made.
"""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import shutil
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Collection, Iterator, Sequence
from itertools import product
from pathlib import Path
from typing import Any

from scipy import stats

from twolayer.machine import lines
from twolayer.machine.hardware import fingerprint
from twolayer.machine.store import machine_hash
from twolayer.network import Network
from twolayer.regress import costs, decide, turns
from twolayer.regress.decide import SLOWEST
from twolayer.regress.revisions import Revision, export
from twolayer.regress.run import LIMIT, SECONDS, Outcome, Run
from twolayer.regress.suite import benchmarks
from twolayer.showing import tables
from twolayer.showing.output import complain
from twolayer.texts import parts

MARKER = "detector"
TOGETHER = 3  # so that most variants of the suite are as they were
NOTHING = "0"
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
    """The Engine class that does more after each step, if a plant says so: see the detector.

    An idle one does all the same, but for what is planted: or what does the planting would count.
    """
    if not plant:
        return make

    import json
    import sys
    import threading
    import time
    from pathlib import Path

    import numba
    import numpy as np

    plant, *idle = plant.split()
    tenth = plant == "tenth"
    share = 1.0 if tenth else float(plant) / 100 if plant.isdecimal() else 0.0
    known = Path(__file__).with_suffix(".lengths")
    # Where a side is alone, the other one may run beside it, or, with asv, another plant.
    kept = {"twolayer_base", "twolayer_head"} <= sys.modules.keys()
    lock = threading.Lock()
    more = {
        "allocation": lambda X: np.ones(1 << 18),
        "pass": lambda X: X.sum(),
        "lock": lambda X: lock.acquire() and lock.release(),
    }.get(plant, lambda X: None)
    if idle:
        more = lambda X: None
    steps = iter(range(1 << 62))
    field = np.zeros(64)

    @numba.njit
    def spend(length, field):  # as a kernel does, whose units others may share
        for _ in range(length):
            for i in range(64):
                field[i] = field[i] * 0.999 + 1e-3

    def fastest(call, *arguments):
        end, least = time.perf_counter() + 0.05, float("inf")
        while time.perf_counter() < end:
            start = time.perf_counter()
            call(*arguments)
            least = min(least, time.perf_counter() - start)
        return least

    def needed(key, *still):
        if idle or not share:
            return 0
        lengths = json.loads(known.read_text()) if known.exists() else {}
        if key not in lengths:
            seconds = min(fastest(*still) for _ in range(3))
            spend(1, field)
            once = fastest(spend, 10_000, field) / 10_000
            if not 1e-9 < once < 1e-6:
                raise RuntimeError(f"64 multiplications took {once:g} s: not carried out")
            lengths[key] = round(share * seconds / once)
            if kept:
                known.write_text(json.dumps(lengths))
        return lengths[key]

    class Slowed(make):
        length = None

        def update(self, X, Y, weights, update, scalars):
            if self.length is None:
                still = X, Y, weights, update, (0.0,) * len(scalars)
                key = f"{plant} {self.shape} {self.dtype}"
                self.length = needed(key, super().update, *still)
            loss = super().update(X, Y, weights, update, scalars)
            if not tenth or next(steps) % 10 == 3:
                spend(self.length, field)
            more(X)
            return loss

    return Slowed


def _plant():
    from pathlib import Path

    path = Path(__file__).with_suffix(".plant")  # not a source, so nothing is compiled anew
    return path.read_text() if path.exists() else ""


import dataclasses as _dataclasses

VARIANT = _dataclasses.replace(VARIANT, make=_slowed(VARIANT.make, _plant()))
'''
HALF_BUSY = """
import os, time
parent = os.getppid()
while os.getppid() == parent:  # or it would go on beside whatever is measured next
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
    names = list(dict.fromkeys(benchmark.variant for benchmark in suite))
    base, head = (export(None, side) for side in ("base", "head"))
    with tempfile.TemporaryDirectory() as folder:
        copies = [_copy(side, names, Path(folder) / side.folder.name) for side in (base, head)]
        for number, answer in product(range(arguments.runs), arguments.busy):
            about = {"number": number, "busy": answer == "yes", **common}
            for plants in missing(about, arguments.plant, names, lines.read(path, complain)):
                _plant(copies, names, plants)
                results = Path(folder) / f"{number}-{'-'.join(plants.values())}-{answer}"
                run = Run(*(copies if plants else (base, head)), suite, results,
                          seconds=arguments.seconds, limit=arguments.limit)  # fmt: skip
                with _half_busy() if about["busy"] else contextlib.nullcontext():
                    outcome = run.measure()
                for line in told(outcome, plants):
                    lines.append(path, about | machine() | line)
                    print(_line(about | line), flush=True)
    runs = [run for run in lines.read(path, complain) if common.items() <= run.items()]
    text = table(runs)
    print(text)
    if arguments.write:
        tables.write_between(Path(arguments.write), text, MARKER)


def missing(
    about: dict[str, Any], plants: list[str], names: list[str], known: list[dict[str, Any]]
) -> Iterator[dict[str, str]]:
    """What the runs still to be made of these plants put into which variants: {} for nothing.

    about: what all lines of those runs say.
    """
    there = {line["plant"] for line in known if about.items() <= line.items()}
    left = [plant for plant in plants if plant not in there]
    if NOTHING in left:
        left.remove(NOTHING)
        yield {}
    count = min(TOGETHER, len(names))
    for start in range(0, len(left), count):
        group = left[start : start + count]
        yield {names[(about["number"] + j) % len(names)]: plant for j, plant in enumerate(group)}


def sources() -> dict[str, str]:
    """What the runs of one table have in common: the sources that take times and decide, and what
    is planted.
    """
    texts = [Path(module.__file__).read_text() for module in (costs, decide, turns)]
    return {"detector": hashlib.sha256("".join([*texts, SLOWED]).encode()).hexdigest()[:16]}


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
        hits = sum(len({name.removesuffix(SLOWEST) for name in r["found"]}) for r in some)
        possible = sum(r["possible"] for r in some)
        seconds = statistics.median(r["seconds"] for r in some)
        found, count = "–", sum(map(_right, some))
        if plant != NOTHING:
            found = f"{count / len(some):.0%} (≥ {_bound(count, len(some), 'greater'):.0%})"
        rows.append([
            PLANTS[plant], "yes" if busy else "no", str(len(some)), _alarms(some), found,
            f"{statistics.median(r['slower'] for r in some):.1%}" if plant != NOTHING else "–",
            f"{hits / possible:.0%}" if plant != NOTHING and possible else "–", f"{seconds:.0f} s",
        ])  # fmt: skip
    heads = [
        "planted", "one core half busy", "runs", "with a false alarm", "found, and nothing else",
        "median change of a step", "benchmarks found", "median run",
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
    whole = list({(r["number"], r["busy"], *r["together"]): r for r in runs}.values())
    text = f"All {len(whole)} runs together: {_alarms(whole)} with a false alarm"
    changed = [r for r in runs if r["plant"] != NOTHING]
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


def told(outcome: Outcome, plants: dict[str, str]) -> list[dict[str, Any]]:
    """The lines of a run, one for each variant that was slowed, or one where none was."""
    together = [*plants.values()] or [NOTHING]
    return [
        {"plant": plant, "slowed": name, "together": together, **summary(outcome, name, plants)}
        for name, plant in (plants or {"": NOTHING}).items()
    ]


def summary(outcome: Outcome, slowed: str, planted: Collection[str]) -> dict[str, Any]:
    """What a run found of a variant that was slowed, and what it named of it or of those that were
    not for no reason.
    """
    found, false = [], []
    for d in outcome.decisions:
        if d.variant == slowed and d.kind in ("time", "tail"):
            (found if d.verdict == "slower" else false if d.changed else []).append(d.name)
        elif d.changed and d.variant not in planted:  # a planted one's first call makes it, too
            false.append(d.name)
    false += [
        f"{c.variant} {c.kind}"
        for c in outcome.costs
        if c.verdict != "same"
        and not (c.variant in planted and (c.kind == "compile" or c.variant != slowed))
    ]
    times = [d for d in outcome.decisions if (d.variant, d.kind) == (slowed, "time")]
    changes = [d.ratio - 1 for d in times if d.base is None or len(times) == 1]
    return {
        "found": found,
        "slower": changes[0] if changes else 0.0,  # whether what was planted is as large as said
        "false": false + [f"{n.benchmark} {n.kind}" for n in outcome.notes if n.kind != "absent"],
        "possible": len(times),
        "seconds": outcome.seconds, "met": [*outcome.calm.reasons],
    }  # fmt: skip


def _line(run: dict[str, Any]) -> str:
    found, false = (", ".join(run[key]) or "nothing" for key in ("found", "false"))
    busy = ", half busy" if run["busy"] else ""
    named = f"found: {found}; for no reason: {false}"
    where = f" in {run['slowed']}" if run["slowed"] else ""
    return f"{PLANTS[run['plant']]}{where}{busy}: {run['seconds']:.0f} s, {named}"


def _copy(revision: Revision, variants: list[str], folder: Path) -> Revision:
    """The revision with each variant slowed down by what a file beside its source says, if any."""
    shutil.copytree(revision.folder, folder, symlinks=True)
    for variant in variants:
        source = _source(folder, variant)
        source.write_text(source.read_text() + SLOWED)
    return Revision(f"{revision.label}, copied", f"{revision.tree}-copied", folder)


def _plant(copies: Sequence[Revision], variants: list[str], plants: dict[str, str]) -> None:
    """Write the files that say by what each variant is slowed; others are left as they are."""
    for copy, side in zip(copies, ("idle", ""), strict=True):
        for variant in variants:
            planted = _source(copy.folder, variant).with_suffix(".plant")
            planted.with_suffix(".lengths").unlink(missing_ok=True)
            planted.unlink(missing_ok=True)
            if variant in plants:
                planted.write_text(f"{plants[variant]} {side}")


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

"""What plain `asv continuous` finds of the slowdowns that tools/detector.py makes.

    python tools/detector_asv.py --runs 5 --write docs/lab/detector.md

A repository is made of the working tree, with a commit for each slowdown of one variant, and an
empty one for none. Each is compared with the first commit, by asv's defaults and by many rounds of
one sample. The environment is made once, the wheels once for a working tree; runs are kept in the
results file as they end, and the same command goes on after an interruption.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import re
import shutil
import statistics
import subprocess
import sys
import time
from itertools import product
from pathlib import Path
from typing import Any

import asv
import asv_machine
import detector
from asv.machine import MachineCollection
from asv.util import load_json

from twolayer.machine import lines
from twolayer.regress.revisions import export
from twolayer.showing import output, tables

# asv's own defaults, which the classes of benchmarks/ override.
PERCENT = (0, 1, 2, 5, 10)
SETTINGS = {
    "defaults": ("rounds=2", "repeat=1,10,20.0", "sample_time=0.01", "warmup_time=0.1"),
    "10 rounds of one sample": ("rounds=10", "repeat=1"),
}
FINER = ", factor 1.01"  # asv reports no change below 10% unless it is told to
OTHER = "numba-blas"  # must not be named


def main() -> None:
    """Make the runs that the results file lacks, print the table, and write it where asked."""
    arguments = _arguments()
    path, common = Path(arguments.results), here()
    MachineCollection.save(asv_machine.NAME, asv_machine.fields())
    base = export(None, "base")
    name = f"{base.tree[:16]}-{common['plants']}-{arguments.slowed}"
    folder = Path(arguments.folder).resolve() / name
    if not (folder / "complete").exists():
        make_repository(base.folder, folder, arguments.slowed)
    for number in range(arguments.runs):
        for percent in arguments.percent:
            for setting, attributes in SETTINGS.items():
                about = {
                    "number": number, "percent": percent, "setting": setting, **common,
                    "slowed": arguments.slowed,
                }  # fmt: skip
                if any(about.items() <= run.items() for run in lines.read(path, output.complain)):
                    continue
                about |= compare(folder, percent, attributes, arguments)
                lines.append(path, about)
                print(f"{percent}%, {setting}: {about['seconds']:.0f} s, slower: "
                      f"{', '.join(about['slower']) or 'nothing'}", flush=True)  # fmt: skip
    runs = [run for run in lines.read(path, output.complain) if common.items() <= run.items()]
    text = table(runs)
    print(text)
    if arguments.write:
        tables.write_between(Path(arguments.write), text, "detector-asv")


def here() -> dict[str, str]:
    """What runs of one table have in common: the machine with its libraries, asv, the plants."""
    plants = hashlib.sha256(detector.SLOWED.encode()).hexdigest()[:16]
    return {"machine": detector.machine()["machine"], "asv": asv.__version__, "plants": plants}


def make_repository(tree: Path, folder: Path, slowed: str) -> None:
    """A repository of the tree, tagged `base`, and a tag for each slowdown of the variant."""
    shutil.rmtree(folder, ignore_errors=True)
    repository = folder / "repository"
    shutil.copytree(tree, repository, symlinks=True, ignore=shutil.ignore_patterns("__pycache__"))
    (repository / ".gitignore").write_text("__pycache__/\n*.nb[ic]\n")
    source = detector._source(repository, slowed)
    plain = source.read_text()

    def plant(text: str) -> None:  # a wheel holds no file beside the source that could say it
        source.write_text(plain + detector.SLOWED.replace("_plant())", f"{text!r})"))

    plant("0 idle")
    _git(repository, "init", "--quiet", "--initial-branch=main")
    _git(repository, "add", "--all")
    _git(repository, "commit", "--quiet", "--message=base")
    _git(repository, "tag", "base")
    for percent in PERCENT:
        if percent:
            plant(str(percent))
        _git(repository, "commit", "--allow-empty", "--all", "--quiet", f"--message={percent}%")
        _git(repository, "tag", f"slowed-{percent}")
        _git(repository, "reset", "--quiet", "--hard", "base")
    settings = load_json(str(repository / "asv.conf.json"), js_comments=True)
    settings |= {
        "repo": str(repository), "benchmark_dir": str(repository / "benchmarks"),
        "env_dir": str(folder.parent / "env"), "results_dir": "results",
        "build_cache_size": 2 * len(PERCENT),
    }  # fmt: skip
    settings.pop("plugins", None)
    (folder / "asv.conf.json").write_text(json.dumps(settings, indent=1))
    (folder / "complete").touch()


def compare(
    folder: Path, percent: int, attributes: tuple[str, ...], arguments: argparse.Namespace
) -> dict[str, Any]:
    """One `asv continuous`: what it calls slower, and what it does with a finer factor."""
    head = f"slowed-{percent}"
    bench = f"Samples.*'({arguments.slowed}|{OTHER})', ({'|'.join(arguments.n)})\\)"
    overrides = [word for attribute in attributes for word in ("-a", attribute)]
    start = time.perf_counter()
    common = ("--machine", asv_machine.NAME)
    done = _asv(folder, "continuous", *common, "--bench", bench, *overrides, "base", head)
    seconds = time.perf_counter() - start
    if done.returncode not in (0, 1) or "BENCHMARKS" not in done.stdout:
        raise SystemExit(f"asv continuous failed:\n{done.stdout[-2000:]}{done.stderr[-2000:]}")
    finer = _asv(folder, "compare", *common, "--factor", "1.01", "--only-changed", "base", head)
    return {
        "slower": slower(done.stdout), "slower_finer": slower(finer.stdout), "seconds": seconds,
    }  # fmt: skip


def slower(text: str) -> list[str]:
    """The benchmarks with a plus in asv's table."""
    return re.findall(r"^\| \+ .*\| (\S+\(.*?\)) *\|$", text, re.MULTILINE)


def table(runs: list[dict[str, Any]]) -> str:
    """The figures as Markdown: for each setting, a row a slowdown."""
    figures = (("", "slower"), (FINER, "slower_finer"))
    rows = []
    for setting, (factor, figure), percent in product(SETTINGS, figures, PERCENT):
        some = [r for r in runs if (r["setting"], r["percent"]) == (setting, percent)]
        if not some:
            continue
        alarms = sum(bool(run[figure]) for run in some)
        right = sum(_right(run[figure], run["slowed"]) for run in some)
        rows.append([
            setting + factor, f"{percent}%", str(len(some)), str(alarms),
            f"{right / len(some):.0%}" if percent else "–",
            f"{statistics.median(run['seconds'] for run in some):.0f} s",
        ])  # fmt: skip
    heads = [
        "asv continuous", "slowdown", "runs", "with an alarm", "found, and nothing else",
        "median run",
    ]  # fmt: skip
    return f"{tables.markdown_table(heads, rows)}\n\n{detector.origin('tools/detector_asv.py')}"


def _right(named: list[str], slowed: str) -> bool:
    return bool(named) and all(f"('{slowed}'" in name for name in named)


def _asv(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "asv", *arguments]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)


def _git(repository: Path, *arguments: str) -> None:
    names = [f"GIT_{who}_{what}" for who in ("AUTHOR", "COMMITTER") for what in ("NAME", "EMAIL")]
    environment = os.environ | dict.fromkeys(names, "nobody")
    subprocess.run(["git", *arguments], cwd=repository, env=environment, check=True)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--runs", type=int, default=5, help="of each kind")
    parser.add_argument("--percent", type=int, nargs="+", default=[*PERCENT],
                        choices=PERCENT)  # fmt: skip
    parser.add_argument("--slowed", default="numba-fused", help="the variant that does more work")
    parser.add_argument("--n", nargs="+", default=["256", "4096"], help="of epoch.Samples")
    parser.add_argument("--folder", default=".asv/detector", help="repository and environments")
    parser.add_argument("--results", default="detector-asv.jsonl", help="a line for each run")
    parser.add_argument("--write", help="put the table between the markers in this file")
    return parser.parse_args()


if __name__ == "__main__":
    main()

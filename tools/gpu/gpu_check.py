"""Everything that needs a GPU, in one command of at most eight minutes.

    python tools/gpu/gpu_check.py [--json gpu.json] [--only race,launches] \\
        [--variants cuda-tiled,torch]
    python tools/gpu/gpu_check.py --from gpu.json --docs docs/lab/gpu.md --readme README.md \\
        --tuned src/twolayer/engines/tuned.json

What matters most comes first, so that a cut costs least: versions; the time of every variant on
every shape, this project's own first; the agreement of every variant with the oracle, and both on
shapes that nothing was tuned on; what an epoch's launches cost; ceilings, those of cuBLAS too;
compute-sanitizer on tiny shapes and the counters of ncu, where they are installed; errors of the
elementary functions. Each part is a process of its own, which is cut at its limit. The file is
written after every part; what a part found before it was cut is kept. With --from nothing is
measured: the tables are those of a file, or of several from one card and the same sources.
"""

from __future__ import annotations

import argparse
import contextlib
import datetime
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import gpu_parts
import gpu_tables

from twolayer.machine.hardware import fingerprint
from twolayer.showing import output, tables
from twolayer.texts import parts

ROOT = Path(__file__).parents[2]
SLOW = "cuda-samples"  # made for reading, and therefore measured last
QUICK = ("torch", "cupy")  # peers that compile nothing, and so run on many shapes in no time


class Part(NamedTuple):
    """A part by its function's name and what it is for, and the seconds that it may take."""

    name: str
    limit: float


def groups(names: Iterable[str], only: Sequence[str] = ()) -> list[list[Part]]:
    """The parts in their order. Those of a group run at the same time: they measure no time.

    Arguments: names, the variants; only, how the names of the parts begin that are wanted.
    Raises ValueError where one of them begins none.
    """
    own = sorted((name for name in names if gpu_tables.ours(name)), key=lambda name: name == SLOW)
    peers = [name for name in names if name not in own]
    order = [
        [Part("versions", 40)],
        *([Part(f"race {name}", 90)] for name in (*own, *peers)),
        [Part(f"agreement {name}", 150) for name in own],
        *([Part(f"odd {name}", 60)] for name in (*own, *peers) if name in own or name in QUICK),
        *([Part(f"launches {name}", 40)] for name in (*own, *peers)),
        [Part("ceilings", 40)],
        [Part("cublas", 40)],
        [Part(f"sanitizer {name}", 120) for name in own],
        *([Part(f"counters {name}", 90)] for name in own if name != SLOW),
        [Part("registers", 60)],
        [Part("elementary", 60)],
    ]
    for text in only:
        if not any(part.name.startswith(text) for group in order for part in group):
            known = dict.fromkeys(part.name.split()[0] for group in order for part in group)
            raise ValueError(f"--only: expected parts, as in {','.join(known)}, got {text!r}")
    if only:
        order = [[part for part in group if part.name.startswith(tuple(only))] for group in order]
    return [group for group in order if group]


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
                    text = log.read_text(errors="replace")[-4000:]
                    problem = {"failed": text.strip() or f"exit code {process.returncode}"}
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
    for key, value in getattr(gpu_parts, function)(argument):
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
                lines.append(f"{part}: {word}: {values[word].splitlines()[-1]}")
        for key, value in values.items():
            if isinstance(value, dict):
                told = [*value.get("wrong", ()), *value.get("undecided", ())]
                lines += [f"{part}, {key}: {text}" for text in told]
                skipped = value.get("skipped", "")
                raised = "does not run" in skipped and gpu_tables.ours(value["variant"])
                if raised or "disagrees" in skipped:
                    lines.append(f"{part}, {key}: {skipped}")
    return lines


def revision() -> str:
    """The commit that is checked out, with a + where files were changed; nothing without git."""
    with contextlib.suppress(OSError, subprocess.SubprocessError):
        git = ["git", "-C", str(ROOT)]
        head, changed = (
            subprocess.run([*git, *command], capture_output=True, text=True, check=True).stdout
            for command in (["rev-parse", "--short", "HEAD"], ["status", "--porcelain", "-uno"])
        )
        return head.strip() + "+" * bool(changed)
    return ""


def measure(options: argparse.Namespace) -> dict[str, Any]:
    """Run the parts and write what they found after each. Raises RuntimeError without a GPU."""
    output.check_writable(json=options.json)
    variants = gpu_parts.field()
    if options.variants:
        unknown = set(options.variants) - set(variants)
        if unknown:
            known = ", ".join(variants)
            raise ValueError(f"--variants: expected some of {known}, got {', '.join(unknown)}")
        variants = {name: variants[name] for name in options.variants}
    reasons = {name: variant.unavailable() for name, variant in variants.items()}
    if all(reasons.values()):
        raise RuntimeError("\n".join(f"{name}: {reason}" for name, reason in reasons.items()))
    names = [name for name, reason in reasons.items() if reason is None]
    end = time.monotonic() + 60 * options.minutes
    found: dict[str, Any] = {
        "date": datetime.date.today().isoformat(),
        "command": " ".join(sys.argv),
        "revision": revision(),
        "machine": fingerprint(),
        "unavailable": reasons,
    }
    for group in groups(names, options.only):
        begun = time.monotonic()
        found |= run(group, end, [sys.executable, __file__, "--part"])
        output.write_json(options.json, found)
        parts = ", ".join(part.name for part in group)
        print(f"{parts}: {time.monotonic() - begun:.0f} s", file=sys.stderr, flush=True)
    return found


def merged(files: Sequence[Path]) -> dict[str, Any]:
    """What the files hold, of a part that several have the last one's that found something.

    Files of other sources than the first give what they found of peers. Raises ValueError unless
    all are of one card.
    """
    found: dict[str, Any] = {}
    for file in files:
        more = json.loads(file.read_text(encoding="utf-8"))
        before, now = gpu_tables.machine(found or more), gpu_tables.machine(more)
        if before.get("gpus") != now.get("gpus"):
            raise ValueError(
                f"--from: expected the same gpus as before, {before.get('gpus')}, in {file}, "
                f"got {now.get('gpus')}"
            )
        if before.get("sources") != now.get("sources"):
            more = gpu_tables.of_peers(more)
        found |= {part: values for part, values in more.items() if not _nothing(values)}
    return found


def _nothing(values: Any) -> bool:
    """Whether a part was cut before it found anything."""
    return isinstance(values, dict) and values.keys() == {"cut"}


def arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--json", type=Path, default=Path("gpu.json"), help="what is measured")
    parser.add_argument("--minutes", type=float, default=8, help="everything is cut at these")
    parser.add_argument("--only", type=parts, default=[], help="how parts begin: race,launches")
    parser.add_argument("--variants", type=parts, default=[], help="names, by default all")
    parser.add_argument("--from", dest="files", type=Path, nargs="+", metavar="FILE",
                        help="measure nothing: the figures are in these files")  # fmt: skip
    parser.add_argument("--docs", type=Path, help="write the tables between the markers here")
    parser.add_argument("--readme", type=Path, help="write the short table there")
    parser.add_argument("--section", default="gpu", help="the markers' name, by default gpu")
    parser.add_argument("--tuned", type=Path, help="put the fastest parameters into this file")
    parser.add_argument("--part", nargs=2, metavar=("NAME", "FILE"), help=argparse.SUPPRESS)
    return parser.parse_args()


def main() -> int:
    """Run all parts, or read them; 1 where something disagrees, failed or was cut, 2 for errors."""
    options = arguments()
    if options.part:
        work(options.part[0], Path(options.part[1]))
        return 0
    try:
        for page in filter(None, (options.docs, options.readme)):  # before anything is measured
            tables.between_markers(page, "", options.section)
        found = merged(options.files) if options.files else measure(options)
    except (ValueError, OSError, RuntimeError) as error:
        print(error, file=sys.stderr)
        return 2
    file = " ".join(path.as_posix() for path in options.files or [options.json])
    everything = gpu_tables.markdown(found, file)
    for page, content in (
        (options.docs, everything), (options.readme, gpu_tables.summary(found, file))
    ):  # fmt: skip
        if page is not None:
            tables.write_between(page, content, options.section)
    if options.tuned is not None:
        before = json.loads(options.tuned.read_text(encoding="utf-8"))
        for model, choices in gpu_tables.tuned(found).items():
            before[model] = before.get(model, {}) | choices
        text = json.dumps(before, indent=1, sort_keys=True)
        output.write_text(options.tuned, text + "\n")
    print(everything)
    wrong = complaints(found)
    print("\n".join(wrong) or f"All figures are in {file}", file=sys.stderr)
    return int(bool(wrong))


if __name__ == "__main__":
    sys.exit(main())

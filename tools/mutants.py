"""Change the sources of `kernels/` and `variants/`, one place at a time, and see what finds it out.

Run `make mutants`, or `python tools/mutants.py --sample 150`. Each change is made in a copy of the
package, and the checks of that file run on the copy until one fails: `tools/mutants_check.py`,
interpreted with tiny blocks and compiled, and tests of the project. mutmut and cosmic-ray do not
serve: they know neither linked folders, nor checks that differ from file to file, nor strides to
exchange, and mutmut's switches inside of functions are nothing that Numba compiles.

What is known of the same sources is not run again. `tools/mutants_equivalent.toml` lists survivors
that are no mistakes, with the reasons; the share is that of the others.
"""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import json
import os
import random
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import tomllib
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from queue import SimpleQueue
from typing import Any

from mutations import Mutant, mutants_of

ROOT = Path(__file__).resolve().parent.parent
PACKAGE = ROOT / "src" / "twolayer"
EQUIVALENT = ROOT / "tools" / "mutants_equivalent.toml"
CHECK = ROOT / "tools" / "mutants_check.py"

_LEAST = 20.0  # seconds that a check may take in any case
_TIMES = 10  # and how many times as long as on the sources as they are


def sources() -> list[str]:
    """The files to change, as their paths below the package."""
    kernels = [f"kernels/{path.name}" for path in sorted((PACKAGE / "kernels").glob("*.py"))]
    names = ["python_loops", "numpy", "numpy_samples", *(
        path.stem for path in sorted((PACKAGE / "variants").glob("numba_*.py")))]  # fmt: skip
    return kernels + [f"variants/{name}.py" for name in names]


class Lab:
    """A copy of the package, in which one mutant after the other is put and checked."""

    def __init__(self, folder: Path, references: Path) -> None:
        self.folder, self.references = folder, references
        self.package = folder / "src" / "twolayer"
        ignore = shutil.ignore_patterns("__pycache__")
        shutil.copytree(PACKAGE, self.package, ignore=ignore)  # the links become folders

    def run(self, stage: tuple[str, ...], limit: float) -> tuple[str, float]:
        """How a check ended, "" where it passed, and its seconds."""
        home = self.folder / "home"  # whatever a mutant writes or removes lies in here
        shutil.rmtree(home, ignore_errors=True)
        home.mkdir()
        environment = os.environ | {
            "PYTHONPATH": str(self.package.parent), "PYTHONDONTWRITEBYTECODE": "1",
            "HOME": str(home), "XDG_CACHE_HOME": str(home), "TMPDIR": str(home),
            "NUMBA_CACHE_DIR": str(home), "NUMBA_NUM_THREADS": "4",
            "NUMBA_DISABLE_JIT": str(int(stage[0] == "interpreted")),
        }  # fmt: skip
        command = [sys.executable, str(CHECK), str(self.references), *stage]
        if stage[0] == "pytest":
            command = [
                sys.executable, "-m", "pytest", "-qx", "-p", "no:cacheprovider", "-m", "not slow",
                *(str(ROOT / word) if word.startswith("tests/") else word for word in stage[1:]),
            ]  # fmt: skip
        started = time.monotonic()
        process = subprocess.Popen(
            command, env=environment, cwd=home, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
            text=True, errors="replace", start_new_session=True, preexec_fn=_limit_memory,
        )  # fmt: skip
        try:
            output, _ = process.communicate(timeout=limit)
            lines = output.strip().splitlines() or [""]
            how = "" if process.returncode == 0 else f"{process.returncode}: {lines[-1][:160]}"
        except subprocess.TimeoutExpired:
            how = f"took more than {limit:.0f} s"
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
        return how, time.monotonic() - started

    def check(self, mutant: Mutant, limits: dict[tuple[str, ...], float]) -> str:
        """What found the mutant, or "" where it survived."""
        path = self.package / mutant.file
        text = path.read_bytes()
        path.write_bytes(text[: mutant.start] + mutant.new.encode() + text[mutant.end :])
        try:
            for stage in stages(mutant.file):
                how, _ = self.run(stage, limits[stage])
                if how:
                    return f"{' '.join(stage)}: {how}"
            return ""
        finally:
            path.write_bytes(text)


def _limit_memory() -> None:
    resource.setrlimit(resource.RLIMIT_AS, (16 << 30, 16 << 30))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


TILES = ("pytest", "tests/test_simd.py", "-k", "not narrower")
NUMBA = ("numba-loops", "numba-parallel", "numba-blas", "numba-fused")
ALL = ("python-loops", "numpy-samples", "numpy", *NUMBA)


def stages(file: str) -> list[tuple[str, ...]]:
    """The checks of a file: the quick ones first."""
    folder, name = Path(file).parent.name, Path(file).stem
    if folder == "variants":
        return [("interpreted", name.replace("_", "-"))]
    return {
        "activations": [("interpreted", *ALL), ("pytest", "tests/test_activations.py")],
        "losses": [("interpreted", *ALL), ("compiled", "numba-loops", "numba-blas")],
        "loops": [("interpreted", *NUMBA), ("compiled", "numba-loops", "numba-parallel")],
        "blocks": [("interpreted", "numba-blas", "numba-fused"), ("compiled", "numba-blas")],
        "address": [("interpreted", "numba-loops"), ("compiled", "numba-loops")],
        "blas": [("interpreted", "numba-blas"), ("compiled", "numba-blas")],
        "fused": [("interpreted", "numba-fused")],
        "simd": [("interpreted", "numba-fused"), TILES],
        "tiles": [TILES],
        "updates": [("interpreted", "numba-loops"), ("compiled", "numba-loops")],
        "jit": [("compiled", "numba-loops"), ("pytest", "tests/test_cache.py")],
        "digest": [("pytest", "tests/test_cache.py")],
        "probes": [("pytest", "tests/test_roofline.py")],
        "__init__": [("interpreted", "numba-loops"), ("pytest", "tests/test_layout.py")],
    }.get(name, [("pytest", "tests/test_elementary.py"), ("pytest", "tests/test_activations.py")])


def digest() -> str:
    """Of the package and the check: where a test of the project changed, remove the results."""
    result = hashlib.sha256()
    for path in [*sorted(PACKAGE.glob("*.py")), *map(PACKAGE.joinpath, sources()), CHECK]:
        result.update(path.read_bytes())
    return result.hexdigest()[:16]


def run(wanted: list[Mutant], results: Path, jobs: int) -> dict[str, str]:
    """What found each mutant, by its key; what the file of results knows is taken from there."""
    now = digest()
    known: dict[str, str] = {}
    for line in results.read_text().splitlines() if results.exists() else []:
        entry = json.loads(line)
        if entry["digest"] == now:
            known[entry["key"]] = entry["found"]
    left = [mutant for mutant in wanted if mutant.key not in known]
    if not left:
        return known
    with tempfile.TemporaryDirectory() as folder, results.open("a") as log:
        references = Path(folder) / "references"
        subprocess.run(
            [sys.executable, str(CHECK), str(references), "references"], check=True,
            env=os.environ | {"PYTHONPATH": str(PACKAGE.parent)},
        )  # fmt: skip
        labs: SimpleQueue[Lab] = SimpleQueue()
        for number in range(jobs):
            labs.put(Lab(Path(folder) / str(number), references))
        limits = _limits(labs, sorted({s for mutant in left for s in stages(mutant.file)}))

        def check(mutant: Mutant) -> str:
            lab = labs.get()
            try:
                return lab.check(mutant, limits)
            finally:
                labs.put(lab)

        with ThreadPoolExecutor(jobs) as pool, _interrupted(pool):
            for i, (mutant, found) in enumerate(zip(left, pool.map(check, left), strict=True), 1):
                known[mutant.key] = found
                entry = {"digest": now, "key": mutant.key, "found": found, "change": mutant.change}
                print(json.dumps(entry, ensure_ascii=False), file=log, flush=True)
                survivors = sum(not known[one.key] for one in left[:i])
                progress = f"{i} of {len(left)} mutants, {survivors} survive; {mutant.file}"
                print(f"\r{progress:79}", end="", file=sys.stderr, flush=True)
        print(file=sys.stderr)
    return known


@contextlib.contextmanager
def _interrupted(pool: ThreadPoolExecutor) -> Iterator[None]:
    """Ctrl+C ends the run, and the summary is of what is known by then."""
    try:
        yield
    except KeyboardInterrupt:
        pool.shutdown(cancel_futures=True)


def _limits(labs: Any, wanted: list[tuple[str, ...]]) -> dict[tuple[str, ...], float]:
    """The seconds that each check may take. Raises where one fails on the sources as they are."""
    lab = labs.get()
    limits = {}
    for stage in wanted:
        how, seconds = lab.run(stage, 900)
        if how:
            raise SystemExit(f"{' '.join(stage)} fails on the sources as they are: {how}")
        limits[stage] = max(_LEAST, _TIMES * seconds)
    labs.put(lab)
    return limits


def matches(entry: dict[str, str], mutant: Mutant) -> bool:
    """Whether an entry of the list of equivalents means a mutant; what it leaves out is any."""
    given = {"file": mutant.file, "function": mutant.function, "change": mutant.change}
    return all(entry[name] == value for name, value in given.items() if name in entry)


def summary(wanted: list[Mutant], found: dict[str, str], equivalent: list[dict[str, str]]) -> str:
    """The share that was caught, by file and overall, the survivors, and entries that are out."""
    alive = [mutant for mutant in wanted if not found[mutant.key]]
    survivors = [one for one in alive if not any(matches(entry, one) for entry in equivalent)]
    lines = []
    for file in [*dict.fromkeys(mutant.file for mutant in wanted), ""]:
        total = [one for one in wanted if file in ("", one.file)]
        lost = sum(file in ("", one.file) for one in survivors)
        same = sum(file in ("", one.file) for one in alive) - lost
        count = len(total) - same
        share = f"{(count - lost) / count:6.1%}" if count else "     –"
        lines.append(f"{file or 'all':34} {count - lost:5} of {count:5} {share}, {same} equivalent")
    lines += [
        f"{one.file}:{one.line}: {one.kind} in {one.function}: {one.change}" for one in survivors
    ]
    for entry in equivalent:
        meant = [one for one in wanted if matches(entry, one)]
        if meant and all(found[one.key] for one in meant):
            lines.append(f"no survivor any more: {entry}")
    return "\n".join(lines)


def main() -> None:
    """Run the mutants that the command line asks for, and print the summary."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--only", nargs="+", metavar="FILE", help="files, such as kernels/fused.py")
    parser.add_argument("--sample", type=int, metavar="N", help="so many mutants, at random")
    parser.add_argument("--seed", type=int, default=0, help="of the sample")
    parser.add_argument("-j", "--jobs", type=int, default=max(1, (os.cpu_count() or 1) // 2))
    parser.add_argument("--results", type=Path, default=ROOT / ".mutants.jsonl")
    parser.add_argument("--list", action="store_true", help="list the mutants and run nothing")
    options = parser.parse_args()
    wanted = [
        mutant
        for file in options.only or sources()
        for mutant in mutants_of(file, (PACKAGE / file).read_bytes())
    ]
    if options.sample is not None and options.sample < len(wanted):
        chosen = random.Random(options.seed).sample(range(len(wanted)), options.sample)
        wanted = [wanted[i] for i in sorted(chosen)]
    if options.list:
        for one in wanted:
            print(f"{one.file}:{one.line}: {one.kind} in {one.function}: {one.change}")
        return
    found = run(wanted, options.results, options.jobs)
    equivalent = tomllib.loads(EQUIVALENT.read_text())["mutant"]
    print(summary([one for one in wanted if one.key in found], found, equivalent))


if __name__ == "__main__":
    main()

"""Change the sources of `kernels/` and `variants/`, one place at a time, and see what finds it out.

Run `make mutants`, or `make mutants ARGS="--sample 300"`. Each change is made in a copy of the
package, and the checks of that file run on the copy until one fails, in children of
`mutants_server.py`: `mutants_check.py`, interpreted with tiny blocks and compiled, and tests of the
project. mutmut and cosmic-ray do not serve: they know neither linked folders, nor checks that
differ from file to file, nor strides to exchange, and mutmut's switches inside of functions are
nothing that Numba compiles.

What is known of the same sources is not run again. `mutants_equivalent.toml` lists survivors that
are no mistakes, with the reasons; the share is that of the others.
"""

from __future__ import annotations

import argparse
import compileall
import hashlib
import importlib.util
import json
import math
import os
import random
import resource
import shutil
import subprocess
import sys
import tempfile
import tomllib
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing, contextmanager
from itertools import pairwise
from pathlib import Path
from queue import SimpleQueue
from typing import Any, NamedTuple

from mutations import Mutant, mutants_of

from twolayer.machine import lines
from twolayer.showing.output import complain

ROOT = Path(__file__).resolve().parents[2]
PACKAGE = ROOT / "src" / "twolayer"
EQUIVALENT, CHECK, SERVER = (
    Path(__file__).resolve().with_name(name)
    for name in ("mutants_equivalent.toml", "mutants_check.py", "mutants_server.py")
)

_LEAST = 5.0  # seconds that a check may take in any case
_TIMES = 4  # and how many times as long as on the sources as they are


def sources() -> list[str]:
    """The files to change, as their paths below the package."""
    rooms = ("compiler", "cpu", "cpu/vectors", "formulas")
    kernels = [
        f"kernels/{room}/{path.name}"
        for room in rooms for path in sorted((PACKAGE / "kernels" / room).glob("*.py"))
    ]  # fmt: skip
    names = ["python_loops", "numpy", "numpy_samples", *(
        path.stem for path in sorted((PACKAGE / "variants").glob("numba_*.py")))]  # fmt: skip
    return kernels + [f"variants/{name}.py" for name in names]


class Lab:
    """A copy of the package, in which one mutant after the other is put and checked."""

    def __init__(self, folder: Path, references: Path) -> None:
        self.home, self.references = folder / "home", references
        self.package = folder / "src" / "twolayer"
        ignore = shutil.ignore_patterns("__pycache__")
        shutil.copytree(PACKAGE, self.package, ignore=ignore)  # the links become folders
        compileall.compile_dir(self.package, quiet=2)
        self._servers: dict[bool, Any] = {}

    def run(self, stage: Stage, limit: float) -> tuple[str, float]:
        """How a check ended, "" where it passed, and its seconds."""
        shutil.rmtree(self.home, ignore_errors=True)  # where a mutant writes or removes things
        self.home.mkdir()
        log = self.home.parent / "log"
        server = self._server(stage.words[0] == "interpreted")
        request = {
            "stage": [str(ROOT / w) if w.startswith("tests/") else w for w in stage.words],
            "environment": dict(stage.environment), "limit": limit, "log": str(log),
        }  # fmt: skip
        print(json.dumps(request), file=server.stdin, flush=True)
        answer = json.loads(server.stdout.readline())
        lines = log.read_text(errors="replace").strip().splitlines() or [""]
        how = "" if answer["code"] == 0 else f"{answer['code']}: {lines[-1][:160]}"
        if answer["code"] is None:
            how = f"took more than {limit:.0f} s"
        return how, answer["seconds"]

    def _server(self, interpreted: bool) -> Any:
        if interpreted not in self._servers:
            home = str(self.home)
            environment = os.environ | {
                "PYTHONPATH": str(self.package.parent), "PYTHONDONTWRITEBYTECODE": "1",
                "HOME": home, "XDG_CACHE_HOME": home, "TMPDIR": home, "NUMBA_CACHE_DIR": home,
                "NUMBA_NUM_THREADS": "4", "NUMBA_DISABLE_JIT": str(int(interpreted)),
                "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1",
            }  # fmt: skip
            self._servers[interpreted] = subprocess.Popen(
                [sys.executable, str(SERVER), str(CHECK), str(self.references)], env=environment,
                stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, preexec_fn=_limit_memory,
                cwd=self.package.parent,
            )  # fmt: skip
        return self._servers[interpreted]

    def close(self) -> None:
        """End the servers."""
        for server in self._servers.values():
            with server:  # its pipes are closed, and it is waited for
                pass

    def check(self, mutant: Mutant, limits: dict[Stage, float]) -> str:
        """What found the mutant, or "" where it survived."""
        path = self.package / mutant.file
        text = path.read_bytes()
        Path(importlib.util.cache_from_source(path)).unlink(missing_ok=True)
        path.write_bytes(text[: mutant.start] + mutant.new.encode() + text[mutant.end :])
        try:
            for stage in stages(mutant):
                how, _ = self.run(stage, limits[stage.like])
                if how:
                    return f"{' '.join(stage.words)}: {how}"
            return ""
        finally:
            path.write_bytes(text)


def _limit_memory() -> None:
    resource.setrlimit(resource.RLIMIT_AS, (16 << 30, 16 << 30))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


class Stage(NamedTuple):
    """A check: interpreted or compiled and variants, elementary and a function, or pytest's words;
    and what the environment is besides.
    """

    words: tuple[str, ...]
    environment: tuple[tuple[str, str], ...] = ()

    @property
    def like(self) -> Stage:
        """The stage whose time tells how long this one may take."""
        return Stage(("elementary", "")) if self.words[0] == "elementary" else self


# The tiles of narrow vectors are fewer; their code is emitted by the same lines.
OF_TILES = "tests/kernels/vectors", "tests/kernels/test_panels.py", "-k"
NARROW = Stage(
    ("pytest", *OF_TILES, "every_height or test_lanes or test_panels"),
    (("TWOLAYER_VECTOR_BYTES", "16"),),
)
TILES = Stage(("pytest", *OF_TILES, "not narrower and not _agree_too and not _of_other_"))
SAID = Stage(
    (
        "pytest", "tests/kernels/test_blocks.py", "tests/interface/test_interface.py",
        "tests/interface/test_threads.py", "-k",
        "test_blocks or declares or what_it_is or while_numba_has or asks_numba",
    )
)  # fmt: skip
BITS = "signed_zero or keep_the_type or stays_float32 or nothing_is_called or vectorized"
SLOW_CACHE = "second_process or another_file or at_once or two_copies"


def stages(mutant: Mutant) -> list[Stage]:
    """The checks of a mutant: the quick ones first."""
    folder, name = Path(mutant.file).parent.name, Path(mutant.file).stem
    if folder == "variants":
        name = name.replace("_", "-")
        return [SAID, *_interpreted(name)]
    if name.startswith("elementary"):
        return [
            Stage(("elementary", mutant.function)),
            Stage(("pytest", "tests/kernels/test_elementary.py", "-k", BITS)),
        ]
    return STAGES[name]


def _interpreted(*names: str) -> list[Stage]:
    return [Stage(("interpreted", name)) for name in names]


def _compiled(*names: str) -> list[Stage]:
    return [Stage(("compiled", name)) for name in names]


def _pytest(*words: str) -> list[Stage]:
    return [Stage(("pytest", *words))]


FORMS = _interpreted("python-loops", "numpy-samples", "numpy", "numba-loops", "numba-blas")
STAGES = {
    "activations": [*FORMS, *_pytest("tests/kernels/test_activations.py")],
    "losses": [*FORMS, *_pytest("tests/kernels/test_oracle.py"), *_compiled("numba-blas")],
    "loops": [
        *_interpreted("numba-loops", "numba-parallel", "python-loops", "numba-blas"),
        *_compiled("numba-loops", "numba-parallel"),
    ],
    "blocks": [*_interpreted("numba-blas"), *_compiled("numba-blas")],
    **{
        name: [*_interpreted("numba-loops"), *_compiled("numba-loops")]
        for name in ("address", "lowering")
    },
    "blas": [*_interpreted("numba-blas"), *_compiled("numba-blas")],
    "fused": [*_interpreted("numba-fused"), *_compiled("numba-fused")],
    **{
        name: [*_interpreted("numba-fused"), *_compiled("numba-fused")]
        for name in ("epochs", "few_samples", "few_units")
    },
    "chunks": [*_interpreted("numba-fused"), *_pytest("tests/kernels/test_panels.py")],
    "panels": [*_interpreted("numba-fused"), *_pytest("tests/kernels/test_panels.py")],
    "records": [*_interpreted("numba-fused", "numba-blas"), *_compiled("numba-fused")],
    "simd": [NARROW, *_interpreted("numba-fused"), TILES],
    **{name: [NARROW, TILES] for name in ("emit", "lanes", "tiles")},
    "updates": [*_interpreted("numba-loops"), *_compiled("numba-loops")],
    "jit": [
        *_pytest("tests/kernels/compiler/test_jit.py"),
        *_pytest("tests/kernels/compiler/test_cache.py", "-k", f"not ({SLOW_CACHE})"),
        *_pytest("tests/kernels/compiler/test_cache.py", "-k", SLOW_CACHE),
    ],
    "digest": _pytest("tests/kernels/compiler/test_cache.py", "-k", "another_file"),
    "probes": _pytest("tests/measuring/test_roofline.py"),
    "target": [NARROW, TILES, *_pytest("tests/measuring/test_roofline.py")],
    "__init__": [*_interpreted("numba-loops"), *_pytest("tests/repository/test_layout.py")],
}


def digest() -> str:
    """Of the package and the check: where a test of the project changed, remove the results."""
    result = hashlib.sha256()
    for path in [*sorted(PACKAGE.rglob("*.py")), *map(PACKAGE.joinpath, sources()), CHECK]:
        result.update(path.read_bytes())
    return result.hexdigest()[:16]


def run(wanted: list[Mutant], results: Path, jobs: int) -> dict[str, str]:
    """What found each mutant, by its key; what the file of results knows is taken from there."""
    now = digest()
    known: dict[str, str] = {}
    limits: dict[Stage, float] = {}
    for entry in lines.read(results, complain):
        if entry["digest"] == now and "stage" in entry:
            words, environment = entry["stage"]
            limits[Stage(tuple(words), tuple(map(tuple, environment)))] = entry["limit"]
        elif entry["digest"] == now:
            known[entry["key"]] = entry["found"]
    left = [mutant for mutant in wanted if mutant.key not in known]
    if not left:
        return known
    needed = {stage.like for mutant in left for stage in stages(mutant)} - set(limits)
    chance = random.Random(0)
    chance.shuffle(left)  # so that what is known of a run that was stopped is a sample
    with ExitStack() as ending:
        folder = ending.enter_context(tempfile.TemporaryDirectory())
        references = Path(folder) / "references"
        subprocess.run(
            [sys.executable, str(CHECK), str(references)], check=True,
            env=os.environ | {"PYTHONPATH": str(PACKAGE.parent)},
        )  # fmt: skip
        labs: SimpleQueue[Lab] = SimpleQueue()
        for number in range(jobs):
            labs.put(ending.enter_context(closing(Lab(Path(folder) / str(number), references))))

        def note(text: str, **entry: Any) -> None:
            lines.append(results, {"digest": now} | entry)
            print(f"\r{text:79}", end="", file=sys.stderr, flush=True)

        def in_a_lab(use: Any) -> Any:
            lab = labs.get()
            try:
                return use(lab)
            finally:
                labs.put(lab)

        with ThreadPoolExecutor(jobs) as pool, _interrupted(pool):
            order = sorted(needed)
            found = pool.map(lambda stage: in_a_lab(lambda lab: _limit(lab, stage)), order)
            for stage, limit in zip(order, found, strict=True):
                limits[stage] = limit
                note(f"limits: {stage.words[-1]}", stage=stage, limit=limit)
            ends = pool.map(lambda one: in_a_lab(lambda lab: lab.check(one, limits)), left)
            for i, (mutant, how) in enumerate(zip(left, ends, strict=True), 1):
                known[mutant.key] = how
                survivors = sum(not known[one.key] for one in left[:i])
                note(
                    f"{i} of {len(left)} mutants, {survivors} survive; {mutant.file}",
                    key=mutant.key, found=how, change=mutant.change,
                )  # fmt: skip
        print(file=sys.stderr)
    return known


@contextmanager
def _interrupted(pool: ThreadPoolExecutor) -> Iterator[None]:
    """Ctrl+C ends the run, and the summary is of what is known by then."""
    try:
        yield
    except KeyboardInterrupt:
        pool.shutdown(cancel_futures=True)


def _limit(lab: Lab, stage: Stage) -> float:
    """The seconds that a check may take. Raises where it fails on the sources as they are."""
    how, seconds = lab.run(stage, 900)
    if how:
        raise SystemExit(f"{' '.join(stage.words)} fails on the sources as they are: {how}")
    return max(_LEAST, _TIMES * seconds)


def sample(wanted: list[Mutant], number: int, seed: int) -> list[Mutant]:
    """One mutant at random out of each of so many runs of neighbours: of every file its share."""
    chance = random.Random(seed)
    ends = [i * len(wanted) // number for i in range(number + 1)]
    return [wanted[chance.randrange(*pair)] for pair in pairwise(ends)]


def interval(caught: int, total: int) -> tuple[float, float]:
    """Wilson's 95% interval of a share."""
    z = 1.96
    middle = (caught + z * z / 2) / (total + z * z)
    half = z / (total + z * z) * math.sqrt(caught * (total - caught) / total + z * z / 4)
    return middle - half, middle + half


def matches(entry: dict[str, Any], mutant: Mutant) -> bool:
    """Whether an entry of the list of equivalents means a mutant."""
    same = entry["file"] == mutant.file and entry["line"] == mutant.text
    return same and mutant.new in entry["changes"]


def summary(wanted: list[Mutant], found: dict[str, str], equivalent: list[dict[str, Any]]) -> str:
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
    if count:
        low, high = interval(count - lost, count)
        lines[-1] += f"; as a sample, 95% interval {low:.1%} to {high:.1%}"
    lines += [
        f"{one.file}:{one.line}: {one.kind} in {one.function}: {one.change}" for one in survivors
    ]
    for one in wanted:
        if found[one.key] and any(matches(entry, one) for entry in equivalent):
            lines.append(f"no survivor any more: {one.file}: {one.text}: {one.change}")
    return "\n".join(lines)


def main() -> None:
    """Run the mutants that the command line asks for, and print the summary."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument(
        "--only", nargs="+", metavar="FILE", help="files, such as kernels/cpu/fused.py"
    )
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
        wanted = sample(wanted, options.sample, options.seed)
    if options.list:
        for one in wanted:
            print(f"{one.file}:{one.line}: {one.kind} in {one.function}: {one.change}")
        return
    found = run(wanted, options.results, options.jobs)
    equivalent = tomllib.loads(EQUIVALENT.read_text())["mutant"]
    print(summary([one for one in wanted if one.key in found], found, equivalent))


if __name__ == "__main__":
    main()

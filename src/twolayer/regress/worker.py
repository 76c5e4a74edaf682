"""A process that measures, run by its path: it belongs to no revision, and imports none by name.

A request, a JSON object, comes on the first line of stdin. Each result is appended to the request's
file as a line of JSON before a line on stdout says so: whoever is killed, no finished result is
lost. `side` lines on stdout tell of a revision that cannot be imported.
"""

from __future__ import annotations

import contextlib
import ctypes
import gc
import importlib.util
import json
import os
import random
import sys
import time
import traceback
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

SIDES = ("base", "head")
MU = 1e-6  # so small that thousands of epochs do not move θ
LIMIT = 0.08  # seconds an epoch; a slower benchmark is left out
WARM_UP = 0.05  # seconds until threads that were idle are back at full speed
STAY = 0.003  # seconds between two changes of side, at least one block
BLOCK = 0.0001  # seconds of calls that are timed together, at least one call
ENOUGH = 8  # rounds in the order ABBA, though they take longer than was asked for
LONGER = 4  # times as long as was asked for at most, if only there are
FEWEST = 3  # rounds
_ROWS = 512  # of the problem that compiling is measured on
_DISTINCT = 256  # rows of a problem that differ


class Absent(Exception):
    """Why a benchmark is left out."""


def load(folder: str, name: str) -> Any:
    """The package in `folder`/src/twolayer, imported under another name."""
    package = Path(folder) / "src" / "twolayer"
    # The second is where kernels and variants are without the links to them.
    spec = importlib.util.spec_from_file_location(
        name, package / "__init__.py", submodule_search_locations=[str(package), folder]
    )
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module


def say(**message: Any) -> None:
    """A line to whoever started this process."""
    print(json.dumps(message), flush=True)


class Side:
    """One revision's package, and what it does on a problem."""

    def __init__(self, name: str, folder: str, threads: int | None) -> None:
        self.name = name
        self.threads = threads
        self.package = load(folder, f"twolayer_{name}")
        self.variants = self.package.variants  # which the package may not have imported yet

    def plan(self, benchmark: dict[str, Any], rows: int | None = None) -> Any:
        """A plan that made its first step. Raises Absent where the variant cannot run."""
        package, name = self.package, benchmark["variant"]
        if name not in self.variants.names():
            raise Absent(f"{self.name} has no such variant")
        variant = self.variants.get(name)
        device = benchmark.get("device")
        if device is not None:
            if device not in getattr(variant, "devices", (variant.device,)):
                raise Absent(f"does not run on {device}")
            if device != variant.device:
                variant = variant.on(device)
        if reason := variant.unavailable():
            raise Absent(reason)
        X, Y, V, W = problem(benchmark)
        refuses = getattr(variant, "refuses", None)  # early revisions have none
        if refuses and (reason := refuses(package.Shape(*benchmark["shape"]), X.dtype)):
            raise Absent(reason)
        net = package.Network(benchmark["activation"], benchmark["loss"])
        theta = package.Parameters(V.copy(), W.copy())
        plan = variant.plan(net, X[:rows], Y[:rows], theta, self.threads)
        plan.step(MU)
        return plan

    def step(self, benchmark: dict[str, Any], rows: int | None = None) -> Callable[[], Any]:
        """A step of such a plan, again and again."""
        return partial(self.plan(benchmark, rows).step, MU)


def problem(benchmark: dict[str, Any]) -> Any:
    """X (n, d), Y (n, K), V (M, d), W (K, M), the same for both sides."""
    import numpy as np

    n, d, M, K = benchmark["shape"]
    dtype = benchmark["dtype"]
    if _problem.get("shape") != (n, d, M, K, dtype):
        values = np.random.default_rng(0)
        sizes = ((min(n, _DISTINCT), d, 1), (min(n, _DISTINCT), K, 1), (M, d, d), (K, M, M))
        X, Y, V, W = (
            (values.standard_normal((rows, columns)) / scale**0.5).astype(dtype)
            for rows, columns, scale in sizes
        )
        of = drawn(n)
        _problem.update(shape=(n, d, M, K, dtype), arrays=[X[of], Y[of], V, W])
    return _problem["arrays"]


def drawn(n: int) -> Any:
    """Which of a few rows each row of X repeats: the answers cost no more for many rows."""
    import numpy as np

    of = np.arange(n)
    of[_DISTINCT:] = np.random.default_rng(1).integers(0, _DISTINCT, max(0, n - _DISTINCT))
    return of


_problem: dict[str, Any] = {}


def affordable(tool: Any, side: Side, benchmark: dict[str, Any]) -> None:
    """Raise Absent where an epoch would take too long."""
    make = partial(side.step, benchmark)
    seconds = tool.measuring.timing.estimate(make, benchmark["shape"][0], LIMIT)
    if seconds > LIMIT:
        raise Absent(f"an epoch takes about {seconds:.2g} s, the limit is {LIMIT:g} s")


def answers(tool: Any, benchmark: dict[str, Any], rows: int | None = None) -> Any:
    """What both sides must find on the problem, or on its first rows, made once."""
    key = benchmark["activation"], benchmark["loss"], *benchmark["shape"], benchmark["dtype"], rows
    if _answers.get("key") != key:
        X, Y, V, W = problem(benchmark)
        net = tool.Network(benchmark["activation"], benchmark["loss"])
        theta, of = tool.Parameters(V, W), drawn(len(X))
        found = tool.checking.answers.Answers(net, X[:rows], Y[:rows], theta, of[:rows])
        _answers.update(key=key, answers=found)
    return _answers["answers"]


_answers: dict[str, Any] = {}


def checked(
    tool: Any, side: Side, plan: Any, benchmark: dict[str, Any], rows: int | None = None
) -> float:
    """The root mean square error of ∇L in units of ε. Raises RuntimeError for a wrong plan."""
    import numpy as np

    right = answers(tool, benchmark, rows)
    try:
        right.hold(plan)
    except tool.checking.answers.Disagreement as wrong:
        raise RuntimeError(f"{side.name} {wrong}") from None
    exact = right.epochs[0].right.gradient
    off = [(a - b).ravel() for a, b in zip(plan.gradient()[1], exact, strict=True)]
    squares = [float(np.mean(np.concatenate(one) ** 2)) for one in (off, [*map(np.ravel, exact)])]
    return float(np.sqrt(squares[0] / squares[1]) / np.finfo(plan.dtype).eps)


def measure(
    tool: Any, sides: list[Side], benchmark: dict[str, Any], seconds: float, number: int
) -> dict[str, Any]:
    """One benchmark in this process: blocks of both sides in turns, and what else is compared."""
    first = number == 0
    for side in sides:
        if first:
            affordable(tool, side, benchmark)
    plans: dict[str, Any] = {}
    result: dict[str, Any] = {"kind": "timing", "first": {}, "memory": {}, "error": {}}
    for side in sides:
        start = time.perf_counter()
        side.plan(benchmark)
        result["first"][side.name] = time.perf_counter() - start
    for side in sides:  # again, with everything loaded
        growth, plans[side.name] = tool.measuring.timing.peak_memory(partial(side.plan, benchmark))
        if growth is not None:
            result["memory"][side.name] = growth
        if first:
            result["error"][side.name] = checked(tool, side, plans[side.name], benchmark)
    plans.clear()
    keep_memory()
    return result | blocks(tool.measuring.timing, sides, benchmark, seconds, number)


def blocks(
    timing: Any, sides: list[Side], benchmark: dict[str, Any], seconds: float, number: int
) -> dict[str, Any]:
    """Seconds a step, a figure a block, in the order ABBA; as many calls on either side.

    Where its buffers lie makes a step some percent faster or slower, so that two plans kept side by
    side differ by as much. Each block makes its plan anew, where that of the last block lay; a pad
    moves all plans of a round.
    """
    fastest = min(timing.warm_up(side.step(benchmark), WARM_UP, 2) for side in sides)
    calls = max(1, round(BLOCK / fastest))
    stay = max(1, round(STAY / (calls * fastest)))
    found: tuple[list[float], list[float]] = ([], [])
    pads = random.Random(number)
    gc.collect()
    gc.disable()
    try:
        start = time.perf_counter()
        while not over(len(found[0]) // 2, (time.perf_counter() - start) / seconds):
            pad = bytearray(64 * pads.randrange(1, 1024))
            for which in (0, 1, 1, 0):
                step = sides[which].step(benchmark)
                timing.warm_up(step, min(STAY, fastest) / 4, 2)
                found[which].append(min(timing.each(step, calls) for _ in range(stay)))
                del step
            del pad
    finally:
        gc.enable()
    return {
        side.name: [float(f"{x:.5g}") for x in values]
        for side, values in zip(sides, found, strict=True)
    } | {"calls": calls}


def over(rounds: int, share: float) -> bool:
    """Whether so many rounds are enough after that share of the time that was asked for."""
    return (share >= 1 and rounds >= ENOUGH) or (share >= LONGER and rounds >= FEWEST)


def keep_memory() -> None:
    """Let malloc keep what is freed, so that the next plan gets the same addresses."""
    with contextlib.suppress(OSError, AttributeError):
        mallopt = ctypes.CDLL(None).mallopt
        mallopt(-4, 0)  # M_MMAP_MAX: nothing in a mapping of its own
        mallopt(-1, 1 << 30)  # M_TRIM_THRESHOLD


def compare(request: dict[str, Any]) -> None:
    """Measure every benchmark of the request, both revisions in this process."""
    tool = load_tool(request["tool"])
    number = request["process"]
    order = SIDES if number % 2 == 0 else SIDES[::-1]  # who is loaded first, and comes first
    sides = [started(name, request) for name in order]
    gc.collect()
    gc.freeze()  # or each collection would search all that the packages brought along
    wanted = request["benchmarks"]
    random.Random(number).shuffle(wanted)
    # Idle CPUs of a virtual machine come back slowly: those that use all of them come first.
    wanted.sort(key=lambda benchmark: not is_parallel(sides, benchmark["variant"]))
    for benchmark in wanted:
        say(begin=benchmark["name"])
        about = {"benchmark": benchmark["name"], "process": number}
        try:
            found = measure(tool, sides, benchmark, request["seconds"], number)
        except Absent as reason:
            found = {"kind": "absent", "sentence": str(reason)}
        except Exception as failure:
            found = failed(failure)
        tool.machine.lines.append(request["results"], about | found)
        say(done=benchmark["name"])


def turns(request: dict[str, Any]) -> None:
    """One side only: after each line on stdin, a warmed-up block of the benchmark it names."""
    name = request["side"]
    tool = load_tool(request["tool"])
    timing = tool.measuring.timing
    side = started(name, request)
    errors: dict[str, float] = {}
    pads = random.Random(name)
    keep_memory()
    benchmarks = {benchmark["name"]: benchmark for benchmark in request["benchmarks"]}
    say(ready=True)
    for line in sys.stdin:
        benchmark = benchmarks[json.loads(line)]
        try:
            if benchmark["name"] not in errors:
                affordable(tool, side, benchmark)
            pad = bytearray(64 * pads.randrange(1, 1024))  # where buffers lie matters: see blocks
            plan = side.plan(benchmark)
            if benchmark["name"] not in errors:
                errors[benchmark["name"]] = checked(tool, side, plan, benchmark)
            step = partial(plan.step, MU)
            calls = max(1, round(STAY / timing.warm_up(step, request["warm_up"], 2)))
            end = time.perf_counter() + request["seconds"]
            found = [timing.each(step, calls)]
            while time.perf_counter() < end:
                found.append(timing.each(step, calls))
            del plan, step, pad
            say(blocks=found, error=errors[benchmark["name"]])
        except Absent as reason:
            say(kind="absent", sentence=str(reason))
        except Exception as failure:
            say(**failed(failure))


def cold(request: dict[str, Any]) -> None:
    """Seconds of plan and first step of every variant, in a process and folder without its code."""
    side = started(request["side"], request)
    tool = None
    for benchmark in request["benchmarks"]:
        say(begin=benchmark["name"])
        start = time.perf_counter()
        try:
            plan = side.plan(benchmark, _ROWS)
            found: dict[str, Any] = {"seconds": time.perf_counter() - start}
            tool = tool or load_tool(request["tool"])  # now that nothing of it was timed
            checked(tool, side, plan, benchmark, _ROWS)
        except Absent:
            continue
        except Exception as failure:
            found = failed(failure)
            tool = tool or load_tool(request["tool"])
        tool.machine.lines.append(request["results"], {"variant": benchmark["variant"], **found})
        say(done=benchmark["name"])


def started(name: str, request: dict[str, Any]) -> Side:
    """The package of a side; where it cannot be imported this process says so and ends."""
    try:
        return Side(name, request[name], request["threads"])
    except Exception as failure:
        say(side=name, **failed(failure))
        sys.exit(4)


def failed(failure: Exception) -> dict[str, str]:
    """A failure in one sentence, with the last place in the sources."""
    place = traceback.extract_tb(failure.__traceback__)[-1]
    text = " ".join(str(failure).split())[:500]
    where = f" ({Path(place.filename).name}:{place.lineno})"
    return {"kind": "failed", "sentence": f"{type(failure).__name__}: {text}{where}"}


def is_parallel(sides: list[Side], name: str) -> bool:
    """Whether the variant uses several threads."""
    with contextlib.suppress(Exception):
        return bool(sides[0].variants.get(name).parallel)
    return False


def load_tool(folder: str) -> Any:
    """The package that this file belongs to: its answers, its measures and its lines on disk."""
    tool = load(folder, "twolayer_tool")
    for name in ("checking.answers", "machine.lines", "measuring.timing"):
        importlib.import_module(f"twolayer_tool.{name}")
    return tool


def main() -> None:
    """Do what the request on the first line of stdin asks for."""
    sys.path[:] = [entry for entry in sys.path if entry != str(Path(__file__).parent)]
    sys.modules["twolayer"] = None  # type: ignore[assignment]  # no revision may reach another one
    request = json.loads(sys.stdin.readline())
    # Compiled code lies beside each revision's package, never in one folder for both.
    os.environ.pop("NUMBA_CACHE_DIR", None)
    if request.get("cache"):
        os.environ["NUMBA_CACHE_DIR"] = request["cache"]
    {"compare": compare, "turns": turns, "cold": cold}[request["do"]](request)


if __name__ == "__main__":
    main()

"""A process that measures, run by its path: it belongs to no revision, and imports none by name.

A request, a JSON object, comes on the first line of stdin. Each result is appended to the request's
file as a line of JSON before a line on stdout says so: whoever is killed, no finished result is
lost. `side` lines on stdout tell of a revision that cannot be imported. What a revision prints goes
to stderr.
"""

from __future__ import annotations

import contextlib
import gc
import importlib
import json
import os
import random
import sys
import time
import traceback
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

if __package__:
    from .loading import NAME, add, load, meaning
else:  # run by its path
    from loading import NAME, add, load, meaning  # type: ignore[import-not-found,no-redef]

SIDES = ("base", "head")
MU = 1e-6  # so small that thousands of epochs do not move θ
LIMIT = 0.08  # seconds an epoch of the base; a slower benchmark is left out
SURELY = 25  # times the limit: what few rows say is not tried on all of them
FAR = 2.0  # times that limit an epoch of the head may take; beyond it is slower without a race
TOOL = (
    "checking.answers", "machine.lines", "measuring.roofline", "measuring.timing", "regress.turns",
)  # fmt: skip
_ROWS = 512  # of the problem that compiling is measured on
_DISTINCT = 256  # rows of a problem that differ


class Absent(Exception):
    """Why a benchmark is left out."""


_channel = sys.stdout  # to whoever started this process


def say(**message: Any) -> None:
    """A line to whoever started this process."""
    print(json.dumps(message), file=_channel, flush=True)


class Side:
    """One revision's package, and what it does on a problem.

    files: of variants, by their paths in the revision; those that it lacks are passed over.
    """

    def __init__(
        self, name: str, folder: Path, threads: int | None, files: Sequence[str] = ()
    ) -> None:
        self.name = name
        self.threads = threads
        self.alias = f"{NAME}_{name}"
        self.package = load(folder / "src" / NAME, self.alias)
        found = [folder / file for file in files]
        self.added = add(self.alias, [file for file in found if file.is_file()])
        self.variants = self.package.variants

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
        with meaning(self.alias):  # for what a variant of others imports only now
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
    loss = benchmark["loss"]
    if _problem.get("key") != (n, d, M, K, dtype, loss):
        values = np.random.default_rng(0)
        sizes = ((min(n, _DISTINCT), d, 1), (min(n, _DISTINCT), K, 1), (M, d, d), (K, M, M))
        X, Y, V, W = (
            (values.standard_normal((rows, columns)) / scale**0.5).astype(dtype)
            for rows, columns, scale in sizes
        )
        if loss == "softmax":
            Y = np.eye(K, dtype=dtype)[Y.argmax(axis=1)]
        elif loss == "logistic":
            Y = np.where(Y > 0, 1, -1).astype(dtype)
        of = drawn(n)
        _problem.update(key=(n, d, M, K, dtype, loss), arrays=[X[of], Y[of], V, W])
    return _problem["arrays"]


def drawn(n: int) -> Any:
    """Which of a few rows each row of X repeats: the answers cost no more for many rows."""
    import numpy as np

    of = np.arange(n)
    of[_DISTINCT:] = np.random.default_rng(1).integers(0, _DISTINCT, max(0, n - _DISTINCT))
    return of


_problem: dict[str, Any] = {}


def tried(tool: Any, side: Side, benchmark: dict[str, Any], limit: float) -> dict[str, Any]:
    """What a side alone does on a benchmark: "right", "slow", "absent" or "failed", and more."""
    try:
        make = partial(side.step, benchmark)
        timing, n = tool.measuring.timing, benchmark["shape"][0]
        seconds = timing.estimate(make, n, limit)
        if limit < seconds < SURELY * limit:  # few rows say little where a call itself costs much
            seconds = timing.warm_up(make(n), 0, 2)
        if seconds > limit:
            return {"kind": "slow", "seconds": seconds}
        error = checked(tool, side, side.plan(benchmark), benchmark)
        return {"kind": "right", "seconds": seconds, "error": error}
    except Absent as reason:
        return {"kind": "absent", "sentence": str(reason)}
    except Exception as failure:
        return failed(failure)


def unpaired(base: dict[str, Any], head: dict[str, Any]) -> dict[str, Any] | None:
    """The record of a benchmark that only one side can be timed on; None where both can."""
    if head["kind"] == "failed":
        also = f"; base: {base['sentence']}" if base["kind"] == "failed" else ""
        return {"kind": "failed", "sentence": head["sentence"] + also}
    if base["kind"] == "failed":
        kind = "absent" if head["kind"] == "absent" else "repaired"
        return {"kind": kind, "sentence": f"in the base: {base['sentence']}"}
    if base["kind"] == "slow":
        sentence = f"an epoch takes about {base['seconds']:.2g} s, the limit is {LIMIT:g} s"
        return {"kind": "absent", "sentence": sentence}
    if base["kind"] == "absent":
        if head["kind"] == "absent":
            return head
        return {"kind": "new", "sentence": base["sentence"], "seconds": head["seconds"]}
    if head["kind"] == "absent":
        return {"kind": "lost", "sentence": head["sentence"]}
    if head["kind"] == "slow":
        was, seconds = base["seconds"], head["seconds"]
        sentence = f"an epoch takes about {seconds:.2g} s, and {was:.2g} s in the base"
        return {"kind": "far", "sentence": sentence, "seconds": seconds}
    return None


def answers(tool: Any, benchmark: dict[str, Any]) -> Any:
    """What both sides must find on the problem, made once."""
    key = benchmark["activation"], benchmark["loss"], *benchmark["shape"], benchmark["dtype"]
    if _answers.get("key") != key:
        X, Y, V, W = problem(benchmark)
        net = tool.Network(benchmark["activation"], benchmark["loss"])
        found = tool.checking.answers.Answers(net, X, Y, tool.Parameters(V, W), drawn(len(X)))
        _answers.update(key=key, answers=found)
    return _answers["answers"]


_answers: dict[str, Any] = {}


def checked(tool: Any, side: Side, plan: Any, benchmark: dict[str, Any]) -> float:
    """The root mean square error of ∇L in units of ε. Raises RuntimeError for a wrong plan."""
    import numpy as np

    right = answers(tool, benchmark)
    try:
        right.hold(plan)
    except tool.checking.answers.Disagreement as wrong:
        raise RuntimeError(f"{side.name} {wrong}") from None
    exact = right.epochs[0].right.gradient
    off = [(a - b).ravel() for a, b in zip(plan.gradient()[1], exact, strict=True)]
    squares = [float(np.mean(np.concatenate(one) ** 2)) for one in (off, [*map(np.ravel, exact)])]
    return float(np.sqrt(squares[0] / squares[1]) / np.finfo(plan.dtype).eps)


def trial(
    tool: Any, sides: dict[str, Side], benchmark: dict[str, Any], request: dict[str, Any]
) -> dict[str, Any]:
    """What both sides do on a benchmark before any time is taken; it compiles all that they need.

    Code that was just compiled lies elsewhere than code from disk, which makes loops faster or
    slower by a tenth.
    """
    broken = request["broken"] | request["died"].get(benchmark["name"], {})
    limits, found = {"base": LIMIT, "head": FAR * LIMIT}, {}
    for name in SIDES:
        if name in broken:
            found[name] = {"kind": "failed", "sentence": broken[name]}
        else:
            say(at=name)  # should this process die of it
            found[name] = tried(tool, sides[name], benchmark, limits[name])
    say(at="")
    error = {name: found[name].get("error") for name in SIDES}
    return unpaired(found["base"], found["head"]) or {"kind": "right", "error": error}


def measure(
    tool: Any, sides: dict[str, Side], benchmark: dict[str, Any], request: dict[str, Any]
) -> dict[str, Any]:
    """Steps of both sides in turns."""
    turns, pair = tool.regress.turns, [*sides.values()]
    turns.keep_memory()
    return {
        "kind": "timing",
        **turns.measured(pair, benchmark, request["seconds"], request["process"]),
    }


def compare(request: dict[str, Any]) -> None:
    """Measure every benchmark of the request, both revisions in this process."""
    tool = load_tool()
    number = request["process"]
    order = SIDES if number % 2 == 0 else SIDES[::-1]  # who is loaded first, and comes first
    sides = {name: started(name, request) for name in order if name not in request["broken"]}
    gc.collect()
    gc.freeze()  # or each collection would search all that the packages brought along
    wanted = request["benchmarks"]
    random.Random(number).shuffle(wanted)
    # Idle CPUs of a virtual machine come back slowly: those that use all of them come first.
    wanted.sort(key=lambda benchmark: not is_parallel(sides["head"], benchmark["variant"]))
    for benchmark in wanted:
        say(begin=benchmark["name"])
        about = {"benchmark": benchmark["name"], "process": number}
        try:
            found = (trial if number < 0 else measure)(tool, sides, benchmark, request)
        except Exception as failure:
            found = failed(failure)
        tool.machine.lines.append(request["results"], about | found)
        say(done=benchmark["name"])


def start(request: dict[str, Any]) -> None:
    """What the first plan and step of each variant take in a process, and the memory of another."""
    tool, name = load_tool(), request["side"]
    timing, side = tool.measuring.timing, started(name, request)
    tool.measuring.roofline.probe("float32", request["threads"], 0.001)  # starts threads
    random.Random(request["pair"]).shuffle(request["benchmarks"])
    for benchmark in request["benchmarks"]:
        say(begin=benchmark["name"])
        with contextlib.suppress(Exception):  # the trial tells of what is wrong
            problem(benchmark)
            seconds, plan = timing.once(partial(side.plan, benchmark))
            del plan
            growth, plan = timing.peak_memory(partial(side.plan, benchmark))
            del plan
            about = {"kind": "start", "variant": benchmark["variant"], "pair": request["pair"]}
            tool.machine.lines.append(
                request["results"], about | {"side": name, "load": seconds, "memory": growth}
            )
        say(done=benchmark["name"])


def turns(request: dict[str, Any]) -> None:
    """One side only: after each line on stdin a warmed-up block of a benchmark, first a trial."""
    name = request["side"]
    tool = load_tool()
    timing = tool.measuring.timing
    side = started(name, request)
    pads = random.Random(name)
    tool.regress.turns.keep_memory()
    benchmarks = {benchmark["name"]: benchmark for benchmark in request["benchmarks"]}
    say(ready=True)
    for line in sys.stdin:
        what, asked, limit = json.loads(line)
        benchmark = benchmarks[asked]
        if what == "try":
            say(**tried(tool, side, benchmark, limit))
            continue
        try:
            pad = bytearray(64 * pads.randrange(1, 1024))  # where buffers lie matters: see measured
            step = side.step(benchmark)
            calls = max(1, round(request["block"] / timing.warm_up(step, request["warm_up"], 2)))
            end = time.perf_counter() + request["seconds"]
            found = [timing.each(step, calls)]
            while time.perf_counter() < end:
                found.append(timing.each(step, calls))
            del step, pad
            say(blocks=found)
        except Exception as failure:
            say(**failed(failure))


def cold(request: dict[str, Any]) -> None:
    """Seconds of plan and first step of every benchmark, where no compiled code is."""
    side = started(request["side"], request)
    tool = None
    for benchmark in request["benchmarks"]:
        say(begin=benchmark["name"])
        with contextlib.suppress(Exception):  # the trial tells of what is wrong
            n, *others = benchmark["shape"]
            few = benchmark | {"shape": [min(n, _ROWS), *others]}
            problem(few)
            start = time.perf_counter()
            plan = side.plan(few)
            seconds = time.perf_counter() - start
            tool = tool or load_tool()  # now that none of what it loads was timed
            about = {"kind": "cold", "variant": benchmark["variant"], "problem": benchmark["name"]}
            about |= {"side": side.name, "round": request["round"], "seconds": seconds}
            try:
                checked(tool, side, plan, few)  # compiles what the trial needs as well
            except RuntimeError as wrong:
                about = {"benchmark": benchmark["name"], "process": -1, **failed(wrong)}
                about |= {"kind": "repaired"} if side.name == "base" else {}
            tool.machine.lines.append(request["results"], about)
        say(done=benchmark["name"])


def started(name: str, request: dict[str, Any]) -> Side:
    """The package of a side; where it cannot be imported this process says so and ends."""
    try:
        return Side(name, Path(request[name]), request["threads"], request["files"])
    except Exception as failure:
        say(side=name, **failed(failure))
        sys.exit(4)


def failed(failure: Exception) -> dict[str, str]:
    """A failure in one sentence, with the last place in the sources."""
    place = traceback.extract_tb(failure.__traceback__)[-1]
    text = " ".join(str(failure).split())[:500]
    where = f" ({Path(place.filename).name}:{place.lineno})"
    return {"kind": "failed", "sentence": f"{type(failure).__name__}: {text}{where}"}


def is_parallel(side: Side, name: str) -> bool:
    """Whether the variant uses several threads."""
    with contextlib.suppress(Exception):
        return bool(side.variants.get(name).parallel)
    return False


def names(request: dict[str, Any]) -> None:
    """The variants of the request's files, else all that need no other packages, and all."""
    side = started(request["side"], request)
    every = [side.variants.get(name) for name in side.variants.names()]
    own = [one for one in every if not getattr(one, "requires", ())]
    if request["files"]:
        own = [one for one in every if one in side.added]
    say(names=[(one.name, one.device) for one in own], known=[one.name for one in every])


def load_tool() -> Any:
    """The package that this file belongs to: its answers, its measures and its lines on disk."""
    tool = load(Path(__file__).resolve().parents[1], "twolayer_tool")
    for name in TOOL:
        importlib.import_module(f"twolayer_tool.{name}")
    return tool


def main() -> None:
    """Do what the request on the first line of stdin asks for."""
    sys.path[:] = [entry for entry in sys.path if entry != str(Path(__file__).parent)]
    sys.modules[NAME] = None  # type: ignore[assignment]  # no revision may reach another one
    request = json.loads(sys.stdin.readline())
    global _channel
    _channel = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    # Compiled code lies beside each revision's package, never in one folder for both.
    os.environ.pop("NUMBA_CACHE_DIR", None)
    if request.get("cache"):
        os.environ["NUMBA_CACHE_DIR"] = request["cache"]
    what = {"compare": compare, "turns": turns, "cold": cold, "start": start, "names": names}
    what[request["do"]](request)


if __name__ == "__main__":
    main()

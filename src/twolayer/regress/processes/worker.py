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
import signal
import sys
import threading
import time
from functools import partial
from pathlib import Path
from typing import Any

if __package__:
    from .loading import NAME, load
    from .sides import FAR, LIMIT, SIDES, Side, checked, failed, problem, tried, unpaired
else:  # run by its path
    from loading import NAME, load  # type: ignore[import-not-found,no-redef]
    from sides import (  # type: ignore[import-not-found,no-redef]
        FAR,
        LIMIT,
        SIDES,
        Side,
        checked,
        failed,
        problem,
        tried,
        unpaired,
    )  # fmt: skip

TOOL = (
    "checking.answers", "machine.lines", "measuring.roofline", "measuring.timing", "regress.turns",
)  # fmt: skip
_ROWS = 512  # of the problem that compiling is measured on

_channel = sys.stdout  # to whoever started this process


def say(**message: Any) -> None:
    """A line to whoever started this process; where nobody hears it, it ends."""
    try:
        print(json.dumps(message), file=_channel, flush=True)
    except OSError:
        _end()


def _end() -> None:
    """End this process, and those that it started."""
    if os.getpgrp() == os.getpid():
        os.killpg(0, signal.SIGKILL)
    os._exit(1)


def _end_with(pipe: int) -> None:
    """End with whoever has the other end of a pipe, from which nothing comes any more."""

    def wait() -> None:
        while os.read(pipe, 1):
            pass
        _end()

    threading.Thread(target=wait, daemon=True).start()


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


def alone(request: dict[str, Any]) -> None:
    """What one side does on benchmarks in a process without the other."""
    tool, side = load_tool(), started(request["side"], request)
    for benchmark in request["benchmarks"]:
        say(begin=benchmark["name"])
        found = tried(tool, side, benchmark, LIMIT)
        tool.machine.lines.append(request["results"], {"alone": benchmark["name"], **found})
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
                if side.name == "base":  # what the head makes of it, the trial says
                    raise
                about = {"benchmark": benchmark["name"], "process": -1, **failed(wrong)}
            tool.machine.lines.append(request["results"], about)
        say(done=benchmark["name"])


def started(name: str, request: dict[str, Any]) -> Side:
    """The package of a side; where it cannot be imported this process says so and ends."""
    try:
        return Side(name, Path(request[name]), request["threads"], request["files"])
    except Exception as failure:
        say(side=name, **failed(failure))
        sys.exit(4)


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
    devices = [(one.name, [*getattr(one, "devices", (one.device,))]) for one in own]
    say(names=devices, known=[one.name for one in every])


def load_tool() -> Any:
    """The package that this file belongs to: its answers, its measures and its lines on disk."""
    tool = load(Path(__file__).resolve().parents[2], "twolayer_tool")
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
    what = {
        "compare": compare, "alone": alone, "turns": turns, "cold": cold, "start": start,
        "names": names,
    }  # fmt: skip
    if request["do"] != "turns":  # which hears of the end itself
        _end_with(sys.stdin.fileno())
    what[request["do"]](request)
    # What is done is done: threads that a variant left, and libraries that die as they end, are
    # no matter.
    os._exit(0)


if __name__ == "__main__":
    main()

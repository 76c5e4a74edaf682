"""The places where a variant is timed, and faults that show there and in few others.

Each place gives the figures that it found and what it said. A fault shows beyond some rows, on more
than one thread, or for one n only, so that no other plan could be checked instead.
"""

import io
import json
import sys
from contextlib import nullcontext, redirect_stdout
from dataclasses import replace
from importlib import import_module
from pathlib import Path
from types import SimpleNamespace

import numpy as np
from batch import Batch

import twolayer as tl
from twolayer import choosing
from twolayer.checking import cases
from twolayer.checking.answers import Disagreement
from twolayer.choosing import contest, decide
from twolayer.machine.store import Store
from twolayer.measuring import device_clock, startup
from twolayer.measuring import device_clock as on_gpu
from twolayer.measuring.race import Result, Workload, race
from twolayer.measuring.roofline import Roofline
from twolayer.regress import turns as taking_turns
from twolayer.regress.processes import sides, worker
from twolayer.report import gather

ROOT = Path(__file__).parents[2]
NET = tl.Network("tanh", "squared")
SHAPE = tl.Shape(1100, 3, 5, 2)
ROOF = Roofline(1e9, 1e9)


class Faulty(Batch):
    """Right where `wrong` does not hold for the rows and threads of the whole epoch."""

    candidates = staticmethod(lambda *_: [{"engine": "a"}, {"engine": "b"}])  # of a GPU's plan

    def wrong(self, n):
        return False

    def differentiate(self, X, Y, theta, gradient):
        if self.wrong(len(X)):
            X, Y = X[:300] * np.asarray(0.99, X.dtype), Y[:300]
        return super().differentiate(X, Y, theta, gradient)


def beyond_300_rows(self, n):
    return n > 300


def on_several_threads(self, n):
    return self.threads > 1 and n == self.shape.n


FAULTS = {
    "beyond 300 rows": lambda n: beyond_300_rows,
    "on several threads": lambda n: on_several_threads,
    "for one n": lambda n: lambda self, rows: rows == n,
}
PLACES = {}


def place(n=SHAPE.n, **options):
    """A function(variant, monkeypatch, tmp_path) that gives (figures, what was said), and its n."""

    def keep(function):
        PLACES[function.__name__.replace("_", " ")] = (function, n, options)
        return function

    return keep


def known_as(monkeypatch, name, variant):
    monkeypatch.setitem(tl.variants.REGISTRY._entries, name, replace(variant, name=name))


def raised(call, *arguments):
    """Figures, or what a Disagreement says."""
    try:
        return [call(*arguments)], ""
    except Disagreement as error:
        return [], str(error)


@place()
def race_and_bench(variant, monkeypatch, tmp_path):
    result = Result(Workload(NET, SHAPE), 2, ROOF)
    race(result, [variant], rounds=1, limit=10.0)
    return result.entries[0].blocks, result.entries[0].skipped


@place()
def the_report(variant, monkeypatch, tmp_path):
    workload = Workload(NET, SHAPE)
    monkeypatch.setattr(gather, "workloads", lambda *_: ({"n": [workload]}, {}))
    monkeypatch.setattr(gather, "contenders", lambda swept: [])
    monkeypatch.setattr(gather.startup, "start", lambda *_: startup.Start(1.0, 1.0))
    monkeypatch.setattr(gather.verify, "verify", lambda *_: [])
    monkeypatch.setattr(gather.roofline, "probe", lambda *_, **__: ROOF)
    with Store(tmp_path / "report.sqlite") as store:
        study = gather.Gathering(NET, "float32", 2, [variant], store).run()
    (entry,) = study.sweeps["n"][0].entries
    return entry.blocks, entry.skipped


@place()
def a_start(variant, monkeypatch, tmp_path):
    known_as(monkeypatch, "faulty", variant)
    request = {
        "files": [], "net": ["tanh", "squared"], "shape": SHAPE, "dtype": "float32", "dataset": "",
        "variant": "faulty", "device": "cpu", "threads": 2,
    }  # fmt: skip
    monkeypatch.setattr(sys, "stdin", io.StringIO(json.dumps(request)))
    with redirect_stdout(io.StringIO()) as printed:
        figures, said = raised(startup.main)
    assert bool(printed.getvalue()) is bool(figures)
    return figures, said


def chosen(variant, monkeypatch, tmp_path, ask):
    """Asked where numba-fused, which is the variant, would be the only one that is fast."""
    monkeypatch.setattr(decide, "contest", contest.contest)
    monkeypatch.setattr(contest, "_BEHIND", 1e9)
    monkeypatch.setattr("twolayer.choosing.field.source", lambda variant: "")
    known_as(monkeypatch, "numba-fused", variant)
    monkeypatch.setenv("TWOLAYER_STORE", str(tmp_path / "store.sqlite"))
    choice = ask()
    timed = [c for c in (choice.chosen, *choice.runners_up) if c.variant == "numba-fused"]
    return [c.seconds for c in timed if c.blocks], dict(choice.ruled_out).get("numba-fused", "")


def asked(names):
    n, d, M, K = SHAPE
    return tl.choose(NET, n=n, d=d, M=M, K=K, threads=2, variants=names)


@place()
def a_choice(variant, monkeypatch, tmp_path):
    known_as(monkeypatch, "python-loops", tl.Variant("python-loops", "cpu", "", Batch))
    names = ["numba-fused", "python-loops"]
    return chosen(variant, monkeypatch, tmp_path, lambda: asked(names))


@place()
def auto(variant, monkeypatch, tmp_path):
    _, X, Y, theta = cases.problem(NET, SHAPE, "float32")[1:]

    answers = []

    def ask():
        plan = tl.variants.get("auto").plan(NET, X, Y, theta, 2)
        assert plan.variant == answers[0].variant
        return answers[0]

    def noted(*arguments):
        answers.append(choosing.ask(*arguments))
        return answers[0]

    monkeypatch.setattr("twolayer.composed.auto.ask", noted)

    return chosen(variant, monkeypatch, tmp_path, ask)


def side_of(variant, monkeypatch):
    known_as(monkeypatch, "faulty", variant)
    monkeypatch.setattr(sides, "_problem", {})
    monkeypatch.setattr(sides, "_answers", {})
    monkeypatch.setattr(taking_turns, "keep_memory", lambda: None)
    for name in worker.TOOL:  # its answers and its timing
        import_module(f"twolayer.{name}")
    monkeypatch.setattr(worker, "load_tool", lambda: tl)
    side = object.__new__(sides.Side)
    monkeypatch.setattr(sides, "meaning", nullcontext)  # it would take twolayer from this process
    side.name, side.alias, side.threads = "head", "twolayer", 2
    side.package, side.variants = tl, tl.variants
    monkeypatch.setattr(worker, "started", lambda name, request: side)
    return side, {
        "name": "a benchmark", "variant": "faulty", "shape": list(SHAPE), "dtype": "float32",
        "activation": "tanh", "loss": "squared",
    }  # fmt: skip


def tried(monkeypatch, benchmark, tmp_path):
    """A request, and what the trial before any timing says; then a run ends where it failed."""
    request = {
        "process": -1, "seconds": 0.001, "benchmarks": [benchmark], "threads": 2,
        "results": str(tmp_path / "trial"), "broken": {}, "died": {}, "side": "head",
        "round": 0, "pair": 0, "warm_up": 0,
    }  # fmt: skip
    monkeypatch.setattr(worker.gc, "freeze", lambda: None)
    with redirect_stdout(io.StringIO()) as printed:
        monkeypatch.setattr(worker, "_channel", printed)
        worker.compare(request)
    _, said = recorded(tmp_path / "trial", "seconds")
    return request | {"results": str(tmp_path / "results")}, said


@place()
def regress(variant, monkeypatch, tmp_path):
    request, said = tried(monkeypatch, side_of(variant, monkeypatch)[1], tmp_path)
    if said:
        return [], said
    worker.compare(request | {"process": 0})
    return recorded(tmp_path / "results", "head")


@place()
def first_steps_of_regress(variant, monkeypatch, tmp_path):
    request, said = tried(monkeypatch, side_of(variant, monkeypatch)[1], tmp_path)
    if said:
        return [], said
    worker.start(request)
    return recorded(tmp_path / "results", "load")


@place(n=worker._ROWS)
def compile_times_of_regress(variant, monkeypatch, tmp_path):
    benchmark = side_of(variant, monkeypatch)[1]
    request = {"side": "head", "benchmarks": [benchmark], "results": str(tmp_path / "results")}
    monkeypatch.setattr(worker, "_channel", io.StringIO())
    worker.cold(request | {"round": 0})
    return recorded(tmp_path / "results", "seconds")


def recorded(path, figure):
    (line,) = path.read_text().splitlines()
    found = json.loads(line.partition(" ")[2])
    return [found[figure]] if figure in found else [], found.get("sentence", "")


@place()
def processes_of_regress_that_take_turns(variant, monkeypatch, tmp_path):
    _, benchmark = side_of(variant, monkeypatch)
    request = {"side": "head", "benchmarks": [benchmark], "seconds": 0, "warm_up": 0, "block": 0}

    def asked(*message):
        monkeypatch.setattr(sys, "stdin", io.StringIO(json.dumps(message) + "\n"))
        monkeypatch.setattr(worker, "_channel", io.StringIO())
        worker.turns(request)
        return json.loads(worker._channel.getvalue().splitlines()[-1])

    found = asked("try", "a benchmark", 1.0)
    if found["kind"] == "right":
        found = asked("time", "a benchmark", 0.0)
    return found.get("blocks", []), found.get("sentence", "")


@place(device="cuda")
def a_record_of_a_gpu(variant, monkeypatch, tmp_path):
    found = on_gpu.record(variant, NET, SHAPE, "float32", repetitions=1, warm_up=0.0)
    return found.get("all_seconds", []), found["skipped"]


@place(device="cuda")
def candidates_on_a_gpu(variant, monkeypatch, tmp_path):
    with Store(tmp_path / "tuning.sqlite") as store:
        _, found = device_clock.tune(
            variant, NET, SHAPE, "float32", store, repetitions=1, warm_up=0.0
        )
        assert len(found) == 2
        figures = [value for value in found.values() if isinstance(value, float)]
        assert bool(store.select()) is bool(figures)
    return figures, next((value for value in found.values() if isinstance(value, str)), "")


def suite(monkeypatch, variant, name="numpy"):
    monkeypatch.syspath_prepend(ROOT)
    from benchmarks import cluster, common, memory

    known_as(monkeypatch, name, variant)
    for function in (common.plan, common._answers, cluster.plan):
        function.cache_clear()
    monkeypatch.setattr(common, "BASE", SHAPE)
    monkeypatch.setattr(cluster, "BASE", SHAPE)

    def run(command, **options):
        """The program of a process, here."""
        monkeypatch.setattr(sys, "argv", command[2:])
        with redirect_stdout(io.StringIO()) as printed:
            exec(command[2], {})
        return SimpleNamespace(returncode=0, stdout=printed.getvalue())

    monkeypatch.setattr(common.subprocess, "run", run)
    return common, cluster, memory


@place()
def a_plan_of_asv(variant, monkeypatch, tmp_path):
    common, _, _ = suite(monkeypatch, variant)
    return raised(common.plan, "numpy", SHAPE)


@place()
def asv_on_a_cluster(variant, monkeypatch, tmp_path):
    _, cluster, _ = suite(monkeypatch, variant, "dask")
    return raised(cluster.plan, 2, SHAPE.n)


@place()
def a_process_of_asv(variant, monkeypatch, tmp_path):
    common, _, _ = suite(monkeypatch, variant)
    return raised(common.first_epoch, "numpy", None, SHAPE.n)


@place()
def the_memory_of_asv(variant, monkeypatch, tmp_path):
    _, _, memory = suite(monkeypatch, variant)
    return raised(memory.Memory().setup, "numpy", SHAPE.n)


def tool(monkeypatch, name):
    """A program of tools/, whose imports need what is installed for tests."""
    path = ROOT / "tools" / name
    monkeypatch.syspath_prepend(path.parent)
    return __import__(path.name)


@place()
def the_cluster_check(variant, monkeypatch, tmp_path):
    check = tool(monkeypatch, "cluster_check")
    monkeypatch.setattr(check, "VARIANT", variant)
    monkeypatch.setattr(check, "LARGE", SHAPE)
    monkeypatch.setattr(check.timing, "block", lambda *_, **__: 1.0)
    return raised(check.speed)


@place(n=1, faults=("for one n",))
def an_epoch_of_one_sample_on_a_cluster(variant, monkeypatch, tmp_path):
    check = tool(monkeypatch, "cluster_check")
    monkeypatch.setattr(check, "VARIANT", variant)
    monkeypatch.setattr(check.timing, "block", lambda *_, **__: 1.0)
    return raised(check.overhead)


@place(faults=("beyond 300 rows", "for one n"))
def the_parts_of_an_epoch(variant, monkeypatch, tmp_path):
    parts = tool(monkeypatch, "cpu_parts")
    known_as(monkeypatch, "numba-fused", variant)
    return raised(parts.epoch_seconds, Workload(NET, SHAPE))


@place(n=141, faults=("on several threads", "for one n"))
def the_probe_of_a_calm_machine(variant, monkeypatch, tmp_path):
    regret = tool(monkeypatch, "regret")
    known_as(monkeypatch, "numba-fused", variant)
    monkeypatch.setattr(regret.timing, "block", lambda call: 1.0)
    return raised(regret.Calm, 2)


@place(n=1, device="cuda", faults=("for one n",))
def launches_on_a_gpu(variant, monkeypatch, tmp_path):
    parts = tool(monkeypatch, "gpu/gpu_parts")
    monkeypatch.setattr(parts, "field", lambda: {"faulty": variant})
    return raised(lambda: dict(parts.launches("faulty")))

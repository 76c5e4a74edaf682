"""What chooses, reports and compares, where there is a GPU: a variant on the CPU stands in."""

from contextlib import nullcontext

import made_up
import numpy as np
import pytest
from typer.testing import CliRunner

import twolayer as tl
from twolayer.checking import cases
from twolayer.choosing import contest, decide, field
from twolayer.cli import app
from twolayer.machine import hardware
from twolayer.machine.store import Store
from twolayer.measuring import race, roofline, startup
from twolayer.measuring.race import Entry, Result, Workload
from twolayer.measuring.roofline import Roofline
from twolayer.regress import suite
from twolayer.regress.processes import sides

NET = tl.Network("relu", "softmax")
SHAPE = {"n": 3000, "d": 3, "M": 4, "K": 2}
NAME = "cuda-stand-in"


def refuses(shape, dtype):
    return "is made for few inputs: take numpy" if shape.d > 100 else None


@pytest.fixture
def stand_in(monkeypatch):
    """A variant of the device "cuda", registered for one test."""
    made = tl.Variant(
        NAME, "cuda", "", tl.variants.get("numpy").make, parallel=False, refuses=refuses
    )
    monkeypatch.setitem(tl.variants.REGISTRY._entries, NAME, made)
    monkeypatch.setattr(field, "source", lambda variant: "")
    monkeypatch.setattr("twolayer.choosing.starts.source", lambda variant: "")
    return made


@pytest.fixture
def store(tmp_path, monkeypatch, stand_in):
    """An empty store, and times in which a GPU costs more to call and less a sample."""
    monkeypatch.setenv("TWOLAYER_STORE", str(tmp_path / "store.sqlite"))
    monkeypatch.setitem(made_up.TIMES, NAME, (3e-5, 1e-8))
    with Store() as made:
        yield made


@pytest.mark.usefixtures("store")
def test_a_gpu_is_a_candidate_beside_the_cpus():
    many, few = tl.choose(NET, **SHAPE), tl.choose(NET, **SHAPE | {"n": 5})
    assert (many.variant, few.variant) == (NAME, "numba-loops")
    assert NAME in [c.variant for c in few.runners_up]
    assert tl.choose(NET, **SHAPE, device="cpu").variant == "numba-fused"
    assert tl.choose(NET, **SHAPE, device="cuda").variant == NAME
    assert dict(tl.choose(NET, **SHAPE | {"d": 101}).ruled_out)[NAME] == refuses(
        tl.Shape(1, 101, 1, 1), np.float32
    )


@pytest.mark.usefixtures("store")
def test_copies_to_the_gpu_count_once(monkeypatch):
    """They belong to the plan, so few epochs are better off on a CPU."""

    def race(net, q, field, progress):
        entries, rows = made_up.made_up_contest(net, q, field, progress)
        for entry in entries:
            entry.plan = 0.5 if entry.variant.name == NAME else 1e-4
        return entries, rows

    monkeypatch.setattr(decide, "contest", race)
    few, many = (tl.choose(NET, **SHAPE, epochs=epochs) for epochs in (10, 100_000))
    assert (few.variant, many.variant) == ("numba-fused", NAME)
    assert many.chosen.before == pytest.approx(0.8)


@pytest.mark.usefixtures("store")
def test_what_does_not_fit_into_the_gpu_is_ruled_out_for_now(stand_in, monkeypatch):
    class TooLarge(stand_in.make):
        def __init__(self, problem):
            raise MemoryError("a plan on the GPU: needs 9 GiB, 1 GiB are free")

    with monkeypatch.context() as patch:
        large = tl.Variant(NAME, "cuda", "", TooLarge)
        patch.setitem(tl.variants.REGISTRY._entries, NAME, large)
        patch.setattr(decide, "contest", contest.contest)
        patch.setattr(contest, "FAR", (1e9,))
        choice = tl.choose(NET, **SHAPE, variants=[NAME, "numpy"])
        assert choice.variant == "numpy"
        why = "found too little memory: a plan on the GPU: needs 9 GiB, 1 GiB are free"
        assert dict(choice.ruled_out)[NAME] == why
    assert tl.choose(NET, **SHAPE, variants=[NAME, "numpy"]).variant == NAME  # it was not kept


@pytest.mark.usefixtures("store")
def test_auto_may_pick_it():
    _, _, X, Y, theta = cases.problem(NET, tl.Shape(*SHAPE.values()), "float32")
    plan = tl.variants.get("auto").plan(NET, X, Y, theta)
    assert plan.variant == NAME
    assert tl.variants.get("auto").plan(NET, X[:5], Y[:5], theta).variant == "numba-loops"


def test_answers_hold_for_the_gpu_they_were_given_on(tmp_path, monkeypatch):
    monkeypatch.setattr(hardware, "_NVIDIA_FOLDER", tmp_path)
    assert hardware._gpu_models() == []
    for number, name in enumerate(("NVIDIA H200", "NVIDIA H100")):
        folder = tmp_path / "gpus" / f"0000:0{number}"
        folder.mkdir(parents=True)
        (folder / "information").write_text(f"Model: \t\t {name}\nIRQ: 7\n")
    assert hardware._gpu_models() == ["NVIDIA H200", "NVIDIA H100"]
    hardware.signature.cache_clear()
    try:
        assert hardware.signature()["gpus"] == ["NVIDIA H200", "NVIDIA H100"]
    finally:
        hardware.signature.cache_clear()


def test_the_report_has_it_and_the_cpus_roofline_has_not(stand_in, tmp_path, monkeypatch):
    pytest.importorskip("matplotlib")
    pytest.importorskip("jinja2")
    from twolayer.report import figures

    def raced(result, field, **options):
        for variant in field:
            seconds = 1e-9 * result.workload.shape.flops() / (1000 if variant is stand_in else 1)
            entry = Entry(variant, blocks=[seconds] * 3)
            result.entries.append(entry)

    shown = []
    monkeypatch.setattr(race, "race", raced)
    monkeypatch.setattr(roofline, "probe", lambda *_, **__: Roofline(1e11, 1e10))
    monkeypatch.setattr(startup, "start", lambda *_: startup.Start(1.0, 0.5))
    monkeypatch.setattr("twolayer.checking.verify.verify", lambda *_: [])
    monkeypatch.setattr(
        figures, "below_the_roof", lambda panel, results, looks: shown.extend(results)
    )
    monkeypatch.setenv("TWOLAYER_STORE", str(tmp_path / "store.sqlite"))
    page = tmp_path / "report.html"
    found = CliRunner().invoke(app, ["report", str(page), "--variants", f"numpy,{NAME}"])
    assert found.exit_code == 0, found.output
    assert f"{NAME} on " in page.read_text(encoding="utf-8")
    assert {entry.variant.name for result in shown for entry in result.entries} == {"numpy"}


def test_a_result_by_device(stand_in):
    made = Result(Workload(NET, tl.Shape(9, 3, 4, 2)), 1, Roofline(1e11, 1e10))
    made.entries = [Entry(tl.variants.get("numpy")), Entry(stand_in)]
    assert [e.variant.name for e in made.on("cpu").entries] == ["numpy"]
    assert [e.variant.name for e in made.on("cuda").entries] == [NAME]
    assert len(made.entries) == 2


def names(*arguments):
    return [b.variant for b in suite.benchmarks(tl.Network(), "float32", *arguments)]


def test_regress_compares_what_runs_on_a_gpu(stand_in):
    assert names(["9,3,4,2"], None, "cuda")[-1] == NAME
    assert "cuda-samples" not in names((), None, "cuda")
    assert NAME not in names(["9,3,4,2"])
    assert names(["9,3,4,2"], ["numpy"], "cuda") == ["numpy"]
    with pytest.raises(ValueError, match=r"^device: expected one of cpu, cuda, got 'gpu'$"):
        names((), None, "gpu")


def test_without_a_gpu_regress_says_why(monkeypatch):
    for name in tl.variants.names():
        if name.startswith("cuda-"):
            lacks = tl.Variant(name, "cuda", "", None, lacks=lambda: "no NVIDIA GPU")
            monkeypatch.setitem(tl.variants.REGISTRY._entries, name, lacks)
    wrong = CliRunner().invoke(app, ["regress", "HEAD", "--device", "cuda"])
    assert wrong.exit_code == 2
    assert "expected a device that is here, got 'cuda': " in wrong.stderr
    assert "cuda-tiled: no NVIDIA GPU" in wrong.stderr


class Side(sides.Side):
    """One that is loaded already."""

    def __init__(self):
        self.name, self.alias, self.threads = "base", "twolayer", 1
        self.package, self.variants = tl, tl.variants


def benchmark(variant, shape, device):
    return {
        "variant": variant, "shape": shape, "device": device, "activation": "tanh",
        "loss": "squared", "dtype": "float32",
    }  # fmt: skip


def test_a_worker_leaves_out_what_a_variant_is_not_made_for(stand_in, monkeypatch):
    monkeypatch.setattr(sides, "meaning", nullcontext)  # it would take twolayer from this process
    side = Side()
    assert side.plan(benchmark(NAME, [40, 5, 6, 2], "cuda")).variant == NAME
    assert side.plan(benchmark(NAME, [40, 5, 6, 2], None)).variant == NAME
    for name, shape, device, reason in (
        (NAME, [40, 101, 6, 2], "cuda", "is made for few inputs"),
        (NAME, [40, 5, 6, 2], "cpu", "does not run on cpu"),
        ("numpy", [40, 5, 6, 2], "cuda", "does not run on cuda"),
    ):
        with pytest.raises(sides.Absent, match=reason):
            side.plan(benchmark(name, shape, device))

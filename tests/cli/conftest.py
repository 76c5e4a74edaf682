"""Every command, brief: little data, made-up models, nothing measured for long."""

import pytest

import twolayer as tl
from twolayer.cli.commands import regress
from twolayer.machine.store import Measurement, Store
from twolayer.measuring import roofline
from twolayer.measuring.race import Entry, Result, Workload
from twolayer.measuring.roofline import Roofline
from twolayer.regress.costs import Cost, Note
from twolayer.regress.decide import Decision
from twolayer.regress.revisions import Revision
from twolayer.regress.run import Outcome, Run
from twolayer.report import gather, page
from twolayer.report.study import Study
from twolayer.training.checkpoint import Model, save_model


@pytest.fixture(scope="session")
def measured():
    """Two commits of a problem in the tests' store."""
    about = {"activation": "tanh", "loss": "squared", "dtype": "float32", "threads": 1}
    for commit in ("a" * 40, "b" * 40):
        Store().add(
            Measurement(
                kind="epoch", variant="numpy", device="cpu", n=7, d=3, M=5, K=2, commit=commit,
                tree="clean", metrics={"blocks": [1.0, 1.1], "seconds": 1.05}, **about,
            )
        )  # fmt: skip


@pytest.fixture
def brief(monkeypatch, tmp_path, measured):
    """A folder with data, in which the commands take no time."""
    monkeypatch.setattr(roofline, "probe", lambda *_, **__: Roofline(1e11, 1e10))

    def run(gathering):
        result = Result(Workload(tl.Network(), tl.Shape(3, 3, 3, 3)), 1, Roofline(1e11, 1e10))
        result.entries = [Entry(tl.variants.get("numpy"), blocks=[1.0, 1.0])]
        found = gathering.study
        found.sweeps = {"n": [result]}
        return found

    monkeypatch.setattr(gather.Gathering, "run", run)
    monkeypatch.setattr(page, "render", lambda *_: "<!doctype html> σ")
    monkeypatch.setattr(page, "summary", lambda study: ["Fastest: numpy ±."])
    monkeypatch.setattr(Study, "reigns", lambda study, cached: [])
    decision = Decision(
        "numpy n=3", "numpy", "time", 9, 1.0, 1.1, 1.1, 1.0, 1.2, 0.0, 0.9, 0.01, "same", True
    )
    for name in ("export_base", "export"):
        monkeypatch.setattr(regress, name, lambda *_: Revision("σ", "tree", tmp_path))
    monkeypatch.setattr(regress, "accepted", lambda *_: {})
    monkeypatch.setattr(regress, "_results", lambda *_: tmp_path / "results.jsonl")
    outcome = Outcome(
        [decision], [Cost("compile", "numpy", 1.0, 1.0, "same")], [Note("absent", "jax n=3", "σ")]
    )
    monkeypatch.setattr(Run, "measure", lambda *_: outcome)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "data.csv").write_text("1,2,3\n2,3,4\n0.5,1,2\n")
    (tmp_path / "x.csv").write_text("1,2\n2,3\n")
    net = tl.Network()
    save_model(tmp_path / "net.npz", Model(net, net.init(2, 3, 1)))
    return tmp_path

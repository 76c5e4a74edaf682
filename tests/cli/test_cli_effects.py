"""An option that would have no effect is refused, and what has one has it."""

import io
import json
from contextlib import nullcontext
from types import SimpleNamespace

import pytest
from command_runs import call

import twolayer as tl
from twolayer.cli.commands import regress, train
from twolayer.machine import calm
from twolayer.machine.calm import Calm
from twolayer.measuring import roofline
from twolayer.network import Shape
from twolayer.regress.run import Run
from twolayer.report import figures

# What is refused beside what, and how the sentence begins.
IDLE = {
    "bench --quick --shape 9,2,3,1": "quick: expected none with --shape, got it",
    "peers --quick --shape 9,2,3,1": "quick: expected none with --shape, got it",
    "peers --loss softmax": "loss: expected none without --shape",
    "peers --activation relu": "activation: expected none without --shape",
    "verify --seed 0": "seed: expected none without --thorough, got 0",
    "machine --threads 1": "threads: expected none without --probe, got 1",
    "report --readme README.md": "readme: expected --plots",
    "train digits --patience 3": "patience: expected --validation beside it",
    "train digits --resume": "resume: expected --checkpoint beside it",
    "train digits --header": "header: ",
    "train digits --target 2": "target: expected a file named .csv or .tsv, got a data set",
    "train --X x.csv --Y x.csv --target 2": "target: expected a file named .csv or .tsv, got X and",
    "predict net.npz digits --save o.npy --target 1": "target: ",
    "choose digits --target 3": "target: ",
    "predict net.npz digits --save o.npy --drop 1": "drop: ",
    "regress a b --bisect --exact": "exact: expected none with --bisect, got it",
    "regress a b --bisect --json o.json": "json: expected none with --bisect, got o.json",
    "regress a b --bisect --markdown o.md": "markdown: expected none with --bisect, got o.md",
    "regress 0.67 0.68 --dep numba --exact": "exact: expected none with --dep, got it",
}


def run(line, code=0):
    streams = [io.TextIOWrapper(io.BytesIO(), encoding="utf-8") for _ in range(2)]
    assert call(line, *streams) == code
    for stream in streams:
        stream.seek(0)
    return [stream.read() for stream in streams]


@pytest.mark.parametrize("line", IDLE)
def test_an_option_without_effect_is_refused(brief, line):
    shown, said = run(line, 2)
    assert said.startswith(IDLE[line])
    assert (shown, said.count("\n")) == ("", 1)


def test_what_the_machine_is_seen_as(brief, monkeypatch):
    busy = Calm(0.3, others=1.5)
    monkeypatch.setattr(calm, "look", lambda: busy)
    asked = []
    monkeypatch.setattr(
        roofline, "probe", lambda *given: asked.append(given) or roofline.Roofline(2e11, 1e10)
    )
    shown, _ = run("machine --json out.json")
    assert asked == []  # measured only where asked
    found = json.loads((brief / "out.json").read_text())
    assert found["calm"] == busy.report()
    assert found["machine"] == {**tl.machine.hardware.fingerprint()}
    for text in (found["machine"]["cpu"], found["store"]["path"], str(busy), "numpy", "L1 "):
        assert text in shown
    assert "roofline" not in shown
    shown, _ = run("machine --probe --threads 1")
    assert asked == [("float32", 1), ("float64", 1)]
    assert shown.count("200 GFLOP/s, 10.0 GB/s, 1 thread ") == 2


def test_a_report_makes_the_folder_of_its_figures(brief, monkeypatch):
    monkeypatch.setattr(figures, "figures", lambda study: [])
    run("report --variants numpy --plots figures r.html")
    assert (brief / "figures").is_dir()


@pytest.mark.parametrize("only", ["numpy-old", "numpy"])
def test_a_name_that_neither_revision_knows_is_refused(monkeypatch, only):
    asked = []
    known = ([], ["numpy", "numba-fused", only])
    made = SimpleNamespace(names=lambda: asked.append(1) or known)
    with pytest.raises(ValueError, match=r"got 'numba-fusde': did you mean numba-fused\?"):
        regress._check_names([only, "numba-fusde"], made)
    with pytest.raises(ValueError, match=r"got 'xyz'$"):
        regress._check_names(["xyz"], made)
    regress._check_names([only], made)
    assert len(asked) == 2 + (only not in tl.variants.names())  # what is known here costs nothing


def test_train_takes_auto_where_numpy_would_take_long(brief, monkeypatch):
    few, many = Shape(1797, 64, 32, 10), Shape(60_000, 784, 128, 10)
    assert train._usual(few.flops() * 200) == "numpy"
    assert train._usual(many.flops() * 200) == "auto"
    run("train data.csv --epochs 2 --json out.json")
    assert json.loads((brief / "out.json").read_text())["variant"] == "numpy"
    taken = []
    monkeypatch.setattr(train, "_usual", lambda flops: taken.append(flops) or "numpy-samples")
    run("train data.csv --epochs 2 --checkpoint c.npz --json out.json")
    assert taken == [2 * Shape(3, 2, 32, 1).flops()]
    run("train data.csv --epochs 4 --checkpoint c.npz --resume --json out.json")
    assert len(taken) == 1  # the checkpoint's own goes on
    assert json.loads((brief / "out.json").read_text())["variant"] == "numpy-samples"
    run("train data.csv --epochs 4 --variant numpy --checkpoint c.npz --resume", 2)


def test_both_revisions_are_asked_for_names(tmp_path, monkeypatch):
    run = Run(SimpleNamespace(folder="b", label="b"), SimpleNamespace(folder="h", label="h"), (),
              tmp_path)  # fmt: skip
    told = {"h": ["numpy", "new"], "b": ["numpy", "old"]}
    monkeypatch.setattr(
        run,
        "_worker",
        lambda request: nullcontext([{"names": [], "known": told[request[request["side"]]]}]),
    )
    assert run.names() == ([], ["numpy", "new", "old"])

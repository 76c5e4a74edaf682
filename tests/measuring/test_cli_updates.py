"""`twolayer updates`: one table, the same figures in JSON, and refusals in one sentence."""

import json
from dataclasses import replace

import pytest
from typer.testing import CliRunner

import twolayer as tl
from twolayer.cli import app
from twolayer.cli.commands.racing import updates as command
from twolayer.measuring import peers
from twolayer.measuring.race import ROUNDS
from twolayer.training import updates

SMALL = ("--shape", "70,3,5,2", "--shape", "40,2,4,1", "--threads", 1)
README = "<!-- updates:start -->\nold\n<!-- updates:end -->\n"


@pytest.fixture
def cli(monkeypatch):
    """cli(*arguments, code=0): the command's result, its measuring brief, its peers NumPy alone."""
    monkeypatch.setattr(command, "PEERS", peers.PEERS[:1])

    def run(*arguments, code=0):
        result = CliRunner().invoke(app, ["updates", *map(str, arguments)])
        assert result.exit_code == code, result.output + repr(result.exception)
        return result

    return run


def test_the_table_and_the_files_have_the_same_figures(cli, tmp_path):
    path, readme = tmp_path / "updates.json", tmp_path / "README.md"
    readme.write_text(README)
    shown = cli(*SMALL, "--peers", "--batches", "8,32", "--json", path, "--readme", readme)
    report = json.loads(path.read_text())
    cells = [(w["n"], w["batch"], w["optimizer"], w["loss"]) for w in report["updates"]]
    assert cells == [
        (n, batch, optimizer, loss)
        for n, loss in ((70, "softmax"), (40, "squared"))
        for batch in (8, 32)
        for optimizer in ("sgd", "adam")
    ]
    ratios = []
    for work in report["updates"]:
        own, peer = work["loops"]
        assert (own["name"], own["peer"]) == ("numba-fused", False)
        assert (peer["name"], peer["peer"]) == ("NumPy", True)
        assert len(own["blocks"]) == ROUNDS
        assert own["low"] <= own["seconds"] <= own["high"]
        assert work["best_peer"] == "NumPy"
        ratios.append(peer["seconds"] / own["seconds"])
        assert work["ratio"] == pytest.approx(ratios[-1])
    assert report["worst"] == pytest.approx(min(ratios))
    assert min(ratios) <= report["geometric_mean"] <= max(ratios)
    sentence = (
        f"best peer / numba-fused over 8: geometric mean {report['geometric_mean']:.2f}, "
        f"worst {report['worst']:.2f}."
    )
    assert sentence in shown.stdout
    assert max(map(len, shown.stdout.splitlines())) <= 100
    assert shown.stderr.count("\n") == 8
    text = readme.read_text()
    rows = [line for line in text.splitlines() if line.startswith("|")]
    heads = "σ, ℓ | n,d,M,K | batch | optimizer | numba-fused | NumPy | best peer / numba-fused"
    assert rows[0] == f"| {heads} |"
    assert rows[2].startswith("| tanh, softmax | 70,3,5,2 | 8 | sgd | ")
    assert len(rows) == 2 + 8
    assert sentence in text
    assert "\nold\n" not in text


def test_without_peers_there_is_no_ratio(cli, tmp_path):
    path = tmp_path / "updates.json"
    chosen = ("--batches", "9", "--optimizers", "nesterov", "--variants", "numpy,numba-loops")
    shown = cli(*SMALL, *chosen, "--json", path).stdout
    report = json.loads(path.read_text())
    assert "No ratio" in shown
    assert (report["geometric_mean"], report["worst"]) == (None, None)
    for work in report["updates"]:
        assert [loop["name"] for loop in work["loops"]] == ["numpy", "numba-loops"]
        assert work["optimizer"] == "nesterov"


def test_a_wrong_peer_and_one_that_is_missing_are_told(cli, tmp_path, monkeypatch):
    absent = tl.Variant("absent", "cpu", "not here", None, requires=("no_such_package",))
    tl.variants.add(absent)

    def wrong(task):
        return peers.numpy_loop(task._replace(settings={"step": 1.0}))

    found = (peers.Peer("wrong", "numpy", wrong), peers.Peer("Absent", "absent", None))
    monkeypatch.setattr(command, "PEERS", found)
    readme = tmp_path / "README.md"
    readme.write_text(README)
    arguments = ("--batches", "8", "--optimizers", "gd", "--peers", "--readme", readme)
    shown = cli(*SMALL, *arguments, code=1).stdout
    assert "skipped: wrong at 70,3,5,2 batch 8 gd: disagrees with the oracle: after 3" in shown
    assert "skipped: Absent: needs the package no_such_package" in shown
    assert "| – | – | – |" in readme.read_text()


def test_nothing_timed_is_exit_code_3(cli, tmp_path):
    tl.variants.add(replace(tl.variants.get("numpy"), name="none", requires=("no_such_package",)))
    readme = tmp_path / "README.md"
    readme.write_text(README)
    cli(*SMALL, "--variants", "none", "--readme", readme, code=3)
    assert readme.read_text() == README


def test_ctrl_c_keeps_what_was_measured(cli, tmp_path, monkeypatch):
    race, calls = updates.race, []

    def interrupted(*arguments, **options):
        calls.append(1)
        if len(calls) == 3:
            raise KeyboardInterrupt
        race(*arguments, **options)

    monkeypatch.setattr(updates, "race", interrupted)
    path, readme = tmp_path / "updates.json", tmp_path / "README.md"
    readme.write_text(README)
    cli(*SMALL, "--batches", "8", "--json", path, "--readme", readme, code=130)
    report = json.loads(path.read_text())
    assert report["interrupted"] is True
    assert len(report["updates"]) == 2
    assert readme.read_text() == README


def test_by_default_three_shapes_with_all_batches_and_a_loss_that_fits():
    results = command.tasks((), "tanh", None, "float64", None, None)
    assert len(results) == 3 * 4 * 2
    assert [r.batch for r in results[::2]] == [*updates.BATCHES] * 3
    losses = {(r.workload.shape.K, r.workload.net.loss) for r in results}
    assert losses == {(10, "softmax"), (1, "squared")}


def test_batches_beyond_the_rows_are_all_rows_once():
    results = command.tasks(["9,2,3,1"], "tanh", None, "float32", "4,16,32", "gd")
    assert [result.batch for result in results] == [4, 9]


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["--batches", "0"], "batches: expected a positive integer"),
        (["--batches", "x"], "batches: expected a positive integer, got 'x'"),
        (["--optimizers", "adan"], "optimizer: expected one of gd"),
        (["--shape", "9,2,3"], "shape: expected four sizes"),
        (["--loss", "logistic"], "K: the logistic loss has one output"),
        (["--readme", "absent.md"], "readme: expected an existing file"),
        (["--json", "no folder/x.json"], "json: expected a file in an existing"),
    ],
)
def test_an_error_is_one_sentence_before_anything_is_measured(
    cli, monkeypatch, arguments, sentence
):
    monkeypatch.setattr(updates, "race", None)
    result = cli(*arguments, code=2)
    assert result.stderr.startswith(sentence)
    assert result.stderr.count("\n") == 1
    assert result.stdout == ""

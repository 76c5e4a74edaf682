import json
import os
import re
import signal
import subprocess
import sys

import pytest
from typer.testing import CliRunner

import twolayer as tl
from twolayer.cli import app
from twolayer.machine.store import Store
from twolayer.measuring import race, roofline
from twolayer.measuring import workloads as work
from twolayer.showing import tables

WRONG = """
import twolayer as tl

class Wrong(tl.variants.get("numpy").make):
    def backpropagate(self, X, Y, theta, gradient):
        loss = super().backpropagate(X, Y, theta, gradient)
        gradient.W[...] *= 1.001
        return loss

VARIANT = tl.Variant("wrong", "cpu", "a gradient that is a little too long", Wrong)
"""
README = "# Title\n\n<!-- bench:start -->\nold\n<!-- bench:end -->\n\nThe rest.\n"
SHAPES = ("--variants", "numpy,numpy-samples", "--shape", "20,3,5,2", "--shape", "9,2,4,1")

SIZES = "expected four sizes n,d,M,K, positive integers"


@pytest.fixture(autouse=True)
def _store(monkeypatch, tmp_path):
    monkeypatch.setenv("TWOLAYER_STORE", str(tmp_path / "store.sqlite"))


@pytest.fixture
def cli(monkeypatch):
    """cli(*arguments, code=0): the command's result, its measuring made brief."""
    monkeypatch.setattr(roofline, "probe", lambda *_, **__: roofline.Roofline(1e11, 1e10))

    def run(*arguments, code=0):
        result = CliRunner().invoke(app, list(map(str, arguments)))
        assert result.exit_code == code, result.output + repr(result.exception)
        return result

    return run


@pytest.fixture
def wrong(tmp_path):
    path = tmp_path / "wrong.py"
    path.write_text(WRONG)
    return path


def test_who_is_skipped_for_the_same_reason_shares_a_line():
    needs = [(name, "needs x", place) for place in ("n=1", "n=2") for name in ("a", "b")]
    found = [*needs, ("c", "slow", "n=2"), ("d", "", "n=1")]
    assert tables.reasons(found, 2) == ["a, b: needs x", "c at n=2: slow"]


def test_list_shows_every_variant_with_its_reason(cli, tmp_path, monkeypatch):
    absent = tl.Variant("absent", "cuda", "not here", None, requires=("no_such_package",))
    tl.variants.add(absent)
    path = tmp_path / "list.json"
    shown = cli("list", "--json", path).stdout
    listed = {row["name"]: row for row in json.loads(path.read_text())["variants"]}
    assert list(listed) == tl.variants.names()
    assert all(name in shown for name in listed)
    assert listed["numpy"] == {
        "name": "numpy",
        "device": "cpu",
        "summary": tl.variants.get("numpy").summary,
        "available": True,
        "reason": None,
    }
    assert not listed["absent"]["available"]
    assert listed["absent"]["reason"] == "needs the package no_such_package"


def test_bench_tells_keeps_and_writes_the_same_figures(cli, tmp_path):
    path = tmp_path / "bench.json"
    result = cli("bench", *SHAPES, "--threads", 1, "--json", path)
    report = json.loads(path.read_text())
    assert report["interrupted"] is False
    assert report["threads"] == 1
    assert report["roofline"] == {"flops": 1e11, "bandwidth": 1e10}
    assert report["machine"]["cpus"] >= 1
    assert [(w["n"], w["d"], w["M"], w["K"]) for w in report["workloads"]] == [
        (20, 3, 5, 2),
        (9, 2, 4, 1),
    ]
    for workload in report["workloads"]:
        assert workload["groups"] == ["shapes"]
        assert (workload["data"], workload["activation"], workload["loss"]) == (
            "synthetic",
            "tanh",
            "squared",
        )
        assert [v["variant"] for v in workload["variants"]] == ["numpy", "numpy-samples"]
        assert min(v["ratio"] for v in workload["variants"]) == 1
        for figures in workload["variants"]:
            assert figures["low"] <= figures["seconds"] <= figures["high"]
            assert figures["roofline"] == workload["least_seconds"] / figures["seconds"]
            assert len(figures["blocks"]) == race.ROUNDS
            assert {"gflops", "first_call", "peak_memory", "device"} < figures.keys()
    with Store() as store:
        kept = {(m.n, m.variant): m.seconds for m in store.select(kind="epoch")}
    assert kept == {
        (w["n"], v["variant"]): v["seconds"] for w in report["workloads"] for v in w["variants"]
    }
    assert "n=20 d=3" in result.stdout
    assert len(re.findall("numpy-samples", result.stdout)) == 2
    assert result.stderr.startswith("1/2 n=20 d=3 M=5 K=2: 2 variants timed, ")
    assert result.stderr.count("\n") == 2


def test_a_wrong_variant_is_told_and_not_timed(cli, wrong, tmp_path):
    path = tmp_path / "bench.json"
    result = cli("bench", *SHAPES, "--variant-file", wrong, "--json", path, code=1)
    assert "skipped: wrong at n=20 d=3 M=5 K=2: disagrees with the oracle: dL/dW" in result.stdout
    for workload in json.loads(path.read_text())["workloads"]:
        entry = workload["variants"][2]
        assert entry["variant"] == "wrong"
        assert entry["skipped"].startswith("disagrees with the oracle: ")
        assert "seconds" not in entry
    with Store() as store:
        assert {kept.variant for kept in store.select()} == {"numpy", "numpy-samples"}


def test_nothing_timed_is_exit_code_3(cli):
    arguments = ["--shape", "9,2,3,2", "--variants", "numpy", "--skip-above", "1e-12"]
    assert "nothing was timed" in cli("bench", *arguments, code=3).stdout


def test_slow_variants_are_told(cli):
    shown = cli("bench", "--shape", "5000,32,64,2", "--variants", "python-loops,numpy").stdout
    assert re.search(
        r"^skipped: python-loops: would take \S+ s an epoch, the limit is 0\.1 s$", shown, re.M
    )


def test_the_table_replaces_what_is_between_the_markers(cli, tmp_path):
    readme = tmp_path / "README.md"
    readme.write_text(README)
    readme.chmod(0o640)
    cli("bench", *SHAPES, "--readme", readme)
    text = readme.read_text()
    assert text.startswith("# Title\n\n<!-- bench:start -->\n")
    assert text.endswith("\n<!-- bench:end -->\n\nThe rest.\n")
    assert "\nold\n" not in text
    rows = [line for line in text.splitlines() if line.startswith("|")]
    heads = "data | n | d | M | K | numpy | numpy-samples | second / fastest | roofline"
    assert rows[0] == f"| {heads} |"
    assert rows[2].startswith("| synthetic, squared | 20 | 3 | 5 | 2 | ")
    assert len(rows) == 4
    assert all(row.count("**") in (0, 2) for row in rows[2:])
    assert readme.stat().st_mode & 0o777 == 0o640
    cli("bench", *SHAPES, "--readme", readme)
    assert readme.read_text().count("<!-- bench:start -->") == 1
    assert [path.name for path in tmp_path.iterdir() if "README" in path.name] == ["README.md"]


def test_the_plot_is_written(cli, tmp_path):
    path = tmp_path / "bench.svg"
    cli("bench", "--sweep", "n=10,20", "--variants", "numpy", "--plot", path)
    assert path.read_text().startswith("<?xml")


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (
            ["--shape", "1,2,3"],
            f"shape: {SIZES}, got '1,2,3'",
        ),
        (
            ["--shape", "1,2,3,0"],
            f"shape: {SIZES}, got '1,2,3,0'",
        ),
        (
            ["--shape", "1,2,3,x"],
            f"shape: {SIZES}, got '1,2,3,x'",
        ),
        (["--sweep", "q=1"], "sweep: expected n, d, M or K = sizes"),
        (["--sweep", "n=1e3"], "sweep: expected a positive integer, got '1e3'"),
        (["--variants", "numpi"], "variant: expected one of python-loops"),
        (["--variant-file", "absent.py"], "variant file: expected an existing .py file"),
        (["--dtype", "float16"], "dtype: expected dtype float32 or float64, got float16"),
        (["--activation", "tan"], "activation: expected one of identity"),
        (["--loss", "hinge"], "loss: expected one of squared"),
        (["--loss", "logistic", "--shape", "9,2,3,2"], "K: the logistic loss has one output"),
        (["--threads", "0"], "threads: expected a positive integer, got 0"),
        (["--skip-above", "0"], "skip-above: expected a positive number of seconds"),
        (["--json", "no folder/x.json"], "json: expected a file in an existing folder"),
        (["--plot", "x.gif"], "plot: expected a file ending in .svg or .png, got 'x.gif'"),
        (["--readme", "absent.md"], "readme: expected an existing file, got 'absent.md'"),
    ],
)
def test_an_error_is_one_sentence_before_anything_is_measured(
    cli, monkeypatch, arguments, sentence
):
    monkeypatch.setattr(roofline, "probe", None)
    result = cli("bench", *arguments, code=2)
    assert result.stderr.startswith(sentence)
    assert result.stderr.count("\n") == 1
    assert result.stdout == ""


@pytest.mark.parametrize("text", ["no markers", "<!-- bench:end --> <!-- bench:start -->"])
def test_missing_markers_are_told_before_anything_is_measured(cli, monkeypatch, tmp_path, text):
    monkeypatch.setattr(roofline, "probe", None)
    readme = tmp_path / "README.md"
    readme.write_text(text)
    result = cli("bench", "--readme", readme, code=2)
    assert "<!-- bench:start --> and <!-- bench:end -->" in result.stderr
    assert readme.read_text() == text


def test_a_run_without_figures_leaves_the_files_alone(cli, tmp_path, wrong):
    readme = tmp_path / "README.md"
    readme.write_text(README)
    arguments = ["--shape", "9,2,3,2", "--variants", "wrong", "--variant-file", wrong]
    assert "nothing was timed" in cli("bench", *arguments, "--readme", readme, code=1).stderr
    assert readme.read_text() == README


def test_the_default_run_has_real_data_and_a_sweep_of_every_axis():
    groups = work.workloads(tl.Network(), "float32")
    assert list(groups) == ["data", "n", "d", "M", "K"]
    assert [w.dataset for w in groups["data"]] == [
        "diabetes",
        "linnerud",
        "breast_cancer",
        "digits",
    ]
    shared = set.intersection(*(set(groups[axis]) for axis in "ndMK"))
    assert len(shared) == 1
    for axis in "ndMK":
        fixed = {w.shape._replace(**{axis: 0}) for w in groups[axis]}
        assert len(fixed) == 1
        assert len(groups[axis]) >= 4


@pytest.mark.parametrize("loss", ["logistic", "softmax", "squared_logistic"])
@pytest.mark.parametrize("quick", [False, True])
def test_the_default_run_suits_every_loss(loss, quick):
    groups = work.workloads(tl.Network(loss=loss), "float64", quick=quick)
    assert groups["data"]
    assert ("K" in groups) == (loss != "logistic" and not quick)


def test_without_scikit_learn_the_sweeps_remain(monkeypatch):
    monkeypatch.setitem(sys.modules, "sklearn", None)
    said = []
    groups = work.workloads(tl.Network(), "float32", complain=said.append)
    assert list(groups) == ["n", "d", "M", "K"]
    assert said[0].startswith("real data sets are left out: data set diabetes: ")


def test_sweeps_of_one_axis_add_up():
    groups = work.workloads(tl.Network(), "float32", sweeps=["d=3,2", "d=2,5"])
    assert [w.shape.d for w in groups["d"]] == [2, 3, 5]


PEERS_README = "<!-- bench:start --><!-- bench:end -->\n<!-- peers:start -->\n<!-- peers:end -->\n"


def test_peers_are_set_against_numba_fused_in_one_table(cli, tmp_path):
    readme, path = tmp_path / "README.md", tmp_path / "peers.json"
    readme.write_text(PEERS_README)
    absent = tl.Variant("absent", "cpu", "not here", None, requires=("no_such_package",))
    tl.variants.add(absent)
    names = ["numpy", "numpy-samples", "absent", "numba-fused"]
    plot, roof = tmp_path / "peers.svg", tmp_path / "roofline.png"
    shown = cli(
        "peers", *SHAPES[2:], "--variants", ",".join(names), "--activation", "relu",
        "--json", path, "--readme", readme, "--plot", plot, "--roofline", roof,
    ).stdout  # fmt: skip
    report = json.loads(path.read_text())
    seconds = [
        {v["variant"]: v["seconds"] for v in work["variants"] if "seconds" in v}
        for work in report["workloads"]
    ]
    ratios = [min(s["numpy"], s["numpy-samples"]) / s["numba-fused"] for s in seconds]
    assert report["peers"]["reference"] == "numba-fused"
    leads = report["peers"]["ratios"]
    assert [lead["ratio"] for lead in leads] == pytest.approx(ratios)
    mean = report["peers"]["geometric_mean"]
    assert mean == pytest.approx((ratios[0] * ratios[1]) ** 0.5)
    assert {work["activation"] for work in report["workloads"]} == {"relu"}
    text = readme.read_text()
    assert text.startswith(PEERS_README.partition("\n")[0])  # the other markers' text stays
    rows = [line for line in text.splitlines() if line.startswith("|")]
    assert rows[0].startswith("| σ, ℓ | n | d | M | K | numpy | numpy-samples | absent | numba-")
    assert len(rows) == 4
    for row, ratio in zip(rows[2:], ratios, strict=True):
        cells = [cell.strip() for cell in row.strip("|").split("|")]
        assert cells[0] == "relu, squared"
        assert cells[7] == "–"
        assert re.fullmatch(rf"{ratio:.2f} \(\d+\.\d\d to \d+\.\d\d\)", cells[9])
        assert row.count("**") in (0, 2)
    sentence = f"fastest other / numba-fused over 2 shapes: {mean:.2f}."
    assert sentence in text
    assert sentence in shown
    assert "(absent: needs the package no_such_package)" in text
    assert "skipped: absent: needs the package no_such_package" in shown
    assert plot.read_text().startswith("<?xml")
    assert roof.read_bytes().startswith(b"\x89PNG")


def test_without_numba_fused_there_is_no_ratio(cli, tmp_path):
    path = tmp_path / "peers.json"
    shown = cli("peers", *SHAPES, "--json", path).stdout
    assert "No ratio" in shown
    peers = json.loads(path.read_text())["peers"]
    assert (peers["ratios"], peers["geometric_mean"]) == ([None, None], None)


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["--loss", "softmax"], "loss: expected none without --shape"),
        (["--activation", "relu"], "activation: expected none without --shape"),
        (["--variants", "numpy", "--plot", "x.svg"], "plot: expected numba-fused among the"),
        (["--roofline", "x.gif"], "roofline: expected a file ending in .svg or .png"),
        (["--roofline", "no folder/x.svg"], "roofline: expected a file in an existing folder"),
    ],
)
def test_an_error_beside_peers_is_one_sentence(cli, monkeypatch, arguments, sentence):
    monkeypatch.setattr(roofline, "probe", None)
    result = cli("peers", *arguments, code=2)
    assert result.stderr.startswith(sentence)
    assert result.stderr.count("\n") == 1


def test_peers_have_shapes_and_networks_of_their_own():
    listed = work.peers("float64")["shapes"]
    assert len(listed) == 8
    assert {w.dtype for w in listed} == {"float64"}
    assert {(w.net.activation, w.net.loss) for w in listed} == {
        ("tanh", "softmax"), ("tanh", "squared"), ("relu", "softmax"),
    }  # fmt: skip
    assert set(work.peers("float64", quick=True)["shapes"]) < set(listed)


@pytest.mark.skipif(sys.platform == "win32", reason="there is no SIGINT to send")
def test_ctrl_c_keeps_what_was_measured(tmp_path):
    path, readme = tmp_path / "bench.json", tmp_path / "README.md"
    readme.write_text(README)
    shapes = [part for n in range(10, 60) for part in ("--shape", f"{n},3,5,2")]
    arguments = ["--variants", "numpy", "--json", str(path), "--readme", str(readme), *shapes]
    source = os.path.dirname(os.path.dirname(tl.__file__))
    # Who starts the tests in the background may have them, and all below, ignore Ctrl-C.
    program = (
        "import signal; signal.signal(signal.SIGINT, signal.default_int_handler); "
        "from twolayer.measuring import timing; timing.WAKE_UP = 0.0; "
        "from twolayer.cli import app; app()"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", program, "bench", *arguments],
        env=os.environ | {"PYTHONPATH": source, "PYTHONUNBUFFERED": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    with process:
        for line in process.stderr:  # before the first, that others are busy, where they are
            if line.startswith("1/50 "):
                break
        process.send_signal(signal.SIGINT)
        shown, told = process.communicate(timeout=60)
    assert process.returncode == 130
    assert told.endswith("interrupted: what was measured until now follows\n")
    assert "n=10 d=3" in shown
    report = json.loads(path.read_text())
    assert report["interrupted"] is True
    assert report["workloads"][0]["variants"][0]["seconds"] > 0
    assert len(report["workloads"]) < 50
    with Store() as store:
        assert store.select(variant="numpy", n=10)
    assert readme.read_text() == README

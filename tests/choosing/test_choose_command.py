"""`twolayer choose`: what it prints, writes and refuses."""

import json

import numpy as np
import pytest
from typer.testing import CliRunner

from twolayer.cli import app


@pytest.fixture
def store(tmp_path, monkeypatch):
    """An empty store for one test, which TWOLAYER_STORE names."""
    monkeypatch.setenv("TWOLAYER_STORE", str(tmp_path / "store.sqlite"))


def run(*arguments):
    return CliRunner().invoke(app, ["choose", *map(str, arguments)])


SIZES = ("--shape", "3000,3,4,2")


@pytest.mark.usefixtures("store")
def test_the_command_says_which_and_why(tmp_path):
    path = tmp_path / "choice.json"
    result = run(*SIZES, "--epochs", 10, "--explain", "--json", path)
    assert result.exit_code == 0, result.output
    lines = result.stdout.splitlines()
    report = json.loads(path.read_text())
    assert lines[0] == report["variant"]
    assert "10 epochs take" in result.output
    assert "ruled out: " in result.output
    assert "Timed on 3000 rows" in result.output
    assert len(report["runners_up"]) + len(report["ruled_out"]) >= 6
    assert report["epochs"] == 10


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--activation", "tanhh"), "activation: expected one of identity, "),
        (("--max-memory", "much"), "max-memory: expected bytes, as in 500M or 2G, got 'much'"),
        (("--threads", 0), "threads: expected a positive integer, got 0"),
        (("--device", "tpu"), "device: expected one of cpu, cuda, cluster, got 'tpu'"),
        (("--M", 3), "M: expected data beside it, got none"),
        (("--cold",), "cold: expected --epochs beside it, got none"),
        (("digits",), "shape: expected no data beside it, got digits"),
        (("--json", "/no/such/folder/x"), "json: expected a file in an existing folder"),
    ],
)
@pytest.mark.usefixtures("store")
def test_bad_options_are_one_sentence(arguments, message):
    result = run(*SIZES, *arguments)
    assert result.exit_code == 2
    assert result.stderr.startswith(message)
    assert "Traceback" not in result.output


@pytest.mark.usefixtures("store")
@pytest.mark.parametrize("kind", ["set", "one file", "two files"])
def test_data_are_asked_about_by_name_or_file(tmp_path, kind):
    X, Y = np.ones((30, 4), np.float32), np.arange(30) % 3
    np.save(tmp_path / "X.npy", X)
    np.save(tmp_path / "Y.npy", Y)
    np.savez(tmp_path / "both.npz", X=X, Y=Y)
    data, shape = {
        "set": (["digits"], "n=1797 d=65 M=8 K=10"),
        "one file": ([tmp_path / "both.npz"], "n=30 d=4 M=8 K=3"),
        "two files": ([tmp_path / "X.npy", tmp_path / "Y.npy"], "n=30 d=4 M=8 K=3"),
    }[kind]
    loss = [] if kind == "set" else ["--loss", "softmax"]
    result = run(*data, "--M", 8, *loss)
    assert result.exit_code == 0, result.output
    assert shape in result.stderr  # what is timed


@pytest.mark.usefixtures("store")
@pytest.mark.parametrize(
    ("loss", "Y", "told"),
    [
        ("softmax", np.ones((30, 3)), "Y: expected rows that sum to 1, got 3.0 at [0]"),
        (
            "softmax",
            np.full(30, 0.5),
            "Y: expected integer class labels for shape (n,), got float64",
        ),
        ("logistic", np.arange(30) % 2, "Y: expected labels of +1 or -1, got "),
        ("squared", np.full(30, 1e39), "Y: expected values that float32 can hold"),
    ],
)
def test_targets_that_no_training_would_take_are_refused(tmp_path, loss, Y, told):
    np.savez(tmp_path / "both.npz", X=np.ones((30, 4), np.float32), Y=Y)
    result = run(tmp_path / "both.npz", "--loss", loss)
    assert result.exit_code == 2
    assert result.stderr.startswith(told)


@pytest.mark.usefixtures("store")
@pytest.mark.parametrize("asked", [SIZES, ["digits"]], ids=["shape", "digits"])
def test_an_answer_from_the_store_imports_no_compiler(asked, run_python):
    assert run(*asked).exit_code == 0
    code = (
        "import sys\n"
        "from twolayer.cli import app\n"
        f"app({['choose', *map(str, asked)]!r}, standalone_mode=False)\n"
        "heavy = 'numpy numba scipy sklearn torch jax dask matplotlib'.split()\n"
        "print(*[name for name in heavy if name in sys.modules], file=sys.stderr)\n"
        "assert not any(name in sys.modules for name in heavy)\n"
    )
    assert run_python(code).startswith("numba-fused\n")

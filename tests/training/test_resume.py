"""`twolayer train` killed at any moment: --resume ends with the bits of a run never killed."""

import json

import numpy as np
import pytest
from typer.testing import CliRunner

from twolayer.cli import app
from twolayer.cli import data as datas
from twolayer.data import sources
from twolayer.machine.hardware import cpu_count
from twolayer.training.checkpoint import Checkpoint

# A parent that has everything imported and compiled forks the runs. It starts no threads.
KILLER = """
import os, random, signal, sys, time
from pathlib import Path
import numpy as np
from twolayer.cli import app
from twolayer.machine.hardware import cpu_count

folder, kills, seed = Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])
options = sys.argv[4:]
data = folder / "data.npz"
made = np.random.default_rng(0)
labels = made.integers(0, 3, 1500)
np.savez(data, X=np.eye(3)[labels] @ made.standard_normal((3, 20))
         + made.standard_normal((1500, 20)), Y=labels)


def train():
    app(["train", str(data), "--loss", "softmax", "--M", "16", "--threads", "1", *options,
         "--save", "model.npz", "--json", "report.json", "--checkpoint", "state.npz", "--resume"],
        standalone_mode=False)


def start(place):
    child = os.fork()
    if child:
        return child
    os.chdir(place)
    code = 70
    try:
        train()
        code = 0
    finally:
        os._exit(code)


checkpoints = []  # epochs in those that were there after a kill


def contents(place):
    return {path.name: path.read_bytes() for path in place.iterdir()}


def run(name, moments=()):
    place = folder / name
    place.mkdir()
    for moment in moments:
        child = start(place)
        time.sleep(moment)
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        for path in place.glob("[!.]*.npz"):
            with np.load(path) as archive:
                assert all(archive[array].size for array in archive.files), path
                if path.name == "state.npz":
                    checkpoints.append(len(archive["history"]))
    begun = time.monotonic()
    assert os.waitpid(start(place), 0)[1] == 0
    return contents(place), time.monotonic() - begun


(folder / "first").mkdir()
os.chdir(folder / "first")
train()
expected, seconds = run("whole")
random.seed(seed)
resumed = 0
for i in range(kills):
    count = random.choice([1, 1, 2, 3])
    found, rest = run(f"killed{i}", [random.uniform(0, seconds) for _ in range(count)])
    resumed += rest < 0.8 * seconds
    assert sorted(found) == sorted(expected), sorted(found)
    for name in expected:
        if name != "state.npz":
            assert found[name] == expected[name], (i, name)
    states = [np.load(folder / run / "state.npz") for run in ("whole", f"killed{i}")]
    with states[0] as one, states[1] as two:
        for name in one.files:
            np.testing.assert_array_equal(one[name], two[name])
assert any(0 < epochs < max(checkpoints) for epochs in checkpoints), checkpoints
print(kills, "killed,", resumed, "went on from a checkpoint,", f"{seconds:.2f} s a run")
"""

ADAM = ["--optimizer", "adam", "--batch", "64", "--epochs", "60", "--validation", "0.2"]
DESCENT = ["--epochs", "800", "--step", "0.02"]


@pytest.mark.parametrize(
    "options",
    [pytest.param(ADAM, id="adam"), pytest.param(DESCENT, id="gd", marks=pytest.mark.slow)],
)
def test_killed_at_a_few_moments(tmp_path, run_python, options):
    run_python(KILLER, tmp_path, 4, 0, *options)


@pytest.mark.slow
@pytest.mark.parametrize("options", [ADAM, DESCENT], ids=["adam", "gd"])
def test_killed_at_fifty_moments(tmp_path, run_python, options):
    print(run_python(KILLER, tmp_path, 50, 1, *options))


@pytest.fixture
def data(tmp_path, monkeypatch):
    random = np.random.default_rng(0)
    X = random.standard_normal((60, 3))
    np.savez(tmp_path / "a.npz", X=X, Y=X[:, :1] ** 2)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def twolayer(*arguments):
    result = CliRunner().invoke(app, ["train", *map(str, arguments)])
    assert "Traceback" not in result.output
    return result


STATE = ["--checkpoint", "c.npz", "--resume"]


def test_more_epochs_may_follow(data):
    assert twolayer("a.npz", "--epochs", 30, "--save", "whole.npz").exit_code == 0
    assert twolayer("a.npz", "--epochs", 10, *STATE).exit_code == 0
    result = twolayer("a.npz", "--epochs", 30, "--save", "parts.npz", *STATE)
    assert "after 30 epochs" in result.stdout
    assert (data / "whole.npz").read_bytes() == (data / "parts.npz").read_bytes()


def test_an_earlier_checkpoint_is_not_written_over(data):
    assert twolayer("a.npz", "--epochs", 3, *STATE).exit_code == 0
    before = (data / "c.npz").read_bytes()
    result = twolayer("a.npz", "--epochs", 3, *STATE[:2])
    assert result.exit_code == 2
    assert result.stderr == (
        "checkpoint: expected a new file, or --resume to go on from it, got 'c.npz', which exists\n"
    )
    assert (data / "c.npz").read_bytes() == before


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--step", "0.2"], "resume: c.npz was made with step 0.1, expected the same, got 0.2"),
        (["--optimizer", "adam"], "resume: c.npz was made with optimizer gd, expected the same"),
        (["--seed", "1"], "resume: c.npz was made with seed 0, expected the same, got 1"),
        (["--M", "8"], "resume: c.npz was made with M 32, expected the same, got 8: add --M 32\n"),
        (
            ["--batch", "9"],
            "resume: c.npz was made with batch None, expected the same, got 9: leave",
        ),
        (
            ["--stream"],
            "resume: c.npz was made with stream None, expected the same, got True: it n",
        ),
        (["--variant", "numba-loops"], "resume: c.npz was made with variant numpy, expected the"),
    ],
)
def test_other_settings_are_refused(data, options, message):
    assert twolayer("a.npz", "--epochs", 3, *STATE).exit_code == 0
    before = (data / "c.npz").read_bytes()
    result = twolayer("a.npz", "--epochs", 3, *STATE, *options)
    assert result.exit_code == 2
    assert result.stderr.startswith(message)
    assert (data / "c.npz").read_bytes() == before


@pytest.mark.parametrize("variant", ["numpy", "numba-blas"])
@pytest.mark.parametrize(("first", "second"), [(1, 2), (2, 1)])
def test_another_number_of_threads_goes_on(data, variant, first, second):
    if cpu_count() < 2:
        pytest.skip("one CPU")
    whole = ["--variant", variant, "--epochs", 6, "--save", "whole.npz", "--threads", first]
    assert twolayer("a.npz", *whole).exit_code == 0
    options = ["--variant", variant, *STATE, "--save", "parts.npz"]
    assert twolayer("a.npz", *options, "--epochs", 3, "--threads", first).exit_code == 0
    result = twolayer("a.npz", *options, "--epochs", 6, "--threads", second)
    assert result.exit_code == 0, result.output
    assert "after 6 epochs" in result.stdout
    assert result.stderr == (
        f"twolayer: resume: c.npz was made with {first} threads and goes on with {second}: "
        "the last digits may be others\n"
    )
    with np.load("whole.npz") as one, np.load("parts.npz") as other:
        np.testing.assert_allclose(one["V"], other["V"], rtol=0, atol=1e-5)


def test_other_data_is_refused(data):
    assert twolayer("a.npz", "--epochs", 3, *STATE).exit_code == 0
    np.savez("a.npz", X=np.ones((60, 3)), Y=np.ones((60, 1)))
    result = twolayer("a.npz", "--epochs", 3, *STATE)
    assert result.exit_code == 2
    assert "resume: c.npz was made with data " in result.stderr


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "c.npz: expected numbers, got an empty file"),
        (b"PK half", "c.npz: expected a whole .npz file, got: "),
        (None, "c.npz: expected a checkpoint of twolayer train"),
    ],
)
def test_what_is_no_checkpoint(data, content, message):
    path = data / "c.npz"
    if content is None:
        np.savez(path, V=np.ones(3))
    else:
        path.write_bytes(content)
    result = twolayer("a.npz", "--epochs", 3, *STATE)
    assert result.exit_code == 2
    assert result.stderr.startswith(message)


@pytest.mark.parametrize(
    ("name", "change"),
    [
        *((name, None) for name in ("k", "history", "best_loss", "V", "best_W", "slot1_W")),
        ("V", lambda V: V[:2]),
        ("W", lambda W: W.astype("f8")),
        ("V", lambda V: V * np.nan),
        ("best_V", lambda V: np.ones((1, 1), "f4")),
        ("best_V", lambda V: V[:, :2]),
        ("best_W", lambda W: W * np.inf),
        ("slot0_V", lambda V: V[:1]),
        ("slot1_W", lambda W: W.astype("U")),
        ("history", lambda history: history.ravel()[:-1]),
        ("history", lambda history: history[::-1]),
        ("history", lambda history: history * np.nan),
        ("best_epoch", lambda epoch: np.array("x")),
        ("best_loss", lambda loss: np.ones(2)),
        ("k", lambda k: -k),
    ],
)
def test_what_was_changed_in_a_checkpoint_is_one_sentence(data, name, change):
    options = ["a.npz", "--optimizer", "adam", *STATE, "--epochs"]
    assert twolayer(*options, 2).exit_code == 0
    with np.load("c.npz") as archive:
        arrays = dict(archive)
    value = arrays.pop(name)
    np.savez("c.npz", **arrays, **({} if change is None else {name: change(value)}))
    result = twolayer(*options, 4)
    assert result.exit_code == 2
    assert result.stderr.startswith("c.npz: expected a checkpoint of twolayer train, ")
    assert result.stderr.count("\n") == 1


def test_a_disk_without_room_leaves_the_last_checkpoint(data, monkeypatch):
    assert twolayer("a.npz", "--epochs", 3, *STATE).exit_code == 0
    before = (data / "c.npz").read_bytes()
    savez = np.savez

    def full(file, **arrays):
        savez(file, k=arrays["k"])
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(np, "savez", full)
    result = twolayer("a.npz", "--epochs", 6, *STATE)
    assert result.exit_code == 2
    assert "No space left on device" in result.stderr
    assert (data / "c.npz").read_bytes() == before
    assert sorted(path.name for path in data.iterdir()) == ["a.npz", "c.npz"]


def test_checkpoints_take_a_small_part_of_the_time(tmp_path, monkeypatch):
    kept, now, saved = Checkpoint(tmp_path / "c.npz", {}), [0.0], []
    monkeypatch.setattr("twolayer.training.checkpoint.time.monotonic", lambda: now[0])

    def savez(file, **arrays):
        now[0] += 1  # a slow disk
        saved.append(now[0])

    class Idle:
        def state(self):
            return {}

    monkeypatch.setattr(np, "savez", savez)
    for _ in range(1000):
        now[0] += 0.1
        kept.save_in_time(Idle())
    assert 3 <= len(saved) <= 0.05 * now[0]


def test_a_run_that_diverged_diverges_again(data):
    options = ["--activation", "relu", "--step", "1e6", "--save", "m.npz", "--json", "r.json"]
    outcomes = []
    for _ in range(2):
        result = twolayer("a.npz", *options, *STATE)
        assert result.exit_code == 1
        assert "training stopped in epoch" in result.stderr
        outcomes.append((data / "m.npz").read_bytes())
        assert json.loads((data / "r.json").read_text())["stopped"] == "diverged"
    assert outcomes[0] == outcomes[1]


def test_a_checkpoint_that_cannot_be_written_costs_no_training(data, monkeypatch):
    def fail(self, training):
        raise OSError("no space left")

    for name in ("save", "save_in_time"):
        monkeypatch.setattr(Checkpoint, name, fail)
    result = twolayer("a.npz", "--save", "m.npz", *STATE)
    assert result.exit_code == 2
    assert result.stderr.count("checkpoint: no space left: it is not written from now on") == 1
    assert (data / "m.npz").exists()


def test_an_interruption_while_the_last_checkpoint_is_written_loses_no_network(data, monkeypatch):
    def interrupt(self, training):
        raise KeyboardInterrupt

    monkeypatch.setattr(Checkpoint, "save", interrupt)
    monkeypatch.setattr(Checkpoint, "save_in_time", lambda self, training: None)
    assert twolayer("a.npz", "--save", "m.npz", *STATE).exit_code == 130
    assert (data / "m.npz").exists()


def test_a_checksum_reads_blocks(tmp_path, monkeypatch):
    X = np.arange(6000.0).reshape(1000, 6)
    np.save(tmp_path / "X.npy", X)
    found = [
        datas.checksum(datas.Data(array, np.ones(1000), "name"))
        for array in (sources.source(tmp_path / "X.npy"), X)
    ]
    asked = []
    read = sources.FileSource.read

    def counted(self, start, stop, out):
        asked.append(stop - start)
        return read(self, start, stop, out)

    monkeypatch.setattr(sources.FileSource, "read", counted)
    monkeypatch.setattr(datas, "BLOCK", 7 * 48)
    again = datas.checksum(datas.Data(sources.source(tmp_path / "X.npy"), np.ones(1000), "name"))
    assert found == [again] * 2
    assert max(asked) <= 7

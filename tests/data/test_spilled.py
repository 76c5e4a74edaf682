"""Files larger than memory: read in blocks, with nothing left on the disk and the same answers."""

import contextlib
import gc
import io
import os
import resource
import shutil
import sys
import tempfile
import tracemalloc
import zipfile

import numpy as np
import pytest
from test_formats import LABELS, OPTIONS, WRITERS, X, n, twolayer

from twolayer.composed import stream
from twolayer.data import sources, spilled

# What is written to the disk to be read in blocks, and what is read where it lies.
WRITTEN = ["csv", "npz", "csv pair"]
READ = [*WRITTEN, "open npz"]


def held(folder):
    """The files there that this process has open, removed ones too, where a system tells them."""
    found = []
    for number in os.listdir("/dev/fd"):
        with contextlib.suppress(OSError):
            found.append(os.readlink(f"/dev/fd/{number}"))
    return [name for name in found if name.startswith(f"{folder}/")]


@pytest.fixture(autouse=True)
def disk(tmp_path, monkeypatch):
    """Where the files are written, which is to be empty at any time."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(stream, "BLOCK", 400)
    monkeypatch.setattr(sources, "BLOCK", 400)
    folder = tmp_path / "disk"
    folder.mkdir()
    monkeypatch.setattr(spilled, "folder", lambda: str(folder))
    with tempfile.TemporaryFile(dir=folder):
        assert len(held(folder)) == (sys.platform == "linux")
    yield folder
    assert [*folder.iterdir()] == []
    gc.collect()
    assert held(folder) == []


@pytest.fixture
def small(monkeypatch):
    """No memory for a file."""
    monkeypatch.setattr(spilled, "available_memory", lambda: 100)


def weights():
    with np.load("m.npz") as model:
        return [model[name].tobytes() for name in "VW"]


@pytest.mark.parametrize("name", READ)
def test_training_gives_the_bits_of_npy_files(tmp_path, monkeypatch, name):
    monkeypatch.setattr("twolayer.cli.data.available_memory", lambda: 100)
    given = WRITERS["npy"](tmp_path, np.ascontiguousarray(X), LABELS)
    assert twolayer("train", *given, *OPTIONS, "--stream", "--save", "m.npz").exit_code == 0
    expected = weights()
    given = WRITERS[name](tmp_path, X, LABELS)
    for memory, streamed in ((100, []), (1 << 40, []), (1 << 40, ["--stream"])):
        monkeypatch.setattr(spilled, "available_memory", lambda memory=memory: memory)
        result = twolayer("train", *given, *OPTIONS, *streamed, "--save", "m.npz")
        assert result.exit_code == 0, result.output
        assert weights() == expected
        written = name in WRITTEN and (memory == 100 or bool(streamed))
        files = 2 if "pair" in name else 1
        assert result.stderr.count("is written to") == files * written


@pytest.mark.parametrize("name", ["csv", "npz", "open npz"])
def test_predictions_are_those_of_memory(tmp_path, monkeypatch, name):
    (path,) = WRITERS[name](tmp_path, X, LABELS)
    assert twolayer("train", path, *OPTIONS, "--save", "m.npz").exit_code == 0
    outcomes = []
    for memory in (1 << 40, 100):
        monkeypatch.setattr(spilled, "available_memory", lambda memory=memory: memory)
        columns = ["--target", 1] if name == "csv" else []
        result = twolayer("predict", "m.npz", path, *columns, "--save", "f.npy")
        assert result.exit_code == 0, result.output
        outcomes.append(np.load("f.npy").tobytes())
    assert outcomes[0] == outcomes[1]


@pytest.mark.parametrize("name", ["csv", "npz", "open npz"])
def test_memory_does_not_grow_with_the_file(tmp_path, monkeypatch, name):
    monkeypatch.setattr(stream, "BLOCK", 1 << 15)
    monkeypatch.setattr(sources, "BLOCK", 1 << 15)
    wide = np.ones((60_000, 10))
    given = WRITERS[name](tmp_path, wide, wide[:, 0])
    tracemalloc.start()
    try:
        result = twolayer("train", *given, "--stream", "--epochs", 1, "--M", 1)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert result.exit_code == 0, result.output
    assert peak < 0.8 * wide.nbytes


@pytest.mark.usefixtures("small")
@pytest.mark.parametrize("name", WRITTEN)
def test_validation_data(tmp_path, name):
    given = WRITERS[name](tmp_path, X, LABELS)
    held = ",".join(map(str, given[1::2])) if "--X" in given else given[0]
    assert twolayer("train", *given, *OPTIONS, "--stream", "--validation", held).exit_code == 0


@pytest.mark.parametrize("name", WRITTEN)
@pytest.mark.parametrize("error", [KeyboardInterrupt, OSError])
def test_whoever_stops_leaves_nothing(tmp_path, monkeypatch, name, error):
    given = WRITERS[name](tmp_path, X, LABELS)
    read, calls = sources.File.read, []

    def stopped(self, *arguments):
        calls.append(arguments[0])
        if len(calls) > 4:
            raise error(5, "Input/output error")
        return read(self, *arguments)

    monkeypatch.setattr(sources.File, "read", stopped)
    result = twolayer("train", *given, *OPTIONS, "--stream", "--save", "m.npz")
    assert result.exit_code == (130 if error is KeyboardInterrupt else 2), result.output
    assert not os.path.exists("m.npz")


@pytest.mark.parametrize("name", WRITTEN)
def test_whoever_stops_while_it_is_written_leaves_nothing(tmp_path, monkeypatch, name):
    given = WRITERS[name](tmp_path, X, LABELS)

    def stopped(self, data):
        raise KeyboardInterrupt

    monkeypatch.setattr(spilled.Spill, "write", stopped)
    result = twolayer("train", *given, *OPTIONS, "--stream", "--save", "m.npz")
    assert (result.exit_code, result.stderr.splitlines()[-1]) == (130, "interrupted")


@pytest.mark.parametrize("name", WRITTEN)
@pytest.mark.parametrize("when", ["before", "meanwhile", "files"])
def test_a_full_disk_is_one_sentence(tmp_path, monkeypatch, disk, name, when):
    given = WRITERS[name](tmp_path, X, LABELS)
    first = next(path for path in given if path != "--X")
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    if when == "before":
        monkeypatch.setattr(shutil, "disk_usage", lambda _: shutil._ntuple_diskusage(1, 1, 1))
    elif when == "meanwhile":
        resource.setrlimit(resource.RLIMIT_FSIZE, (700, limits[1]))
    else:
        monkeypatch.setattr(spilled, "folder", lambda: str(disk / "gone"))
        monkeypatch.setattr(shutil, "disk_usage", lambda _: shutil._ntuple_diskusage(1, 1, 1 << 30))
    try:
        result = twolayer("train", *given, *OPTIONS, "--stream")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert result.exit_code == 2
    last = result.stderr.splitlines()[-1]
    assert last.startswith(f"{first}: expected ")
    assert f"in {spilled.folder()} to read it in blocks, got " in last
    assert last.endswith(": TMPDIR names another folder")


@pytest.mark.usefixtures("small")
@pytest.mark.parametrize("streamed", [True, False])
def test_words_are_the_same(tmp_path, streamed):
    words = np.array(["high", "low", "middle"])[LABELS]
    given = WRITERS["csv"](tmp_path, X, words)
    result = twolayer("train", *given, *OPTIONS, "--classes", *["--stream"][:streamed])
    assert "the classes are, in their order, high, low, middle" in result.stderr


@pytest.mark.parametrize("streamed", [None, True])
@pytest.mark.parametrize("name", ["csv", "tsv"])
def test_a_short_line_far_below_is_named(tmp_path, name, streamed):
    """Blocks of a text are as long as each other, and a block by itself is no other table."""
    given = WRITERS[name](tmp_path, X, LABELS)
    text = given[0].read_text().splitlines()
    for at in (20, 60):  # inside of a block, and all blocks from there on
        given[0].write_text(
            "\n".join([*text[:at], *("1\t2" if name == "tsv" else "1,2",) * (n - at)])
        )
        result = twolayer("train", *given, *["--stream"][: bool(streamed)])
        assert f"got 2 columns after 4, in line {at + 1}" in result.stderr


def test_an_array_that_is_longer_than_its_place_is_refused(tmp_path):
    """What comes next in the archive is no part of it."""
    whole = io.BytesIO()
    np.save(whole, X)
    with zipfile.ZipFile("a.npz", "w") as archive:
        archive.writestr("X.npy", whole.getvalue()[:-8])
        archive.writestr("Y.npy", whole.getvalue())
    result = twolayer("train", "a.npz", "--stream")
    assert result.exit_code == 2
    assert "a.npz: expected a whole .npz file, got: " in result.stderr

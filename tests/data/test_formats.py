"""One reader: the same answers for every format, in memory and in blocks, in train and predict."""

import json
import tracemalloc

import numpy as np
import pytest
from typer.testing import CliRunner

import twolayer as tl
from twolayer.cli import app
from twolayer.cli import data as datas
from twolayer.composed import stream
from twolayer.data import files, sources, text

n, d = 90, 3
LABELS = np.random.default_rng(0).integers(0, 3, n)
X = np.round(np.eye(3)[LABELS] + 0.1 * np.random.default_rng(1).standard_normal((n, d)), 3)


def twolayer(*arguments):
    result = CliRunner().invoke(app, [*map(str, arguments)])
    assert "Traceback" not in result.output
    assert result.exception is None or isinstance(result.exception, SystemExit)
    return result


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch):
    """Many blocks of these few rows, in an empty folder."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(stream, "BLOCK", 400)
    monkeypatch.setattr(sources, "BLOCK", 400)


def write_text(path, X, Y, separator):
    rows = np.column_stack([X, Y]) if Y is not None else X
    lines = (separator.join(str(cell) for cell in row) + "\n" for row in rows.tolist())
    path.write_text("".join(lines))


def csv(folder, X, Y):
    write_text(folder / "a.csv", X, Y, ",")
    return [folder / "a.csv"]


def tsv(folder, X, Y):
    write_text(folder / "a.tsv", X, Y, "\t")
    return [folder / "a.tsv"]


def npz(folder, X, Y):
    np.savez_compressed(folder / "a.npz", x_train=X, y_train=Y, z=np.array([None]))
    return [folder / "a.npz"]


def open_npz(folder, X, Y):
    np.savez(folder / "a.npz", X=X, Y=Y)
    return [folder / "a.npz"]


def npy(folder, X, Y):
    np.save(folder / "X.npy", np.asfortranarray(X))
    np.save(folder / "Y.npy", Y)
    return ["--X", folder / "X.npy", "--Y", folder / "Y.npy"]


def texts(folder, X, Y):
    write_text(folder / "X.csv", X, None, ",")
    write_text(folder / "Y.csv", Y.reshape(n, -1), None, ",")
    return ["--X", folder / "X.csv", "--Y", folder / "Y.csv"]


def zarrs(version):
    def write(folder, X, Y):
        zarr = pytest.importorskip("zarr")
        for name, array in (("X", X), ("Y", Y)):
            chunks = (40, *array.shape[1:])
            zarr.create_array(folder / name, data=array, chunks=chunks, zarr_format=version)
        return ["--X", folder / "X", "--Y", folder / "Y"]

    return write


def zarr_group(version):
    def write(folder, X, Y):
        zarr = pytest.importorskip("zarr")
        group = zarr.open_group(folder / "a.zarr", mode="w", zarr_format=version)
        for name, array in (("X", X), ("Y", Y)):
            group.create_array(name, data=array, chunks=(40, *array.shape[1:]))
        return [folder / "a.zarr"]

    return write


WRITERS = {
    "csv": csv, "tsv": tsv, "npz": npz, "open npz": open_npz, "npy": npy, "csv pair": texts,
    "zarr 2": zarrs(2), "zarr 3": zarrs(3), "group 2": zarr_group(2), "group 3": zarr_group(3),
}  # fmt: skip
# The labels of classes 0, 1, 2 as people have them, and the option that they need.
KINDS = {
    "integers": (LABELS, False),
    "floats": (LABELS.astype("f4"), False),
    "a column": (LABELS[:, None], False),
    "a column of floats": (LABELS[:, None].astype("f8"), False),
    "big-endian": (LABELS.astype(">i2"), False),
    "from 1": (LABELS + 1, True),
    "thousands": (1000.0 * (LABELS[:, None] + 1), True),
    "words": (np.array(["high", "low", "middle"])[LABELS], True),
}
OPTIONS = ["--loss", "softmax", "--epochs", 20, "--step", 0.5, "--M", 4, "--dtype", "float64"]


def test_every_format_has_a_writer():
    assert {f".{name}" for name in WRITERS if " " not in name} == {*files.FORMATS}


def read(given, streamed, loss="softmax", classes=False, dtype="float64"):
    """What a command makes of its arguments: X and Y in memory, K, and the classes."""
    data, pair = (None, given[1::2]) if "--X" in given else (str(given[0]), (None, None))
    whole = datas.load(data, *pair, text.Columns(words=classes), dtype, streamed)
    net = tl.Network(loss=loss)
    parts, K, names = datas.label(net, [whole], classes)
    variant = tl.variants.get("numpy")
    (whole,) = datas.ready(parts, variant, net, (1, K), dtype, 1, streamed, None)
    assert whole.streamed == streamed
    if streamed:
        whole = whole._replace(X=whole.X.load(dtype), Y=whole.Y.load(whole.Y.dtype))
    return whole.X, whole.Y, K, names


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", WRITERS)
def test_labels_mean_the_same_everywhere(tmp_path, name, kind):
    Y, classes = KINDS[kind]
    if kind == "words" and name.startswith(("zarr", "group")):
        pytest.skip("Zarr has no one kind of words")
    given = WRITERS[name](tmp_path, X, Y)
    for streamed in (False, True):
        found, labels, K, names = read(given, streamed, "softmax", classes)
        np.testing.assert_array_equal(found, X)
        np.testing.assert_array_equal(labels, LABELS)
        assert labels.dtype.kind == "i"
        assert K == 3
        assert not classes or names.tolist() == np.unique(Y).tolist()


@pytest.mark.parametrize("stored", ["f2", "f4", ">f8", "i1", "u2", "?"])
@pytest.mark.parametrize("name", [name for name in WRITERS if "sv" not in name])
def test_inputs_of_any_real_dtype(tmp_path, name, stored):
    values = (3 * abs(X)).astype(stored)
    given = WRITERS[name](tmp_path, values, X)
    for streamed in (False, True):
        found, Y, K, _ = read(given, streamed, "squared", dtype="float32")
        np.testing.assert_array_equal(found, values.astype("f4"))
        np.testing.assert_array_equal(Y, X)
        assert d == K


@pytest.fixture
def model():
    """Trained on a file in memory."""
    np.savez("plain.npz", X=X, Y=LABELS)
    assert twolayer("train", "plain.npz", *OPTIONS, "--save", "plain_m.npz").exit_code == 0


@pytest.mark.usefixtures("model")
@pytest.mark.parametrize("name", WRITERS)
def test_the_commands_give_the_same_for_every_format(tmp_path, name):
    given = WRITERS[name](tmp_path, X, 1000.0 * LABELS[:, None])
    for streamed in ([], ["--stream"]):
        result = twolayer("train", *given, *OPTIONS, "--classes", *streamed, "--save", "m.npz")
        assert result.exit_code == 0, result.output
        with np.load("plain_m.npz") as expected, np.load("m.npz") as found:
            for weights in "VW":
                np.testing.assert_allclose(found[weights], expected[weights], rtol=0, atol=1e-12)
            assert found["classes"].tolist() == [0, 1000, 2000]
    path = given[1] if "--X" in given else given[0]
    if target := ["--target", 1] if name in ("csv", "tsv") else []:
        WRITERS[name](tmp_path, X, np.array(["high", ""])[LABELS % 2])  # nobody asks for them
    outcomes = []
    for source in (["plain.npz"], [path, *target]):
        result = twolayer("predict", "plain_m.npz", *source, "--save", "f.npy")
        assert result.exit_code == 0, result.output
        outcomes.append(np.load("f.npy"))
    np.testing.assert_array_equal(*outcomes)


@pytest.mark.usefixtures("model")
@pytest.mark.parametrize("name", WRITERS)
def test_validation_data_in_every_format(tmp_path, name):
    given = WRITERS[name](tmp_path, X, LABELS)
    held = ",".join(map(str, given[1::2])) if "--X" in given else given[0]
    said = []
    for source in ("plain.npz", held):
        result = twolayer("train", "plain.npz", *OPTIONS, "--validation", source)
        assert result.exit_code == 0, result.output
        said.append(result.stdout)
    assert said[0] == said[1]


@pytest.mark.parametrize("version", [2, 3])
@pytest.mark.parametrize("command", ["train", "stream", "predict"])
@pytest.mark.usefixtures("model")
def test_a_damaged_chunk_is_one_sentence(tmp_path, command, version):
    given = zarrs(version)(tmp_path, X, LABELS)
    chunk = tmp_path / "X" / ("1.0" if version == 2 else "c/1/0")
    chunk.write_bytes(b"damaged")
    arguments = ["predict", "plain_m.npz", given[1], "--save", "f.npy"]
    if command != "predict":
        arguments = ["train", *given, *OPTIONS, *(["--stream"] if command == "stream" else [])]
    result = twolayer(*arguments)
    assert result.exit_code == 2
    assert result.stderr.startswith(f"{given[1]}: expected a whole Zarr array, got: ")
    assert result.stderr.count("\n") == 1


@pytest.mark.parametrize("streamed", [[], ["--stream"]])
@pytest.mark.parametrize("name", ["npz", "npy", "zarr 3"])
@pytest.mark.parametrize(
    ("wrong", "expected"),
    [
        (np.where(X[70, 1] == X, np.nan, X), "expected finite numbers that float32 can hold in X"),
        (np.where(X[70, 1] == X, 1e300, X), "expected finite numbers that float32 can hold in X"),
        (X.astype("U"), "expected X of real numbers, got dtype"),
        (X * 1j, "expected X of real numbers, got dtype complex128"),
        (X[:, 0], "expected X of shape (n, d), got (90,): X[:, None] is one input a row"),
        (X[:, :, None], "expected X of shape (n, d), got (90, 3, 1): X.reshape(len(X), -1)"),
        (X[:80], "row"),
    ],
)
def test_wrong_inputs_are_one_sentence(tmp_path, name, streamed, wrong, expected):
    if wrong.dtype.kind == "U" and ("zarr" in name or "group" in name):
        pytest.skip("Zarr has no one kind of words")
    given = WRITERS[name](tmp_path, wrong, LABELS)
    result = twolayer("train", *given, *streamed, "--activation", "relu", "--epochs", 2)
    assert result.exit_code == 2, result.output
    *told, last = result.stderr.splitlines()
    assert expected in last
    assert len(told) == (name == "npz" and bool(streamed))  # that it is written to a disk
    if expected == "row":
        assert "80" in last
        assert "90" in last


@pytest.mark.parametrize(
    ("Y", "K", "said"),
    [
        (LABELS + 1, 4, "labels 1 to 3 make K = 4 classes, of which 3 occur: --classes"),
        (1000 * LABELS, 2001, "labels 0 to 2000 make K = 2001 classes, of which 3 occur"),
        (LABELS, 3, ""),
    ],
)
def test_unused_classes_are_told(Y, K, said):
    np.savez("a.npz", X=X, Y=Y)
    result = twolayer("train", "a.npz", "--loss", "softmax", "--epochs", 1)
    assert f"K={K}," in result.stdout
    assert said in result.stderr
    assert bool(said) == bool(result.stderr)


def test_classes_for_one_output():
    for name, Y in (("two", LABELS > 0), ("three", LABELS)):
        np.savez(f"{name}.npz", X=X, Y=Y.astype(int))
    result = twolayer("train", "two.npz", "--loss", "logistic")
    assert "got 0 at" in result.stderr
    assert "or --classes, makes them" in result.stderr
    result = twolayer("train", "two.npz", "--loss", "logistic", "--classes", "--save", "m.npz")
    assert "the classes are, in their order, 0, 1\n" in result.stderr
    result = twolayer("predict", "m.npz", "two.npz", "--save", "f.npy")
    assert "the classes are, in their order, 0, 1\n" in result.stderr
    assert ((np.load("f.npy")[:, 0] > 0.5) == (LABELS > 0)).mean() > 0.9
    result = twolayer("train", "three.npz", "--loss", "logistic", "--classes")
    assert result.stderr == "classes: expected two for a loss of one output, got 3\n"
    result = twolayer("train", "two.npz", "--classes")
    assert result.stderr.startswith("classes: expected a loss that takes labels")


def test_the_name_of_a_data_set_wins(tmp_path):
    pytest.importorskip("sklearn")
    (tmp_path / "digits").mkdir()
    assert twolayer("train", "digits", "--epochs", 1).exit_code == 0
    result = twolayer("train", "./digits", "--epochs", 1)
    assert result.stderr.endswith("digits: expected a file or a Zarr array, got a folder\n")


@pytest.mark.parametrize("name", ["npy", "npz"])
@pytest.mark.parametrize("options", [["--batch", 20_000], ["--validation", 0.2], []])
@pytest.mark.parametrize("share", [0.6, 0.9])
def test_memory_is_that_of_the_whole_command(tmp_path, monkeypatch, name, options, share):
    """X of such a share of the memory is trained on inside of what is free."""
    rows = 40_000
    monkeypatch.setattr(stream, "BLOCK", 1 << 16)
    monkeypatch.setattr(sources, "BLOCK", 1 << 16)
    wide = np.ones((rows, 30), "f4")
    given = WRITERS[name](tmp_path, wide, np.ones(rows))
    free = round(wide.nbytes / share)
    monkeypatch.setattr("twolayer.cli.data.available_memory", lambda: free)
    arguments = ["train", *given, "--epochs", 1, "--M", 1, *options]
    tracemalloc.start()
    try:
        result = twolayer(*arguments)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert result.exit_code == 0, result.output
    there = wide.nbytes if name == "npz" else 0  # before what is free is looked at
    assert peak < free + there
    own = name == "npy" or options  # arrays in the file's order are used as they are
    assert ("in blocks, as with --stream" in result.stderr) == bool(share > 0.8 and own)


@pytest.mark.usefixtures("model")
def test_predict_reads_in_blocks(tmp_path, monkeypatch):
    monkeypatch.setattr(sources, "BLOCK", 1 << 18)
    wide = np.ones((200_000, d))
    np.save("X.npy", wide)
    tracemalloc.start()
    try:
        assert twolayer("predict", "plain_m.npz", "X.npy", "--save", "f.npy").exit_code == 0
        assert tracemalloc.get_traced_memory()[1] < 1.5 * wide.nbytes  # F is as large as X
    finally:
        tracemalloc.stop()


@pytest.mark.usefixtures("model")
@pytest.mark.parametrize(
    "option", [("--drop", "1"), ("--header",), ("--no-header",), ("--target", "3")]
)
@pytest.mark.parametrize("command", ["train", "predict"])
@pytest.mark.parametrize("name", ["npz", "npy", "zarr 3", "digits"])
def test_columns_are_those_of_text(tmp_path, name, command, option):
    given = [name] if name == "digits" else WRITERS[name](tmp_path, X, LABELS)
    if command == "predict":
        given = ["plain_m.npz", given[-1] if len(given) == 1 else given[1], "--save", "f.npy"]
    result = twolayer(command, *given, *option)
    assert result.exit_code == 2
    assert result.stderr.startswith(tuple(f"{n}: expected " for n in ("drop", "header", "target")))
    assert "a file named .csv or .tsv, got " in result.stderr


@pytest.mark.parametrize("streamed", [[], ["--stream"]])
@pytest.mark.parametrize(
    ("Y", "classes"),
    [
        (np.array([b"low", b"\xc3\xa9", b"\xff"])[LABELS], ["\\xff", "low", "é"]),
        (LABELS.astype("g") + 0.5, [0.5, 1.5, 2.5]),
        (LABELS > 1, [False, True]),
        (2**60 + LABELS, [2**60, 2**60 + 1, 2**60 + 2]),
    ],
)
def test_classes_of_any_dtype_are_told_in_json(Y, classes, streamed):
    np.savez("a.npz", X=X, Y=Y)
    result = twolayer("train", "a.npz", *OPTIONS, *streamed, "--classes", "--json", "o.json")
    assert result.exit_code == 0, result.output
    with open("o.json", encoding="utf-8") as file:
        assert json.load(file)["classes"] == classes


@pytest.mark.parametrize("value", [np.ma.masked_less(X, 0), np.ma.masked_less(X, 0)[:5]])
def test_masks_are_refused(value):
    net, Y = tl.Network(), np.ones(len(value))
    theta = net.init(d, 4, 1, "float64")
    for call in (
        lambda: tl.loss_and_gradient(net, theta, value, Y),
        lambda: tl.predict(net, theta, value),
        lambda: stream.plan(tl.variants.get("numpy"), net, value, Y, theta),
        lambda: tl.loss_and_gradient(net, theta, value.data, np.ma.masked_less(value[:, :1], 0)),
    ):
        with pytest.raises(ValueError, match="expected an array without a mask"):
            call()
    tl.predict(net, theta, np.ma.array(value.data))  # nothing is masked

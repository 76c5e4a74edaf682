"""`twolayer predict`, and files that neither it nor `twolayer train` can use."""

import pickle

import numpy as np
import pytest
from typer.testing import CliRunner

import twolayer as tl
from twolayer.cli import app
from twolayer.training.checkpoint import Model, load_model, save_model

d, M, K = 3, 5, 2
X = np.random.default_rng(0).standard_normal((40, d))


def twolayer(*arguments):
    result = CliRunner().invoke(app, [*map(str, arguments)])
    assert "Traceback" not in result.output
    assert result.exception is None or isinstance(result.exception, SystemExit)
    return result


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


def model(loss="squared", dtype="float64"):
    net = tl.Network("tanh", loss)
    return Model(net, net.init(d, M, 1 if loss == "logistic" else K, dtype))


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("loss", ["squared", "squared_logistic", "logistic", "softmax"])
def test_predictions_are_the_network_s(folder, loss, dtype):
    trained = model(loss, dtype)
    save_model(folder / "m.npz", trained)
    assert load_model(folder / "m.npz").net == trained.net
    np.save("x.npy", X)
    np.savez("x.npz", X=X)
    np.savetxt("x.csv", np.column_stack([X, np.ones(40)]), delimiter=",")
    for source in (["x.npy"], ["x.npz"], ["x.csv", "--target", "1"]):
        for name in ("f.npy", "f.csv"):
            result = twolayer("predict", "m.npz", *source, "--save", name)
            assert result.exit_code == 0, result.output
            K = len(trained.theta.W)
            assert result.stdout == f"40 rows of {K} output{'s' * (K > 1)} in {name}\n"
    F = np.load("f.npy")
    assert F.dtype == dtype
    assert (np.loadtxt("f.csv", delimiter=",", ndmin=2).astype(dtype) == F).all()
    theta = tl.Parameters(*(array.astype(dtype) for array in trained.theta))
    U = np.tanh(X.astype(dtype) @ theta.V.T) @ theta.W.T
    if loss == "softmax":
        expected = np.exp(U) / np.exp(U).sum(axis=1, keepdims=True)
    else:
        expected = U if loss == "squared" else 1 / (1 + np.exp(-U))
    np.testing.assert_allclose(F, expected, rtol=0, atol=100 * np.finfo(dtype).eps)


def test_more_rows_than_a_block(folder):
    save_model(folder / "m.npz", model())
    np.save("x.npy", np.tile(X, (1000, 1)))
    assert twolayer("predict", "m.npz", "x.npy", "--save", "f.npy").exit_code == 0
    F = np.load("f.npy")
    np.testing.assert_allclose(F, np.tile(F[:40], (1000, 1)), rtol=0, atol=1e-14)


def test_what_train_saves_predicts(folder):
    pytest.importorskip("sklearn")
    assert twolayer("train", "digits", "--epochs", 5, "--save", "m.npz").exit_code == 0
    assert twolayer("predict", "m.npz", "digits", "--save", "f.csv").exit_code == 0
    assert np.loadtxt("f.csv", delimiter=",").shape == (1797, 10)


def csv(array):
    return "".join(",".join(map(str, row)) + "\n" for row in array.tolist()).encode()


def npy(array):
    np.save("made.npy", array)
    with open("made.npy", "rb") as file:
        return file.read()


class Trap:
    def __reduce__(self):
        return (open, ("sprung", "w"))


def npz(**arrays):
    np.savez("made.npz", **arrays)
    with open("made.npz", "rb") as file:
        return file.read()


# name: content, or None for a folder; what train says; what predict says
WHOLE = "expected a whole .np"
BAD = {
    "complex.npy": (lambda: npy(X * 1j), "expected X of real numbers, got dtype complex128", None),
    "text.npy": (lambda: npy(X.astype(str)), "expected X of real numbers, got dtype <U", None),
    "dates.npy": (
        lambda: npy(X.astype("M8[s]")),
        "expected X of real numbers, got dtype date",
        None,
    ),
    "nan.npy": (
        lambda: npy(np.where(X > 2, np.nan, X)),
        "expected finite numbers that float",
        None,
    ),
    "huge.npy": (
        lambda: npy(np.full((40, d), 1e300)),
        "expected finite numbers that float32",
        "fine",
    ),
    "nan.csv": (lambda: csv(X) + b"1,2,nan\n", "expected finite numbers", None),
    "ragged.csv": (lambda: csv(X) + b"1,2\n", "expected rows of as many numbers", None),
    "words.csv": (
        lambda: csv(X) + b"1,two,3\n",
        "expected rows of as many numbers each, got",
        None,
    ),
    "binary.csv": (lambda: bytes(range(256)), "expected text in UTF-8, got other bytes", None),
    "short.npy": (lambda: npy(X)[:-50], WHOLE, None),
    "head.npy": (lambda: npy(X)[:40], WHOLE, None),
    "lie.npy": (lambda: npy(X).replace(b"(40, 3)", b"(4000000000, 3)"), WHOLE, None),
    "pickle.npy": (lambda: npy(np.array([[Trap()]], object)), "expected arrays of numbers", None),
    "pickle.npz": (
        lambda: npz(X=np.array([[Trap()]], object), Y=np.ones(1)),
        "expected arrays of numbers, got pickled objects",
        None,
    ),
    "bare.npz": (lambda: pickle.dumps(X), WHOLE, None),
    "vector.npy": (lambda: npy(X[0]), "expected X of shape (n, d), got (3,)", None),
    "empty.npy": (lambda: b"", "expected numbers, got an empty file", None),
    "empty.csv": (lambda: b"", "expected numbers, got an empty file", None),
    "empty.npz": (lambda: b"", "expected numbers, got an empty file", None),
    "none.npy": (lambda: npy(X[:0]), "expected X of shape (n, d), got (0, 3)", None),
    "folder.csv": (None, "expected a file or a Zarr array, got a folder", None),
    "notes.txt": (lambda: b"1,2\n", "expected a file named .npy or .npz or .csv", None),
}


@pytest.mark.parametrize("name", BAD)
@pytest.mark.parametrize("command", ["train", "predict"])
def test_bad_files_are_one_sentence(folder, command, name):
    content, said, by_predict = BAD[name]
    if content is None:
        (folder / name).mkdir()
    else:
        (folder / name).write_bytes(content())
    save_model(folder / "m.npz", model())
    if command == "predict":
        if by_predict == "fine":
            pytest.skip("a float64 network takes it")
        arguments = ["predict", "m.npz", name, "--save", "f.npy"]
    elif name.endswith(".npy"):
        np.save("Y.npy", np.ones(40))
        arguments = ["train", "--X", name, "--Y", "Y.npy", "--save", "new.npz"]
    else:
        arguments = ["train", name, "--save", "new.npz"]
    result = twolayer(*arguments)
    assert result.exit_code == 2
    assert result.stdout == ""
    assert result.stderr.startswith(f"{name}: {said}")
    assert result.stderr.count("\n") == 1
    assert not (folder / "f.npy").exists()
    assert not (folder / "new.npz").exists()
    assert not (folder / "sprung").exists()


@pytest.mark.parametrize("kind", ["npy", "csv"])
def test_a_million_columns(folder, kind):
    wide = np.ones((2, 10**6), "float32")
    content = b"1" + b",1" * (10**6 - 1) + b"\n"
    (folder / "w.csv").write_bytes(content * 2)
    np.save("w.npy", wide)
    np.save("Y.npy", np.ones(2))
    save_model(folder / "m.npz", model())
    result = twolayer("predict", "m.npz", f"w.{kind}", "--save", "f.npy")
    assert result.exit_code == 2
    expected = "data: expected 3 inputs a row, as the network has, got 1000000\n"
    assert result.stderr == expected
    source = ["w.csv"] if kind == "csv" else ["--X", "w.npy", "--Y", "Y.npy"]
    result = twolayer("train", *source, "--M", 1, "--epochs", 1, "--step", 1e-6)
    assert result.exit_code == 0, result.output


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"V": np.ones((M, d))}, "expected arrays V, W, activation, loss, W is missing"),
        ({"W": np.ones((K, M + 1))}, "expected a trained network, got: theta.W: expected shape"),
        ({"V": np.full((M, d), np.nan)}, "expected a trained network, got: theta.V: expected fin"),
        ({"loss": "hinge"}, "expected a trained network, got: loss: expected one of squared"),
        ({"V": np.ones((M, d), int)}, "expected a trained network, got: theta.V: expected dtype"),
    ],
)
def test_models_that_are_none(folder, arrays, message):
    good = {"V": np.ones((M, d)), "W": np.ones((K, M)), "activation": "tanh", "loss": "squared"}
    np.savez("m.npz", **(arrays if "is missing" in message else good | arrays))
    np.save("x.npy", X)
    result = twolayer("predict", "m.npz", "x.npy", "--save", "f.npy")
    assert result.exit_code == 2
    assert result.stderr.startswith(f"m.npz: {message}")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["no.npz", "x.npy", "--save", "f.npy"], "no.npz: expected a file, got nothing of that"),
        (["x.npy", "x.npy", "--save", "f.npy"], "x.npy: expected a file named .npz"),
        (["m.npz", "iris", "--save", "f.npy"], "data set: expected one of diabetes"),
        (["m.npz", "no.csv", "--save", "f.npy"], "no.csv: expected a file, got nothing of that"),
        (["m.npz", "x.npy", "--save", "f.txt"], "save: expected a file ending in .csv or .npy"),
        (["m.npz", "x.npy", "--save", "no/f.npy"], "save: expected a file in an existing folder"),
        (["m.npz", "x.csv", "--save", "f.npy", "--target", "3"], "x.csv: expected columns of inp"),
    ],
)
def test_refusals(folder, arguments, message):
    save_model(folder / "m.npz", model())
    np.save("x.npy", X)
    np.savetxt("x.csv", X, delimiter=",")
    result = twolayer("predict", *arguments)
    assert result.exit_code == 2
    assert result.stderr.startswith(message)

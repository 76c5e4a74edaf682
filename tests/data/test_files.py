"""Data from files: read right, or refused in one sentence that names the file."""

import io
import pickle
import re

import numpy as np
import pytest

from twolayer import network
from twolayer.data import files

X = np.array([[1.5, -2.0], [0.0, 3.25], [7.0, 1e-3]])
Y = np.array([0, 2, 1])
CSV = "1.5,-2,0\n0,3.25,2\n7,0.001,1\n"


def same(got, X=X, Y=Y, dtype="float32"):
    assert got[0].dtype == dtype
    np.testing.assert_array_equal(got[0], X.astype(dtype))
    np.testing.assert_array_equal(got[1], Y)
    assert got[1].shape == Y.shape


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize(
    "stored", ["float16", "float32", "float64", ">f8", "int8", "uint16", "bool"]
)
def test_npz_of_any_real_dtype(tmp_path, stored, dtype):
    values = (X > 0).astype(stored) if stored != "float64" else X
    np.savez(tmp_path / "a.npz", X=values, Y=Y, other=np.array([None]))
    same(files.load(tmp_path / "a.npz", dtype=dtype), values, Y, dtype)


def test_npz_that_is_compressed_and_fortran_ordered(tmp_path):
    np.savez_compressed(tmp_path / "a.npz", X=np.asfortranarray(X), Y=X)
    same(files.load(str(tmp_path / "a.npz")), X, X)


@pytest.mark.parametrize(
    "text",
    [
        CSV,
        "a,b,label\n" + CSV,
        '"width","height","label"\n' + CSV,
        "\ufeff" + CSV,
        "\ufeffa,b,c\n" + CSV,
        CSV.replace("\n", "\r\n"),
        CSV.rstrip(),
        CSV.replace(",", " , "),
        CSV + "\n\n",
    ],
)
def test_csv(tmp_path, text):
    (tmp_path / "a.csv").write_bytes(text.encode())
    X_read, Y_read = files.load(tmp_path / "a.csv")
    same((X_read, Y_read))
    assert Y_read.dtype.kind == "i"


def test_csv_with_several_targets(tmp_path):
    (tmp_path / "a.csv").write_text("1,2,3.5\n4,5,6\n")
    same(files.load(tmp_path / "a.csv", 2), np.array([[1.0], [4]]), np.array([[2, 3.5], [5, 6]]))


def test_csv_of_one_row(tmp_path):
    (tmp_path / "a.csv").write_text("1,2,3.5\n")
    same(files.load(tmp_path / "a.csv"), np.array([[1.0, 2]]), np.array([3.5]))


@pytest.mark.parametrize("Y_name", ["Y.npy", "Y.csv"])
@pytest.mark.parametrize("X_name", ["X.npy", "X.csv"])
def test_pairs(tmp_path, X_name, Y_name):
    for name, array in ((X_name, X), (Y_name, Y)):
        path = tmp_path / name
        np.save(path, array) if path.suffix == ".npy" else np.savetxt(path, array, delimiter=",")
    same(files.load_pair(tmp_path / X_name, tmp_path / Y_name))


def npy(array, **options):
    stream = io.BytesIO()
    np.save(stream, array, **options)
    return stream.getvalue()


def npz(**arrays):
    stream = io.BytesIO()
    np.savez(stream, **arrays)
    return stream.getvalue()


NAN = X.copy()
NAN[2, 1] = np.nan
OBJECTS = np.array([[{}, []]], object)
WHOLE = npz(X=X, Y=Y)

WRONG = [
    ("a.npz", WHOLE[:-30], "expected a whole .npz file, got: "),
    ("a.npz", WHOLE.replace(X.tobytes(), b"x" * X.nbytes), "expected a whole"),
    ("a.npz", b"not an archive", "expected a whole .npz file, got: "),
    ("a.npz", npy(X), "expected a whole .npz file, got: "),
    ("a.npz", pickle.dumps(X), "expected a whole .npz file, got: "),
    ("a.npz", b"", "expected numbers, got an empty file"),
    ("a.npz", npz(X=X), "expected arrays X and Y, got X"),
    ("a.npz", npz(), "expected arrays X and Y, got nothing"),
    ("a.npz", npz(data=X, target=Y), "expected arrays X and Y, got data, target: numpy.savez(FILE"),
    ("a.npz", npz(X=X, Y=Y[:2]), "expected as many rows, got X (3, 2) and Y (2,)"),
    ("a.npz", npz(X=OBJECTS, Y=Y), "expected arrays of numbers, got pickled objects"),
    ("a.npz", npz(X=X, Y=np.array(["a", "b", "c"])), "expected Y of real numbers, got dtype <U1"),
    ("a.npz", npz(X=X * 1j, Y=Y), "expected X of real numbers, got dtype complex128"),
    ("a.npz", npz(X=X[0], Y=Y), "expected X of shape (n, d), got (2,)"),
    ("a.npz", npz(X=X[:0], Y=Y), "expected X of shape (n, d), got (0, 2)"),
    ("a.npz", npz(X=X, Y=Y[0]), "expected Y of shape (n,) or (n, K), got ()"),
    ("a.npz", npz(X=NAN, Y=Y), "expected finite numbers that float32 can hold in X, got nan at [2"),
    ("a.npz", npz(X=X * 1e300, Y=Y), "expected finite numbers that float32 can hold in X, got inf"),
    ("a.npz", npz(X=X, Y=NAN), "expected finite numbers in Y, got nan at [2, 1]"),
    ("a.npy", npy(X), "an .npy file holds one array: give X and Y as two files"),
    ("a.csv", b"", "expected numbers, got an empty file"),
    ("a.csv", b"\n\n", "expected numbers, got no line of them"),
    ("a.csv", b"a,b,c\n", "expected numbers, got no line of them"),
    ("a.csv", b"1,2,3\n4,5\n", "expected rows of as many numbers each, got 2 columns after 3"),
    ("a.csv", b"1,2,3\n4,x,5\n", "expected rows of as many numbers each, got 'x' in column 2"),
    ("a.csv", b"1,2,3\n4,,5\n", "expected rows of as many numbers each, got nothing in column"),
    ("a.csv", b"1,2,nan\n", "expected finite numbers in Y, got nan at [0]"),
    (
        "a.csv",
        b"1,inf,3\n",
        "expected finite numbers that float32 can hold in X, got inf at [0, 1]",
    ),
    ("a.csv", b"1\n2\n", "expected columns of inputs and 1 of targets, got 1 in all"),
    ("a.csv", b"\xff\xfe1\x00,\x00", "expected text in UTF-8, got UTF-16"),
    ("a.csv", b"1,2\n" * 20_000 + b"1,\xff\n", "expected text in UTF-8, got other bytes"),
    ("a.txt", b"1,2\n", "expected a file named .npy or .npz or .csv"),
    (
        "a.parquet",
        b"PAR1" + bytes(9),
        "expected a file named .npy or .npz or .csv or .tsv, or a Zarr",
    ),
    ("a.csv", b"PAR1" + bytes(9), "expected text in UTF-8, got a Parquet file"),
    ("a.csv", WHOLE, "expected text in UTF-8, got a zip file, as .npz and .xlsx are"),
    ("a.csv", b"\x1f\x8b\x08\x00", "expected text in UTF-8, got a gzip file"),
    ("a.npz", b"\x89HDF\r\n", "expected a whole .npz file, got: an HDF5 file"),
    ("a.NPZ", npy(X), "expected a whole .npz file, got: an .npy file"),
    (
        "a.npz",
        npz(X=np.ones(3, "f8,f8"), Y=Y),
        "expected X of real numbers, got dtype [('f0', '<f8'), ('f1', '<f8')]: numpy.lib.recfunct",
    ),
    ("a.pkl", pickle.dumps(X), "expected a file named .npy or .npz or .csv"),
]


@pytest.mark.parametrize(("name", "content", "message"), WRONG)
def test_wrong_files(tmp_path, name, content, message):
    path = tmp_path / name
    path.write_bytes(content)
    with pytest.raises(ValueError, match="^" + re.escape(f"{path}: {message}")) as caught:
        files.load(path)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (npy(X)[:-1], "expected a whole .npy file, got: "),
        (npy(X)[:20], "expected a whole .npy file, got: "),
        (b"x" * 300, "expected a whole .npy file, got: "),
        (
            npy(X).replace(b"(3, 2)", b"(3, 9" + b"9" * 15 + b")"),
            "expected a whole .npy file, got: ",
        ),
        (npy(OBJECTS), "expected arrays of numbers, got pickled objects"),
        (pickle.dumps(X), "expected a whole .npy file, got: "),
        (b"", "expected numbers, got an empty file"),
    ],
)
def test_wrong_arrays(tmp_path, content, message):
    path, good = tmp_path / "X.npy", tmp_path / "Y.npy"
    path.write_bytes(content)
    np.save(good, Y)
    for pair in ((path, good), (good, path)):
        with pytest.raises(ValueError, match=re.escape(message) + "|expected X of shape"):
            files.load_pair(*pair)
    with pytest.raises(ValueError, match="^" + re.escape(f"{path}: {message}")):
        files.load_pair(path, good)


def test_pickles_are_never_run(tmp_path):
    class Trap:
        def __reduce__(self):
            return (open, (str(tmp_path / "sprung"), "w"))

    trap = np.array([[Trap()]], object)
    np.savez(tmp_path / "a.npz", X=trap, Y=Y)
    np.save(tmp_path / "a.npy", trap)
    (tmp_path / "b.npz").write_bytes(pickle.dumps(Trap()))
    (tmp_path / "b.npy").write_bytes(pickle.dumps(Trap()))
    for name in ("a.npz", "b.npz"):
        with pytest.raises(ValueError, match="expected"):
            files.load(tmp_path / name)
    for name in ("a.npy", "b.npy"):
        with pytest.raises(ValueError, match="expected"):
            files.load_pair(tmp_path / name, tmp_path / name)
    assert not (tmp_path / "sprung").exists()


@pytest.mark.parametrize("kind", ["npy", "npz"])
def test_any_damage_is_one_sentence(tmp_path, kind):
    """Bytes of a file are changed at random: it is read, or refused with a ValueError."""
    whole = npy(X) if kind == "npy" else WHOLE
    path, good = tmp_path / f"a.{kind}", tmp_path / "Y.npy"
    np.save(good, Y)
    random = np.random.default_rng(0)
    refused = 0
    for _ in range(300):
        damaged = bytearray(whole)
        for at in random.integers(0, len(whole), random.integers(1, 4)):
            damaged[at] = random.integers(0, 256)
        path.write_bytes(damaged)
        try:
            files.load_pair(path, good) if kind == "npy" else files.load(path)
        except ValueError:
            refused += 1
    assert refused > 30


def test_files_that_are_none(tmp_path):
    with pytest.raises(ValueError, match=r": expected a file or a Zarr array, got a folder$"):
        files.load(tmp_path)
    with pytest.raises(ValueError, match=r"no\.csv: expected a file, got nothing of that name$"):
        files.load(tmp_path / "no.csv")


def test_pairs_that_do_not_fit(tmp_path):
    np.save(tmp_path / "X.npy", X)
    np.save(tmp_path / "Y.npy", Y[:2])
    (tmp_path / "a.npz").write_bytes(WHOLE)
    with pytest.raises(ValueError, match=r"Y\.npy: expected 3 rows as in .*X\.npy, got 2$"):
        files.load_pair(tmp_path / "X.npy", tmp_path / "Y.npy")
    with pytest.raises(ValueError, match=r"an \.npz file holds X and Y together: give it alone$"):
        files.load_pair(tmp_path / "X.npy", tmp_path / "a.npz")


def test_files_larger_than_memory_are_not_read(tmp_path, monkeypatch):
    (tmp_path / "a.csv").write_text(CSV)
    monkeypatch.setattr(network, "available_memory", lambda: len(CSV) - 1)
    with pytest.raises(MemoryError, match=r"^reading .*a\.csv: needs "):
        files.load(tmp_path / "a.csv")


@pytest.mark.parametrize("dtype", ["int32", "float16"])
def test_dtypes_that_no_network_has(tmp_path, dtype):
    (tmp_path / "a.csv").write_text(CSV)
    with pytest.raises(TypeError, match=f"^dtype: expected dtype float32 or float64, got {dtype}$"):
        files.load(tmp_path / "a.csv", dtype=dtype)

"""Data on disk, a block after the other, is trained on as data in memory are."""

import os
import re
import threading
import tracemalloc

import numpy as np
import pytest
from typer.testing import CliRunner

import twolayer as tl
from twolayer.checking import cases
from twolayer.cli import app
from twolayer.composed import stream
from twolayer.data import sources
from twolayer.training import optimizers
from twolayer.training.optimizers import advance

SHAPE = tl.Shape(203, 5, 7, 3)
NET = tl.Network("tanh", "softmax")


@pytest.fixture(autouse=True)
def small_blocks(monkeypatch):
    """Blocks of 32 rows or less, so that a few hundred rows are many blocks."""
    monkeypatch.setattr(stream, "BLOCK", 32 * (SHAPE.d + SHAPE.K) * 4)


def problem(net=NET, dtype="float32"):
    _, net, X, Y, theta = cases.problem(net, SHAPE, dtype)
    return net, X, Y, theta


def on_disk(folder, X, Y, kind="npy"):
    """X and Y as something that is read in blocks."""
    if kind == "zarr":
        zarr = pytest.importorskip("zarr")
        zarr.create_array(folder / "X.zarr", data=X, chunks=(10, X.shape[1]))
        zarr.create_array(folder / "Y.zarr", data=Y)
        return folder / "X.zarr", folder / "Y.zarr"
    np.save(folder / "X.npy", np.asfortranarray(X) if kind == "fortran" else X)
    np.save(folder / "Y.npy", Y)
    if kind == "memmap":
        return [np.load(folder / name, mmap_mode="r") for name in ("X.npy", "Y.npy")]
    if kind == "slices":
        padded = np.zeros((len(X) + 9, X.shape[1]), X.dtype)
        padded[9:] = X
        np.save(folder / "X.npy", padded)
        return np.load(folder / "X.npy", mmap_mode="r")[9:], Y
    return folder / "X.npy", folder / "Y.npy"


def close(got, expected, dtype="float32"):
    """Both sum over the same n rows, in another order."""
    bound = SHAPE.n * np.finfo(dtype).eps
    for one, other in zip(got, expected, strict=True):
        np.testing.assert_allclose(one, other, rtol=0, atol=bound * abs(other).max())


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_every_variant_on_the_cpu(tmp_path, variant, dtype):
    net, X, Y, theta = problem(dtype=dtype)
    if variant.device not in ("cpu", "any"):
        with pytest.raises(ValueError, match=f"^variant {variant.name} runs on {variant.device}"):
            stream.plan(variant, net, X, Y, theta)
        return
    plan = stream.plan(variant, net, *on_disk(tmp_path, X, Y), theta)
    whole = variant.plan(net, X, Y, theta)
    for rows in (None, slice(0, 1), slice(31, 65), slice(190, 203)):
        (loss, gradient), (expected, slopes) = plan.gradient(rows), whole.gradient(rows)
        assert loss == pytest.approx(expected, rel=1e3 * float(np.finfo(dtype).eps))
        close(gradient, slopes, dtype)
    close([plan.predict(X)], [whole.predict(X)], dtype)
    assert plan.step(0.1) == pytest.approx(whole.step(0.1), rel=1e3 * float(np.finfo(dtype).eps))
    close(plan.theta, whole.theta, dtype)
    close(theta, problem(dtype=dtype)[3], dtype)


@pytest.mark.parametrize("kind", ["npy", "fortran", "zarr", "memmap", "slices"])
def test_every_kind_of_source(tmp_path, kind):
    net, X, Y, theta = problem()
    plan = stream.plan(tl.variants.get("numpy"), net, *on_disk(tmp_path, X, Y, kind), theta)
    close(plan.gradient()[1], tl.loss_and_gradient(net, theta, X, Y)[1])


@pytest.mark.parametrize("stored", ["float16", "float64", ">f4", "int8"])
def test_any_real_dtype(tmp_path, stored):
    net, X, Y, theta = problem()
    X = (X * 3).astype(stored)
    plan = stream.plan(tl.variants.get("numpy"), net, *on_disk(tmp_path, X, Y), theta)
    close(plan.gradient()[1], tl.loss_and_gradient(net, theta, X.astype("float32"), Y)[1])


def test_an_array_that_differs_from_its_file_is_read_as_it_is(tmp_path):
    net, X, Y, theta = problem()
    np.save(tmp_path / "X.npy", X)
    changed = np.load(tmp_path / "X.npy", mmap_mode="c")
    changed *= 2
    gone = np.load(tmp_path / "X.npy", mmap_mode="r")
    numpy = tl.variants.get("numpy")
    for array, expected in ((changed, 2 * X), (gone, X)):
        if array is gone:
            (tmp_path / "X.npy").unlink()
        found = stream.plan(numpy, net, array, Y, theta).gradient()[1]
        close(found, numpy.plan(net, expected, Y, theta).gradient()[1])


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system cannot fork")
def test_a_forked_child_reads_into_memory_of_its_own(run_python):
    program = """
import os, warnings
from twolayer.data import sources
warnings.simplefilter("ignore", DeprecationWarning)
pages = sources._pages(1)
child = os.fork()
if child == 0:
    pages[0] = 1
    os._exit(0)
os.waitpid(child, 0)
print(pages[0])
"""
    assert run_python(program).strip() == "0"


def test_blocks_of_labels_are_as_small_as_those_of_the_rows_that_they_stand_for(tmp_path):
    net, X, Y, theta = problem()
    numpy = tl.variants.get("numpy")
    plans = [stream.plan(numpy, net, X, one, theta) for one in (Y, Y.argmax(axis=1))]
    assert plans[0].engine.reader.rows >= plans[1].engine.reader.rows > 1


@pytest.mark.parametrize(("loss", "labels"), [("softmax", "int64"), ("logistic", "int8")])
def test_labels(tmp_path, loss, labels):
    net, X, _, theta = problem(tl.Network("tanh", loss))
    random = np.random.default_rng(0)
    Y = random.integers(0, 3, len(X)) if loss == "softmax" else random.choice([-1, 1], len(X))
    Y = Y.astype(labels)
    plan = stream.plan(tl.variants.get("numpy"), net, *on_disk(tmp_path, X, Y), theta)
    close(plan.gradient()[1], tl.loss_and_gradient(net, theta, X, Y)[1])


def test_the_same_call_returns_the_same_bits(tmp_path):
    net, X, Y, theta = problem()
    variant = tl.variants.get("numba-fused")
    made = [stream.plan(variant, net, *on_disk(tmp_path, X, Y), theta) for _ in range(2)]
    for _ in range(20):
        assert made[0].step(0.1) == made[1].step(0.1)
    assert all((a == b).all() for a, b in zip(made[0].theta, made[1].theta, strict=True))


@pytest.mark.parametrize("name", optimizers.names())
def test_optimizers(tmp_path, name):
    net, X, Y, theta = problem(dtype="float64")
    variant, optimizer = tl.variants.get("numpy"), optimizers.get(name)()
    plan = stream.plan(variant, net, *on_disk(tmp_path, X, Y), theta)
    whole = variant.plan(net, X, Y, theta)
    for one in (plan, whole):
        one.slots = optimizer.init(theta).slots
        for k, rows in enumerate([None, slice(0, 100), slice(100, 203)], 1):
            advance(optimizer, one, k, rows)
    for one, other in zip(plan.theta, whole.theta, strict=True):
        np.testing.assert_allclose(one, other, rtol=0, atol=1e-10)


def test_two_blocks_at_a_time_are_read_ahead(tmp_path, monkeypatch):
    net, X, Y, theta = problem()
    plan = stream.plan(tl.variants.get("numpy"), net, *on_disk(tmp_path, X, Y), theta)
    fetch, begun, order = sources.FileSource.fetch, threading.Semaphore(0), []

    def watched_fetch(self, start, stop, buffer):
        order.append(start)
        begun.release()
        return fetch(self, start, stop, buffer)

    monkeypatch.setattr(sources.FileSource, "fetch", watched_fetch)
    backpropagate = plan.engine.inner.backpropagate
    calls = []

    def watched(X, Y, theta, gradient):
        calls.append(len(X))
        left = -(-SHAPE.n // calls[0]) - len(calls)
        for _ in range(2 if len(calls) == 1 else 1 if left else 0):
            assert begun.acquire(timeout=30)  # another block is read while this one is computed
        return backpropagate(X, Y, theta, gradient)

    monkeypatch.setattr(plan.engine.inner, "backpropagate", watched)
    plan.gradient()
    assert order == sorted(order)
    assert sum(calls) == SHAPE.n


def test_memory_does_not_grow_with_n(tmp_path, monkeypatch):
    monkeypatch.setattr(stream, "BLOCK", 1 << 16)
    X = np.lib.format.open_memmap(tmp_path / "X.npy", "w+", "float32", (400_000, 20))
    Y = np.lib.format.open_memmap(tmp_path / "Y.npy", "w+", "float32", (400_000, 1))
    X[...], Y[...] = 0.5, 1
    X.flush()
    net = tl.Network("tanh", "squared")
    paths, theta = (tmp_path / "X.npy", tmp_path / "Y.npy"), net.init(20, 4, 1)
    for traced in (False, True):  # what is compiled or loaded once counts for nothing
        if traced:
            tracemalloc.start()
        try:
            plan = stream.plan(tl.variants.get("numpy"), net, *paths, theta)
            plan.step(0.1)
            peak = tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()
    assert peak < X.nbytes / 20


def test_a_failed_read_ends_the_thread(tmp_path):
    net, X, Y, theta = problem()
    X[150, 2] = np.inf
    plan = stream.plan(tl.variants.get("numpy"), net, *on_disk(tmp_path, X, Y), theta)
    with pytest.raises(ValueError, match=r"X\.npy: expected finite .* in X, got inf at \[150, 2\]"):
        plan.step(0.1)
    assert not [thread for thread in threading.enumerate() if "reader" in thread.name]
    assert np.isfinite(plan.gradient(slice(0, 100))[0])
    os.truncate(tmp_path / "X.npy", 2000)
    with pytest.raises(ValueError, match=r"X\.npy: ended while it was read"):
        plan.step(0.1)


def npy(folder, array, cut=None):
    np.save(folder / "X.npy", array)
    if cut:
        os.truncate(folder / "X.npy", cut)
    return folder / "X.npy"


@pytest.mark.parametrize(
    ("X", "message"),
    [
        (lambda at: npy(at, np.ones((9, 5)), 200), "X.npy: expected a whole .npy file, got"),
        (lambda at: npy(at, np.ones((9, 5)), 50), "X.npy: expected a whole .npy file, got"),
        (lambda at: npy(at, np.ones((9, 4))), "X.npy: expected X of shape (n, 5), got (9, 4)"),
        (lambda at: npy(at, np.ones(9)), "X.npy: expected X of shape (n, 5), got (9,)"),
        (lambda at: npy(at, np.ones((0, 5))), "X.npy: expected X of shape (n, 5), got (0, 5)"),
        (lambda at: npy(at, 1j * np.ones((9, 5))), "X.npy: expected X of real numbers, got dtype"),
        (
            lambda at: npy(at, np.full((9, 5), None)),
            "X.npy: expected arrays of numbers, got pickle",
        ),
        (lambda at: npy(at, np.ones((8, 5))), "Y: expected one target a sample, 8 rows as in X"),
        (lambda at: at / "no.npy", "no.npy: expected an .npy file or a Zarr array, got nothing"),
        (lambda at: at / "Y.csv", "Y.csv: expected an .npy file or a Zarr array to read in blocks"),
        (lambda at: at / "folder", "folder: expected a file or a Zarr array, got a folder"),
    ],
)
def test_bad_sources(tmp_path, monkeypatch, X, message):
    (tmp_path / "Y.csv").write_text("1\n")
    (tmp_path / "folder").mkdir()
    theta = tl.Network().init(5, 2, 1, "float64")
    path = X(tmp_path)
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ValueError, match="^" + re.escape(message)):
        stream.plan(tl.variants.get("numpy"), tl.Network(), path.name, np.ones(9), theta)


def test_bad_labels_name_their_rows(tmp_path):
    net, X, _, theta = problem()
    Y = np.zeros(len(X), int)
    Y[70] = 3
    plan = stream.plan(tl.variants.get("numpy"), net, *on_disk(tmp_path, X, Y), theta)
    with pytest.raises(ValueError, match=r"^Y: expected class labels 0 to 2, got 3 at .*, in rows"):
        plan.step(0.1)


def twolayer(*arguments):
    return CliRunner().invoke(app, ["train", *map(str, arguments)])


@pytest.mark.parametrize("kind", ["npy", "zarr"])
def test_the_command(tmp_path, monkeypatch, kind):
    _, X, _, _ = problem()
    X_path, Y_path = on_disk(tmp_path, X, np.abs(X).argmax(axis=1), kind)
    options = ["--X", X_path, "--Y", Y_path, "--loss", "softmax", "--epochs", 5, "--batch", 50]
    options += ["--optimizer", "adam", "--validation", "0.2"]
    results = [twolayer(*options, "--stream", "--save", tmp_path / f"{i}.npz") for i in range(2)]
    assert [result.exit_code for result in results] == [0, 0], results[0].output
    assert "n=162 d=5 M=32 K=5" in results[0].stdout
    assert "accuracy" not in results[0].stdout
    assert (tmp_path / "0.npz").read_bytes() == (tmp_path / "1.npz").read_bytes()
    if kind == "npy":
        monkeypatch.setattr("twolayer.cli.data.available_memory", lambda: 100)
        assert twolayer(*options).stdout == results[0].stdout
        monkeypatch.undo()
        assert "accuracy" in twolayer(*options).stdout


def test_a_name_cannot_be_streamed():
    result = twolayer("digits", "--stream")
    assert result.exit_code == 2
    assert result.stderr == "stream: expected a file, or --X and --Y, got the name of a data set\n"


PEAK = """
import resource, sys
from pathlib import Path
import numpy as np
import twolayer as tl
from twolayer.composed import stream

folder = Path(sys.argv[1])
X = np.lib.format.open_memmap(folder / "X.npy", "w+", "float32", (1 << 23, 64))
del X  # a hole in the file: zeros
np.save(folder / "Y.npy", np.zeros((1 << 23, 1), "float32"))
net = tl.Network("tanh", "squared")
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
files = folder / "X.npy", folder / "Y.npy"
plan = stream.plan(tl.variants.get("numpy"), net, *files, net.init(64, 16, 1), 1)
plan.step(0.1)
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
"""


@pytest.mark.slow
def test_peak_memory(tmp_path, run_python):
    """2 GiB of X stay far below 500 MB of resident memory."""
    assert int(run_python(PEAK, tmp_path)) < 500_000

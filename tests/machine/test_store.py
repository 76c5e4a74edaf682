import contextlib
import os
import random
import shutil
import signal
import sqlite3
import subprocess
import sys
import tempfile
import threading
import time
import warnings
from pathlib import Path

import numpy as np
import pytest

from twolayer.machine import store as store_module
from twolayer.machine.store import Measurement, Store, machine_hash

HERE = {"cpu": "an abacus", "features": ["beads"]}
# Adds measurements n = 0, 1, … and prints each number once the measurement is kept.
WRITER = """
import sys, warnings
from twolayer.machine.store import Store
warnings.simplefilter("error")
path, threads, count = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
with Store(path) as store:
    for n in range(count):
        store.add({"kind": "epoch", "n": n, "threads": threads}, {"cpu": "an abacus"})
        print(n, flush=True)
"""


def start_writer(path, threads, count):
    command = [sys.executable, "-c", WRITER, str(path), str(threads), str(count)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def record(n=1, **changes):
    return Measurement(
        kind="epoch", variant="numpy", n=n, metrics={"seconds": [0.5, 0.25]}, **changes
    )


@pytest.fixture
def path(tmp_path):
    return tmp_path / "store.sqlite"


def test_what_was_added_is_selected(path):
    full = Measurement(
        kind="epoch", variant="numba-fused", device="cpu", activation="tanh", loss="softmax",
        dtype="float32", n=60000, d=784, M=128, K=10, threads=2, time=12.5,
        metrics={"seconds": 0.097, "blocks": [1, 2]}, machine=machine_hash(HERE),
        commit="ab" * 20, tree="changed",
    )  # fmt: skip
    with Store(path) as store:
        store.add(full, HERE)
    assert Store(path).select() == [full]


@pytest.mark.parametrize(
    ("filters", "expected"),
    [
        ({}, [1, 2, 3]),
        ({"n": 2}, [2]),
        ({"n": np.int64(2)}, [2]),
        ({"variant": "numpy", "dtype": "float64"}, [3]),
        ({"variant": "nothing"}, []),
        ({"machine": machine_hash(HERE)}, [1, 2]),
    ],
)
def test_filters(path, filters, expected):
    store = Store(path)
    store.add(record(1), HERE)
    store.add(record(2), HERE)
    store.add(record(3, dtype="float64"), {"cpu": "another"})
    assert [found.n for found in store.select(**filters)] == expected


def test_unknown_fields_are_refused(path):
    store = Store(path)
    with pytest.raises(TypeError, match="cannot select by metrics, shape"):
        store.select(shape=3, metrics="{}")
    with pytest.raises(TypeError, match="shape"):
        store.add({"kind": "epoch", "shape": 3}, HERE)
    with pytest.raises(TypeError, match="metrics must be JSON values, not object"):
        store.add({"kind": "epoch", "metrics": {"seconds": object()}}, HERE)
    assert store.select() == []


def test_numbers_of_numpy(path):
    store = Store(path)
    metrics = {"seconds": np.float32(0.5), "blocks": np.arange(3), "infinite": np.inf}
    store.add({"kind": "epoch", "n": np.int64(7), "metrics": metrics}, HERE)
    (found,) = store.select(n=7)
    assert found.metrics == {"seconds": 0.5, "blocks": [0, 1, 2], "infinite": float("inf")}


def test_time_and_machine_are_filled_in(path, monkeypatch):
    monkeypatch.setattr("twolayer.machine.hardware.signature", lambda: HERE)
    Store(path).add(record())
    (found,) = Store(path).select()
    assert found.time > 1e9
    assert found.machine == machine_hash() == machine_hash(HERE) != machine_hash({"cpu": "another"})
    stored = sqlite3.connect(path)
    assert stored.execute("SELECT hash FROM machine").fetchall() == [(found.machine,)]
    stored.close()


def test_environment_names_the_file(path, monkeypatch):
    monkeypatch.setenv("TWOLAYER_STORE", str(path))
    Store().add(record(), HERE)
    assert len(Store(path).select()) == 1


def test_two_processes_write_at_once(path):
    writers = [start_writer(path, threads, 200) for threads in (1, 2)]
    for writer in writers:
        _, complaints = writer.communicate()
        assert (writer.returncode, complaints) == (0, "")
    for threads in (1, 2):
        assert [found.n for found in Store(path).select(threads=threads)] == list(range(200))


@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="needs SIGKILL")
@pytest.mark.parametrize("after", [1, 7, 40])
def test_killed_process_loses_nothing_finished(path, after):
    for threads in range(1, 4):  # the second and the third meet what was left behind
        writer = start_writer(path, threads, 10**9)
        finished = [int(writer.stdout.readline()) for _ in range(after)]
        writer.kill()
        rest = writer.stdout.read()  # `communicate` leaves out what readline has buffered
        _, complaints = writer.communicate()
        assert complaints == ""
        finished += [int(line) for line in rest.splitlines(keepends=True) if line.endswith("\n")]
        kept = [found.n for found in Store(path).select(threads=threads)]
        # The last may have been kept without being reported.
        assert kept in (finished, [*finished, len(finished)])


def test_threads_share_a_store(path):
    store = Store(path)

    def write(thread):
        for n in range(20):
            store.add(record(n, threads=thread), HERE)

    threads = [threading.Thread(target=write, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(store.select()) == 80


def test_removed_file_is_made_anew(path):
    store = Store(path)
    store.add(record(1), HERE)
    path.unlink()
    store.add(record(2), HERE)
    assert [found.n for found in Store(path).select()] == [2]


def aside(path):
    return [file for file in path.parent.iterdir() if ".damaged-" in file.name]


@pytest.mark.parametrize(
    "content", [b"no database" * 100, b"SQLite format 3\0" + bytes(range(256)) * 40, bytes(5000)]
)
def test_file_that_is_no_database_is_set_aside(path, content):
    path.write_bytes(content)
    store = Store(path)
    with pytest.warns(RuntimeWarning, match=r"store\.sqlite is damaged .* kept as") as caught:
        store.add(record(1), HERE)
    store.add(record(2), HERE)
    assert len(caught) == 1
    assert [found.n for found in Store(path).select()] == [1, 2]
    assert [file.read_bytes() for file in aside(path)] == [content]


def test_store_of_another_schema_is_set_aside(path):
    Store(path).add(record(), HERE)
    changed = sqlite3.connect(path)
    changed.execute("ALTER TABLE measurement RENAME COLUMN threads TO workers")
    changed.close()
    with pytest.warns(RuntimeWarning, match="damaged"):
        assert Store(path).select() == []
    assert len(aside(path)) == 1


def test_damage_while_the_store_is_in_use(path):
    store = Store(path)
    store.add(record(1), HERE)
    with path.open("r+b") as file:
        file.write(b"x" * 4096)
    with pytest.warns(RuntimeWarning, match="damaged"):
        store.add(record(2), HERE)
    assert [found.n for found in store.select()] == [2]


def test_file_that_another_process_replaced_stays(path):
    store = Store(path)
    path.write_bytes(b"a good new store")
    assert store._set_aside(path.stat().st_ino + 1, sqlite3.DatabaseError("damaged"))
    assert path.read_bytes() == b"a good new store"


def bypassed(store):
    """What is added to a store that warns once and keeps the measurements of this process only."""
    with pytest.warns(RuntimeWarning, match="cannot be used .* not kept") as caught:
        store.add(record(1), HERE)
    store.add(record(2), HERE)
    assert len(caught) == 1
    return [found.n for found in store.select(variant="numpy")] == [1, 2]


def test_directory_in_its_place_is_bypassed(path):
    (path / "inside").mkdir(parents=True)
    with Store(path) as store:
        assert bypassed(store)
    assert (path / "inside").is_dir()


def test_folder_that_cannot_be_made_is_bypassed(path):
    path.write_text("a file, not a folder")
    with Store(path / "store.sqlite") as store:
        assert bypassed(store)


def test_database_of_another_program_is_left_alone(path):
    other = sqlite3.connect(path)
    other.execute("CREATE TABLE bookmarks (title)")
    other.close()
    content = path.read_bytes()
    with Store(path) as store:
        assert bypassed(store)
    assert path.read_bytes() == content


@pytest.mark.skipif(not hasattr(os, "geteuid"), reason="needs file permissions")
@pytest.mark.parametrize("folders", [0o755, 0o555])
def test_read_only_store_is_read(folders):
    script = (
        "import os, sys, warnings\n"
        "from twolayer.machine.store import Store\n"
        "if os.geteuid() == 0: os.setuid(65534)\n"  # root may write everywhere
        "with warnings.catch_warnings(record=True) as caught, Store(sys.argv[1]) as store:\n"
        "    warnings.simplefilter('always')\n"
        "    print([found.n for found in store.select()], len(caught))\n"
        "    for n in (2, 3): store.add({'kind': 'epoch', 'n': n}, {'cpu': 'an abacus'})\n"
        "    print([found.n for found in store.select()], [str(one.message) for one in caught])\n"
    )
    folder = Path(tempfile.mkdtemp())  # pytest's own are closed to other users
    path = folder / "a #store?.sqlite"
    Store(path).add(record(), HERE)
    content = path.read_bytes()
    path.chmod(0o444)
    folder.chmod(folders)
    try:
        output = subprocess.check_output([sys.executable, "-c", script, str(path)], text=True)
        assert path.read_bytes() == content
    finally:
        folder.chmod(0o700)
        shutil.rmtree(folder)
    first, second = output.splitlines()
    assert first == "[1] 0"
    assert second.startswith("[1, 2, 3] ['the store ")
    assert second.count("cannot be written") == 1


def test_old_entries_are_removed(path):
    now = time.time()
    Store(path).add(record(1, time=now - store_module._KEPT - 10), {"cpu": "gone"})
    Store(path).add(record(2, time=now - store_module._KEPT + 1000), HERE)
    Store(path).add(record(3), HERE)
    assert [found.n for found in Store(path).select()] == [2, 3]
    with contextlib.closing(sqlite3.connect(path)) as db:
        assert db.execute("SELECT hash FROM machine").fetchall() == [(machine_hash(HERE),)]


@pytest.mark.parametrize("named", [None, "~/store.sqlite"])
def test_nobody_knows_a_home_folder(monkeypatch, named):
    pwd = pytest.importorskip("pwd")
    monkeypatch.setattr(pwd, "getpwuid", {}.__getitem__)
    for name in ("HOME", "XDG_DATA_HOME", "TWOLAYER_STORE"):
        monkeypatch.delenv(name, raising=False)
    with Store(named) as store:
        with pytest.warns(RuntimeWarning, match="set TWOLAYER_STORE to a file"):
            store.add(record(1), HERE)
        assert len(store.select()) == 1


@pytest.mark.parametrize("seed", range(30))
def test_random_damage(path, seed):
    """Whatever was done to the file: no exception, and what is added afterwards is there."""
    chance = random.Random(seed)
    with Store(path) as store:
        for n in range(40):
            store.add(record(n, machine=str(n)), {"cpu": n})
    content = bytearray(path.read_bytes())
    kind = seed % 5
    if kind == 0:
        del content[chance.randrange(len(content)) :]
    elif kind == 1:
        start = chance.randrange(len(content))
        content[start : start + 4096] = chance.randbytes(4096)
    elif kind == 2:
        for _ in range(30):
            content[chance.randrange(len(content))] = chance.randrange(256)
    elif kind == 3:
        content[chance.randrange(100)] ^= 1 << chance.randrange(8)  # the header
    else:
        start = chance.randrange(100, len(content) - 600)
        content[start : start + 600] = bytes(600)
    path.write_bytes(content)
    if seed % 2:
        Path(f"{path}-wal").write_bytes(chance.randbytes(5000))
    with warnings.catch_warnings(record=True) as caught, Store(path) as store:
        warnings.simplefilter("always")
        store.select()
        store.add(record(1000), HERE)
        assert [found.n for found in store.select(n=1000)] == [1000]
        store.select()
    sentences = {str(one.message) for one in caught}
    assert all("damaged" in sentence or "cannot be used" in sentence for sentence in sentences)
    assert len(sentences) <= 1


@pytest.mark.filterwarnings("ignore:the store")
@pytest.mark.parametrize("make", [os.mkfifo, os.mkdir])
def test_what_is_no_plain_file_is_not_waited_for(tmp_path, make):
    make(tmp_path / "store")
    with Store(tmp_path / "store") as store:
        store.add({"kind": "a"})
        assert len(store.select(kind="a")) == 1


def test_a_wrong_question_leaves_the_file_alone(tmp_path):
    store = Store(tmp_path / "store.sqlite")
    store.add(Measurement(kind="epoch", variant="numpy"))
    before = store.path.read_bytes()
    for _ in range(2):
        with pytest.raises(sqlite3.ProgrammingError):
            store.query("SELECT * FROM measurement WHERE kind = ?", [object()])
    assert store.path.read_bytes() == before
    assert [path.name for path in tmp_path.iterdir()] == ["store.sqlite"]


def test_a_damaged_file_takes_no_others_place(tmp_path, monkeypatch):
    monkeypatch.setattr("time.strftime", lambda form: "now")
    path = tmp_path / "store.sqlite"
    for number in range(3):
        path.write_bytes(b"no database" * 100 + bytes([number]))
        with pytest.warns(RuntimeWarning, match="is damaged"):
            Store(path).select()
    kept = sorted(p.read_bytes()[-1] for p in tmp_path.glob("*.damaged-*"))
    assert kept == [0, 1, 2]

"""Checkouts of different age share a store, or leave it alone."""

import contextlib
import sqlite3
import warnings

import pytest

from twolayer.machine import store as store_module
from twolayer.machine.store import Measurement, Store

HERE = {"cpu": "an abacus"}


def record(n):
    return Measurement(kind="epoch", variant="numpy", n=n, metrics={"seconds": 0.5})


@pytest.fixture
def path(tmp_path):
    return tmp_path / "store.sqlite"


# What takes a file back to each version from the next one.
UNDO = (
    ("DROP INDEX of_machine", "DROP INDEX of_time"),
    (
        "DROP INDEX of_problem",
        "ALTER TABLE measurement DROP COLUMN [commit]",
        "ALTER TABLE measurement DROP COLUMN tree",
    ),
    (
        "DROP INDEX of_epoch",
        "CREATE INDEX of_problem ON measurement (kind)",
        "ALTER TABLE measurement DROP COLUMN data",
        *(f"ALTER TABLE measurement DROP COLUMN {name}" for name in ("seconds", "low", "high")),
    ),
)


def versioned(path, version, *statements):
    """A file with one measurement, n = 1, that a package of another version wrote."""
    Store(path).add(record(1), HERE)
    undone = [statement for texts in reversed(UNDO[version:]) for statement in texts]
    with contextlib.closing(sqlite3.connect(path)) as db:
        for statement in (*undone, *statements, f"PRAGMA user_version = {version}"):
            db.execute(statement)
        db.commit()


NEWER = store_module._VERSION + 1


@pytest.mark.parametrize("version", [*range(len(UNDO)), NEWER])
def test_checkouts_of_different_age_share_a_file(path, version):
    more = ["ALTER TABLE measurement ADD COLUMN host TEXT NOT NULL DEFAULT ''"]
    versioned(path, version, *more * (version == NEWER))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        Store(path).add(record(2), HERE)
        assert [found.n for found in Store(path).select()] == [1, 2]
    with contextlib.closing(sqlite3.connect(path)) as db:
        kept = db.execute("PRAGMA user_version").fetchone()[0]
        assert kept == max(version, store_module._VERSION)
        assert len(db.execute("SELECT * FROM sqlite_master WHERE type = 'index'").fetchall()) == 4


def test_an_old_file_that_is_not_to_be_written_is_read(path, monkeypatch):
    versioned(path, 1)
    monkeypatch.setattr(Store, "_inode", lambda self: 0)
    connect = store_module._connect

    def refuse(where):
        if where == path:
            raise OSError("read-only")
        return connect(where)

    monkeypatch.setattr(store_module, "_connect", refuse)
    with Store(path) as store:
        ((found,), commits) = store.select(), store.query("SELECT [commit] FROM measurement")
    assert (found.n, found.commit, commits) == (1, "", [("",)])


@pytest.mark.parametrize(
    ("version", "change", "what"),
    [
        (NEWER, "ALTER TABLE measurement RENAME COLUMN threads TO workers", "used"),
        (NEWER, "DROP TABLE machine", "used"),
        (0, "ALTER TABLE measurement RENAME COLUMN threads TO workers", "used"),
        (
            NEWER,
            "CREATE TRIGGER no BEFORE INSERT ON measurement BEGIN SELECT RAISE(ABORT, 'no'); END",
            "written",
        ),
    ],
)
def test_what_another_version_wrote_is_left_alone(path, version, change, what):
    versioned(path, version, change)
    before = path.read_bytes()
    readable = [1] * (what == "written")
    with warnings.catch_warnings(record=True) as caught, Store(path) as store:
        warnings.simplefilter("always")
        assert [found.n for found in store.select()] == readable
        store.add(record(2), HERE)
        assert [found.n for found in store.select()] == [*readable, 2]
    (told,) = caught
    assert f"cannot be {what} (it is of version {version}, this is " in str(told.message)
    assert [*path.parent.glob("*.damaged*")] == []
    assert path.read_bytes() == before

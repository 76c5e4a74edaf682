"""Measurements kept on disk: one SQLite file a user, to which several processes may write at once.

A damaged file is set aside under a new name; one that cannot be written, or only by another version
of this package, is read as far as it can be. Either is said in one warning, and measuring goes on.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import sqlite3
import time
import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any, TypeVar

import platformdirs

from . import hardware
from .forks import renewed
from .revision import revision

T = TypeVar("T")


@dataclass(frozen=True, kw_only=True)
class Measurement:
    """One result: what was measured, its figures (JSON values by name), when, and on what machine.

    data: what an epoch was timed on; seconds, low, high: its median over blocks, and the quartiles.
    What does not apply, such as the shape for a bandwidth, stays empty or 0. The store fills in
    machine (`machine_hash`) and, where they are empty, time (seconds since 1970) and what the
    sources are of (`revision.Revision`).
    """

    kind: str
    metrics: Mapping[str, Any] = field(default_factory=dict)
    variant: str = ""
    device: str = ""
    activation: str = ""
    loss: str = ""
    dtype: str = ""
    n: int = 0
    d: int = 0
    M: int = 0
    K: int = 0
    threads: int = 0
    time: float = 0.0
    machine: str = ""
    commit: str = ""
    tree: str = ""
    data: str = ""
    seconds: float = 0.0
    low: float = 0.0
    high: float = 0.0


_COLUMNS = {c.name: {"int": int, "float": float}.get(str(c.type), str) for c in fields(Measurement)}
_SQL_TYPES = {int: "INTEGER", float: "REAL", str: "TEXT"}
_LATER = ("commit", "tree", "data", "seconds", "low", "high")  # came with versions 2 and 3
_SINCE_0 = [name for name in _COLUMNS if name not in _LATER]


def _added(name: str) -> str:
    kind = _COLUMNS[name]
    return f"ALTER TABLE measurement ADD [{name}] {_SQL_TYPES[kind]} NOT NULL DEFAULT {kind()!r}"


# What makes a file of each version from one of the version before, an empty one being version -1.
# Later ones only add, with defaults, so that checkouts of different age can share a file.
_VERSIONS = (
    (
        "CREATE TABLE machine (hash TEXT PRIMARY KEY, fingerprint TEXT NOT NULL)",
        "CREATE TABLE measurement (id INTEGER PRIMARY KEY, "
        f"{', '.join(f'{name} {_SQL_TYPES[_COLUMNS[name]]} NOT NULL' for name in _SINCE_0)})",
    ),
    (
        "CREATE INDEX of_machine ON measurement (machine, kind)",
        "CREATE INDEX of_time ON measurement (time)",
    ),
    (
        *map(_added, _LATER[:2]),
        "CREATE INDEX of_problem ON measurement (kind, variant, device, activation, loss, dtype, "
        "n, d, M, K, threads, machine, [commit], tree)",
    ),
    (
        *map(_added, _LATER[2:]),
        "DROP INDEX of_problem",
        # All that a history reads, in its order: the rows themselves hold long texts.
        "CREATE INDEX of_epoch ON measurement (kind, variant, device, activation, loss, dtype, "
        "n, d, M, K, threads, data, machine, [commit], tree, time, seconds, low, high)",
    ),
)
_VERSION = len(_VERSIONS) - 1
_KEPT = 180 * 24 * 3600  # seconds after which a measurement is removed
_FORGET = "DELETE FROM machine WHERE hash NOT IN (SELECT machine FROM measurement)"
_SEAL = "seal"
_APPLICATION = 0x324C4159  # tells our files from other SQLite files
# What a file answers whose tables are others; that of another version may have such.
_MISFIT = {sqlite3.SQLITE_ERROR, sqlite3.SQLITE_CONSTRAINT, sqlite3.SQLITE_MISMATCH}
# What a file that is wrong inside answers; any other error means that a good file cannot be used.
_DAMAGE = {sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB, *_MISFIT}


def machine_hash(signature: Mapping[str, Any] | None = None) -> str:
    """A short name for a machine's signature, by default that of this one."""
    return hashlib.sha256(_dumps(signature or hardware.signature()).encode()).hexdigest()[:16]


class Store:
    """The measurements in one file; each call is a transaction of its own, kept once it returns.

    The file is `path`, else $TWOLAYER_STORE, else one in the user's data folder. It is open during
    calls only, so a store may be used by threads and after a fork, and the file renamed or removed.
    The first that is added removes what is older than half a year.
    """

    def __init__(self, path: str | os.PathLike[str] | None = None) -> None:
        self.path = _place(path or os.environ.get("TWOLAYER_STORE"))
        self._lock = renewed(self, "_lock")
        self._checked = False  # whether the file was found healthy
        self._pruned = False
        self._memory: sqlite3.Connection | None = None  # in place of a file that cannot be written
        self._why = ""  # it cannot, until it was said

    def __enter__(self) -> Store:
        return self

    def __exit__(self, *exception: object) -> None:
        if self._memory is not None:
            self._memory.close()
            self._memory = None

    def add(
        self, record: Measurement | Mapping[str, Any], signature: Mapping[str, Any] | None = None
    ) -> None:
        """Keep one measurement, made on the machine of that signature: by default this one.

        Raises TypeError for an unknown field, or for metrics that are no JSON values.
        """
        row = asdict(record if isinstance(record, Measurement) else Measurement(**record))
        described = _dumps(signature or hardware.signature())
        row |= {"machine": machine_hash(signature), "time": row["time"] or time.time()}
        if not row["commit"]:
            row |= revision()._asdict()
        values = [kind(row[name]) for name, kind in (_COLUMNS | {"metrics": _dumps}).items()]
        marks = ", ".join("?" * len(values))

        def write(db: sqlite3.Connection) -> None:
            if not self._pruned:
                _prune(db)
            db.execute("INSERT OR IGNORE INTO machine VALUES (?, ?)", (row["machine"], described))
            db.execute(f"INSERT INTO measurement ({_listed(_COLUMNS)}) VALUES ({marks})", values)

        self._transact(write, writes=True)
        self._pruned = True

    def select(self, **filters: str | float) -> list[Measurement]:
        """The measurements whose fields equal the filters, oldest first.

        Raises TypeError for an unknown field.
        """
        if unknown := ", ".join(sorted(filters.keys() - (_COLUMNS.keys() - {"metrics"}))):
            raise TypeError(f"cannot select by {unknown}, only by {', '.join(_COLUMNS)}")
        values = [_COLUMNS[name](value) for name, value in filters.items()]
        where = " AND ".join(f"[{name}] = ?" for name in filters) or "1"
        text = f"SELECT {_listed(_COLUMNS)} FROM measurement WHERE {where} ORDER BY id"
        rows = self.query(text, values)
        found = []
        for row in rows:
            columns = zip(_COLUMNS.items(), row, strict=True)
            with contextlib.suppress(ValueError, TypeError):  # bytes inside the row are damaged
                made = {name: kind(value) for (name, kind), value in columns}
                found.append(Measurement(**made | {"metrics": json.loads(made["metrics"])}))
        if len(found) < len(rows):
            _warn(f"{len(rows) - len(found)} damaged measurements in {self.path} are left out")
        return found

    def query(self, text: str, values: Sequence[str | float] = ()) -> list[tuple[Any, ...]]:
        """What an SQL query on the tables `measurement` and `machine` finds."""
        return self._transact(lambda db: db.execute(text, values).fetchall())

    def remove(self, ids: Iterable[int]) -> None:
        """Remove measurements by "id", and machines of none. Raises OSError where that fails."""

        def write(db: sqlite3.Connection) -> None:
            db.executemany("DELETE FROM measurement WHERE id = ?", ((one,) for one in ids))
            db.execute(_FORGET)

        self._transact(write, writes=True)
        if self._memory is not None:
            raise OSError(f"the store {self.path} cannot be written, so nothing was removed")

    def _transact(self, work: Callable[[sqlite3.Connection], T], writes: bool = False) -> T:
        """Do the work in one transaction; where the file is no good, on a new one or in memory."""
        with self._lock:
            for _ in range(3):  # a file, the one that takes its place, and another process's
                if self._memory is not None:
                    break
                inode = self._inode()
                try:
                    with contextlib.closing(_connect(self.path)) as db:
                        if not self._checked:
                            _commit(db, _check)
                            self._checked = True
                        return _commit(db, work)
                except OSError as error:
                    self._bypass(error)
                except sqlite3.ProgrammingError:  # what is asked is no good: the file may be
                    raise
                except (sqlite3.DatabaseError, UnicodeDecodeError) as error:  # even in its schema
                    code = getattr(error, "sqlite_errorcode", sqlite3.SQLITE_CORRUPT) & 0xFF
                    if code not in _DAMAGE or not self._set_aside(inode, error):
                        self._bypass(error)
            memory = self._memory or self._bypass("it is damaged again and again")
            if writes and self._why:
                self._say()
            return _commit(memory, work)

    def _inode(self) -> int:
        with contextlib.suppress(OSError):
            return self.path.stat().st_ino
        return 0

    def _set_aside(self, inode: int, error: Exception) -> bool:
        """Rename the file, unless another process has just replaced it; False where that fails."""
        if self._inode() != inode:
            return True
        new = f"{self.path}.damaged-{time.strftime('%Y%m%d-%H%M%S')}-{os.getpid()}"
        while os.path.lexists(new):
            new += "+"
        try:
            for suffix in ("-wal", "-shm", ""):  # the log first: it must not meet the next file
                with contextlib.suppress(FileNotFoundError):
                    os.replace(f"{self.path}{suffix}", new + suffix)
        except OSError:
            return False
        _warn(f"the store {self.path} is damaged ({error}) and is kept as {new}")
        return True

    def _bypass(self, why: object) -> sqlite3.Connection:
        """Go on in memory, with a copy of what can be read."""
        self._memory = _connect(":memory:")
        readable = self._copy(self._memory)
        self._why = (
            f"the store {self.path} cannot be {'written' if readable else 'used'} ({why}), "
            "so measurements are not kept"
        )
        if not readable:
            self._say()
        return self._memory

    def _copy(self, memory: sqlite3.Connection) -> bool:
        """Copy what a file has that is not to be written; whether that was possible."""
        alone = "" if Path(f"{self.path}-wal").exists() else "&immutable=1"  # nor its folder
        try:
            _check_plain(self.path)
            uri = f"{self.path.absolute().as_uri()}?mode=ro{alone}"
            with contextlib.closing(_connect(uri)) as db:
                if _application(db) != _APPLICATION:
                    return False
                machines = db.execute("SELECT hash, fingerprint FROM machine").fetchall()
                there = {name for _, name, *_ in db.execute("PRAGMA table_info(measurement)")}
                columns = [name for name in _COLUMNS if name in there or name in _SINCE_0]
                rows = db.execute(
                    f"SELECT {_listed(columns)} FROM measurement ORDER BY id"
                ).fetchall()
        except (OSError, sqlite3.DatabaseError, UnicodeDecodeError):
            return False

        def write(db: sqlite3.Connection) -> None:
            marks = ", ".join("?" * len(columns))
            db.executemany("INSERT INTO machine VALUES (?, ?)", machines)
            db.executemany(f"INSERT INTO measurement ({_listed(columns)}) VALUES ({marks})", rows)

        _commit(memory, write)
        return True

    def _say(self) -> None:
        why, self._why = self._why, ""
        _warn(why)


def keep(store: Store, kind: str, metrics: Mapping[str, Any], **about: Any) -> None:
    """Keep what holds for this machine's signature: its processor, libraries and these sources.

    Arguments: kind; metrics, JSON values by name; about, fields of a Measurement. The entry carries
    a digest of itself: one whose bytes were changed inside is not found again.
    """
    sealed = {**metrics, _SEAL: _digest(metrics)}
    store.add(Measurement(kind=kind, metrics=sealed, **about))


def find(store: Store, kind: str, **about: Any) -> list[Mapping[str, Any]]:
    """What was kept of that kind and holds here, oldest first, with its variant's name."""
    found: list[Mapping[str, Any]] = []
    for row in store.select(kind=kind, machine=machine_hash(), **about):
        metrics = dict(row.metrics)
        if metrics.pop(_SEAL, None) == _digest(metrics):
            found.append({**metrics, "variant": row.variant})
    return found


def _digest(metrics: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(metrics, sort_keys=True).encode()).hexdigest()[:16]


def _place(named: str | os.PathLike[str] | None) -> Path:
    """The file of that name, or the user's own; one below ~ where nobody knows a home folder."""
    try:
        if named:
            return Path(named).expanduser()
        return platformdirs.user_data_path("twolayer") / "measurements.sqlite"
    except RuntimeError:
        return Path(named or "~/.local/share/twolayer/measurements.sqlite")


def _connect(path: Path | str) -> sqlite3.Connection:
    if isinstance(path, Path):
        if path.parts[:1] == ("~",):
            raise OSError("no home folder is known: set TWOLAYER_STORE to a file")
        path.parent.mkdir(parents=True, exist_ok=True)
        _check_plain(path)
    uri = isinstance(path, str)
    db = sqlite3.connect(path, timeout=60, isolation_level=None, check_same_thread=False, uri=uri)
    db.text_factory = lambda raw: raw.decode(errors="replace")
    return db


def _check_plain(path: Path) -> None:
    """Raise OSError for a pipe, at which SQLite would wait for ever, a device or a folder."""
    if path.exists() and not path.is_file():
        raise OSError("it is no plain file")


def _listed(columns: Iterable[str]) -> str:
    """The names for SQL; unlike one in "…", one in […] is never taken for a text."""
    return ", ".join(f"[{name}]" for name in columns)


def _application(db: sqlite3.Connection) -> int:
    return int(db.execute("PRAGMA application_id").fetchone()[0])


def _commit(db: sqlite3.Connection, work: Callable[[sqlite3.Connection], T]) -> T:
    """Do the work on a file that was brought to this version, unless it is of a later one."""
    with db:
        db.execute("BEGIN IMMEDIATE")
        (version,) = db.execute("PRAGMA user_version").fetchone()
        if not db.execute("SELECT count(*) FROM sqlite_master").fetchone()[0]:
            db.execute(f"PRAGMA application_id = {_APPLICATION}")
            version = -1
        elif _application(db) != _APPLICATION:
            raise OSError("it is a database of another program")
        try:
            if version < _VERSION:
                for statement in (text for texts in _VERSIONS[version + 1 :] for text in texts):
                    db.execute(statement)
                db.execute(f"PRAGMA user_version = {_VERSION}")
            return work(db)
        except sqlite3.DatabaseError as error:
            code = getattr(error, "sqlite_errorcode", sqlite3.SQLITE_CORRUPT) & 0xFF
            if version in (-1, _VERSION) or code not in _MISFIT:
                raise
            raise OSError(f"it is of version {version}, this is {_VERSION}: {error}") from error


def _check(db: sqlite3.Connection) -> None:
    """Refuse a file that is damaged."""
    if (damage := db.execute("PRAGMA quick_check(1)").fetchall()) != [("ok",)]:
        raise sqlite3.DatabaseError(" ".join(str(line) for (line,) in damage).split("\n")[-1])
    db.execute(
        f"SELECT {_listed(_COLUMNS)}, fingerprint FROM measurement "
        "JOIN machine ON hash = machine LIMIT 1"
    )


def _prune(db: sqlite3.Connection) -> None:
    """Remove what is old, and machines of which nothing is left."""
    db.execute("DELETE FROM measurement WHERE time < ?", (time.time() - _KEPT,))
    db.execute(_FORGET)


def _dumps(value: object) -> str:
    def plain(number: Any) -> Any:
        if hasattr(number, "tolist"):  # NumPy's scalars and arrays
            return number.tolist()
        raise TypeError(f"metrics must be JSON values, not {type(number).__name__}")

    return json.dumps(value, sort_keys=True, default=plain)


def _warn(sentence: str) -> None:
    warnings.warn(sentence, RuntimeWarning, stacklevel=5)  # where add or select was called

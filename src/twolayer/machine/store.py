"""Measurements kept on disk: one SQLite file a user, to which several processes of one machine may
write at once.

A damaged file is set aside under a new name, one that cannot be used is bypassed; either is said in
one warning, and measuring goes on.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import sqlite3
import time
import warnings
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any, TypeVar

import platformdirs

from . import hardware
from .forks import renewed

T = TypeVar("T")


@dataclass(frozen=True, kw_only=True)
class Measurement:
    """One result: what was measured, its figures (JSON values by name), when, and on what machine.

    What does not apply, such as the shape for a bandwidth, stays empty or 0. The store fills in
    machine (`machine_hash`) and, where it is 0, time (seconds since 1970).
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


_COLUMNS = {
    column.name: {"int": int, "float": float}.get(str(column.type), str)
    for column in fields(Measurement)
}
_NAMES = ", ".join(_COLUMNS)
_SQL_TYPES = {int: "INTEGER", float: "REAL", str: "TEXT"}
_TABLES = (
    "CREATE TABLE machine (hash TEXT PRIMARY KEY, fingerprint TEXT NOT NULL)",
    "CREATE TABLE measurement (id INTEGER PRIMARY KEY, "
    + ", ".join(f"{name} {_SQL_TYPES[kind]} NOT NULL" for name, kind in _COLUMNS.items())
    + ")",
)
_SEAL = "seal"
_APPLICATION = 0x324C4159  # tells our files from other SQLite files
# What a file that is wrong inside answers; any other error means that a good file cannot be used.
_DAMAGE = {
    sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB, sqlite3.SQLITE_ERROR,
    sqlite3.SQLITE_CONSTRAINT, sqlite3.SQLITE_MISMATCH,
}  # fmt: skip


def machine_hash(signature: Mapping[str, Any] | None = None) -> str:
    """A short name for a machine's signature, by default that of this one."""
    return hashlib.sha256(_dumps(signature or hardware.signature()).encode()).hexdigest()[:16]


class Store:
    """The measurements in one file; each call is a transaction of its own, kept once it returns.

    The file is `path`, else $TWOLAYER_STORE, else one in the user's data folder. It is open during
    calls only, so a store may be used by threads and after a fork, and the file renamed or removed.
    """

    def __init__(self, path: str | os.PathLike[str] | None = None) -> None:
        default = platformdirs.user_data_path("twolayer") / "measurements.sqlite"
        self.path = Path(path or os.environ.get("TWOLAYER_STORE") or default)
        self._lock = renewed(self, "_lock")
        self._checked = False  # whether the file was found healthy
        self._memory: sqlite3.Connection | None = None  # in place of a file that is bypassed

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
        values = [kind(row[name]) for name, kind in (_COLUMNS | {"metrics": _dumps}).items()]
        marks = ", ".join("?" * len(values))

        def write(db: sqlite3.Connection) -> None:
            db.execute("INSERT OR IGNORE INTO machine VALUES (?, ?)", (row["machine"], described))
            db.execute(f"INSERT INTO measurement ({_NAMES}) VALUES ({marks})", values)

        self._transact(write)

    def select(self, **filters: str | float) -> list[Measurement]:
        """The measurements whose fields equal the filters, oldest first.

        Raises TypeError for an unknown field.
        """
        if unknown := filters.keys() - (_COLUMNS.keys() - {"metrics"}):
            raise TypeError(f"cannot select by {', '.join(sorted(unknown))}, only by {_NAMES}")
        values = [_COLUMNS[name](value) for name, value in filters.items()]
        where = " AND ".join(f"{name} = ?" for name in filters) or "1"
        query = f"SELECT {_NAMES} FROM measurement WHERE {where} ORDER BY id"
        rows = self._transact(lambda db: db.execute(query, values).fetchall())
        found = []
        for row in rows:
            with contextlib.suppress(ValueError, TypeError):  # bytes inside the row are damaged
                made = {
                    name: _COLUMNS[name](value) for name, value in zip(_COLUMNS, row, strict=True)
                }
                found.append(Measurement(**made | {"metrics": json.loads(made["metrics"])}))
        if len(found) < len(rows):
            _warn(f"{len(rows) - len(found)} damaged measurements in {self.path} are left out")
        return found

    def _transact(self, work: Callable[[sqlite3.Connection], T]) -> T:
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
                            with contextlib.suppress(sqlite3.OperationalError):  # in use by others
                                db.execute("PRAGMA journal_mode = WAL")  # faster, not safer
                            self._checked = True
                        return _commit(db, work)
                except OSError as error:
                    self._bypass(error)
                except (sqlite3.DatabaseError, UnicodeDecodeError) as error:  # even in its schema
                    code = getattr(error, "sqlite_errorcode", sqlite3.SQLITE_CORRUPT) & 0xFF
                    if code not in _DAMAGE or not self._set_aside(inode, error):
                        self._bypass(error)
            return _commit(self._memory or self._bypass("it is damaged again and again"), work)

    def _inode(self) -> int:
        with contextlib.suppress(OSError):
            return self.path.stat().st_ino
        return 0

    def _set_aside(self, inode: int, error: Exception) -> bool:
        """Rename the file, unless another process has just replaced it; False where that fails."""
        if self._inode() != inode:
            return True
        new = f"{self.path}.damaged-{time.strftime('%Y%m%d-%H%M%S')}-{os.getpid()}"
        try:
            for suffix in ("-wal", "-shm", ""):  # the log first: it must not meet the next file
                with contextlib.suppress(FileNotFoundError):
                    os.replace(f"{self.path}{suffix}", new + suffix)
        except OSError:
            return False
        _warn(f"the store {self.path} is damaged ({error}) and is kept as {new}")
        return True

    def _bypass(self, why: object) -> sqlite3.Connection:
        self._memory = _connect(":memory:")
        _warn(f"the store {self.path} cannot be used ({why}), so measurements are not kept")
        return self._memory


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


def _connect(path: Path | str) -> sqlite3.Connection:
    if isinstance(path, Path):
        path.parent.mkdir(parents=True, exist_ok=True)
    db = sqlite3.connect(path, timeout=60, isolation_level=None, check_same_thread=False)
    db.text_factory = lambda raw: raw.decode(errors="replace")
    return db


def _commit(db: sqlite3.Connection, work: Callable[[sqlite3.Connection], T]) -> T:
    with db:
        db.execute("BEGIN IMMEDIATE")
        if not db.execute("SELECT count(*) FROM sqlite_master").fetchone()[0]:
            for table in _TABLES:
                db.execute(table)
            db.execute(f"PRAGMA application_id = {_APPLICATION}")
        return work(db)


def _check(db: sqlite3.Connection) -> None:
    """Refuse a file that is damaged or not ours."""
    if (damage := db.execute("PRAGMA quick_check(1)").fetchall()) != [("ok",)]:
        raise sqlite3.DatabaseError(" ".join(str(line) for (line,) in damage).split("\n")[-1])
    if db.execute("PRAGMA application_id").fetchone() != (_APPLICATION,):
        raise OSError("it is a database of another program")
    db.execute(
        f"SELECT {_NAMES}, fingerprint FROM measurement JOIN machine ON hash = machine LIMIT 1"
    )


def _dumps(value: object) -> str:
    def plain(number: Any) -> Any:
        if hasattr(number, "tolist"):  # NumPy's scalars and arrays
            return number.tolist()
        raise TypeError(f"metrics must be JSON values, not {type(number).__name__}")

    return json.dumps(value, sort_keys=True, default=plain)


def _warn(sentence: str) -> None:
    warnings.warn(sentence, RuntimeWarning, stacklevel=5)  # where add or select was called

"""Levels: what one problem took on one machine, with the sources of one state and its libraries."""

from __future__ import annotations

import contextlib
import datetime
import hashlib
import json
import math
import re
import statistics
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from numbers import Integral
from typing import Any, NamedTuple

from ..machine.revision import CHANGED
from ..machine.store import Store
from ..measuring import timing

# What is the same machine; its libraries and the sources may change.
_HARDWARE = ("system", "cpu", "cpu_flags", "cpu_features", "cpus", "caches", "variables")
_SYNTHETIC = "synthetic"
_RUNS = 20  # measurements that say how blocks scatter: more take longer to read, and say the same


class Problem(NamedTuple):
    """What was timed: an epoch of a variant on a device, of a network and shape, on some data."""

    variant: str
    device: str
    activation: str
    loss: str
    dtype: str
    n: int
    d: int
    M: int
    K: int
    threads: int
    data: str = _SYNTHETIC

    @property
    def task(self) -> Problem:
        """The same for every variant."""
        return self._replace(variant="")

    def __str__(self) -> str:
        shape = f"n={self.n} d={self.d} M={self.M} K={self.K}"
        data = "" if self.data == _SYNTHETIC else f"{self.data} "
        where = f"{self.threads} threads" if self.device != "cuda" else "cuda"
        return f"{data}{shape} {self.activation} {self.loss} {self.dtype}, {where}"


class Machine(NamedTuple):
    """A machine by what it is made of: a short name for tables, a key of 8 digits."""

    key: str
    name: str

    @classmethod
    def of(cls, signature: Mapping[str, Any]) -> Machine:
        """From a signature, or a fingerprint, of any age."""
        gpus = [str(gpu).partition(",")[0] for gpu in signature.get("gpus", ())]
        made_of = {name: signature.get(name, "") for name in _HARDWARE} | {"gpus": gpus}
        digest = hashlib.sha256(json.dumps(made_of, sort_keys=True).encode()).hexdigest()
        cpus = signature.get("cpus", "?")
        said = [f"{signature.get('cpu') or 'unknown CPU'}, {cpus} CPU{'s' * (cpus != 1)}"]
        said += [*gpus, *map(str, signature.get("variables") or ())]
        return cls(digest[:8], ", ".join(said))


# What the measurements of a level have in common in the store.
_COMMON = (*Problem._fields, "machine", "commit", "tree")
# Numbers also of what is damaged.
_ENDS = ", ".join(
    f"{end}(CAST({name} AS REAL))"
    for end, name in (("min", "time"), ("max", "time"), ("min", "low"), ("max", "high"))
)


@dataclass(frozen=True)
class Level:
    """The measurements of a problem on a machine in one state of sources and libraries.

    times: of the first measurement and the last; seconds: of each, oldest first. within: the
    quartiles of the blocks of a single one. kept: the store, and what they have in common there;
    given: their blocks, where they are in no store.
    """

    problem: Problem
    machine: Machine
    commit: str
    tree: str
    sources: str
    libraries: tuple[str, ...]
    times: tuple[float, float]
    seconds: tuple[float, ...]
    within: tuple[float, float] = (0.0, 0.0)
    kept: tuple[Store, Sequence[str | int]] | None = field(default=None, repr=False, compare=False)
    given: Sequence[Sequence[float]] = field(default=(), repr=False)

    @property
    def median(self) -> float:
        """Seconds an epoch: the median of the measurements' medians."""
        return statistics.median(self.seconds)

    @property
    def state(self) -> str:
        """The commit in short, with a plus where the sources were changed."""
        return (self.commit[:7] or "–") + "+" * (self.tree == CHANGED)

    @cached_property
    def runs(self) -> Sequence[Sequence[float]]:
        """The blocks of the last measurements, seconds an epoch; what is damaged is left out."""
        if self.kept is None:
            return self.given
        mine, found = self.problem.data, _metrics(*self.kept, _RUNS)
        return [
            one["blocks"] for _, one in found
            if one.get("blocks") and one.get("data", mine) == mine
        ]  # fmt: skip

    @property
    def quartiles(self) -> tuple[float, float]:
        """Of the measurements' medians, or of the blocks of a single one."""
        if len(self.seconds) == 1:
            (value,), (low, high) = self.seconds, self.within
            return (low, high) if 0 < low <= value <= high else (value, value)
        low, _, high = statistics.quantiles(self.seconds, n=4, method="inclusive")
        return low, high


@dataclass(frozen=True)
class Wanted:
    """Which measurements are meant; what is empty says nothing.

    machine: a part of its name, or how its key begins; commit: how its id begins, with a plus for
    changed sources on it; since, before: seconds since 1970.
    """

    variants: Sequence[str] = ()
    shape: Sequence[int] = ()
    activation: str = ""
    loss: str = ""
    dtype: str = ""
    device: str = ""
    threads: int = 0
    data: str = ""
    machine: str = ""
    commit: str = ""
    since: float = 0.0
    before: float = 0.0

    def __post_init__(self) -> None:
        texts = {n: getattr(self, n) for n in ("activation", "loss", "dtype", "device", "data")}
        texts |= {"machine": self.machine, "commit": self.commit}
        texts |= {f"variants[{i}]": name for i, name in enumerate(self.variants)}
        for name, value in texts.items():
            if not isinstance(value, str | None):
                raise TypeError(f"{name}: expected text, got {value!r}")
        for name, sizes in (("shape", self.shape), ("threads", (self.threads or 0,))):
            if not all(isinstance(size, Integral) for size in sizes):
                raise TypeError(f"{name}: expected integers, got {getattr(self, name)!r}")

    def conditions(self) -> Iterator[tuple[str, list[str | float]]]:
        """Conditions in SQL on the columns, and their values."""
        yield "kind = ?", ["epoch"]
        if self.variants:
            marks = ", ".join("?" * len(self.variants))
            yield f"variant IN ({marks})", [*self.variants]
        for name in ("activation", "loss", "dtype", "device", "threads"):
            if value := getattr(self, name):
                yield f"{name} = ?", [value if isinstance(value, str) else int(value)]
        for name, size in zip("ndMK", self.shape, strict=False):
            yield f"{name} = ?", [int(size)]
        if self.data:
            older = f'"data": {json.dumps(self.data)}'
            yield "(data = ? OR data = '' AND instr(metrics, ?))", [self.data, older]
        if self.commit:
            commit = self.commit.removesuffix("+")
            yield "substr([commit], 1, ?) = ?", [len(commit), commit]
            yield f"tree {'=' if commit != self.commit else '<>'} ?", [CHANGED]
        if self.since:
            yield "time >= ?", [self.since]
        if self.before:
            yield "time < ?", [self.before]


def machines(store: Store) -> dict[str, dict[str, Any]]:
    """The signature of each state of a machine in a store, by the hash it is kept under."""
    found: dict[str, dict[str, Any]] = {}
    for name, text in store.query("SELECT hash, fingerprint FROM machine"):
        with contextlib.suppress(ValueError):
            found[name] = json.loads(text)
    return found


def select(store: Store, wanted: Wanted) -> tuple[str, list[Any]]:
    """The condition in SQL that a measurement is wanted, and its values.

    Raises ValueError where a machine's name fits none or several, with their list.
    """
    conditions = [*wanted.conditions()]
    if wanted.machine:
        signatures = machines(store)
        of = {name: Machine.of(signature) for name, signature in signatures.items()}
        machine = named(wanted.machine, of.values())
        hashes = [name for name, one in of.items() if one == machine]
        conditions.append((f"machine IN ({', '.join('?' * len(hashes))})", [*hashes]))
    where = " AND ".join(text for text, _ in conditions)
    return where, [value for _, values in conditions for value in values]


def named(text: str, known: Iterable[Machine]) -> Machine:
    """The one machine of that name. Raises ValueError where there is none or several."""
    fit = sorted({
        one for one in known
        if text and (one.key.startswith(text.lower()) or text.lower() in one.name.lower())
    })  # fmt: skip
    if len(fit) == 1:
        return fit[0]
    listed = "; ".join(f"{key} ({name})" for key, name in fit or sorted({*known})) or "none"
    raise ValueError(
        f"machine: expected {'more of ' if fit else ''}a name or key of one of {listed}, "
        f"got {text!r}"
    )


def read(store: Store, wanted: Wanted) -> list[Level]:
    """The levels of a store, each with its measurements."""
    signatures = machines(store)
    of = {name: Machine.of(signature) for name, signature in signatures.items()}
    where, values = select(store, wanted)
    columns = ", ".join(f"[{name}]" for name in _COMMON)
    # Much faster than a row for each measurement; in that index they lie by their time. What is
    # damaged may be a text, which is larger than any number.
    rows = store.query(
        f"SELECT {columns}, {_ENDS}, group_concat(seconds) "
        f"FROM measurement INDEXED BY of_epoch WHERE {where} "
        f"AND (data = '' OR seconds > 0 AND seconds < 9e999) GROUP BY {columns}",
        values,
    )
    found = []
    for *common, first, last, low, high, texts in rows:
        *problem, data, machine, commit, tree = common
        if machine not in of:
            continue
        about = signatures[machine]
        sources = str(about.get("sources", ""))
        libraries = tuple(map(str, about.get("libraries", ())))
        if data:
            measured = {data: ((first, last), tuple(map(float, texts.split(","))), (low, high))}
        else:
            measured = _older(store, common)
        found += [
            Level(
                Problem._make([*problem, name]), of[machine], commit, tree, sources, libraries,
                *figures, (store, common),
            )
            for name, figures in measured.items()
        ]  # fmt: skip
    return found


_Figures = tuple[tuple[float, float], tuple[float, ...], tuple[float, float]]  # of a level


def _older(store: Store, common: Sequence[str | int]) -> dict[str, _Figures]:
    """By their data, measurements of a version that kept data and seconds among the metrics."""
    found: dict[str, list[tuple[float, float, timing.Quartiles]]] = {}
    for time, metrics in _metrics(store, common):
        with contextlib.suppress(TypeError, ValueError):
            seconds = float(metrics.get("seconds", 0.0))
            if 0 < seconds < math.inf:
                spread = timing.quartiles(metrics.get("blocks") or [seconds])
                entry = time, seconds, spread
                found.setdefault(metrics.get("data", _SYNTHETIC), []).append(entry)
    return {
        data: (
            (members[0][0], members[-1][0]), tuple(seconds for _, seconds, _ in members),
            (members[0][2].low, members[0][2].high),
        )
        for data, members in found.items()
    }  # fmt: skip


def _metrics(
    store: Store, common: Sequence[str | int], most: int = -1
) -> list[tuple[float, dict[str, Any]]]:
    """When, and the metrics, of the last measurements that have that in common, oldest first."""
    where = " AND ".join(f"[{name}] = ?" for name in _COMMON)
    rows = store.query(
        f"SELECT time, metrics FROM measurement WHERE kind = 'epoch' AND {where} "
        "ORDER BY time DESC LIMIT ?",
        [*common, most],
    )
    found = []
    for time, text in reversed(rows):
        with contextlib.suppress(ValueError):  # what is damaged is left out
            metrics = json.loads(text)
            if isinstance(metrics, dict):
                found.append((time, metrics))
    return found


def day(time: float) -> str:
    """A moment's date, here."""
    return datetime.datetime.fromtimestamp(time).strftime("%Y-%m-%d")


def moment(argument: str, text: str | None) -> float:
    """Seconds since 1970 of "2026-11-28", or of "30d", so many days ago. Raises ValueError."""
    if text is None:
        return 0.0
    with contextlib.suppress(ValueError, OverflowError, OSError):
        if days := re.fullmatch(r"(\d{1,6})d", text):
            now = datetime.datetime.now()
            return (now - datetime.timedelta(days=int(days[1]))).timestamp()
        return datetime.datetime.fromisoformat(text).timestamp()
    raise ValueError(f"{argument}: expected a date as 2026-11-28, or days as 30d, got {text!r}")

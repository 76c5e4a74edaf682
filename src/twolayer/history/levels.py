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
from typing import Any, NamedTuple

from ..machine.revision import CHANGED
from ..machine.store import Store

# What is the same machine; its libraries and the sources may change.
_HARDWARE = ("system", "cpu", "cpu_flags", "cpu_features", "cpus", "caches", "variables")
_SYNTHETIC = "synthetic"
# In the JSON of metrics, whose names are sorted: seconds come last, and those of what is nested, as
# how long was looked for other programs, are others.
_SECONDS = '"seconds": '
_DATA = re.compile(r'"data": "([^"\\]*)"')


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


@dataclass(frozen=True)
class Level:
    """The measurements of a problem on a machine in one state of sources and libraries.

    times, seconds: of each measurement, oldest first. runs: the blocks of each, seconds an epoch.
    texts: their metrics, a line of JSON each; given: their runs, where there are no texts.
    """

    problem: Problem
    machine: Machine
    commit: str
    tree: str
    sources: str
    libraries: tuple[str, ...]
    times: tuple[float, ...]
    seconds: tuple[float, ...]
    texts: Sequence[str] = field(default=(), repr=False)
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
    def metrics(self) -> list[dict[str, Any]]:
        """What else was kept of each measurement; what is damaged is left out."""
        found = []
        for text in self.texts:
            with contextlib.suppress(ValueError):
                found.append(json.loads(text))
        return found

    @property
    def runs(self) -> Sequence[Sequence[float]]:
        """The blocks of each measurement."""
        return self.given or [one["blocks"] for one in self.metrics if one.get("blocks")]

    @property
    def quartiles(self) -> tuple[float, float]:
        """Of the measurements' medians, or of the blocks of a single one."""
        values = [*self.seconds]
        if len(values) == 1:
            values = [*self.runs[0]] if self.runs else values
        if len(values) == 1:
            return values[0], values[0]
        low, _, high = statistics.quantiles(values, n=4, method="inclusive")
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

    def conditions(self) -> Iterator[tuple[str, list[str | float]]]:
        """Conditions in SQL on the columns, and their values."""
        yield "kind = ?", ["epoch"]
        if self.variants:
            marks = ", ".join("?" * len(self.variants))
            yield f"variant IN ({marks})", [*self.variants]
        for name in ("activation", "loss", "dtype", "device", "threads"):
            if value := getattr(self, name):
                yield f"{name} = ?", [value]
        for name, size in zip("ndMK", self.shape, strict=False):
            yield f"{name} = ?", [size]
        if self.data:
            yield "instr(metrics, ?)", [f'"data": {json.dumps(self.data)}']
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
    columns = ", ".join(
        f"[{name}]" for name in (*Problem._fields[:-1], "machine", "commit", "tree")
    )
    # Much faster than a row for each measurement.
    rows = store.query(
        f"SELECT {columns}, group_concat(time), group_concat(metrics, char(10)) "
        f"FROM measurement WHERE {where} GROUP BY {columns}",
        values,
    )
    found = []
    for *problem, machine, commit, tree, times, texts in rows:
        if machine not in of:
            continue
        about = signatures[machine]
        sources = str(about.get("sources", ""))
        libraries = tuple(map(str, about.get("libraries", ())))
        for data, (when, seconds, lines) in _measured(times, texts).items():
            found.append(
                Level(
                    Problem._make([*problem, data]), of[machine], commit, tree, sources, libraries,
                    when, seconds, lines,
                )
            )  # fmt: skip
    return found


def _measured(
    times: str, texts: str
) -> dict[str, tuple[tuple[float, ...], tuple[float, ...], list[str]]]:
    """Times, seconds and metrics of measurements by their data, oldest first.

    Read as text, for JSON takes five times as long. What is damaged is left out.
    """
    when, lines = [*map(float, times.split(","))], texts.split("\n")
    if len(lines) != len(when):
        return {}
    values = [*map(_seconds, lines)]
    data = [_SYNTHETIC] * len(when)
    if texts.count(f'"data": "{_SYNTHETIC}"') != len(when):
        data = [found[1] if (found := _DATA.search(line)) else _SYNTHETIC for line in lines]
    order: Sequence[int] = range(len(when))
    if when != sorted(when):
        order = sorted(order, key=when.__getitem__)
    made = {}
    for name in dict.fromkeys(data):
        mine = [i for i in order if 0 < values[i] < math.inf and data[i] == name]
        if mine:
            made[name] = (
                tuple(when[i] for i in mine),
                tuple(values[i] for i in mine),
                [lines[i] for i in mine],
            )
    return made


def _seconds(line: str) -> float:
    """The time in the JSON of metrics; 0 where there is none."""
    try:
        return float(line[line.rindex(_SECONDS) + len(_SECONDS) : -1])
    except ValueError:
        return 0.0


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

"""Machines measured so far, a JSON file each: which variant wins where, how far from the limit."""

from __future__ import annotations

import contextlib
import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from ..machine.atomic import replacing
from ..machine.hardware import signature
from ..machine.store import Store
from ..network import Shape
from . import files
from .levels import Level, Machine, Problem, Wanted, day, read, select

SCHEMA = 1
_FACTS = ("system", "cpu", "cpus", "cores", "caches", "gpus", "python", "libraries", "blas")

Limits = Mapping[tuple[str, int], tuple[float, float]]


@dataclass(frozen=True)
class Figure:
    """What a problem took: seconds an epoch with quartiles, when, and at which commit."""

    problem: Problem
    seconds: float
    low: float
    high: float
    commit: str
    date: str


@dataclass(frozen=True)
class Measured:
    """A machine: what it is, its limits in flops and bytes a second, and its figures."""

    machine: Machine
    facts: Mapping[str, Any]
    limits: Limits
    figures: Sequence[Figure]

    def share(self, figure: Figure) -> float | None:
        """The least time that the limits allow over the measured one; None where unknown."""
        one = figure.problem
        if one.device != "cpu" and one.threads:  # a GPU's epoch in a race whose limits are a CPU's
            return None
        limits = self.limits.get((one.dtype, one.threads))
        if limits is None:
            return None
        shape = Shape(one.n, one.d, one.M, one.K)
        least = max(shape.flops() / limits[0], shape.bytes(one.dtype) / limits[1])
        return least / figure.seconds

    def races(self) -> dict[Problem, list[Figure]]:
        """The figures of each problem, the fastest first."""
        found: dict[Problem, list[Figure]] = {}
        for figure in sorted(self.figures, key=lambda one: one.seconds):
            found.setdefault(figure.problem.task, []).append(figure)
        order = sorted(found, key=lambda one: (one.device, one.dtype, one[2:9], one))
        return {task: found[task] for task in order}


def of_store(store: Store) -> Measured:
    """This machine, as its store knows it. Raises ValueError where nothing was measured."""
    here = Machine.of(signature())
    levels = [level for level in read(store, Wanted()) if level.machine == here]
    if not levels:
        raise ValueError(
            "machines: expected figures of this machine, got none: run `twolayer bench`"
        )
    limits: dict[tuple[str, int], tuple[float, float]] = {}
    where, values = select(store, Wanted(machine=here.key))
    for dtype, threads, text in store.query(
        f"SELECT dtype, threads, metrics FROM measurement WHERE {where}", values
    ):
        with contextlib.suppress(ValueError):  # what is damaged is left out
            one = json.loads(text)
            flops, bandwidth = limits.get((dtype, threads), (0.0, 0.0))
            found = max(flops, one.get("flops", 0.0)), max(bandwidth, one.get("bandwidth", 0.0))
            if min(found) > 0:
                limits[dtype, threads] = found
    return Measured(here, _facts(signature()), limits, [*map(_figure, _newest(levels))])


def of_file(path: Path) -> Measured:
    """The machine of a file of `bench` or `gpu`. Raises ValueError where nothing was timed."""
    found = files.load(path)
    if not found.levels:
        raise ValueError(f"file: expected figures, got {str(path)!r}, where nothing was timed")
    machine = found.levels[0].machine
    return Measured(machine, _facts(found.about), found.limits, [*map(_figure, found.levels)])


def _newest(levels: Iterable[Level]) -> list[Level]:
    """Of each problem the levels of the state that was measured last: these were one race."""
    races: dict[Problem, list[Level]] = {}
    for level in levels:
        races.setdefault(level.problem.task, []).append(level)
    found = []
    for members in races.values():
        last = max(members, key=lambda one: one.times[-1])
        found += [
            one for one in members
            if (one.commit, one.sources, one.libraries)
            == (last.commit, last.sources, last.libraries)
        ]  # fmt: skip
    return found


def _figure(level: Level) -> Figure:
    return Figure(level.problem, level.median, *level.quartiles, level.state, day(level.times[-1]))


def _facts(about: Mapping[str, Any]) -> dict[str, Any]:
    return {name: about[name] for name in _FACTS if about.get(name)}


def add(folder: Path, found: Measured) -> Path:
    """Write a machine's file, or replace the one it had; other problems in that one are kept."""
    path = place(folder, found.machine)
    figures = {figure.problem: figure for figure in found.figures}
    limits = dict(found.limits)
    if path.exists():
        old = load(path)
        raced = {problem.task for problem in figures}
        figures |= {one.problem: one for one in old.figures if one.problem.task not in raced}
        for kind, (flops, bandwidth) in old.limits.items():  # what a machine could do, it can
            now = limits.get(kind, (0.0, 0.0))
            limits[kind] = max(flops, now[0]), max(bandwidth, now[1])
    report = {
        "schema": SCHEMA,
        "key": found.machine.key,
        "name": found.machine.name,
        "machine": found.facts,
        "limits": [
            {"dtype": dtype, "threads": threads, "flops": flops, "bandwidth": bandwidth}
            for (dtype, threads), (flops, bandwidth) in sorted(limits.items())
        ],
        "figures": [
            one.problem._asdict() | {k: v for k, v in asdict(one).items() if k != "problem"}
            for one in sorted(figures.values(), key=lambda one: one.problem)
        ],
    }
    folder.mkdir(parents=True, exist_ok=True)
    with replacing(path) as file:
        file.write((json.dumps(report, indent=1, ensure_ascii=False) + "\n").encode())
    return path


def place(folder: Path, machine: Machine) -> Path:
    """Where a machine's file lies."""
    slug = re.sub(r"[^a-z0-9]+", "-", re.sub(r"\((r|tm)\)", "", machine.name.lower())).strip("-")
    return folder / f"{slug[:60]}-{machine.key}.json"


def load(path: Path) -> Measured:
    """A machine's file. Raises ValueError for what is none."""
    try:
        report = json.loads(path.read_text(encoding="utf-8"))
        if report["schema"] != SCHEMA:
            raise ValueError(f"schema {report['schema']}")
        limits = {
            (one["dtype"], one["threads"]): (one["flops"], one["bandwidth"])
            for one in report["limits"]
        }
        names = ("seconds", "low", "high", "commit", "date")
        figures = [
            Figure(Problem(*(one[k] for k in Problem._fields)), *(one[k] for k in names))
            for one in report["figures"]
        ]
        return Measured(Machine(report["key"], report["name"]), report["machine"], limits, figures)
    except (OSError, KeyError, TypeError, ValueError, AttributeError) as error:
        raise ValueError(
            f"folder: expected files that `twolayer machines --add` wrote, got {str(path)!r}: "
            f"{error}"
        ) from None


def load_all(folder: Path) -> list[Measured]:
    """The machines of a folder, by name."""
    found = [load(path) for path in folder.glob("*.json")]
    return sorted(found, key=lambda one: one.machine[::-1])

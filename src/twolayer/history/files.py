"""Figures from the JSON files that `twolayer bench` writes, on a CPU and on a GPU."""

from __future__ import annotations

import datetime
import json
import re
import statistics
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from ..measuring import timing
from .levels import Level, Machine, Problem

_SHAPE = re.compile(r"n=(\d+) d=(\d+) M=(\d+) K=(\d+)")


class Read(NamedTuple):
    """What a file has: levels, why others are left out, the machine as it says, and its limits.

    limits: flops and bytes a second by dtype and threads, 0 threads for a GPU.
    """

    levels: list[Level]
    skipped: dict[Problem, str]
    about: Mapping[str, Any]
    limits: dict[tuple[str, int], tuple[float, float]]


def load(path: Path) -> Read:
    """The figures of a file. Raises ValueError for one that is none of `bench` or `gpu`."""
    try:
        report = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        why = error.strerror if isinstance(error, OSError) else "it is no JSON"
        raise ValueError(
            f"file: expected one of `bench --json` or `gpu --json`, got {str(path)!r}: {why}"
        ) from None
    try:
        return _load(report)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        lacks = f"lacks {error}" if isinstance(error, KeyError) else "is another kind of JSON"
        raise ValueError(
            f"file: expected epochs as `bench --json` writes them, got {str(path)!r}, which {lacks}"
        ) from None


def _load(report: Mapping[str, Any]) -> Read:
    about = report["machine"]
    machine, found, skipped = Machine.of(about), [], {}
    state = report.get("commit", report.get("revision", "")), report.get("tree", "")
    when = _moment(report)
    gpu = "workloads" not in report
    for problem, seconds, blocks, why in (_cuda if gpu else _cpu)(report):
        if why:
            skipped[problem] = why
        elif seconds > 0:
            low, _, high = timing.quartiles(blocks or [seconds])
            found.append(
                Level(
                    problem, machine, *state, str(about.get("sources", "")),
                    tuple(about.get("libraries", ())), (when, when), (seconds,), (low, high),
                    given=(blocks,),
                )
            )  # fmt: skip
    if gpu:
        ceilings = report["ceilings"]
        kinds = ceilings
        if "flops" in ceilings:  # of one dtype
            kinds = dict.fromkeys({one["dtype"] for one in report["results"]}, ceilings)
        limits = {(dtype, 0): (one["flops"], one["bandwidth"]) for dtype, one in kinds.items()}
    else:
        roof = report["roofline"]
        dtypes = {one["dtype"] for one in report["workloads"]}
        limits = {(d, report["threads"]): (roof["flops"], roof["bandwidth"]) for d in dtypes}
    return Read(found, skipped, about, limits)


def _cpu(report: Mapping[str, Any]) -> Iterator[tuple[Problem, float, list[float], str]]:
    for one in report["workloads"]:
        names = ("activation", "loss", "dtype", "n", "d", "M", "K")
        about = [one[name] for name in names] + [report["threads"], one.get("data", "synthetic")]
        for entry in one["variants"]:
            problem = Problem(entry["variant"], entry["device"], *about)
            if "seconds" in entry:
                yield problem, entry["seconds"], entry["blocks"], ""
            else:
                yield problem, 0.0, [], entry["skipped"]


def _cuda(report: Mapping[str, Any]) -> Iterator[tuple[Problem, float, list[float], str]]:
    """Of `gpu --json`, and of tools/gpu/gpu_check.py, which has races by their names."""
    records = report.get("results") or [
        record
        for name, members in report.items() if name.startswith("race ")
        for record in members.values() if "variant" in record
    ]  # fmt: skip
    for one in records:
        shape = _SHAPE.fullmatch(one["shape"])
        if shape is None:
            raise ValueError("a shape")
        net = one.get("activation", "tanh"), one.get("loss", "squared")
        n, d, M, K = map(int, shape.groups())
        problem = Problem(one["variant"], "cuda", *net, one["dtype"], n, d, M, K, 0)
        blocks = one.get("all_seconds", [])
        yield problem, statistics.median(blocks) if blocks else 0.0, blocks, one["skipped"]


def _moment(report: Mapping[str, Any]) -> float:
    try:
        return datetime.datetime.fromisoformat(report["date"]).timestamp()
    except (KeyError, ValueError):
        return 0.0

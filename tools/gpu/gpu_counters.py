"""Counters of every kernel of an epoch, by NVIDIA's ncu."""

from __future__ import annotations

import csv
import re
import shutil
import subprocess
import sys
from typing import Any

from twolayer.network import Shape

# A column of the tables: its counter, and what to multiply it by.
COUNTERS = {
    "µs": ("gpu__time_duration.sum", 1e-3),
    "registers": ("launch__registers_per_thread", 1.0),
    "issue %": ("smsp__issue_active.avg.pct_of_peak_sustained_active", 1.0),
    "DRAM MB": ("dram__bytes.sum", 1e-6),
}
_EPOCH = """
from numba import cuda
import twolayer as tl
from twolayer.checking import cases
case = cases.problem(tl.Network("tanh", "squared"), tl.Shape{shape}, "float32")
plan = tl.variants.get("{name}").plan(*case[1:])
for _ in range(2):
    plan.step(1e-6)
cuda.profile_start()
plan.step(1e-6)
cuda.profile_stop()
"""


def program() -> str | None:
    """Where ncu is."""
    return shutil.which("ncu") or shutil.which("ncu", path="/usr/local/cuda/bin")


def measure(name: str, shape: Shape) -> list[dict[str, Any]]:
    """A row of counters for each kernel of a warm epoch. Raises RuntimeError where ncu fails."""
    metrics = ",".join(counter for counter, _ in COUNTERS.values())
    done = subprocess.run(
        [
            str(program()), "--profile-from-start", "off", "--clock-control", "none", "--csv",
            "--page", "raw", "--print-units", "base", "--metrics", metrics,
            sys.executable, "-c", _EPOCH.format(name=name, shape=tuple(shape)),
        ],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    found = rows(done.stdout)
    if done.returncode or not found:
        raise RuntimeError((done.stdout + done.stderr)[-2000:] or "ncu printed nothing")
    return found


def rows(text: str) -> list[dict[str, Any]]:
    """The rows of ncu's raw page: kernel, grid, block, and the columns of `COUNTERS`."""
    lines = [line for line in text.splitlines() if line.startswith('"')]
    found = []
    for line in csv.DictReader(lines):
        if not line["ID"]:  # the row of units
            continue
        figures = {
            column: round(float(line[counter].replace(",", "")) * factor, 2)
            for column, (counter, factor) in COUNTERS.items()
        }
        kernel = {"kernel": short(line["Kernel Name"])}
        found.append(kernel | {k.lower(): line[f"{k} Size"] for k in ("Grid", "Block")} | figures)
    return found


def short(name: str) -> str:
    """The last two names of a kernel, without what its types add."""
    names = [
        part for part in re.split(r"\[abi|[(<]", name)[0].split("::") if "locals" not in part
    ]  # fmt: skip
    return ".".join(names[-2:])

"""What of a processor the code in explicit vectors depends on."""

from __future__ import annotations

import os
import re
from typing import NamedTuple

import llvmlite.binding as llvm
from numba.core import config

from .settings import VECTOR_BYTES as VARIABLE


class Target(NamedTuple):
    """A processor's vector registers: the bytes of one, and how many there are."""

    vector_bytes: int
    registers: int

    @property
    def heights(self) -> tuple[int, ...]:
        """Rows of the register tiles, the tallest first; whatever is left over ends in single rows.

        Two vectors of b, one of a, the sums: 12 x 2 of 32 registers, 6 x 2 of 16. A dozen
        independent sums also cover the latency of the multiply-add.
        """
        return (12, 8, 4, 2, 1) if self.registers >= 32 else (6, 4, 2, 1)

    @property
    def height(self) -> int:
        """Rows of the tallest tile."""
        return self.heights[0]

    @property
    def name(self) -> str:
        """What tells code for this target from code for another."""
        return f"{self.vector_bytes}x{self.registers}"

    def lanes(self, itemsize: int) -> int:
        """Numbers in one register."""
        return self.vector_bytes // itemsize


# What the variable may be set to: SSE's vectors, NEON's, AVX2's, AVX-512's.
TARGETS = {
    "16": Target(16, 16),
    "16x32": Target(16, 32),
    "32": Target(32, 16),
    "64": Target(64, 32),
}


def _host() -> Target:
    features = llvm.get_host_cpu_features()
    if config.CPU_FEATURES is not None:  # what code is to be compiled for, as Numba reads it
        features = dict.fromkeys(re.findall(r"\+([\w.-]+)", config.CPU_FEATURES), True)
    if features.get("avx512f"):
        return TARGETS["64"]
    if features.get("avx2"):
        return TARGETS["32"]
    return TARGETS["16x32" if features.get("neon") else "16"]


def _chosen(text: str | None) -> Target:
    """The target of that name; this machine's for None."""
    if text is None:
        return _host()
    if text not in TARGETS:
        raise ValueError(f"{VARIABLE}: expected one of {', '.join(TARGETS)}, got {text!r}")
    return TARGETS[text]


TARGET = _chosen(os.environ.get(VARIABLE))

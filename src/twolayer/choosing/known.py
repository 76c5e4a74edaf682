"""What this machine's store knows: models, starts and answers, as long as they hold.

They hold for the signature of a machine: its processor, libraries and these sources. What was
measured under another one is not found, and so measured anew. Each entry carries a digest of
itself: one whose bytes were changed inside is not found either.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
from collections.abc import Mapping
from functools import cache
from typing import Any

from .. import machine
from ..store import Measurement, Store, machine_hash
from .model import Model

MODEL, START, ANSWER = "cost model", "start of a process", "choice"
_SEAL = "seal"


@cache
def here() -> str:
    """The name of this machine's signature."""
    return machine_hash(machine.signature())


def keep(store: Store, kind: str, metrics: Mapping[str, Any], **about: Any) -> None:
    """Keep an entry of that kind; about: fields of a Measurement."""
    sealed = {**metrics, _SEAL: _digest(metrics)}
    store.add(Measurement(kind=kind, metrics=sealed, **about), machine.signature())


def find(store: Store, kind: str, **about: Any) -> list[Mapping[str, Any]]:
    """The entries of that kind which hold here, oldest first, without what is damaged."""
    found: list[Mapping[str, Any]] = []
    for row in store.select(kind=kind, machine=here(), **about):
        metrics = dict(row.metrics)
        if metrics.pop(_SEAL, None) == _digest(metrics):
            found.append({**metrics, "variant": row.variant})
    return found


def _digest(metrics: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(metrics, sort_keys=True).encode()).hexdigest()[:16]


class Calibrated:
    """A variant's part of the calibration: its model, or why it may not be chosen here."""

    def __init__(self, entry: Mapping[str, Any], dtype: str, threads: int) -> None:
        self.source: str = entry["source"]
        self.failure: str = entry["failure"]
        self.model: Model | None = None
        if not self.failure:
            self.model = Model(
                entry["variant"], dtype, threads, entry["coefficients"], entry["spread"],
                tuple(entry["setup"]), entry["samples"],
            )  # fmt: skip


def calibrated(
    store: Store, variant: str, device: str, dtype: str, threads: int
) -> Calibrated | None:
    """What is known of a variant on a device, at that dtype and number of threads."""
    about = {"variant": variant, "device": device, "dtype": dtype, "threads": threads}
    for entry in reversed(find(store, MODEL, **about)):
        with contextlib.suppress(KeyError, TypeError):  # of another make
            return Calibrated(entry, dtype, threads)
    return None


def start(store: Store, variant: str, device: str) -> tuple[float, float] | None:
    """Seconds of a process until its first epoch: with code on disk, and with nothing compiled."""
    for entry in reversed(find(store, START, variant=variant, device=device)):
        with contextlib.suppress(KeyError):
            return entry["cached"], entry["cold"]
    return None

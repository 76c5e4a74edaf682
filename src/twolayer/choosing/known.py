"""What this machine's store knows: models, starts and answers, as long as they hold."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from typing import Any

from ..machine.store import Store, find, keep
from .model import Model

__all__ = ["ANSWER", "MODEL", "START", "Calibrated", "calibrated", "find", "keep", "start"]

MODEL, START, ANSWER = "cost model", "start of a process", "choice"


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

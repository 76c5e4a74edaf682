"""What this machine's store knows: answers, and what starts of processes took."""

from __future__ import annotations

import contextlib
import math

from ..machine.store import Store, find, keep, machine_hash
from .choice import Question

__all__ = ["ANSWER", "START", "find", "keep", "start", "winners"]

START, ANSWER = "start of a process", "choice"


def start(store: Store, variant: str, device: str, cold: bool) -> list[float] | None:
    """Seconds of processes until their first step: with nothing compiled, or with code on disk."""
    for entry in reversed(find(store, START, variant=variant, device=device)):
        with contextlib.suppress(KeyError, TypeError):  # of another make
            if entry["cold"] is cold:
                return [float(seconds) for seconds in entry["seconds"]]
    return None


def winners(store: Store, q: Question) -> list[str]:
    """The variants that were chosen on this machine, that for the most similar sizes first."""

    def distance(sizes: tuple[int, ...]) -> float:
        mine = (q.n, q.d, q.M, q.K)
        return sum(math.log(a / b) ** 2 for a, b in zip(sizes, mine, strict=True))

    rows = store.select(kind=ANSWER, machine=machine_hash())
    near = sorted((distance((row.n, row.d, row.M, row.K)), row.variant) for row in rows)
    return list(dict.fromkeys(name for _, name in near))

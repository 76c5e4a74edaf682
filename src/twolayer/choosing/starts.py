"""What a new process pays before its first step, measured once for a machine."""

from __future__ import annotations

from collections.abc import Callable

from ..interface import Variant
from ..machine.calm import Watch
from ..machine.store import Store
from ..measuring import startup
from ..measuring.race import Workload
from ..network import Network, Shape
from . import known
from .choice import Span
from .field import source

_WORKLOAD = Workload(Network("tanh", "squared"), Shape(33, 17, 13, 1))
PROCESSES = 5


def start(
    store: Store, variant: Variant, cold: bool, fresh: bool, progress: Callable[[str, int], None]
) -> Span | None:
    """Seconds of processes until their first step, kept or measured now; None for a file's variant.

    Arguments: cold, whether nothing is compiled; fresh, whether it is measured anew;
    progress(name, units), called with a unit for each of `PROCESSES`. Raises RuntimeError where no
    process can.
    """
    if source(variant):
        return None
    seconds = None if fresh else known.start(store, variant.name, variant.device, cold)
    if seconds is None:
        what = f"{variant.name}, start of a process"
        seconds, watch = [], Watch()
        if not cold:
            progress(what, 0)
            startup.once(variant, _WORKLOAD, 1, cold)  # compiles what the others find on disk
        for _ in range(PROCESSES):
            progress(what, 0)
            seconds.append(startup.once(variant, _WORKLOAD, 1, cold))
            progress(what, 1)
        if not watch.calm().reasons:
            entry = {"cold": cold, "seconds": seconds}
            known.keep(store, known.START, entry, variant=variant.name, device=variant.device)
    else:
        progress("", PROCESSES)
    return Span.of(seconds)

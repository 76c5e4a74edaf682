"""What a new process pays before its first epoch, measured once for a machine."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

from ..interface import Variant
from ..machine.hardware import cpu_count
from ..machine.store import Store
from ..measuring import startup
from ..measuring.race import Workload
from ..network import Network, Shape
from . import known
from .calibrate import Progress, source

_WORKLOAD = Workload(Network("tanh", "squared"), Shape(33, 17, 13, 1))


def missing(store: Store, variants: Sequence[Variant], fresh: bool = False) -> list[Variant]:
    """The variants whose start is not known, or all if fresh; of a single file's it never is."""
    return [
        v for v in variants
        if not source(v) and (fresh or known.start(store, v.name, v.device) is None)
    ]  # fmt: skip


def time_starts(
    store: Store, variants: Sequence[Variant], progress: Progress = lambda name, done: None
) -> dict[str, str]:
    """Time the start of each variant, first with nothing compiled, then again.

    Two at a time where there are two CPUs: none of it uses more than one. progress(name, units) is
    called with one unit for each variant. Returns those that failed, of which nothing is kept, and
    why.
    """
    failed = {}

    def run(variant: Variant) -> tuple[Variant, startup.Start]:
        return variant, startup.start(variant, _WORKLOAD, threads=1, repeats=1)

    with ThreadPoolExecutor(min(2, cpu_count())) as pool:
        for variant, found in pool.map(run, variants):
            if found.failure:
                failed[variant.name] = f"did not start in a new process: {found.failure}"
            else:
                known.keep(
                    store, known.START, found._asdict(), variant=variant.name, device=variant.device
                )
            progress(f"{variant.name}, start of a process", 1)
    return failed

"""What was measured before: over commits, side by side, and on other machines.

`frame()` gives it to programs; the commands `history`, `compare` and `machines` show it.
"""

from __future__ import annotations

import datetime
from collections.abc import Iterable, Sequence
from typing import Any

from ..machine import revision
from ..machine.store import Store
from .levels import Level, Machine, Problem, Wanted, moment, read, select
from .series import Series, Step, series

__all__ = [
    "Level", "Machine", "Problem", "Series", "Step", "Wanted", "count", "find", "frame", "moment",
    "records",
]  # fmt: skip


def find(store: Store, wanted: Wanted) -> list[Series]:
    """The series of a store, the one that was measured last first."""
    levels = read(store, wanted)
    return series(levels, revision.log({level.commit for level in levels} - {""}))


def records(found: Iterable[Series]) -> list[dict[str, Any]]:
    """A record for each level: what, where, at which commit, seconds with quartiles, and its step.

    step: the ratio to the level before, None where there is none.
    """
    made = []
    for one in found:
        steps = {id(step.level): step for step in one.steps}
        for level in one.levels:
            low, high = level.quartiles
            step = steps.get(id(level))
            made.append(
                one.problem._asdict()
                | {
                    "machine": one.machine.key, "machine_name": one.machine.name,
                    "commit": level.commit, "tree": level.tree, "sources": level.sources,
                    "first": _utc(level.times[0]), "last": _utc(level.times[-1]),
                    "measurements": len(level.seconds), "seconds": level.median, "low": low,
                    "high": high, "step": None if step is None else step.ratio,
                    "libraries": ", ".join(level.libraries),
                }
            )  # fmt: skip
    return made


def frame(
    variants: Sequence[str] | str = (), shape: Sequence[int] = (), store: Store | None = None,
    *, since: str | None = None, before: str | None = None, **about: Any,
) -> Any:  # fmt: skip
    """The history as a pandas data frame, or a list of dicts where pandas is not installed.

    A row for each problem, machine and commit. Arguments: variants, names; shape, (n, d, M, K);
    store, by default the user's; since, before: a date, or days as "30d"; about: activation, loss,
    dtype, device, threads, data, machine, commit, as in `Wanted`.
    """
    names = [variants] if isinstance(variants, str) else [*variants]
    about |= {"since": moment("since", since), "before": moment("before", before)}
    made = records(find(store or Store(), Wanted(names, [*shape], **about)))
    try:
        import pandas
    except ImportError:
        return made
    return pandas.DataFrame(made)


def count(store: Store, wanted: Wanted) -> list[int]:
    """The ids of the measurements that are wanted."""
    where, values = select(store, wanted)
    return [one for (one,) in store.query(f"SELECT id FROM measurement WHERE {where}", values)]


def _utc(time: float) -> str:
    return datetime.datetime.fromtimestamp(time, datetime.UTC).isoformat(timespec="seconds")

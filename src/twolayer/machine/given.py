"""The CPUs and variables of this process, as they were before a library changed them.

An OpenMP runtime ties the thread that starts it to some of the CPUs; Dask sets variables.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager

# Where one of these is set, the thread that starts OpenMP's others is left with a part of the CPUs.
VARIABLES = ("OMP_PROC_BIND", "OMP_PLACES", "GOMP_CPU_AFFINITY", "KMP_AFFINITY")


def _of_this_thread() -> set[int]:
    if hasattr(os, "sched_getaffinity"):
        return set(os.sched_getaffinity(0))
    return set(range(os.cpu_count() or 1))


_at_import = _of_this_thread()
ENVIRONMENT = dict(os.environ)


def allowed_cpus() -> set[int]:
    """The CPUs that threads of this process may run on, whichever of them asks."""
    if not any(name in os.environ for name in VARIABLES):
        return _of_this_thread()
    return (_at_import & _listed(os.environ.get("GOMP_CPU_AFFINITY", ""))) or _at_import


def _listed(text: str) -> set[int]:
    """The CPUs of a list as GNU's OpenMP takes it: 0, 0-3 or 0-7:2, with commas or blanks."""
    found: set[int] = set()
    for first, last, step in re.findall(r"(\d+)(?:-(\d+)(?::(\d+))?)?", text):
        found.update(range(int(first), int(last or first) + 1, int(step or 1) or 1))
    return found


@contextmanager
def unbound() -> Iterator[None]:
    """Let what is started inside have all CPUs: a process inherits those of the starting thread."""
    mine, all_of_them = _of_this_thread(), allowed_cpus()
    if mine == all_of_them:
        yield
        return
    os.sched_setaffinity(0, all_of_them)
    try:
        yield
    finally:
        os.sched_setaffinity(0, mine)

"""What a forked child may use: locks that it finds free, and no threads of its parent's."""

from __future__ import annotations

import os
import threading
import weakref
from collections.abc import Callable
from typing import Any

_held: weakref.WeakKeyDictionary[Any, dict[str, Callable[[], Any]]] = weakref.WeakKeyDictionary()


def renewed(owner: Any, name: str, make: Callable[[], Any] = threading.Lock) -> Any:
    """What make() returns; a forked child sets owner.name to a new one.

    A child has its parent's locks as they were at the fork, but not the threads that held them: it
    would wait for ever. owner, a module or an object with that attribute. Who is inside the lock
    and forks leaves the old one in the child too, as `with` keeps what it entered.
    """
    _held.setdefault(owner, {})[name] = make
    return make()


def refuse(process: int, what: str) -> None:
    """Raise RuntimeError where this process was forked from one that ran `what` on its threads."""
    if process != os.getpid():
        raise RuntimeError(
            f"threads: process {os.getpid()} was forked from process {process} after that had run "
            f"{what}, and its threads were not copied: start processes with "
            "multiprocessing.get_context('spawn')"
        )


def _after_fork() -> None:
    for owner, names in list(_held.items()):
        for name, make in names.items():
            setattr(owner, name, make())


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)

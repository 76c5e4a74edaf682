"""Thread pools kept apart: Numba's parallel regions and the threads of BLAS libraries."""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from typing import Any

import numba
from threadpoolctl import ThreadpoolController

from .forks import refuse, renewed

_forked_from: int | None = None  # the process whose Numba thread pool this one has no threads of
_one_at_a_time = renewed(sys.modules[__name__], "_one_at_a_time")


def _pool_launched() -> bool:
    try:
        return bool(numba.threading_layer())
    except ValueError:
        return False


def _after_fork() -> None:
    global _forked_from
    if _pool_launched():
        _forked_from = os.getppid()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)


class numba_threads:
    """Run Numba's parallel kernels on `threads` threads, or all that Numba has, inside the context.

    Raises RuntimeError in a forked child of a process that ran such a kernel: GNU OpenMP would kill
    the child, and other pools are not there any more. Under the workqueue layer, which dies when
    entered twice, callers take turns. Calls of Numba take as long as a small problem's epoch.
    """

    def __init__(self, threads: int) -> None:
        self._threads = threads
        self._turn: Any = None

    def __enter__(self) -> None:
        if _forked_from is not None:
            refuse(_forked_from, "a parallel kernel")
        self._before = numba.get_num_threads()  # launches the pool, so that its layer is known
        self._wanted = min(self._threads, numba.config.NUMBA_NUM_THREADS)
        if numba.threading_layer() == "workqueue":
            self._turn = _one_at_a_time
            self._turn.acquire()
        if self._before != self._wanted:
            numba.set_num_threads(self._wanted)

    def __exit__(self, *raised: object) -> None:
        if self._before != self._wanted:
            numba.set_num_threads(self._before)
        if self._turn is not None:
            self._turn.release()


class _Users:
    """The contexts of `blas_threads` under way; all of them want the same number of threads."""

    def __init__(self) -> None:
        self.changed = threading.Condition()
        self.count = 0
        self.setting = 0
        self.closing = False  # the context that changed the setting is about to put it back


_users: _Users = renewed(sys.modules[__name__], "_users", _Users)


@contextmanager
def blas_threads(threads: int) -> Iterator[None]:
    """Let BLAS use `threads` threads inside the context; put the setting back after.

    The setting is the process's: whoever needs another one waits until it is free. OpenBLAS 0.3.31
    listens only to the first thread that set it, as long as that lives: who changed the setting
    puts it back, and where somebody else did before, BLAS keeps the number of threads it had. A
    child that is forked meanwhile begins with the setting as it is then.
    """
    users = _users
    changed: list[tuple[Any, int]] = []
    with users.changed:
        users.changed.wait_for(
            lambda: not users.closing and (users.count == 0 or users.setting == threads)
        )
        first = users.count == 0
        if first:
            users.setting = threads
            changed = [
                (pool, before) for pool in _blas_pools() if (before := pool.num_threads) != threads
            ]
            for pool, _ in changed:
                pool.set_num_threads(threads)
        users.count += 1
    try:
        yield
    finally:
        with users.changed:
            users.count -= 1
            users.changed.notify_all()
            if first:
                users.closing = True
                try:
                    users.changed.wait_for(lambda: users.count == 0)
                finally:
                    for pool, before in changed:
                        pool.set_num_threads(before)
                    users.closing = False
                    users.changed.notify_all()


@cache
def _blas_pools() -> list[Any]:
    """The BLAS libraries of this process; looked up once, after scipy's has been loaded."""
    import scipy.linalg.cython_blas  # noqa: F401

    return ThreadpoolController().select(user_api="blas").lib_controllers

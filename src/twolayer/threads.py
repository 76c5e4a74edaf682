"""Thread pools kept apart: Numba's parallel regions and the threads of BLAS libraries."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from typing import Any

import numba
from threadpoolctl import ThreadpoolController

_forked_from: int | None = None  # the process whose Numba thread pool this one has no threads of
_one_at_a_time = threading.Lock()


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


@contextmanager
def numba_threads(threads: int) -> Iterator[None]:
    """Run Numba's parallel kernels on `threads` threads, or all that Numba has, inside the context.

    Raises RuntimeError in a forked child of a process that ran such a kernel: GNU OpenMP would kill
    the child, and other pools are not there any more. Under the workqueue layer, which dies when
    entered twice, callers take turns.
    """
    if _forked_from is not None:
        raise RuntimeError(
            f"threads: process {os.getpid()} was forked from process {_forked_from} after that had "
            "run a parallel kernel, and its threads were not copied: start processes with "
            "multiprocessing.get_context('spawn')"
        )
    before = numba.get_num_threads()  # launches the pool, so that its layer is known below
    wanted = min(threads, numba.config.NUMBA_NUM_THREADS)
    in_turns = numba.threading_layer() == "workqueue"
    if in_turns:
        _one_at_a_time.acquire()
    try:
        if before != wanted:  # a call takes as long as a small problem's epoch
            numba.set_num_threads(wanted)
        yield
    finally:
        if before != wanted:
            numba.set_num_threads(before)
        if in_turns:
            _one_at_a_time.release()


_blas = threading.Condition()
_blas_users = 0  # contexts under way; all of them want `_blas_setting` threads
_blas_setting = 0
_blas_closing = False  # the context that changed the setting is about to put it back


@contextmanager
def blas_threads(threads: int) -> Iterator[None]:
    """Let BLAS use `threads` threads inside the context; put the setting back after.

    The setting is the process's: whoever needs another one waits until it is free. OpenBLAS 0.3.31
    listens only to the first thread that set it, as long as that lives: who changed the setting
    puts it back, and where somebody else did before, BLAS keeps the number of threads it had.
    """
    global _blas_users, _blas_setting, _blas_closing
    changed: list[tuple[Any, int]] = []
    with _blas:
        _blas.wait_for(lambda: not _blas_closing and (_blas_users == 0 or _blas_setting == threads))
        first = _blas_users == 0
        if first:
            _blas_setting = threads
            changed = [
                (pool, before) for pool in _blas_pools() if (before := pool.num_threads) != threads
            ]
            for pool, _ in changed:
                pool.set_num_threads(threads)
        _blas_users += 1
    try:
        yield
    finally:
        with _blas:
            _blas_users -= 1
            _blas.notify_all()
            if first:
                _blas_closing = True
                try:
                    _blas.wait_for(lambda: _blas_users == 0)
                finally:
                    for pool, before in changed:
                        pool.set_num_threads(before)
                    _blas_closing = False
                    _blas.notify_all()


@cache
def _blas_pools() -> list[Any]:
    """The BLAS libraries of this process; looked up once, after scipy's has been loaded."""
    import scipy.linalg.cython_blas  # noqa: F401

    return ThreadpoolController().select(user_api="blas").lib_controllers

"""Thread pools kept apart: Numba's parallel regions and the threads of BLAS libraries."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numba
from threadpoolctl import ThreadpoolController

_owner: int | None = None  # the process whose Numba thread pool was launched
_one_at_a_time = threading.Lock()
_blas_lock = threading.Lock()
_blas_single = 0  # parallel regions under way that want BLAS on one thread
_blas_before: list[tuple[Any, int]] = []


@contextmanager
def numba_threads(threads: int) -> Iterator[None]:
    """Run Numba's parallel kernels on `threads` threads inside the context.

    Raises RuntimeError in a forked child of a process that ran such a kernel: GNU OpenMP would kill
    the child, and other pools are not there any more. Under the workqueue layer, which dies when
    entered twice, callers take turns.
    """
    global _owner
    if _owner is None:
        _owner = os.getpid()
    elif _owner != os.getpid():
        raise RuntimeError(
            f"threads: process {os.getpid()} was forked from process {_owner} after that had run a "
            "parallel kernel, and its threads were not copied: start processes with "
            "multiprocessing.get_context('spawn')"
        )
    before = numba.get_num_threads()
    safe = _thread_safe()
    if not safe:
        _one_at_a_time.acquire()
    try:
        numba.set_num_threads(threads)
        yield
    finally:
        numba.set_num_threads(before)
        if not safe:
            _one_at_a_time.release()


def _thread_safe() -> bool:
    try:
        return numba.threading_layer() != "workqueue"
    except ValueError:  # not known before the first launch
        return False


@contextmanager
def blas_threads(threads: int) -> Iterator[None]:
    """Let NumPy's products use `threads` threads inside the context; put the setting back after."""
    changed = [(pool, before) for pool in _blas_pools() if (before := pool.num_threads) != threads]
    for pool, _ in changed:
        pool.set_num_threads(threads)
    try:
        yield
    finally:
        for pool, before in changed:
            pool.set_num_threads(before)


@contextmanager
def single_threaded_blas() -> Iterator[None]:
    """Keep BLAS on one thread while any parallel kernel that calls it is under way."""
    global _blas_single
    with _blas_lock:
        if _blas_single == 0:
            _blas_before[:] = [(pool, pool.num_threads) for pool in _blas_pools()]
            for pool, before in _blas_before:
                if before != 1:
                    pool.set_num_threads(1)
        _blas_single += 1
    try:
        yield
    finally:
        with _blas_lock:
            _blas_single -= 1
            if _blas_single == 0:
                for pool, before in _blas_before:
                    if before != 1:
                        pool.set_num_threads(before)


_pools: list[Any] = []


def _blas_pools() -> list[Any]:
    """The BLAS libraries of this process; looked up once, after scipy's has been loaded."""
    if not _pools:
        import scipy.linalg.cython_blas  # noqa: F401

        found = ThreadpoolController().select(user_api="blas").lib_controllers
        _pools.extend(found)
    return _pools

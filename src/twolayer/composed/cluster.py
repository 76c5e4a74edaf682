"""The Dask cluster that plans run on: the caller's, or worker processes on this machine."""

from __future__ import annotations

import atexit
import contextlib
import os
import sys
import time
import warnings
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from ..machine.forks import renewed
from ..machine.given import unbound
from ..texts import missing

if TYPE_CHECKING:
    from distributed import Client, Future

_PATIENCE = 10  # seconds to wait for a scheduler
_PAUSE = 0.1  # seconds until a worker's death is known

_own: dict[int, Client] = {}  # of clusters that this process started, by their number of workers
_owner: int | None = None  # the process that did
_starting = renewed(sys.modules[__name__], "_starting")


class ClusterLost(ConnectionError):
    """The scheduler of a Dask cluster does not answer any more."""


class DataLost(RuntimeError):
    """Workers ended, and with them data that the scheduler cannot make again."""


def client(workers: int) -> Client:
    """The current `distributed.Client`, or one of `workers` processes on this machine.

    The processes have one thread each. They start with the first call, serve all later ones, and
    end with this process. Raises ClusterLost where the current client has no scheduler any more,
    RuntimeError in a process forked from the one that started them.
    """
    import dask
    import distributed

    with contextlib.suppress(ValueError):  # there is no current one
        current = distributed.Client.current()
        check_connection(current)
        return current
    global _owner
    with _starting:
        _owner = _owner or os.getpid()
        check_process(_owner)
        if workers not in _own or _own[workers].status != "running":
            # Dask's profiler, which nobody looks at here, takes a few percent of an epoch.
            with dask.config.set({"distributed.worker.profile.enabled": False}), unbound():
                local = distributed.LocalCluster(
                    n_workers=workers,
                    threads_per_worker=1,
                    dashboard_address="127.0.0.1:0",
                    silence_logs="CRITICAL",
                )
            _own[workers] = distributed.Client(local, set_as_default=False, direct_to_workers=True)
        _replace_workers(_own[workers])
        return _own[workers]


@atexit.register
def close() -> None:
    """End the worker processes that `client` started; plans on them cannot be used any more."""
    if _owner != os.getpid():
        return
    while _own:
        _, own = _own.popitem()
        own.close()
        own.cluster.close()


def connect(address: str) -> Client:
    """Make the cluster of the scheduler at `address` the current one.

    Raises ValueError for what is no address, ClusterLost where no scheduler answers there,
    RuntimeError without Dask.
    """
    try:
        import distributed
    except ImportError:
        raise RuntimeError(missing("scheduler: needs", "Dask", "cluster")) from None
    try:
        # One that finds no scheduler would stay the current one.
        distributed.Client(address, timeout=_PATIENCE, set_as_default=False).close()
        return distributed.Client(address, timeout=_PATIENCE)
    except ValueError as error:
        raise ValueError(f"scheduler: expected tcp://host:port, got {address!r}") from error
    except OSError as error:
        raise ClusterLost(f"scheduler: none answers at {address}") from error


def check_process(owner: int) -> None:
    """Raise RuntimeError in a process that was forked from `owner`."""
    if os.getpid() != owner:
        raise RuntimeError(
            f"process {os.getpid()} was forked from process {owner}, whose connection to a Dask "
            "cluster was not copied: start processes with multiprocessing.get_context('spawn')"
        )


def check_connection(client: Client) -> None:
    """Raise ClusterLost unless the client has a scheduler."""
    if client.status != "running":
        raise ClusterLost("the scheduler of the Dask cluster does not answer any more")


def _replace_workers(client: Client) -> None:
    """Start those workers of ours again that died while they started, which nobody else does."""
    for workers, own in _own.items():
        if own is client:
            own.cluster.scale(workers)


def scatter(client: Client, value: Any) -> Future:
    """The value on some worker; one that dies meanwhile is passed over.

    Raises ClusterLost where the scheduler does not answer.
    """
    while True:
        try:
            return client.scatter(value, hash=False)
        except OSError:
            _before_waiting(client)
            time.sleep(_PAUSE)


def _before_waiting(client: Client) -> None:
    """Raise ClusterLost, replace workers of ours, and say so where there is none."""
    check_connection(client)
    _replace_workers(client)
    if not client.nthreads():
        warnings.warn("the Dask cluster has no workers: waiting for one", stacklevel=3)


def _cancel_lost(client: Client, data: Sequence[Future]) -> bool:
    """Cancel what was scattered and is on no worker any more; whether there was any.

    The scheduler does not notice where the worker died before it was told what the worker had got.
    """
    holders = client.who_has(data)
    lost = [f for f in data if f.status == "finished" and not holders.get(f.key)]
    client.cancel(lost, force=True)
    return bool(lost)


def result(client: Client, task: Any, data: Sequence[Future]) -> Any:
    """The value of a dask.delayed task on scattered data, computed on the cluster as it is written.

    Raises ClusterLost where the scheduler does not answer, DataLost where the task depends on data
    that ended with a worker, RuntimeError where workers die of the task again and again, and what
    the task itself raised.
    """
    from distributed import CancelledError, KilledWorker
    from distributed.client import ClosedClientError

    check_connection(client)
    try:
        future = client.compute(task, optimize_graph=False)
        while True:
            try:
                return future.result(timeout=_PATIENCE)
            except TimeoutError:
                if future.done():  # it is the task's own
                    raise
                _before_waiting(client)
                if _cancel_lost(client, data):
                    future.cancel()
                    raise DataLost("a worker died while it was sent data") from None
    except KilledWorker as error:
        raise RuntimeError(str(error)) from error
    except (CancelledError, ClosedClientError, OSError) as error:
        check_connection(client)
        if isinstance(error, CancelledError):
            client.nthreads()  # once this is answered, futures know what was lost
            raise DataLost(str(error)) from error
        raise

"""The dask variant: same bits on any cluster, data of every kind, and workers that die."""

import contextlib
import gc
import os
import re
import signal
import subprocess
import sys
import threading
import time

import numpy as np
import pytest
from typer.testing import CliRunner

import twolayer as tl
from twolayer.checking import cases
from twolayer.checking.verify import agreement
from twolayer.cli import app
from twolayer.composed import cluster
from twolayer.kernels.formulas.losses import LOSSES
from twolayer.network import DTYPES

dask = pytest.importorskip("dask.array")
distributed = pytest.importorskip("distributed")
zarr = pytest.importorskip("zarr")

NET = tl.Network("tanh", "softmax")
SHAPE = tl.Shape(5000, 6, 9, 3)
VARIANT = tl.variants.get("dask")


@pytest.fixture(scope="module")
def workers():
    """A cluster of two processes that is the current one."""
    options = {"threads_per_worker": 1, "dashboard_address": "127.0.0.1:0"}
    with distributed.LocalCluster(n_workers=2, silence_logs="CRITICAL", **options) as local:
        client = distributed.Client(local)
        yield client
        client.close()


@pytest.fixture(autouse=True)
def small_chunks(monkeypatch):
    """Of a NumPy array: 8, of which the last is smaller, though it has few rows."""
    monkeypatch.setattr("twolayer.composed.dask._LEAST_BYTES", 1)


@pytest.fixture(scope="module")
def case():
    return cases.problem(NET, SHAPE, "float32")


def make_plan(case, X=None, Y=None, threads=None):
    X, Y = case.X if X is None else X, case.Y if Y is None else Y
    return VARIANT.plan(case.net, X, Y, case.theta, threads)


def results(plan):
    """All that a plan gives, as bits."""
    losses = [plan.step(0.1) for _ in range(3)]
    loss, gradient = plan.gradient(slice(700, 1300))
    return losses, loss, [array.tobytes() for array in (*gradient, *plan.theta)]


@pytest.mark.parametrize(("loss", "dtype"), [*zip(LOSSES, [*DTYPES, *DTYPES], strict=True)])
def test_agrees_with_the_oracle(workers, loss, dtype):
    """Every network and case is in the slow tests."""
    for shape in (tl.Shape(7, 5, 1, 3), tl.Shape(1031, 3, 5, 2)):
        result = agreement(VARIANT, cases.problem(tl.Network("tanh", loss), shape, dtype))
        assert result.agrees, result


def test_the_bits_do_not_depend_on_the_workers(case, workers):
    expected = results(make_plan(case))
    local = {"processes": False, "dashboard_address": "127.0.0.1:0"}
    for n_workers, threads in ((1, 1), (1, 3), (3, 1)):
        with distributed.Client(n_workers=n_workers, threads_per_worker=threads, **local):
            assert results(make_plan(case)) == expected


def test_a_current_client_is_used(case, workers):
    assert make_plan(case).engine._client is workers


def test_dask_and_zarr_arrays_give_the_bits_of_local_ones(case, workers, tmp_path):
    expected = results(make_plan(case))
    rows = -(-SHAPE.n // 8)
    X = zarr.create_array(tmp_path / "X.zarr", data=case.X, chunks=(rows, 2))
    Y = zarr.create_array(tmp_path / "Y.zarr", data=case.Y, chunks=(77, 3))
    assert results(make_plan(case, X, Y)) == expected
    X, Y = dask.from_array(case.X, chunks=(rows, 4)), dask.from_array(case.Y, chunks=(1000, 1))
    assert results(make_plan(case, X, Y)) == expected
    assert results(make_plan(case, X)) == expected
    labels = np.arange(SHAPE.n) % 3
    assert results(make_plan(case, X, labels)) == results(make_plan(case, case.X, labels))


def test_chunks_are_those_of_a_dask_array(case, workers):
    X = dask.from_array(case.X, chunks=((4000, 0, 1000), 6))
    plan = make_plan(case, X)
    assert plan.gradient()[0] == pytest.approx(make_plan(case).gradient()[0], rel=1e-5)
    assert len(plan.engine._chunks) == 2


def lazy(X, **options):
    return dask.from_array(X, chunks=1000, **options)


WRONG = np.where(np.arange(5000)[:, None] == 4321, np.float32("nan"), np.ones((5000, 6), "f"))


@pytest.mark.parametrize(
    ("X", "Y", "kind", "message"),
    [
        (lazy(WRONG), None, ValueError, "X: expected finite numbers, got nan at [321, 0], in the "
         "chunk that begins at row 4000"),
        (lazy(np.ones((5000, 5), "f")), None, ValueError, "theta.V: expected shape (M, 5)"),
        (lazy(np.ones((5000, 6))), None, TypeError, "theta.V: expected float64, the dtype of X"),
        (lazy(np.ones(5000, "f")), None, ValueError, "X: expected shape (n, d), got 1 axes"),
        (lazy(np.ones((4999, 6), "f")), None, ValueError, "Y: expected one target a sample, 4999"),
        (lazy(np.ones((5000, 6), "f")), np.full(5000, 7), ValueError, "Y: expected class labels"),
        (lazy(np.ones((5000, 6), "f"))[lazy(np.arange(5000)) > 9], None, ValueError,
         "X: expected a Dask array that knows its number of rows"),
    ],
)  # fmt: skip
def test_refuses_wrong_arrays(case, workers, X, Y, kind, message):
    with pytest.raises(kind, match="^" + re.escape(message)):
        make_plan(case, X, Y)


def kill(client, which):
    """End a worker process as the kernel does when memory is short."""
    with contextlib.suppress(OSError):  # it may be on its way up
        os.kill(sorted(client.run(os.getpid).values())[which], signal.SIGKILL)


def bring_back(client):
    """Wait for both workers; one that was killed while it started is not started again by Dask."""
    while True:
        try:
            return client.wait_for_workers(2, timeout=5)
        except TimeoutError:
            client.cluster.scale(2)


def survive(case, workers, X, moment, epochs):
    """The losses of a run of which a worker is killed at a moment, 0 to 1, of a whole run."""
    bring_back(workers)
    plan = make_plan(case, X)
    start = time.monotonic()
    expected = [plan.step(0.1) for _ in range(epochs)]
    seconds = (time.monotonic() - start) / epochs
    plan, losses = make_plan(case, X), []
    whole, part = divmod(moment * epochs, 1)
    timer = threading.Timer(part * seconds, kill, (workers, round(100 * moment) % 2))
    before = {*workers.run(os.getpid).values()}
    for number in range(epochs):
        if number == whole:
            timer.start()
        losses.append(plan.step(0.1))
    timer.join()
    bring_back(workers)
    assert {*workers.run(os.getpid).values()} != before
    return losses, expected


@pytest.mark.parametrize("kind", ["local", "dask"])
def test_a_killed_worker_changes_no_bit(case, workers, kind):
    X = case.X if kind == "local" else dask.from_array(case.X, chunks=(300, 6))
    losses, expected = survive(case, workers, X, 0.5, 10)
    assert losses == expected


@pytest.mark.slow
@pytest.mark.parametrize("moment", np.random.default_rng(0).uniform(0, 1, 20).round(3))
def test_a_worker_killed_at_a_random_moment_changes_no_bit(case, workers, moment):
    losses, expected = survive(case, workers, case.X, moment, 50)
    assert losses == expected


class Dying:
    """A client of workers that die while they are sent data, the first `deaths` of them."""

    status = "running"

    def __init__(self, deaths, left):
        self.deaths, self.left = deaths, left

    def scatter(self, value, hash):
        self.deaths -= 1
        if self.deaths >= 0:
            raise OSError("Stream is closed")
        return value

    def nthreads(self):
        return self.left


def test_data_are_sent_again_when_the_worker_dies(monkeypatch):
    monkeypatch.setattr(cluster, "_PAUSE", 0)
    assert cluster.scatter(Dying(2, {"one": 1}), "value") == "value"
    with pytest.warns(UserWarning, match="has no workers: waiting for one"):
        assert cluster.scatter(Dying(1, {}), "value") == "value"
    lost = Dying(2, {})
    lost.status = "closed"
    with pytest.raises(cluster.ClusterLost):
        cluster.scatter(lost, "value")


def test_data_that_no_worker_holds_are_lost(workers):
    held, gone = workers.map(int, [1, 2], pure=False)  # tried again where a worker has just died
    distributed.wait([held, gone])
    client = Holders(workers, {held.key: ["a worker"], gone.key: []})
    assert cluster._cancel_lost(client, [held, gone])
    assert (held.status, gone.status) == ("finished", "cancelled")
    assert not cluster._cancel_lost(client, [held])


class Holders:
    """A client whose scheduler says so of who holds what."""

    def __init__(self, client, holders):
        self.cancel, self.who_has = client.cancel, lambda futures: holders


def test_a_worker_that_died_while_it_started_comes_back(case, monkeypatch):
    def none():
        raise ValueError("no client")

    monkeypatch.setattr(distributed.Client, "current", none)
    own = cluster.client(1)
    name, nanny = next(iter(own.cluster.workers.items()))
    own.cluster.sync(nanny.close)
    del own.cluster.workers[name]  # as Dask does after a while
    make_plan(case, threads=1).step(0.1)
    assert len(own.nthreads()) == 1


@pytest.fixture
def scheduler(tmp_path):
    """The process of a scheduler with one worker, and its address."""
    file = tmp_path / "scheduler.json"
    about = ["--host", "127.0.0.1", "--no-dashboard"]
    programs = [
        ["dask_scheduler", "--port", "0", "--scheduler-file", file, *about],
        ["dask_worker", "--nthreads", "1", "--no-nanny", "--scheduler-file", file, *about],
    ]
    running = [
        subprocess.Popen(
            [sys.executable, "-m", f"distributed.cli.{name}", *map(str, options)],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            cwd=tmp_path,
        )
        for name, *options in programs
    ]
    with distributed.Client(scheduler_file=str(file), set_as_default=False) as client:
        client.wait_for_workers(1, timeout=60)
        address = client.scheduler.address
    yield running[0], address
    for process in running:
        process.kill()
        process.wait()


def test_a_lost_scheduler_is_said_and_theta_stays(case, scheduler):
    process, address = scheduler
    with distributed.Client(address):
        plan = make_plan(case)
        plan.step(0.1)
        before = plan.theta
        process.kill()
        process.wait()
        with pytest.raises(ConnectionError, match="the scheduler of the Dask cluster does not"):
            plan.step(0.1)
        assert all((a == b).all() for a, b in zip(plan.theta, before, strict=True))
        assert plan.predict(case.X).shape == (SHAPE.n, 3)


def test_the_command_line_takes_a_scheduler(scheduler):
    arguments = ["train", "digits", "--variant", "dask", "--epochs", "3"]
    try:
        result = CliRunner().invoke(app, [*arguments, "--scheduler", scheduler[1]])
    finally:
        distributed.Client.current().close()
    assert result.exit_code == 0, result.output
    assert "after 3 epochs" in result.stdout


def test_a_scheduler_needs_a_variant_that_takes_it():
    result = CliRunner().invoke(app, ["train", "digits", "--scheduler", "tcp://127.0.0.1:1"])
    assert result.exit_code == 2
    assert "scheduler: expected a variant that runs on a cluster, got numpy" in result.output


@pytest.mark.parametrize(
    ("address", "message"),
    [("tcp://127.0.0.1:1", "scheduler: none answers at tcp"), ("what://x", "scheduler: expected")],
)
def test_a_scheduler_that_is_none(address, message, monkeypatch):
    monkeypatch.setattr(cluster, "_PATIENCE", 1)
    arguments = ["train", "digits", "--variant", "dask", "--scheduler", address]
    result = CliRunner().invoke(app, arguments)
    assert result.exit_code == 2
    assert message in result.output


ALONE = """
import os, sys
os.dup2(1, 2)  # so that what is said on stderr is seen
import numpy as np
import twolayer as tl
net = tl.Network()
X, Y = np.ones((600, 2), "float32"), np.ones((600, 1), "float32")
plan = tl.variants.get("dask").plan(net, X, Y, net.init(2, 3, 1), 1)
plan.step(0.1)
pids = plan.engine._client.run(os.getpid).values()
if sys.argv[1] == "fork":
    child = os.fork()
    if child == 0:
        try:
            plan.step(0.1)
        except RuntimeError as error:
            print(error, flush=True)
        os._exit(0)
    print("status", os.waitpid(child, 0)[1])
print(*pids)
"""


@pytest.mark.parametrize("what", [pytest.param("plain", marks=pytest.mark.slow), "fork"])
def test_workers_end_with_the_process_and_without_a_word(what, run_python):
    *said, pids = run_python(ALONE, what).splitlines()
    if what == "fork":
        assert "was forked from process" in said[0]
        assert said[1:] == ["status 0"]
    else:
        assert not said
    for pid in pids.split():
        with pytest.raises(ProcessLookupError):
            os.kill(int(pid), 0)


def test_a_plan_that_is_gone_leaves_nothing_on_the_workers(case, workers):
    def held():
        return keys & {key for found in workers.has_what().values() for key in found}

    plan = make_plan(case)
    plan.step(0.1)
    keys = {chunk.key for chunk in plan.engine._chunks}
    assert held() == keys
    del plan
    gc.collect()
    end = time.monotonic() + 300  # seconds, which only what is wrong takes
    while held():
        assert time.monotonic() < end
        time.sleep(0.05)

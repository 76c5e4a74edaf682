"""What all benchmarks share: the names of the variants, the problems, plans made once a process.

The suite of the present checkout also measures old commits. It therefore uses nothing of twolayer
but the public interface, and brings its own data. Before anything of a plan is timed, the plan is
held to the answers of its problem, by the revision's own check where it has one.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from contextlib import suppress
from functools import lru_cache
from importlib import import_module
from pathlib import Path
from types import FunctionType
from typing import Any, NamedTuple

import numpy as np

import twolayer

# The same on every machine and for every commit, or asv would start new series: what cannot run
# shows as n/a. `auto` and `dask` are not here, because they run one of the others.
VARIANTS = [
    "python-loops",
    "numpy-samples",
    "numpy",
    "numba-loops",
    "numba-parallel",
    "numba-blas",
    "numba-fused",
    "cuda-samples",
    "cuda-tiled",
    "cuda-fused",
    "cuda-tensor",
    "torch",
    "torch-compile",
    "jax",
    "cupy",
]
DATA_SETS = ["diabetes", "linnerud", "breast_cancer", "digits"]

BASE = twolayer.Shape(n=4096, d=64, M=64, K=8)
HIDDEN = 32  # M on the data sets
DTYPE = np.float32

# So small that thousands of epochs do not move θ: every sample times the same work.
MU = 1e-6

# Beyond these an epoch takes more than about half a second.
_MOST_FLOPS = {"python-loops": 2.5e7}
_MOST_SAMPLES = {"numpy-samples": 10_000}

_DISTINCT = 256  # rows of a random problem that differ: more rows cost no more to check

_ROOT = Path(__file__).parents[1]
_FIRST_EPOCH = """
import sys, time
start = time.perf_counter()
import twolayer
imported = time.perf_counter()
root, name, *sizes = sys.argv[1:]
sys.path.append(root)
from benchmarks import common
shape = twolayer.Shape(*map(int, sizes))
problem = common.problem(shape)
before = time.perf_counter()
plan = twolayer.variants.get(name).plan(*problem)
plan.step(0.0)
ended = time.perf_counter()
common.hold(plan, shape)
print(imported - start, ended - before)
"""


class Problem(NamedTuple):
    """A network, X (n, d), Y (n, K) and the parameters to start from, all float32."""

    net: twolayer.Network
    X: np.ndarray
    Y: np.ndarray
    theta: twolayer.Parameters


class Timed:
    """What timed benchmarks have in common.

    Samples of one process resemble each other, so there are many processes with one sample each.
    `setup` has to make the first call: one that compiles would fill sample_time, and asv would time
    single calls from then on.
    """

    version = "1"
    rounds = int(os.environ.get("TWOLAYER_ASV_ROUNDS", 10))
    repeat = 1
    number = 0  # as many calls as fill sample_time
    sample_time = 0.05  # seconds
    warmup_time = 0.15  # seconds until thread pools are steady
    min_run_count = 2
    timeout = 120  # seconds


def named(title: str) -> Callable[[type], type]:
    """Class decorator: a name for asv's pages, which asv looks for on the function itself.

    Each class gets a copy of what it inherits, so that the timed call stays a plain one.
    """

    def decorate(cls: type) -> type:
        for name in dir(cls):
            if name.startswith(("time_", "track_", "peakmem_")):
                f = getattr(cls, name)
                copy = FunctionType(f.__code__, f.__globals__, name, f.__defaults__, f.__closure__)
                copy.pretty_name = title
                setattr(cls, name, copy)
        return cls

    return decorate


def variant(name: str) -> twolayer.Variant:
    """The variant. Raises NotImplementedError, asv's n/a, where it is unknown or cannot run."""
    if name not in twolayer.variants.names():
        raise NotImplementedError(f"this revision has no variant {name}")
    found = twolayer.variants.get(name)
    reason = found.unavailable()
    if reason:
        raise NotImplementedError(f"{name}: {reason}")
    return found


@lru_cache
def plan(name: str, key: twolayer.Shape | str) -> twolayer.Plan:
    """The variant's plan for a shape or data set, made once: asv calls setup before every sample.

    Raises NotImplementedError where the variant cannot run, or is too slow for the problem.
    """
    if isinstance(key, twolayer.Shape):
        affordable(name, key)
    made = variant(name).plan(*problem(key))
    hold(made, key)
    return made


def hold(plan: twolayer.Plan, key: twolayer.Shape | str) -> None:
    """Raise RuntimeError where a plan is wrong on its rows; early revisions cannot tell."""
    if (answers := _answers(key)) is not None:
        answers.hold(plan)


@lru_cache
def _answers(key: twolayer.Shape | str) -> Any:
    for home in ("twolayer.checking.answers", "twolayer.answers"):  # where revisions have it
        with suppress(ImportError):
            Answers = import_module(home).Answers
            break
    else:
        return None
    return Answers(*problem(key), None if isinstance(key, str) else _rows(key.n))


def _rows(n: int) -> np.ndarray:
    """Which of the distinct rows each row is; these come first."""
    of = np.arange(n)
    of[_DISTINCT:] = np.random.default_rng(1).integers(0, _DISTINCT, max(0, n - _DISTINCT))
    return of


@lru_cache
def problem(key: twolayer.Shape | str) -> Problem:
    """A random problem of a shape, or a data set by its name."""
    if isinstance(key, str):
        return _data_set(key)
    net = twolayer.Network("tanh", "squared")
    random = np.random.default_rng(0)
    of = _rows(key.n)
    X = random.standard_normal((min(key.n, _DISTINCT), key.d), dtype=DTYPE)[of]
    Y = random.standard_normal((min(key.n, _DISTINCT), key.K), dtype=DTYPE)[of]
    return Problem(net, X, Y, net.init(key.d, key.M, key.K))


def first_epoch(name: str, cache: str | None = None, n: int = 256) -> tuple[float, float]:
    """Seconds of `import twolayer`, and of plan and first epoch after it, in a fresh process.

    Arguments: name, of the variant; cache, the folder for compiled code if not the usual one; n
    samples. Raises RuntimeError where the process fails, or what it timed is wrong.
    """
    environment = dict(os.environ)
    if cache is not None:
        environment["NUMBA_CACHE_DIR"] = cache
    result = subprocess.run(
        [sys.executable, "-c", _FIRST_EPOCH, str(_ROOT), name, *map(str, BASE._replace(n=n))],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    if result.returncode:
        raise RuntimeError(result.stderr)
    importing, running = map(float, result.stdout.split())
    return importing, running


def affordable(name: str, shape: twolayer.Shape) -> None:
    """Raise NotImplementedError, asv's n/a, where an epoch would take too long."""
    slow = shape.flops() > _MOST_FLOPS.get(name, np.inf)
    if slow or shape.n > _MOST_SAMPLES.get(name, np.inf):
        raise NotImplementedError(f"{name} would take too long for {shape}")


def _data_set(name: str) -> Problem:
    from sklearn import datasets

    X, Y = getattr(datasets, f"load_{name}")(return_X_y=True)
    if name == "digits":
        loss, Y = "softmax", np.eye(10)[Y]
    elif name == "breast_cancer":
        loss, Y = "logistic", 2.0 * Y[:, None] - 1
    else:
        loss, Y = "squared", _standardized(Y.reshape(len(X), -1))
    net = twolayer.Network("tanh", loss)
    theta = net.init(X.shape[1], HIDDEN, Y.shape[1])
    return Problem(net, _standardized(X).astype(DTYPE), Y.astype(DTYPE), theta)


def _standardized(X: np.ndarray) -> np.ndarray:
    spread = X.std(axis=0)
    return (X - X.mean(axis=0)) / np.where(spread > 0, spread, 1)

"""Figures of a GPU: ceilings, and epochs timed by its own clock.

An epoch's time is that between two events on the device: `step` waits for its loss, which comes
after all else, on whatever stream a library works. Clocks are warmed up before every block; where X
and Y fit into the second-level cache, several plans with data of their own take turns, so that each
epoch reads them from memory. Copies to the device are a figure of their own.
"""

from __future__ import annotations

import gc
import json
import statistics
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict
from functools import lru_cache, partial
from typing import Any, NamedTuple

import numpy as np

from ..checking.answers import Answers, Disagreement
from ..engines import tuning
from ..engines.cuda_facts import device_name, multiprocessors
from ..interface import Plan, Variant
from ..machine.calm import Calm
from ..machine.store import Measurement, Store
from ..network import Network, Shape
from ..texts import sentence
from . import timing
from .roofline import Roofline

WARM_UP = 0.2  # seconds
TIME = 2.0  # seconds for the repetitions of an epoch; the first few are done
SHAPES = (
    Shape(1_000_000, 8, 32, 1),
    Shape(100_000, 784, 128, 10),
    Shape(60_000, 784, 1024, 10),
)
_LEAST = 5  # of them
STEP_SIZE = 1e-6
_DEFAULT_CACHE = 64 << 20  # bytes of second-level cache where the device does not say
_MOST_PLANS = 16


class Epochs(NamedTuple):
    """seconds: an epoch on the device, one figure a repetition; wall: the same by the host's clock.

    transfer: seconds to copy X and Y to the device; plan: seconds to make the plan, checks and
    copies included; memory: bytes of the device that it and its first step took, beyond what a
    library kept from earlier ones; error: the largest, in units of its bound.
    """

    seconds: list[float]
    wall: list[float]
    transfer: float
    plan: float
    memory: int
    error: float

    @property
    def median(self) -> float:
        """The median of the seconds on the device."""
        return statistics.median(self.seconds)


def second_level_cache() -> int:
    """Bytes of the device's second-level cache."""
    from numba import cuda

    return int(getattr(cuda.get_current_device(), "L2_CACHE_SIZE", _DEFAULT_CACHE))


def timed(call: Callable[[], object]) -> tuple[float, float]:
    """Seconds of one call by the device's clock and by the host's."""
    from numba import cuda

    start, end = cuda.event(), cuda.event()
    cuda.synchronize()
    begun = time.perf_counter()
    start.record()
    call()
    end.record()
    end.synchronize()
    return start.elapsed_time(end) / 1e3, time.perf_counter() - begun


def best(call: Callable[[], object], repetitions: int = 10, warm_up: float = WARM_UP) -> float:
    """Seconds of the fastest of several calls on a warm device."""
    timing.warm_up(lambda: timed(call), warm_up, 1)
    return min(timed(call)[0] for _ in range(repetitions))


def ceilings(dtype: str, size: int = 1 << 28, warm_up: float = WARM_UP) -> Roofline:
    """Floating-point operations and bytes a second that kernels doing nothing else reach.

    Arguments: dtype; size, bytes to copy; warm_up, seconds.
    """
    from numba import cuda

    from ..kernels.cuda import probes

    kind = np.dtype(dtype)
    source = cuda.to_device(np.ones(size // kind.itemsize, kind))
    target = cuda.device_array(size // kind.itemsize, kind)
    blocks = -(-size // (16 * probes.THREADS))
    copying = probes.stream(dtype)[blocks, probes.THREADS]
    seconds = best(lambda: copying(source, target), warm_up=warm_up)
    blocks = 32 * multiprocessors() if warm_up else 2
    steps = probes.STEPS if warm_up else 2
    adding = probes.multiply_adds(dtype)[blocks, probes.THREADS]
    arguments = kind.type(-0.75), kind.type(1.1), steps, target
    flops = 2 * steps * probes.UNROLLED * probes.CHAINS * probes.THREADS * blocks
    return Roofline(flops / best(lambda: adding(*arguments), warm_up=warm_up), 2 * size / seconds)


def epochs(
    variant: Variant, net: Network, shape: Shape, dtype: str, repetitions: int = 30,
    warm_up: float = WARM_UP,
) -> Epochs:  # fmt: skip
    """Time a variant's epochs on random data. Raises what making the plan raises, or Disagreement.

    Every plan that is timed is held to the answers before and after.
    """
    from numba import cuda

    answers = _answers(net, shape, dtype)
    _, X, Y, theta = answers.problem
    variant.plan(net, X[:8], Y[:8], theta)  # compiles
    cuda.synchronize()
    transfer, _ = timed(lambda: (cuda.to_device(X), cuda.to_device(Y)))
    _release()
    free = cuda.current_context().get_memory_info().free
    begun = time.perf_counter()
    plans: list[Plan] = [variant.plan(net, X, Y, theta)]
    cuda.synchronize()
    making = time.perf_counter() - begun
    plans[0].step(STEP_SIZE)
    memory = free - cuda.current_context().get_memory_info().free
    count = min(_MOST_PLANS, 1 + 2 * second_level_cache() // shape.bytes(dtype))
    plans += [variant.plan(net, X, Y, theta) for _ in range(count - 1)]
    error = max(map(answers.hold, plans))
    timing.warm_up(lambda: [plan.step(STEP_SIZE) for plan in plans], warm_up, 1)
    figures: list[tuple[float, float]] = []
    end = time.perf_counter() + TIME
    while len(figures) < repetitions and (len(figures) < _LEAST or time.perf_counter() < end):
        figures.append(timed(partial(plans[len(figures) % len(plans)].step, STEP_SIZE)))
    error = max(error, *map(answers.hold, plans))  # again: some go wrong only after many steps
    seconds, wall = (list(column) for column in zip(*figures, strict=True))
    taken = int(memory) if np.isfinite(memory) else 0
    return Epochs(seconds, wall, transfer, making, taken, error)


@lru_cache(maxsize=1)  # of one shape after the other
def _answers(net: Network, shape: Shape, dtype: str) -> Answers:
    return Answers.drawn(net, shape, dtype)


def tune(
    variant: Variant, net: Network, shape: Shape, dtype: str, store: Store | None = None,
    repetitions: int = 30, warm_up: float = WARM_UP,
) -> tuple[str, dict[str, float | str]]:  # fmt: skip
    """Time the candidates of a variant's plan and keep the fastest for shapes of this class.

    Returns what the choice is kept under, and by the candidates' JSON seconds of an epoch, or why
    one is left out. One that disagrees with the oracle is never ranked; a single one is not timed.
    Raises what making a plan of the first raises.
    """
    answers = _answers(net, shape, dtype)
    engine: Any = variant.plan(*answers.problem).engine
    kind = type(engine).__name__
    candidates: list[Any] = getattr(engine, "candidates", lambda *_: [{}])(engine.shape, dtype)
    del engine
    found: dict[str, float | str] = {}
    if len(candidates) == 1:
        return tuning.name_of(kind, shape, dtype), found
    for candidate in candidates:
        name = json.dumps(candidate, sort_keys=True)
        with tuning.forced(candidate):
            try:
                found[name] = epochs(variant, net, shape, dtype, repetitions, warm_up).median
            except Disagreement as error:
                found[name] = str(error)
            except Exception as error:  # drivers and libraries have classes of their own
                found[name] = f"does not run: {error}"
    timed = {name: value for name, value in found.items() if isinstance(value, float)}
    if timed:
        tuning.learn(store or Store(), kind, shape, dtype, device_name(), timed)
    return tuning.name_of(kind, shape, dtype), found


def _release() -> None:
    """Let the libraries that keep freed memory hand it back."""
    gc.collect()
    if "torch" in sys.modules:
        sys.modules["torch"].cuda.empty_cache()
    if "cupy" in sys.modules:
        sys.modules["cupy"].get_default_memory_pool().free_all_blocks()


def share(found: dict[str, Any], roof: Roofline) -> float:
    """The least time that the ceilings allow for a record's epoch, over its time."""
    return roof.seconds(found["flops"], found["bytes"]) / found["seconds"]


def record(
    variant: Variant, net: Network, shape: Shape, dtype: str, repetitions: int = 30,
    warm_up: float = WARM_UP,
) -> dict[str, Any]:  # fmt: skip
    """What is known of a variant on a shape, or why it was left out."""
    about: dict[str, Any] = {
        "shape": str(shape), "variant": variant.name, "activation": net.activation,
        "loss": net.loss, "dtype": dtype, "flops": shape.flops(),
        "bytes": shape.bytes(dtype),
    }  # fmt: skip
    skipped = variant.unavailable() or variant.refusal(net, shape, np.dtype(dtype))
    if skipped:
        return about | {"skipped": skipped}
    try:
        figures = epochs(variant, net, shape, dtype, repetitions, warm_up)
    except (MemoryError, Disagreement) as error:
        return about | {"skipped": str(error)}
    except Exception as error:  # whatever a variant raises is its own affair
        return about | {"skipped": f"does not run: {sentence(error)}"}
    return about | {
        "skipped": "",
        "seconds": figures.median,
        "all_seconds": figures.seconds,
        "wall": sorted(figures.wall)[len(figures.wall) // 2],
        "transfer": figures.transfer,
        "plan": figures.plan,
        "memory": figures.memory,
        "error": figures.error,
        "gflops": shape.flops() / figures.median / 1e9,
    }


def measurement(found: Mapping[str, Any], shape: Shape, roof: Roofline, calm: Calm) -> Measurement:
    """A record of what was timed as the store keeps it; 0 threads tell it from the host's clock."""
    low, median, high = timing.quartiles(found["all_seconds"])
    metrics = {
        "blocks": found["all_seconds"], "wall": found["wall"], "transfer": found["transfer"],
        "peak_memory": found["memory"], "calm": asdict(calm), **roof._asdict(),
    }  # fmt: skip
    about = {name: found[name] for name in ("variant", "activation", "loss", "dtype")}
    return Measurement(
        kind="epoch", metrics=metrics, device="cuda", data="synthetic", seconds=median, low=low,
        high=high, **about, **shape._asdict(),
    )  # fmt: skip

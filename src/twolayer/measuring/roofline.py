"""The least time that an amount of work can take here: what arithmetic and memory allow."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext
from functools import partial
from typing import NamedTuple

import numpy as np
from numpy.typing import DTypeLike

from ..machine import hardware
from . import timing

# Multiply-adds a chain and block: about a millisecond on any machine, for a step of all takes
# about as many cycles anywhere. Long beside a launch, short beside what disturbs a shared machine.
_STEPS = 1 << 18
_LEAST_BLOCKS = 4  # of which the first may warm up


class Roofline(NamedTuple):
    """The best that so many threads of this machine do in one dtype.

    flops: floating-point operations a second in registers, a multiply-add being two.
    bandwidth: bytes a second read from memory.
    Source: Williams, Waterman and Patterson 2009, doi:10.1145/1498765.1498785.
    """

    flops: float
    bandwidth: float

    def seconds(self, flops: float, nbytes: float) -> float:
        """max(flops / peak, bytes / bandwidth): no program that does the work can take less."""
        return max(flops / self.flops, nbytes / self.bandwidth)


def probe(
    dtype: DTypeLike = "float32", threads: int | None = None, seconds: float = 0.3
) -> Roofline:
    """Measure both roofs, each as the best of several short blocks.

    Arguments: dtype, float32 or float64; threads, by default all CPUs this process may use;
    seconds, how long to measure, about, after compiling and filling an array.
    Raises ValueError for any other dtype, and for threads that Numba has not got.
    """
    import numba

    from ..machine.threads import numba_threads

    kind = np.dtype(dtype)
    if kind not in (np.dtype("float32"), np.dtype("float64")):
        raise ValueError(f"dtype must be float32 or float64, not {kind}")
    most = numba.config.NUMBA_NUM_THREADS
    count = hardware.thread_limit()[0] if threads is None else threads
    if not 1 <= count <= most:
        raise ValueError(f"threads must be from 1 to {most}, not {threads}")
    if numba.config.DISABLE_JIT:
        raise RuntimeError(
            "NUMBA_DISABLE_JIT is set, and times without compiled code say nothing: unset it"
        )
    # Threads that are never started cannot harm a process that forks.
    with numba_threads(count) if count > 1 else nullcontext():
        return Roofline(_peak(kind, count, seconds / 2), _bandwidth(kind, count, seconds / 2))


def _peak(dtype: np.dtype, threads: int, seconds: float) -> float:
    """Floating-point operations a second."""
    from ..kernels.cpu import probes

    sums = np.zeros(threads, dtype)
    # The chains tend to 0.6…: full mantissas, neither denormal nor overflowing.
    factor, addend = dtype.type(-0.75), dtype.type(1.1)

    def block() -> None:
        if threads == 1:
            probes.fma_chains(_STEPS, factor, addend)
        else:
            probes.fma_chains_parallel(sums, _STEPS, factor, addend)

    flops = 2 * threads * _STEPS * probes.CHAINS * probes.lanes(dtype)
    return flops / timing.warm_up(block, seconds, _LEAST_BLOCKS)


def _bandwidth(dtype: np.dtype, threads: int, seconds: float) -> float:
    """Bytes a second read by a sum over an array that no cache holds."""
    from ..kernels.cpu import probes

    nbytes = max(8 * hardware.last_level_cache(threads), 1 << 26)
    values = np.empty(min(nbytes, hardware.available_memory() // 4) // dtype.itemsize, dtype)
    if threads == 1:
        values.fill(1)
        block: Callable[[], object] = partial(probes.stream_sum, values)
    else:
        probes.fill_parallel(values, dtype.type(1), threads)
        block = partial(probes.stream_sum_parallel, np.zeros(threads, dtype), values)
    return values.nbytes / timing.warm_up(block, seconds, _LEAST_BLOCKS)

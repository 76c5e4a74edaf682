"""Blocks of numba-cuda's simulator (NUMBA_ENABLE_CUDASIM=1), run so that faults show.

`check_blocks` replaces how the simulator runs a block. A thread is a greenlet that runs until it
meets a barrier. The order of threads is shuffled at every barrier, shared and local memory is
poisoned, a barrier or warp operation that some threads miss is an error, and warp operations work,
which the simulator lacks. All this depends on the insides of numba-cuda 0.30.
"""

from __future__ import annotations

import contextlib
import copy
import random
import sys
from collections import Counter
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from ...kernels.cuda.driver.simulated import WARP, collective


class BarrierError(RuntimeError):
    """A barrier or a warp operation that not all threads reach."""


def _poisoned(shape: Any, dtype: Any) -> np.ndarray:
    return _poison(shape, dtype).copy()


@cache
def _poison(shape: Any, dtype: Any) -> np.ndarray:
    from numba.cuda.np import numpy_support

    array = np.empty(shape, numpy_support.as_dtype(dtype) if hasattr(dtype, "name") else dtype)
    array.view(np.uint8).fill(0xFF)  # NaN, or an integer far out of range
    return array


def _same(values: list) -> list:
    return [None] * len(values)


class _Local:
    def array(self, shape, dtype):
        return _poisoned(shape, dtype)


def simulated_module() -> type:
    """The `cuda` that a kernel sees while it runs under `check_blocks`."""
    import greenlet
    from numba.cuda.simulator.kernelapi import FakeCUDAModule

    class Shared:
        def __init__(self, dynamic):
            self.arrays: dict = {}
            self.dynamic = _poisoned(dynamic, np.uint8)

        def array(self, shape, dtype):
            if shape == 0:  # views of the launch's dynamic shared memory, all from its beginning
                size = np.dtype(dtype).itemsize
                return self.dynamic[: len(self.dynamic) // size * size].view(dtype)
            frame = sys._getframe(1)
            site = (frame.f_code, frame.f_lasti)  # two calls on one line are two arrays
            if site not in self.arrays:
                self.arrays[site] = _poisoned(shape, dtype)
            return self.arrays[site]

    class Module(FakeCUDAModule):  # type: ignore[misc]
        warpsize = WARP

        def __init__(self, grid_dim, block_dim, dynshared_size):
            super().__init__(grid_dim, block_dim, dynshared_size)
            self.dynamic = dynshared_size
            self.fresh_block()
            self._local = _Local()

        def fresh_block(self):
            self._shared = Shared(self.dynamic)

        threadIdx = property(lambda self: greenlet.getcurrent().threadIdx)
        blockIdx = property(lambda self: greenlet.getcurrent().blockIdx)
        laneid = property(lambda self: greenlet.getcurrent().number % WARP)

        def syncthreads(self):
            collective("block", None, _same)

        def syncwarp(self, mask=0xFFFFFFFF):
            collective("warp", None, _same)

        def shfl_sync(self, mask, value, lane):
            def combine(pairs):
                return [pairs[source % WARP][0] for _, source in pairs]

            return collective("warp", (value, int(lane)), combine)

        def shfl_xor_sync(self, mask, value, lane):
            def combine(pairs):
                return [pairs[i ^ offset][0] for i, (_, offset) in enumerate(pairs)]

            return collective("warp", (value, int(lane)), combine)

        def grid(self, axes):
            if axes != 1:
                raise NotImplementedError("the kernels here number their threads along one axis")
            return self.blockIdx.x * self.blockDim.x + self.threadIdx.x

    return Module


class _Block:
    """Runs the threads of one block in a shuffled order between barriers."""

    shuffle = random.Random(0).shuffle

    def __init__(self, function, grid_dim, block_dim, debug):
        self.function, self.size = function, block_dim

    def run(self, grid_point, *args):
        import greenlet
        from numba.cuda.simulator import kernel
        from numba.cuda.simulator.kernelapi import Dim3

        kernel._get_kernel_context().fresh_block()
        plain = [getattr(argument, "_ary", argument) for argument in args]
        plain = [getattr(argument, "_ary", argument) for argument in plain]
        threads: list[Any] = []
        for number in range(int(np.prod(self.size))):
            thread: Any = greenlet.greenlet(lambda: self.function(*plain))
            x, y = number % self.size[0], number // self.size[0] % self.size[1]
            z = number // (self.size[0] * self.size[1])
            thread.number, thread.threadIdx = number, Dim3(x, y, z)
            thread.blockIdx, thread.resume = Dim3(*grid_point), None
            threads.append(thread)
        waiting: dict[int, tuple] = {}
        ready = list(threads)
        while ready:
            self.shuffle(ready)
            for thread in ready:
                met = thread.switch() if thread.resume is None else thread.switch(*thread.resume)
                if thread.dead:
                    waiting.pop(thread.number, None)
                else:
                    waiting[thread.number] = met
            ready = self._released(threads, waiting)

    def _released(self, threads, waiting):
        """The threads that a barrier, a condition or an operation of a group lets go."""
        if not waiting:
            return []
        scopes = {number: met[0][0] for number, met in waiting.items()}
        released = []
        for thread in threads:
            if scopes.get(thread.number) == "until" and waiting[thread.number][1]():
                waiting.pop(thread.number)
                thread.resume = (None,)
                released.append(thread)
        for scope, size, first in (
            ("warp", WARP, {"until"}),
            ("warpgroup", 128, {"until", "warp"}),
        ):
            for start in range(0, len(threads), size):
                group = threads[start : start + size]
                found = {scopes.get(t.number) for t in group}
                if scope in found and not found & first:  # those may still come here
                    released += self._meet(group, waiting)
        return released or self._meet(threads, waiting)

    def _meet(self, group, waiting):
        sites = Counter(waiting[t.number][0] if t.number in waiting else None for t in group)
        if len(sites) > 1:
            places = ", ".join(
                f"{count} at {Path(site[1]).name}:{site[2]} ({site[0]})"
                if site
                else f"{count} have returned"
                for site, count in sites.items()
            )
            raise BarrierError(f"of {len(group)} threads that must meet, {places}")
        met = [waiting.pop(t.number) for t in group]
        results = met[0][2]([value for _, value, _ in met])
        for thread, result in zip(group, results, strict=True):
            thread.resume = (result,)
        return list(group)


@contextlib.contextmanager
def check_blocks(seed: int = 0) -> Iterator[None]:
    """Let the simulator check barriers and memory; needs NUMBA_ENABLE_CUDASIM=1."""
    from numba import cuda
    from numba.cuda.simulator import kernel

    configure = kernel.FakeCUDAKernel.__getitem__
    before = kernel.BlockManager, kernel.FakeCUDAModule
    kernel.BlockManager, kernel.FakeCUDAModule = _Block, simulated_module()
    # As on a device, a kernel configured once keeps its grid whatever is launched in between.
    kernel.FakeCUDAKernel.__getitem__ = lambda self, grid: configure(copy.copy(self), grid)
    local = getattr(cuda, "local", None)
    cuda.local = _Local()  # for device functions, which are given no `cuda` of their own
    _Block.shuffle = random.Random(seed).shuffle
    try:
        yield
    finally:
        kernel.BlockManager, kernel.FakeCUDAModule = before
        kernel.FakeCUDAKernel.__getitem__ = configure
        if local is None:
            del cuda.local

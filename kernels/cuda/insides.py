"""All that depends on the insides of numba-cuda 0.30: a checking simulator, and machine code.

`check_blocks` replaces how numba-cuda's simulator (NUMBA_ENABLE_CUDASIM=1) runs a block. A thread
is a greenlet that runs until it meets a barrier. The order of threads is shuffled at every barrier,
shared and local memory is poisoned, a barrier or warp operation that some threads miss is an error,
and warp operations work, which the simulator lacks.

`machine_code` compiles a kernel for a compute capability as a launch would, without a GPU.
"""

from __future__ import annotations

import contextlib
import copy
import os
import random
import re
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator
from functools import cache, lru_cache
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

WARP = 32


class BarrierError(RuntimeError):
    """A barrier or a warp operation that not all threads reach."""


def collective(scope: str, value: Any, combine: Callable[[list], list], depth: int = 2) -> Any:
    """Wait for the threads of the warp or block; each gets its own of combine(values)."""
    import greenlet

    frame = sys._getframe(depth)
    thread: Any = greenlet.getcurrent()
    site = (scope, frame.f_code.co_filename, frame.f_lineno)
    return thread.parent.switch((site, value, combine))


@cache
def in_simulator() -> bool:
    """Whether numba.cuda is its simulator in this process."""
    from numba.cuda import config

    return bool(config.ENABLE_CUDASIM)


def launch_bounds(threads: int, blocks: int = 1) -> dict[str, Any]:
    """What `cuda.jit` is told so that `blocks` of so many threads share all registers."""
    return {} if in_simulator() else {"launch_bounds": (threads, blocks)}


def _poisoned(shape: Any, dtype: Any) -> np.ndarray:
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


class MachineCode(NamedTuple):
    """A kernel's machine code: resources, and the operations in order with their addresses."""

    registers: int
    stack: int  # bytes
    shared: int  # bytes
    lines: list[tuple[int, str, str]]  # address, operation, operands

    @property
    def operations(self) -> list[str]:
        """The names of all instructions."""
        return [operation for _, operation, _ in self.lines]

    def count(self, *prefixes: str) -> int:
        """How many instructions begin with one of the prefixes."""
        return sum(operation.startswith(prefixes) for operation in self.operations)

    def inner_loop(self, prefix: str) -> list[str]:
        """As `innermost`, of the loops that read shared memory: σ multiplies and adds as well."""
        return self.innermost(prefix, "LDS")

    def innermost(self, prefix: str, reads: str = "") -> list[str]:
        """The operations of the shortest loop around most of those that begin with `prefix`.

        Only loops with an operation that begins with `reads` count.
        """
        loops = []
        for address, operation, operands in self.lines:
            target = re.search(r"0x([0-9a-f]+)", operands) if operation == "BRA" else None
            if target and int(target[1], 16) < address:
                start = int(target[1], 16)
                loop = [op for at, op, _ in self.lines if start <= at <= address]
                if any(op.startswith(reads) for op in loop):
                    loops.append(loop)
        if not loops:
            return []
        most = max(sum(op.startswith(prefix) for op in loop) for loop in loops)
        full = [x for x in loops if sum(op.startswith(prefix) for op in x) >= 0.9 * most]
        return min(full, key=len)


def machine_code(kernel: Any, arguments: tuple, capability: tuple = (9, 0)) -> MachineCode:
    """Compile a kernel's signature for a compute capability, and disassemble it."""
    cubin = build(kernel, arguments, capability)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "kernel.cubin"
        path.write_bytes(cubin)
        listing = _disassemble(path)
    usage = re.findall(r"(REG|STACK|SHARED):(\d+)", listing)
    found = {name: int(number) for name, number in usage}
    pattern = r"^\s+/\*([0-9a-f]{4,})\*/\s+(?:@!?U?P[T\d]+ )?([A-Z0-9_.]+)([^;]*);"
    lines = [(int(a, 16), op, rest) for a, op, rest in re.findall(pattern, listing, re.M)]
    return MachineCode(found["REG"], found["STACK"], found.get("SHARED", 0), lines)


def build(kernel: Any, arguments: tuple, capability: tuple = (9, 0)) -> bytes:
    """The cubin of a kernel for argument types, linked as a launch links it; needs no driver."""
    return _library(kernel, arguments).get_cubin(cc=capability).code


@lru_cache(maxsize=4)
def _library(kernel: Any, arguments: tuple) -> Any:
    """A kernel before it is linked for a device; most of the time of a build goes here."""
    from numba import types
    from numba.cuda import compiler, dispatcher

    class Device:
        compute_capability = (9, 0)

    before = dispatcher.get_current_device
    dispatcher.get_current_device = lambda: Device  # device functions ask for it
    try:
        library, _ = compiler._compile_pyfunc_with_fixup(
            kernel.py_func,
            types.void(*arguments),
            device=False,
            abi="numba",
            cc=Device.compute_capability,
            fastmath=kernel.targetoptions.get("fastmath", False),
            launch_bounds=kernel.targetoptions.get("launch_bounds"),
            lto=False,
        )
    finally:
        dispatcher.get_current_device = before
    library._lto = True
    library._max_registers = None
    return library


def _disassemble(path: Path) -> str:
    import nvidia

    folders = [str(Path(root) / "cu13" / "bin") for root in nvidia.__path__]
    search = os.pathsep.join([*folders, os.environ.get("PATH", "")])
    command = ["cuobjdump", "-res-usage", "-sass", str(path)]
    done = subprocess.run(
        command, capture_output=True, text=True, check=True, env=os.environ | {"PATH": search}
    )
    return done.stdout

"""Launches bound to their arguments once, and several of them as one graph.

A launch through numba-cuda prepares each argument anew, 4 µs an array; a bound one has done so. A
graph is launched by one call of the driver. Both hold on to the arrays whose addresses they know.
"""

from __future__ import annotations

import threading
import weakref
from collections.abc import Callable, Iterable, Sequence
from functools import cache
from typing import Any

from .simulated import in_simulator

Launch = Callable[..., None]  # launch() on the default stream, or launch(stream)

_PLAIN_SHARED = 48 << 10  # bytes of shared memory that a block has without asking for more
_capturing = threading.Lock()


def bound(
    kernel: Any, grid: int | tuple[int, ...], threads: int | tuple[int, ...],
    arguments: Sequence[Any], shared: int = 0,
) -> Launch:  # fmt: skip
    """Compile, load and bind: the launch of a kernel on arrays of the device and numbers.

    Arguments: grid, blocks; threads, of a block; shared, bytes of dynamic shared memory.
    """
    if in_simulator():
        configured = kernel[grid, threads, 0, shared]
        return lambda stream=None: configured(*arguments)
    return _Bound(kernel, grid, threads, arguments, shared)


class _Bound:
    def __init__(self, kernel: Any, grid: Any, threads: Any, arguments: Sequence[Any], shared: int):
        from cuda.core import LaunchConfig, launch
        from numba.cuda.cudadrv import driver

        compiled = kernel.compile(tuple(kernel.typeof_pyval(value) for value in arguments))
        function = compiled._codelibrary.get_cufunc()
        if shared > _PLAIN_SHARED:
            attribute = driver.binding.CUfunction_attribute
            driver.driver.cuKernelSetAttribute(
                attribute.CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES,
                shared,
                function.handle,
                function.device.id,
            )
        values: list[Any] = []
        for kind, value in zip(compiled.argument_types, arguments, strict=True):
            compiled._prepare_args(kind, value, 0, [], values)
        config = LaunchConfig(grid=grid, block=threads, shmem_size=shared)
        self._launch, self._default = launch, driver._to_core_stream(0)
        self._fixed = config, function.kernel, *values
        self._alive = kernel, tuple(arguments)

    def __call__(self, stream: Any = None) -> None:
        try:
            self._launch(self._default if stream is None else stream, *self._fixed)
        except Exception as error:  # of cuda.core
            raise RuntimeError(f"a kernel cannot be launched: {error}") from error


def recorded(launches: Iterable[Launch]) -> Callable[[], None]:
    """All launches, one after the other, as one call: a graph where the driver takes them so."""
    launches = tuple(launches)
    if not in_simulator():
        try:
            return _Graph(launches)
        except RuntimeError:  # what cannot be captured is launched
            pass

    def one_by_one() -> None:
        for launch in launches:
            launch()

    return one_by_one


class _Graph:
    """Launches captured from a stream of their own; replayed on the default stream."""

    def __init__(self, launches: tuple[Launch, ...]) -> None:
        from cuda.core import Stream

        driver = _driver()
        own = driver.CUstream_flags.CU_STREAM_NON_BLOCKING
        mode = driver.CUstreamCaptureMode.CU_STREAM_CAPTURE_MODE_THREAD_LOCAL
        with _capturing:
            stream = _checked(driver.cuStreamCreate(own))
            try:
                _checked(driver.cuStreamBeginCapture(stream, mode))
                try:
                    wrapped = Stream.from_handle(int(stream))
                    for launch in launches:
                        launch(wrapped)
                finally:
                    graph = _checked(driver.cuStreamEndCapture(stream))
                try:
                    self._executable = _checked(driver.cuGraphInstantiate(graph, 0))
                finally:
                    driver.cuGraphDestroy(graph)
            finally:
                driver.cuStreamDestroy(stream)
        self._run = driver.cuGraphLaunch
        self._alive = launches
        weakref.finalize(self, driver.cuGraphExecDestroy, self._executable)

    def __call__(self) -> None:
        _checked(self._run(self._executable, 0))


@cache
def _driver() -> Any:
    from cuda.bindings import driver

    return driver


def wait() -> None:
    """Wait until the default stream has done all; raises RuntimeError with what a kernel met."""
    if not in_simulator():
        _checked(_driver().cuStreamSynchronize(0))


def _checked(result: tuple[Any, ...]) -> Any:
    """What a call of the driver returned. Raises RuntimeError with its error."""
    error, *values = result
    if int(error):
        raise RuntimeError(f"the CUDA driver answered {error.name}")
    return values[0] if values else None

"""What kernels know of numba-cuda's simulator, which may run them instead of a GPU."""

from __future__ import annotations

import sys
from collections.abc import Callable
from functools import cache
from typing import Any

WARP = 32


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

"""Kernels on a grid of any size."""

from __future__ import annotations

import threading
from typing import Any

_turn = threading.Lock()


def on_grid(kernel: Any, grid: Any, threads: Any, stream: Any = 0, shared: int = 0) -> Any:
    """`kernel[grid, threads, stream, shared]` without Numba's warning of a grid of few blocks.

    A small problem has no more. Numba's setting is the user's own, for kernels of his, and is put
    back.
    """
    from numba import config

    with _turn:
        before = config.CUDA_LOW_OCCUPANCY_WARNINGS
        config.CUDA_LOW_OCCUPANCY_WARNINGS = 0
        try:
            return kernel[grid, threads, stream, shared]
        finally:
            config.CUDA_LOW_OCCUPANCY_WARNINGS = before

"""The scalar loops of `python-loops`, compiled by Numba, on one thread."""

from __future__ import annotations

from ..engines.chunked import LoopEngine
from ..interface import Variant


class NumbaLoops(LoopEngine):
    """One compiled call an epoch; nothing is allocated in it."""

    parallel = False


def _workspace(shape, itemsize, threads):
    return itemsize * (3 * shape.M + shape.K)


VARIANT = Variant(
    "numba-loops",
    "cpu",
    "the same scalar loops, jitted, on one thread",
    NumbaLoops,
    _workspace,
    parallel=False,
)

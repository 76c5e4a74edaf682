"""Where a decision falls: the sizes between which a variant begins to do something else."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable

from ..network import Shape


def both_sides(
    decide: Callable[[Shape], bool], n: int | range, d: int | range, M: int | range, K: int | range
) -> tuple[Shape, ...]:
    """The last shape for which `decide` is false and the first for which it is true.

    One size is a range over which it changes once, from false to true; none where it never does.
    """
    sizes = n, d, M, K
    among = next(size for size in sizes if isinstance(size, range))

    def shape(size: int) -> Shape:
        return Shape(*(size if isinstance(fixed, range) else fixed for fixed in sizes))

    first = bisect_left(among, True, key=lambda size: decide(shape(size)))
    if not 0 < first < len(among):
        return ()
    return shape(among[first - 1]), shape(among[first])

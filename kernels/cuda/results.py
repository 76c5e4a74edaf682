"""How a thread hands the sums in its registers to an epilogue, a run of neighbours at a time.

Registers have no numbers at run time: a group of runs is always taken from the first ones, and the
others move up. Unrolled instead, σ would stand there once for each result.
"""

from collections.abc import Callable
from typing import Any

import numpy as np
from numba import cuda
from numba.extending import register_jitable

from .memory.types import real_type

u4 = np.uint32
_GROUP = 4  # runs


def handing(dtype: str, results: int, width: int, run: int, place: Any, epilogue: Any) -> Any:
    """function(sums, C, D, part, i0, j0, t, out_rows, out_columns) for what lies inside of C.

    `epilogue` is write(sums, C, D, part, row, column, out_columns), or two: read(factors, at, D,
    row, column, out_columns), called for all runs of a group first so that they wait for memory
    together, and write(sums, factors, at, C, row, column).
    """
    real = real_type(dtype)
    runs, runs_of_row = results // run, width // run
    group = _GROUP if runs % _GROUP == 0 else 1
    taken = group * run
    reads = isinstance(epilogue, tuple)
    read, write = epilogue if reads else (None, epilogue)

    def chain(step: Callable[[int], Any], first: int = 0) -> Any:
        """The steps from the first to the last run of a group, its number a constant in each."""
        this = step(first)
        if first + 1 == group:
            return this
        following = chain(step, first + 1)

        @register_jitable
        def these(sums, factors, C, D, part, i0, j0, index, t, out_rows, out_columns):
            this(sums, factors, C, D, part, i0, j0, index, t, out_rows, out_columns)
            following(sums, factors, C, D, part, i0, j0, index, t, out_rows, out_columns)

        return these

    @register_jitable
    def position(i0, j0, index, t):
        row, column = place(t, index // runs_of_row, index % runs_of_row * run)
        return i0 + row, j0 + column

    def reading(number: int):
        at = number * run

        @register_jitable
        def one(sums, factors, C, D, part, i0, j0, index, t, out_rows, out_columns):
            row, column = position(i0, j0, index + number, t)
            if row < u4(out_rows) and column < u4(out_columns):
                read(factors, at, D, row, column, out_columns)

        return one

    def writing(number: int):
        at = number * run

        @register_jitable
        def one(sums, factors, C, D, part, i0, j0, index, t, out_rows, out_columns):
            row, column = position(i0, j0, index + number, t)
            if row < u4(out_rows) and column < u4(out_columns):
                few = cuda.local.array(run, real)
                for e in range(run):
                    few[e] = sums[at + e]
                if reads:
                    write(few, factors, at, C, row, column)
                else:
                    write(few, C, D, part, row, column, out_columns)

        return one

    @register_jitable
    def nothing(sums, factors, C, D, part, i0, j0, index, t, out_rows, out_columns):
        pass

    before, after = chain(reading) if reads else nothing, chain(writing)

    @register_jitable
    def hand(sums, C, D, part, i0, j0, t, out_rows, out_columns):
        factors = cuda.local.array(taken, real)
        # A number of runs that the compiler does not know, or it would unroll short epilogues.
        for index in range(0, runs if out_rows > 0 else 0, group):
            before(sums, factors, C, D, part, i0, j0, index, t, out_rows, out_columns)
            after(sums, factors, C, D, part, i0, j0, index, t, out_rows, out_columns)
            for e in range(results - taken):
                sums[e] = sums[e + taken]

    return hand

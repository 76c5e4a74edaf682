"""What a GPU can do at most: copies of memory, and multiply-adds in registers."""

from functools import cache

import numpy as np
from numba import cuda

from .memory.copies import copy, vector
from .memory.types import real_type

THREADS = 256
CHAINS = 16
UNROLLED = 8  # multiply-adds of a chain between two tests of the loop
STEPS = 512


@cache
def stream(dtype: str):
    """Kernel(source, target): a copy, 128 bits a thread at a time."""
    width = vector(dtype)

    def kernel(source, target):
        i = np.uint64(cuda.blockIdx.x) * np.uint64(THREADS) + np.uint64(cuda.threadIdx.x)
        at = i * np.uint64(width)
        if at + np.uint64(width) <= np.uint64(source.size):
            copy(target, at, source, at)

    return cuda.jit(kernel)


@cache
def multiply_adds(dtype: str):
    """Kernel(factor, addend, steps, out): `steps` × 8 × 16 multiply-adds a thread."""
    real = real_type(dtype)

    def kernel(factor, addend, steps, out):
        x = cuda.local.array(CHAINS, real)
        for c in range(CHAINS):
            x[c] = real(c)
        step = np.uint32(steps)
        while step != np.uint32(0):
            for _ in range(UNROLLED):
                for c in range(CHAINS):
                    x[c] = x[c] * factor + addend
            step = np.uint32(step - np.uint32(1))
        total = real(0)
        for c in range(CHAINS):
            total += x[c]
        if total == factor:  # never, but the compiler does not know
            out[cuda.threadIdx.x] = total

    return cuda.jit(kernel)

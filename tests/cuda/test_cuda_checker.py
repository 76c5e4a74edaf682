"""The checker that runs the simulator's blocks, tried on kernels that are known to be wrong."""

import numpy as np
import pytest
from numba import cuda

from twolayer.checking.cuda.blocks import BarrierError, check_blocks
from twolayer.kernels.cuda.memory.asynchronous import commit, copy_async, copy_async_or_zero, wait


@cuda.jit
def reversed_by_block(x, y):
    shared = cuda.shared.array(64, np.float32)
    t = cuda.threadIdx.x
    shared[t] = x[t]
    cuda.syncthreads()
    y[t] = shared[63 - t]


@cuda.jit
def without_its_barrier(x, y):
    shared = cuda.shared.array(64, np.float32)
    t = cuda.threadIdx.x
    shared[t] = x[t]
    y[t] = shared[63 - t]


@cuda.jit
def divergent_barrier(x, y):
    t = cuda.threadIdx.x
    if t < 40:
        cuda.syncthreads()
    y[t] = x[t]


@cuda.jit
def two_barriers_for_one(x, y):
    t = cuda.threadIdx.x
    if t < 32:
        cuda.syncthreads()
    else:
        cuda.syncthreads()
    y[t] = x[t]


@cuda.jit
def returns_before_the_warp(x, y):
    t = cuda.threadIdx.x
    if t == 5:
        return
    cuda.syncwarp()
    y[t] = x[t]


@cuda.jit
def adds_to_fresh_memory(x, y):
    total = cuda.local.array(1, np.float32)
    total[0] += x[cuda.threadIdx.x]
    y[cuda.threadIdx.x] = total[0]


@cuda.jit
def adds_to_fresh_shared_memory(x, y):
    total = cuda.shared.array(64, np.float32)
    total[cuda.threadIdx.x] += x[cuda.threadIdx.x]
    y[cuda.threadIdx.x] = total[cuda.threadIdx.x]


@cuda.jit
def two_arrays_on_a_line(x, y):
    a, b = cuda.shared.array(64, np.float32), cuda.shared.array(64, np.float32)
    t = cuda.threadIdx.x
    a[t] = x[t]
    b[t] = 0
    y[t] = a[t]


@cuda.jit
def dynamic_shared_memory(x, y):
    numbers, bits = cuda.shared.array(0, np.float32), cuda.shared.array(0, np.uint32)
    t = cuda.threadIdx.x
    fresh = numbers[t]
    cuda.syncthreads()
    numbers[t] = x[t]
    cuda.syncthreads()
    y[t] = bits[63 - t] if fresh != fresh else -1


@cuda.jit
def uses_a_copy_before_its_wait(x, y):
    shared = cuda.shared.array(64, np.float32)
    t = cuda.threadIdx.x
    if t < 16:
        copy_async(shared, 4 * t, x, 4 * t)
    commit()
    commit()
    if y[0] == 0:
        wait(0)
    else:
        wait(2)
    cuda.syncthreads()
    y[t] = shared[t]


@cuda.jit
def sum_of_a_warp(x, y):
    cuda.syncthreads()  # threads leave it in another order
    total = x[cuda.threadIdx.x]
    for offset in (16, 8, 4, 2, 1):
        total += cuda.shfl_xor_sync(0xFFFFFFFF, total, offset)
    y[cuda.threadIdx.x] = total


def run(kernel):
    x, y = np.arange(64, dtype=np.float32), np.zeros(64, np.float32)
    kernel[1, 64](x, y)
    return x, y


@pytest.mark.parametrize("attempt", range(5))
def test_a_missing_barrier_shows(attempt):
    with check_blocks(seed=attempt):
        x, y = run(without_its_barrier)
        assert not np.array_equal(y, x[::-1])
        x, y = run(reversed_by_block)
        np.testing.assert_array_equal(y, x[::-1])


@pytest.mark.parametrize(
    ("kernel", "message"),
    [
        (divergent_barrier, r"of 64 threads that must meet, .*24 have returned"),
        (two_barriers_for_one, r"of 64 threads that must meet, 32 at .*, 32 at "),
        (returns_before_the_warp, r"of 32 threads that must meet, .*1 have returned"),
    ],
)
def test_a_barrier_that_some_threads_miss_is_an_error(kernel, message):
    with pytest.raises(BarrierError, match=message):
        run(kernel)


@pytest.mark.parametrize("kernel", [adds_to_fresh_memory, adds_to_fresh_shared_memory])
def test_memory_that_was_never_written_shows(kernel):
    assert np.isnan(run(kernel)[1]).all()


def test_two_shared_arrays_on_a_line_are_two():
    x, y = run(two_arrays_on_a_line)
    np.testing.assert_array_equal(y, x)


def test_dynamic_shared_memory_is_of_the_launch():
    x, y = np.arange(64, dtype=np.float32), np.zeros(64, np.float32)
    dynamic_shared_memory[1, 64, 0, 256](x, y)
    np.testing.assert_array_equal(y, x.view(np.uint32)[::-1].astype(np.float32))
    with pytest.raises(IndexError):
        dynamic_shared_memory[1, 64, 0, 252](x, y)


def test_an_asynchronous_copy_lands_at_its_wait():
    x, y = run(uses_a_copy_before_its_wait)
    np.testing.assert_array_equal(y, x)
    y = np.ones(64, np.float32)
    uses_a_copy_before_its_wait[1, 64](x, y)
    assert np.isnan(y).all()


def test_shuffles_work():
    x, y = run(sum_of_a_warp)
    np.testing.assert_array_equal(y, np.repeat([x[:32].sum(), x[32:].sum()], 32))


@cuda.jit
def threads_of_the_grid(x, y):
    y[0] = cuda.gridDim.x * cuda.blockDim.x


def test_a_configured_kernel_keeps_its_grid():
    x, y = np.zeros(1, np.float32), np.zeros(1, np.float32)
    bound = threads_of_the_grid[2, 3]
    threads_of_the_grid[5, 7](x, y)
    bound(x, y)
    assert y[0] == 6


@cuda.jit
def copied(x, y):
    shared = cuda.shared.array(64, np.float32)
    t = cuda.threadIdx.x
    if t < 16:
        copy_async_or_zero(shared, 4 * t, x, 4 * t, t != 3)
    commit()
    commit()
    wait(1)
    cuda.syncthreads()
    y[t] = shared[63 - t]


@cuda.jit
def copied_without_a_wait(x, y):
    shared = cuda.shared.array(64, np.float32)
    t = cuda.threadIdx.x
    if t < 16:
        copy_async(shared, 4 * t, x, 4 * t)
    commit()
    wait(1)
    cuda.syncthreads()
    y[t] = shared[63 - t]


def test_an_asynchronous_copy_lands_at_the_wait():
    x, y = run(copied)
    x[12:16] = 0
    np.testing.assert_array_equal(y, x[::-1])
    assert np.isnan(run(copied_without_a_wait)[1]).all()

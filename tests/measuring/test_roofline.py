import platform
import re
from itertools import pairwise

import numba
import numpy as np
import pytest
from llvmlite import binding

from twolayer.kernels.cpu import probes
from twolayer.machine import hardware
from twolayer.measuring import roofline

pytestmark = pytest.mark.skipif(
    bool(numba.config.DISABLE_JIT), reason="the probes are machine code and nothing else"
)
DTYPES = [np.float32, np.float64]
THREADS = sorted({1, numba.config.NUMBA_NUM_THREADS})


def chains_in_numpy(dtype, count, factor, addend):
    """What one thread's chains add up to; the float64 arithmetic is exact for the values used."""
    chains = np.arange(1, probes.CHAINS + 1, dtype=np.float64)
    for _ in range(count):
        chains = chains * factor + addend
    return chains.sum() * probes.lanes(dtype)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(
    ("count", "factor", "addend"), [(0, 1, 1), (1, 0, 2), (5, 1, 3), (4, -2, 0.5), (13, 0.5, 0)]
)
def test_chains_compute_what_they_say(dtype, count, factor, addend):
    expected = chains_in_numpy(dtype, count, factor, addend)
    found = probes.fma_chains(count, dtype(factor), dtype(addend))
    assert found == expected
    sums = np.zeros(THREADS[-1], dtype)
    probes.fma_chains_parallel(sums, count, dtype(factor), dtype(addend))
    assert (sums == expected).all()


@pytest.mark.skipif(platform.machine() not in ("x86_64", "AMD64"), reason="reads x86-64 assembly")
@pytest.mark.parametrize(("dtype", "suffix"), [(np.float32, "ps"), (np.float64, "pd")])
def test_inner_loop_is_nothing_but_independent_multiply_adds(dtype, suffix):
    if not binding.get_host_cpu_features().get("fma"):
        pytest.skip("this machine has no fused multiply-add")
    # Compiled again, since code from the disk cache has no assembly to show.
    compiled = numba.jit(**probes.fma_chains.targetoptions)(probes.fma_chains.py_func)
    compiled(1, dtype(1), dtype(1))
    (assembly,) = compiled.inspect_asm().values()
    blocks = re.split(r"^\S+:.*$", assembly, flags=re.MULTILINE)
    loop = max(blocks, key=lambda block: block.count("vfmadd"))
    loop = loop[: re.search(r"^\s+j\w+\s.*$", loop, re.MULTILINE).end()].strip().splitlines()
    multiply_adds = [line.split(maxsplit=1) for line in loop if "vfmadd" in line]
    register = {64: "zmm", 32: "ymm"}[probes.TARGET.vector_bytes]
    written = [operands.rpartition("%")[2] for _, operands in multiply_adds]
    assert all(name.endswith(suffix) for name, _ in multiply_adds)
    assert all(name.startswith(register) for name in written)
    assert len(set(written)) == probes.CHAINS
    assert len(written) % probes.CHAINS == 0
    assert not [line for line in loop if "(" in line]  # neither loads nor stores
    assert len(loop) - len(multiply_adds) <= 3  # count, compare, jump


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("size", [0, 1, 7, 1000, 4099])
def test_stream_sums(dtype, size):
    values = np.arange(size, dtype=dtype)  # every partial sum is a whole number below 2**24
    assert probes.stream_sum(values) == values.sum(dtype=np.float64)
    for threads in {*THREADS, 3}:
        sums = np.full(threads, np.nan, dtype)
        probes.stream_sum_parallel(sums, values)
        parts = [size * part // threads for part in range(threads + 1)]
        expected = [values[a:b].sum() for a, b in pairwise(parts)]
        assert sums.tolist() == expected


@pytest.mark.parametrize("threads", [1, 2, 5])
def test_fill(threads):
    values = np.zeros(1003)
    probes.fill_parallel(values, 2.5, threads)
    assert (values == 2.5).all()


@pytest.mark.parametrize("dtype", ["float32", np.float64])
@pytest.mark.parametrize("threads", [*THREADS, None])
def test_probe(dtype, threads, monkeypatch):
    monkeypatch.setattr(roofline, "_STEPS", 1 << 10)
    monkeypatch.setattr(hardware, "available_memory", lambda: 1 << 22)
    before = numba.get_num_threads()
    found = roofline.probe(dtype, threads, seconds=0.01)
    assert 1e6 < found.flops < 1e16
    assert 1e6 < found.bandwidth < 1e14
    assert numba.get_num_threads() == before


@pytest.mark.parametrize("dtype", ["float16", "int32", "complex64"])
def test_probe_refuses_other_dtypes(dtype):
    with pytest.raises(ValueError, match=f"dtype must be float32 or float64, not {dtype}"):
        roofline.probe(dtype)


@pytest.mark.parametrize("threads", [0, -1, numba.config.NUMBA_NUM_THREADS + 1])
def test_probe_refuses_threads_that_are_not_there(threads):
    with pytest.raises(ValueError, match=f"threads must be from 1 to .*, not {threads}"):
        roofline.probe("float32", threads)


def test_seconds_is_the_larger_of_arithmetic_and_memory():
    roof = roofline.Roofline(flops=1e9, bandwidth=1e8)
    assert roof.seconds(2e9, 1e8) == 2.0
    assert roof.seconds(2e9, 5e8) == 5.0

"""What the machine can do at best: multiply-adds in registers, and a sum streamed from memory.

These are the two roofs of a roofline (Williams, Waterman and Patterson 2009,
doi:10.1145/1498765.1498785).
"""

import numba
import numpy as np
from llvmlite import ir
from numba.core import types
from numba.extending import intrinsic
from numpy.typing import DTypeLike

from ..compiler.jit import SUMS, jit
from ..compiler.target import TARGET

# Two to four multiply-adds a cycle, with latencies of four or five, need 8 to 16 chains in flight;
# chains, the two factors and a product must fit the registers.
CHAINS = 12 if TARGET.registers < 32 else 24


def lanes(dtype: DTypeLike) -> int:
    """Numbers of a dtype in one vector register."""
    return TARGET.lanes(np.dtype(dtype).itemsize)


@intrinsic
def _chains(typingctx, count, factor, addend):
    """Run CHAINS vectors through x ← x·factor + addend, count times; return the sum of their lanes.

    Vector c starts at c + 1 in every lane. The loop is written in LLVM's terms because only so it
    is certain that all chains stay in registers, as vectors of the machine's full width.
    """
    if not isinstance(factor, types.Float) or factor != addend:
        return None

    def generate(context, builder, signature, arguments):
        count, factor, addend = arguments
        number = context.get_value_type(signature.return_type)
        width = TARGET.lanes(signature.return_type.bitwidth // 8)
        vector = ir.VectorType(number, width)
        name = f"llvm.fmuladd.v{width}f{signature.return_type.bitwidth}"
        module = builder.module
        fma = module.globals.get(name) or ir.Function(
            module, ir.FunctionType(vector, [vector] * 3), name
        )

        def spread(value):
            lane = ir.Constant(ir.IntType(32), 0)
            empty = ir.Constant(vector, ir.Undefined)
            zeros = ir.Constant(ir.VectorType(ir.IntType(32), width), [0] * width)
            return builder.shuffle_vector(builder.insert_element(empty, value, lane), empty, zeros)

        factors, addends = spread(factor), spread(addend)
        before = builder.block
        head = builder.append_basic_block("fma.head")
        body = builder.append_basic_block("fma.body")
        done = builder.append_basic_block("fma.done")
        builder.branch(head)

        builder.position_at_end(head)
        index = builder.phi(count.type)
        index.add_incoming(ir.Constant(count.type, 0), before)
        chains = [builder.phi(vector) for _ in range(CHAINS)]
        for start, chain in enumerate(chains, start=1):
            chain.add_incoming(ir.Constant(vector, [float(start)] * width), before)
        builder.cbranch(builder.icmp_signed("<", index, count), body, done)

        builder.position_at_end(body)
        for chain in chains:
            chain.add_incoming(builder.call(fma, [chain, factors, addends]), body)
        index.add_incoming(builder.add(index, ir.Constant(count.type, 1)), body)
        builder.branch(head)

        builder.position_at_end(done)
        total = chains[0]
        for chain in chains[1:]:
            total = builder.fadd(total, chain)
        result = ir.Constant(number, 0.0)
        for lane in range(width):
            element = builder.extract_element(total, ir.Constant(ir.IntType(32), lane))
            result = builder.fadd(result, element)
        return result

    return factor(types.int64, factor, addend), generate


@jit(f"probe-chains-{TARGET.name}")
def fma_chains(count, factor, addend):
    """One thread's count·CHAINS·lanes multiply-adds; the sum of what the chains hold at the end."""
    return _chains(count, factor, addend)


@jit(f"probe-chains-{TARGET.name}", parallel=True)
def fma_chains_parallel(out, count, factor, addend):
    """The same on as many threads as out has elements: one sum each."""
    for thread in numba.prange(out.size):
        out[thread] = _chains(count, factor, addend)


@jit("probe-stream", fastmath=SUMS)
def stream_sum(values):
    """Σ values, in whatever order is fastest; reads every byte of values once."""
    total = values.dtype.type(0)
    for i in range(values.size):
        total += values[i]
    return total


@jit("probe-stream-parallel", fastmath=SUMS, parallel=True)
def stream_sum_parallel(out, values):
    """The same on as many threads as out has elements: one part of values and one sum each."""
    for thread in numba.prange(out.size):
        start = thread * values.size // out.size
        stop = (thread + 1) * values.size // out.size
        out[thread] = stream_sum(values[start:stop])


@jit("probe-parallel", parallel=True)
def fill_parallel(values, value, threads):
    """Set all values, each part by the thread that will read it, so that it lies in its memory."""
    for thread in numba.prange(threads):
        start = thread * values.size // threads
        stop = (thread + 1) * values.size // threads
        for i in range(start, stop):
            values[i] = value

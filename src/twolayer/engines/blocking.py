"""How an epoch of panels is cut: all that is decided about a shape, once, when a plan is made."""

from __future__ import annotations

import math
from typing import NamedTuple

from ..kernels.compiler.target import TARGET
from ..kernels.cpu.loops import chunk_count
from ..kernels.cpu.vectors.panels import last_lanes, panel_count, panel_size
from ..kernels.cpu.vectors.simd import spread_step
from ..machine.hardware import cache_sizes
from ..network import Shape

_FEW = 2e6  # operations that are over before a second thread would be of use
SMALL = 1 << 15  # elements of θ that one thread updates before a second would have begun
_PANELS = 128  # columns of Z and S that are in use at a time
_PAGES = 64 * 4096  # bytes that a first-level TLB reaches
_MOST = 480  # rows of a block
_LINE = 16  # numbers that fill a cache line, or two
# Vectors of hidden units from which on a copy of X pays; where its rows compete for few sets of L1.
_SPREAD, _COLLIDE = (17, 8) if TARGET.registers >= 32 else (8, 0)
_FORMULA = 40  # operations that σ and σ′ of a number are worth, or h and δ
_SIGMA = 20  # cycles of σ and σ′ for a vector: 4 of relu, 11 of tanh, 22 of tanh in float64
_LONG = 500  # inputs
_ROW = 1000  # that all else of a row is worth


class Blocking(NamedTuple):
    """How an epoch is cut."""

    chunks: int  # of the samples, at most; more than one are shared among threads
    few: int  # rows fewer than these are one chunk
    parts: int  # of the hidden units, at most, which threads share where rows are few
    shared: int  # the most rows that are few enough for that
    rows: int  # of a block
    most: int  # that the buffers have room for
    lanes: int  # of a panel
    height: int  # of a tile
    depth: int  # inputs of a part of d
    step: int  # elements that a group of inputs takes where X is spread; 0 where it is not
    by_dots: bool  # U by sums along the lanes, else by tiles
    alone: bool  # one thread adds up the gradient and updates θ
    plain: bool  # θ lies as it is: see `few_units`
    size: int  # elements of θ that an update changes

    def chunks_of(self, rows: int) -> int:
        """The number of chunks that so many rows are cut into."""
        return 1 if rows < self.few else chunk_count(rows, self.chunks)

    def parts_of(self, rows: int) -> int:
        """The number of parts of the hidden units for so few rows; 0 where rows are in chunks."""
        if self.plain or rows > self.most:
            return 0
        if rows < self.few:
            return 1
        return self.parts if rows <= self.shared else 0


def blocking(shape: Shape, itemsize: int, threads: int) -> Blocking:
    """The sizes for a problem, with calls over up to n rows."""
    n, d, M, K = shape = Shape(*(max(1, size) for size in shape))  # what is none is refused later
    lanes, plain = lane_count(itemsize), few_units(shape, itemsize)
    rows = min(n, (plain_rows if plain else block_rows)(shape, itemsize, threads))
    few = few_rows(shape)
    parts = 1 if plain or n < few else min(threads, panel_count(M, lanes))
    shared = min(n, _MOST, threads * M) if parts > 1 else 0
    most = max(rows, shared)
    size = M * (d + K) if plain else panel_size(d + K, M, lanes)
    return Blocking(
        chunks=1 if n < few else chunk_count(n, threads),
        few=few,
        parts=parts,
        shared=shared,
        rows=rows,
        most=most,
        lanes=lanes,
        height=TARGET.height,
        depth=product_depth(d, itemsize, threads),
        step=spread_step(most, itemsize) if spreads(shape, itemsize) else 0,
        by_dots=dots_pay(shape, lanes),
        alone=size < SMALL,
        plain=plain,
        size=size,
    )


def few_units(shape: Shape, itemsize: int) -> bool:
    """Whether lanes along inputs and samples are cheaper than lanes along so few hidden units.

    In cycles a sample, fitted to measured ones: two products a vector of inputs and two of outputs,
    sums of dot products, σ and σ′. Long rows of X leave the first-level cache before the next units
    read them.
    """
    _, d, M, K = shape
    width = TARGET.lanes(itemsize)
    vectors, of_d = -(-M // width), -(-d // width)
    outputs = min(_dots(M, K, width), _tiles(M, K, width))
    products = vectors // 2 * 2.1 + vectors % 2 * _COST.narrow
    panels = products * (d + K) + vectors * _SIGMA + outputs + _COST.rest
    by_input = M * ((1.25 if d > _LONG else 1.05) * of_d + 5)
    plain = by_input + M / width * (2.4 * K + _SIGMA)
    return vectors <= 4 and plain < panels


def few_rows(shape: Shape) -> int:
    """The fewest rows that are worth a second thread."""
    of_row = shape._replace(n=1).flops() + _FORMULA * (shape.M + shape.K) + _ROW
    return int(-(-_FEW // of_row))


def lane_count(itemsize: int) -> int:
    """Lanes of a panel: two vectors."""
    return 2 * TARGET.lanes(itemsize)


def block_rows(shape: Shape, itemsize: int, threads: int) -> int:
    """Rows of a block, 48 to 480: what the products go through again and again stays in L2.

    That is all of a block where 96 rows of that fit. Where they do not, more rows spread what is
    read of V over more samples, and a part of X counts, a few panels of Z and S, the outputs: of
    three quarters of the cache.
    """
    _, d, M, K = shape
    cache = cache_sizes(threads)[2] // itemsize
    columns = d + 2 * M + 3 * K
    if 96 * columns <= cache:
        rows = max(96, cache // 2 // columns)
    else:
        part = product_depth(d, itemsize, threads) + min(2 * M, _PANELS) + 3 * K
        rows = max(96, cache * 3 // 4 // part)
    if not spreads(shape, itemsize):
        rows = min(rows, _lying_rows(d, itemsize))
    return whole_rows(min(_MOST, rows), TARGET.height)


def plain_rows(shape: Shape, itemsize: int, threads: int) -> int:
    """Rows of a block of few hidden units, 16 to 480: X and what is made of it stay in L2."""
    _, d, M, K = shape
    rows = max(16, cache_sizes(threads)[2] // 2 // (itemsize * (d + 2 * M + 2 * K)))
    return whole_rows(min(_MOST, rows, _lying_rows(d, itemsize)))


def whole_rows(rows: int, height: int = 1) -> int:
    """The most of so many rows, 16 or more, that fill whole cache lines, and tiles of a height.

    Where arrays have a row for each output, or unit, vectors of samples then cross no line.
    """
    whole = math.lcm(height, _LINE)
    return rows // whole * whole


def _lying_rows(d: int, itemsize: int) -> int:
    """Rows of a block of X as it lies, 48 or more: no more memory pages than a TLB holds."""
    return max(48, _PAGES // (itemsize * d))


def product_depth(d: int, itemsize: int, threads: int) -> int:
    """Inputs that a product runs over at a time: so many rows of a panel of V take half of L1.

    All parts of d are about as long, for a short one would cost as many stores; a multiple of a
    tile's height. No fewer than four tiles, wherever a machine says that all its CPUs share L1.
    """
    most = cache_sizes(threads)[1] // 2 // (itemsize * lane_count(itemsize))
    most = max(most, 4 * TARGET.height)
    parts = -(-d // most)
    return -(-d // (parts * TARGET.height)) * TARGET.height


def spreads(shape: Shape, itemsize: int) -> bool:
    """Whether a block of X is copied into the order in which products read it.

    That pays where many products read a row; fewer where rows are a multiple of 512 bytes apart,
    and so compete for few sets of a cache.
    """
    n, d, M, _ = shape
    least = _SPREAD if d * itemsize % 512 else _COLLIDE
    return n >= TARGET.height and d >= 16 and least * TARGET.lanes(itemsize) <= M


def dots_pay(shape: Shape, lanes: int) -> bool:
    """Whether U = Z Wᵀ is cheaper by dot products along M than by tiles with lanes along K.

    Tiles also need W turned over after every update.
    """
    n, _, M, K = shape
    width = lanes // 2
    return _tiles(M, K, width) + 2 * K * M / width / n > _dots(M, K, width)


class _Cost(NamedTuple):
    """Cycles a sample, measured."""

    narrow: float  # of both products an input or output, for a panel of one vector
    rest: float  # for panels, beyond what lanes along the inputs take
    vector: float  # of Z in a dot product for U
    sums: float  # over the lanes of one
    one: float  # number of Z, broadcast to a vector of outputs for U
    pair: float  # to two


_COST = (
    _Cost(narrow=1.05, rest=10, vector=0.625, sums=4.4, one=0.54, pair=1.08)
    if TARGET.registers >= 32
    # Tiles of few rows load as often as they multiply.
    else _Cost(narrow=1.6, rest=2, vector=0.5, sums=1.25, one=0.54, pair=0.8)
)


def _dots(M: int, K: int, width: int) -> float:
    """Cycles of U a sample by dot products."""
    return K * (M / width * _COST.vector + _COST.sums)


def _tiles(M: int, K: int, width: int) -> float:
    """Cycles of U a sample by tiles, and to turn it over."""
    pairs, one = divmod(-(-K // width), 2)
    return M * (pairs * _COST.pair + one * _COST.one) + 0.6 * K


class Decisions(NamedTuple):
    """What an epoch does for some shapes only."""

    few_units: bool  # lanes run along inputs and samples; what follows but chunks is of others
    few_units_blocks: bool  # a second one in a chunk
    few_units_lanes: bool  # more inputs than two vectors hold
    few_samples: bool  # one block, on one thread
    shared_units: bool  # one block, threads share the hidden units
    chunks: bool  # several, on several threads
    blocks: bool  # a second one in a chunk, of X as it lies
    spread: bool
    spread_blocks: bool  # a second one, to where the first was spread
    parts: bool  # of d, in chunks
    few_parts: bool  # of d, for few samples
    panels: bool  # of hidden units
    one_vector: bool  # as the last of these panels
    dots: bool
    dots_one_vector: bool
    output_panels: bool  # of U by tiles
    output_one_vector: bool
    large_update: bool  # on several threads, after chunks


def decisions(shape: Shape, cut: Blocking) -> Decisions:
    """What is decided for a shape that is cut so."""
    n, d, M, K = shape
    plain, in_panels, lanes, parts = cut.plain, not cut.plain, cut.lanes, cut.parts_of(n)
    blocks = parts == 0 and -(-n // cut.chunks) > cut.rows
    spread, dots, tiles = (in_panels and b for b in (cut.step > 0, cut.by_dots, not cut.by_dots))
    one_vector = in_panels and last_lanes(M, lanes) < lanes
    return Decisions(
        few_units=plain,
        few_units_blocks=plain and blocks,
        few_units_lanes=plain and d > lanes,
        few_samples=parts == 1,
        shared_units=parts > 1,
        chunks=parts == 0 and cut.chunks > 1,
        blocks=in_panels and blocks and not spread,
        spread=spread,
        spread_blocks=spread and blocks,
        parts=in_panels and parts == 0 and d > cut.depth,
        few_parts=parts > 0 and d > cut.depth,
        panels=in_panels and panel_count(M, lanes) > 1,
        one_vector=one_vector,
        dots=dots,
        dots_one_vector=dots and one_vector,
        output_panels=tiles and panel_count(K, lanes) > 1,
        output_one_vector=tiles and last_lanes(K, lanes) < lanes,
        large_update=parts == 0 and cut.chunks > 1 and not cut.alone,
    )

"""How the block-wise variants cut a problem: as much as the caches hold, and no more."""

import math

import pytest

import twolayer as tl
from twolayer.engines import blocking
from twolayer.kernels.compiler.target import TARGET
from twolayer.kernels.cpu import blas
from twolayer.kernels.cpu.vectors import simd
from twolayer.variants import numba_blas

CACHES = {1: 32 << 10, 2: 1 << 20, 3: 1 << 25}
SHAPES = [tl.Shape(10**6, *sizes) for sizes in ((8, 32, 1), (784, 128, 10), (300, 1000, 90))]
WIDE = [tl.Shape(10**6, *sizes) for sizes in ((3000, 2000, 10), (3000, 30, 1), (784, 128, 1))]
H = TARGET.height
# Hidden units that are worth a copy of X, and where its rows collide in a cache.
FEW, LEAST = (vectors * TARGET.lanes(4) for vectors in (blocking._SPREAD, blocking._COLLIDE))
itemsizes = pytest.mark.parametrize("itemsize", [4, 8])


@pytest.fixture(autouse=True)
def known_caches(monkeypatch):
    for module in (numba_blas, blocking):
        monkeypatch.setattr(module, "cache_sizes", lambda threads: CACHES)


@itemsizes
@pytest.mark.parametrize("shape", SHAPES)
def test_a_block_for_blas_takes_half_of_the_cache(shape, itemsize):
    rows = numba_blas.block_rows(shape, itemsize, 1)
    sizes = blas.buffers(shape, 1, 1)
    row = itemsize * (shape.d + sum(sizes[name][1] for name in ("Z", "S", "G", "U", "Y")))
    assert rows == 16 or rows * row <= CACHES[2] / 2
    assert rows == 512 or (rows + 16) * row > CACHES[2] / 2


def test_blocks_have_a_least_and_a_largest_size():
    wide, narrow = tl.Shape(10**6, 9000, 9000, 9000), tl.Shape(10**6, 1, 1, 1)
    assert numba_blas.block_rows(wide, 8, 1) == 16
    assert numba_blas.block_rows(narrow, 8, 1) == 512
    assert numba_blas.block_rows(narrow._replace(n=7), 8, 1) == 7
    assert blocking.block_rows(wide, 8, 1) == 96
    assert blocking.block_rows(wide._replace(M=1), 8, 1) == 48
    assert blocking.block_rows(narrow, 8, 1) == 480
    assert blocking.plain_rows(wide, 8, 1) == 16
    assert blocking.plain_rows(narrow, 8, 1) == 480


def test_threads_that_share_a_cache_have_blocks_for_their_part_of_it(monkeypatch):
    shapes = [tl.Shape(10**6, *sizes) for sizes in ((300, 150, 5), (3000, 1, 1))]
    assert [blocking.few_units(shape, 4) for shape in shapes] == [False, True]
    cuts = [(blocking, shape) for shape in shapes] + [(numba_blas, shapes[0])]
    before = [module.blocking(shape, 4, 4) for module, shape in cuts]
    for module in (numba_blas, blocking):
        monkeypatch.setattr(
            module, "cache_sizes", lambda threads: {n: b // threads for n, b in CACHES.items()}
        )
    after = [module.blocking(shape, 4, 4) for module, shape in cuts]
    for old, new in zip(before, after, strict=True):
        assert new.rows < old.rows
    assert after[0].depth < before[0].depth


def test_a_cache_that_too_many_threads_are_said_to_share_still_gives_a_depth(monkeypatch):
    monkeypatch.setattr(blocking, "cache_sizes", lambda threads: dict.fromkeys(CACHES, 64))
    for shape in SHAPES + WIDE:
        cut = blocking.blocking(shape, 8, 512)
        assert cut.depth >= min(shape.d, H)
        assert cut.rows >= 16


@itemsizes
@pytest.mark.parametrize("shape", [(2000, 9, 2, 350), (10**5, 30, 8, 100), (5000, 300, 300, 300)])
def test_rows_along_which_vectors_run_are_whole_cache_lines(shape, itemsize):
    for module in (numba_blas, blocking):
        cut = module.blocking(tl.Shape(*shape), itemsize, 1)
        assert cut.rows * itemsize % 64 == 0


@itemsizes
@pytest.mark.parametrize("shape", [*SHAPES, *WIDE])
def test_a_fused_block_takes_half_of_the_cache_or_a_part_three_quarters(shape, itemsize):
    _, d, M, K = shape
    row, share = itemsize * (d + 2 * M + 3 * K), 1 / 2
    if 96 * row > CACHES[2]:
        part = blocking.product_depth(d, itemsize, 1) + min(2 * M, 128)
        row, share = itemsize * (part + 3 * K), 3 / 4
    pages = math.inf if blocking.spreads(shape, itemsize) else 64 * 4096 / (itemsize * d)
    rows, whole = blocking.block_rows(shape, itemsize, 1), math.lcm(H, 16)
    assert rows % whole == 0
    assert rows <= 96 or rows * row <= CACHES[2] * share
    assert rows <= 48 or rows <= pages  # of the first-level TLB
    assert rows + whole > min(480, CACHES[2] * share / row, pages)


@itemsizes
@pytest.mark.parametrize("d", [1, 16, 100, 256, 784, 3001])
def test_parts_of_the_inputs_take_half_of_the_first_cache_and_are_as_long(d, itemsize):
    depth, row = blocking.product_depth(d, itemsize, 1), itemsize * blocking.lane_count(itemsize)
    most = CACHES[1] // 2 // row
    parts = -(-d // most)
    assert depth % H == 0
    assert (depth - H) * parts < d <= depth * parts


@itemsizes
def test_groups_of_spread_inputs_lie_an_odd_number_of_lines_apart(itemsize):
    for rows in (12, 96, 100, 480):
        step = simd.spread_step(rows, itemsize)
        assert step * itemsize % 128 == 64
        assert 0 <= step * itemsize - rows * H * itemsize < 128


@pytest.mark.parametrize(
    ("d", "M", "spread"),
    [
        (16, FEW, True),
        (15, FEW, False),
        (16, FEW - 1, False),
        (128, max(1, LEAST), True),
        *([(128, LEAST - 1, False)] if LEAST else []),
        (129, FEW - 1, False),
    ],
)
def test_inputs_are_spread_where_many_products_read_them_or_sets_of_a_cache_collide(d, M, spread):
    assert blocking.spreads(tl.Shape(1000, d, M, 1), 4) is spread
    assert not blocking.spreads(tl.Shape(H - 1, d, M, 1), 4)


@pytest.mark.parametrize(
    ("shape", "rows", "chunks"),
    [
        ((1000, 16, 16, 1), 714, 1),  # 2800 operations a row
        ((1000, 16, 16, 1), 715, 2),
        ((1000, 16, 16, 1), 1000, 2),
        ((50, 90, 90, 9), 48, 2),
        ((50, 90, 90, 9), 47, 1),
        ((1000, 1000, 1000, 9), 31, 1),  # no chunk has fewer than 16 rows
        ((1000, 1000, 1000, 9), 32, 2),
    ],
)
def test_one_thread_is_enough_for_what_is_over_before_a_second_begins(shape, rows, chunks):
    cut = blocking.blocking(tl.Shape(*shape), 4, 2)
    assert cut.chunks_of(rows) == chunks
    assert blocking.blocking(tl.Shape(*shape)._replace(n=rows), 4, 2).chunks == chunks


@pytest.mark.parametrize("threads", [1, 2, 3, 8])
def test_no_call_has_more_chunks_than_there_are_buffers_for(threads):
    for shape in SHAPES:
        shape = shape._replace(n=1000)
        cut = blocking.blocking(shape, 4, threads)
        found = [cut.chunks_of(rows) for rows in range(1, 1001)]
        assert found == sorted(found)
        assert found[-1] == cut.chunks <= threads


def test_dots_pay_for_few_outputs_of_many_hidden_units():
    lanes = blocking.lane_count(4)
    found = [blocking.dots_pay(tl.Shape(1000, 9, 256, K), lanes) for K in (1, 2, 4, 12, 16)]
    assert found == sorted(found, reverse=True)
    assert found[0]
    assert not found[-1]
    assert not blocking.dots_pay(tl.Shape(1000, 9, 60, 100), lanes)
    assert blocking.dots_pay(tl.Shape(1, 9, 60, 100), lanes)  # or W would be turned for one row


@pytest.mark.parametrize(
    ("shape", "rows", "parts"),
    [
        ((1000, 40, 120, 1), 1, 1),  # 25760 operations a row: 43 are worth a second thread
        ((1000, 40, 120, 1), 77, 1),
        ((1000, 40, 120, 1), 78, 2),
        ((1000, 40, 120, 1), 240, 2),  # as many as all threads have hidden units
        ((1000, 40, 120, 1), 241, 0),
        ((1000, 300, 1000, 90), 95, 2),  # more threads than M / n
        ((1000, 300, 1000, 90), 481, 0),  # more than a block
        ((1000, 16, 17, 1), 300, 1),
        ((1000, 16, 17, 1), 500, 0),
        ((1000, 16, 1, 1), 1, 0),  # θ lies plain
    ],
)
def test_threads_share_the_hidden_units_of_few_rows(shape, rows, parts):
    assert blocking.blocking(tl.Shape(*shape), 4, 2).parts_of(rows) == parts


@pytest.mark.parametrize("threads", [1, 2, 3, 8])
def test_no_part_is_without_hidden_units(threads):
    for M in (1, 8, 9, 40, 1000):
        cut = blocking.blocking(tl.Shape(1000, 700, M, 3), 4, threads)
        panels = -(-M // cut.lanes)
        assert cut.parts == (1 if cut.plain else min(threads, panels))
        assert (cut.shared > 0) is (cut.parts > 1)
        assert cut.shared <= min(cut.most, threads * M)
        assert {cut.parts_of(rows) for rows in range(1, 1001)} <= {0, 1, cut.parts}


@itemsizes
def test_theta_lies_plain_where_the_hidden_units_are_few(itemsize):
    width = TARGET.lanes(itemsize)
    few = min(2, width // 2)
    for M, plain in ((1, True), (few, True), (2 * width, False), (4 * width, False)):
        cut = blocking.blocking(tl.Shape(1000, 30, M, 3), itemsize, 2)
        assert cut.plain is plain
        assert cut.size == (M if plain else -(-M // width) * width) * (30 + 3)


def test_one_thread_updates_a_small_theta():
    found = {M: blocking.blocking(tl.Shape(1000, 255, M, 1), 4, 2) for M in (64, 96, 128)}
    assert {M: cut.alone for M, cut in found.items()} == {64: True, 96: True, 128: False}

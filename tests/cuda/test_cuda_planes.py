"""The products of fp16 planes against float64, in the simulator with blocks run by our checker."""

import numpy as np
import pytest

from twolayer.checking.cuda import blocks
from twolayer.checking.cuda.blocks import check_blocks
from twolayer.kernels.cuda.tensorcores import mma
from twolayer.kernels.formulas.activations import ACTIVATIONS


def packed(P):
    """The planes of P, |P| < 2^15, in their order on the device."""
    rows, columns = (
        -(-extent // edge) * edge for extent, edge in zip(P.shape, (128, 64), strict=True)
    )
    full = np.zeros((rows, columns), np.float32)
    full[: P.shape[0], : P.shape[1]] = P
    hi = full.astype(np.float16)
    planes = np.stack([hi, (full - hi).astype(np.float16)])
    r, c = np.indices((128, 64))
    where = r * 64 + (c // 8 ^ r & 7) * 8 + c % 8
    blocks = planes.reshape(2, rows // 128, 128, columns // 64, 64).transpose(1, 3, 0, 2, 4)
    flat = np.zeros((*blocks.shape[:3], 128 * 64), np.float16)
    flat[..., where] = blocks
    return flat.reshape(-1).view(np.uint32)


def scaled(random, rows, columns, axis):
    """A matrix, and its largest powers of two by which it is below 2^15 along the axis, undone."""
    P = random.standard_normal((rows, columns)).astype(np.float32)
    P *= np.float32(2.0) ** random.integers(-30, 30, rows if axis == 1 else columns).reshape(
        (-1, 1) if axis == 1 else (1, -1)
    )
    _, exponents = np.frexp(abs(P).max(axis))
    factors = np.ldexp(np.float32(1), exponents - 15).astype(np.float32)
    return P, P / np.expand_dims(factors, axis), factors


def ld(columns):
    return -(-columns // 4) * 4


def run_hidden(n, M, d, K, stages):
    random = np.random.default_rng(n)
    X, Xs, xr = scaled(random, n, d, 1)
    V, Vs, vr = scaled(random, M, d, 1)
    W = np.zeros((max(K, 1), ld(M)), np.float32)
    W[:, :M] = random.standard_normal((max(K, 1), M))
    A = np.full((n, ld(M)), np.nan, np.float32)
    Us = np.full((mma.tiles(M), n, K), np.nan, np.float32)
    kernel = mma.hidden(ACTIVATIONS["tanh"], K, stages)
    blocks = mma.tiles(n) * mma.tiles(M)
    kernel[blocks, mma.THREADS, 0, mma.shared_bytes(stages)](
        packed(Xs), packed(Vs), xr, vr, W, A, Us, n, M, d
    )
    return X.astype(float), V.astype(float), W[:K, :M].astype(float), A, Us


def within(found, A, B):
    """Whether A Bᵀ is as accurate as three passes and float32's sums make it."""
    additions = 3 * A.shape[1] / 16 + 2
    bound = (3 * 2.0**-22 + additions * 2.0**-24) * (abs(A) @ abs(B).T)
    return (abs(found - A @ B.T) <= bound).all()


@pytest.mark.parametrize("stages", [2, 3, 4])
def test_hidden(stages):
    n, M, d, K = 150, 130, 70, 3
    X, V, W, A, Us = run_hidden(n, M, d, K, stages)
    assert within(A[:, :M], X, V)
    assert not A[:, M:].any()
    for c, units in enumerate((slice(0, 128), slice(128, M))):
        U = np.tanh(A[:, units].astype(float)) @ W[:, units].T
        np.testing.assert_allclose(Us[c], U, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(("M", "d"), [(3, 1), (5, 33), (9, 200)])
def test_hidden_of_other_lengths(M, d):
    """One stage, fewer stages than the ring has, and more; without outputs."""
    X, V, _, A, _ = run_hidden(20, M, d, 0, 3)
    assert within(A[:, :M], X, V)
    assert not A[:, M:].any()


@pytest.mark.parametrize("stages", [2, 3, 4])
def test_sums(stages):
    n, M, d = 150, 130, 70
    check_sums(n, M, d, 128, stages)


@pytest.mark.parametrize("columns", [128, 112, 96, 16])
def test_sums_of_other_shapes(columns):
    check_sums(300, 5, 3, 256, 3, columns)
    check_sums(40, 70, 190, 128, 3, columns)


def check_sums(n, M, d, share, stages, columns=128):
    random = np.random.default_rng(n)
    G, Gs, gr = scaled(random, n, M, 0)
    X, Xs, xc = scaled(random, n, d, 0)
    parts = -(-n // share)
    gVs = np.full((parts, M * ld(d)), np.nan, np.float32)
    grid = mma.tiles(M) * mma.tiles(d, columns), parts
    mma.sums(stages, columns)[grid, mma.THREADS, 0, mma.shared_bytes(stages)](
        packed(Gs), packed(Xs), gr, xc, gVs, M, d, ld(d), share, n
    )
    gVs = gVs.reshape(parts, M, ld(d))
    assert not gVs[..., d:].any()
    G, X = G.astype(float), X.astype(float)
    for p in range(parts):
        rows = slice(p * share, (p + 1) * share)
        assert within(gVs[p, :, :d], G[rows].T, X[rows].T)


def test_nan_stays_in_its_row():
    random = np.random.default_rng(0)
    X, V = random.standard_normal((4, 8)), random.standard_normal((3, 8))
    X[2, 5] = np.nan
    A = np.full((4, 4), 7, np.float32)
    one = np.ones(4, np.float32)
    empty = np.zeros((1, 4, 0), np.float32)
    mma.hidden(ACTIVATIONS["tanh"], 0)[1, mma.THREADS, 0, mma.SHARED_HIDDEN](
        packed(X), packed(V), one, one, np.zeros((1, 4), np.float32), A, empty, 4, 3, 8
    )
    assert np.isnan(A[2, :3]).all()
    assert np.isfinite(A[[0, 1, 3]]).all()
    assert not A[:, 3].any()


@pytest.mark.filterwarnings("ignore::RuntimeWarning")
@pytest.mark.parametrize("missing", ["syncthreads", "wait"])
def test_a_product_without_its_barrier_or_wait_shows(missing, monkeypatch):
    if missing == "syncthreads":
        module = blocks.simulated_module()
        monkeypatch.setattr(module, "syncthreads", lambda self: None)
        monkeypatch.setattr(blocks, "simulated_module", lambda: module)
    else:
        monkeypatch.setattr(mma, "wait", lambda pending: None)
        mma._accumulation.cache_clear()
        mma.hidden.cache_clear()
    try:
        with check_blocks():
            X, V, _, A, _ = run_hidden(20, 5, 70, 0, 3)
        assert not within(A[:, :5], X, V)
    finally:
        mma._accumulation.cache_clear()
        mma.hidden.cache_clear()

"""A frozen epoch, the yardstick that tells a machine's drift from a change of the package.

This file is never changed, not even to make it faster or tidier: every ratio ever recorded is in
its units. A test holds it to its digest. It imports nothing of twolayer.

It is of the same kind as the blocked variants: compiled by Numba, one chunk of samples a thread,
blocks of samples that stay in the first-level cache, X and Y read once. σ is a rational
approximation of tanh, the loss is ‖y − f‖², V is kept transposed.
"""

from __future__ import annotations

import numpy as np
from numba import njit, prange

ROWS = 16  # samples a block
C0, C2, C4 = np.float32(135135), np.float32(17325), np.float32(378)
D2, D4, D6 = np.float32(62370), np.float32(3150), np.float32(28)
ONE, TWO, FAR = np.float32(1), np.float32(2), np.float32(4.97)


@njit(
    parallel=True,
    cache=True,
    nogil=True,
    error_model="numpy",
    fastmath={"contract", "nsz", "arcp", "reassoc"},
)
def _epoch(X, Y, Vt, W, mu, Z, G, gVts, gWs, losses):
    """One epoch; returns L. Chunk c has Z[c], G[c] (ROWS, M), gVts[c] (d, M) and gWs[c] (K, M)."""
    n, d = X.shape
    K, M = W.shape
    chunks = len(losses)
    for c in prange(chunks):
        first, last = n * c // chunks, n * (c + 1) // chunks
        gVt, gW = gVts[c], gWs[c]
        gVt[:] = 0
        gW[:] = 0
        loss = 0.0
        for start in range(first, last, ROWS):
            rows = min(ROWS, last - start)
            for i in range(rows):
                Z[c, i] = 0
                G[c, i] = 0
            for j in range(d):
                v = Vt[j]
                for i in range(rows):
                    z, x = Z[c, i], X[start + i, j]
                    for m in range(M):
                        z[m] += x * v[m]
            for i in range(rows):
                z = Z[c, i]
                for m in range(M):
                    a = max(min(z[m], FAR), -FAR)
                    s = a * a
                    z[m] = a * (C0 + s * (C2 + s * (C4 + s))) / (C0 + s * (D2 + s * (D4 + s * D6)))
            for k in range(K):
                w, gw = W[k], gW[k]
                for i in range(rows):
                    z, g = Z[c, i], G[c, i]
                    u = ONE - ONE
                    for m in range(M):
                        u += w[m] * z[m]
                    error = u - Y[start + i, k]
                    delta = TWO * error
                    loss += error * error
                    for m in range(M):
                        gw[m] += delta * z[m]
                    for m in range(M):
                        g[m] += delta * w[m]
            for i in range(rows):
                z, g = Z[c, i], G[c, i]
                for m in range(M):
                    g[m] *= ONE - z[m] * z[m]
            for j in range(d):
                gv = gVt[j]
                for i in range(rows):
                    g, x = G[c, i], X[start + i, j]
                    for m in range(M):
                        gv[m] += x * g[m]
        losses[c] = loss
    factor = np.float32(mu / n)
    total = 0.0
    for c in range(chunks):
        total += losses[c]
        for j in range(d):
            v, gv = Vt[j], gVts[c, j]
            for m in range(M):
                v[m] -= factor * gv[m]
        for k in range(K):
            w, gw = W[k], gWs[c, k]
            for m in range(M):
                w[m] -= factor * gw[m]
    return total / n


class Reference:
    """The epoch with its buffers.

    Arguments: X (n, d), Y (n, K), V (M, d), W (K, M), C-contiguous and float32; chunks of samples,
    as many as Numba's threads. X and Y are never written to, V and W are copied.
    """

    def __init__(
        self, X: np.ndarray, Y: np.ndarray, V: np.ndarray, W: np.ndarray, chunks: int
    ) -> None:
        self.X, self.Y, self.Vt, self.W = X, Y, V.T.copy(order="C"), W.copy()
        M, d = V.shape
        K = len(W)
        self._buffers = (
            np.empty((chunks, ROWS, M), np.float32),
            np.empty((chunks, ROWS, M), np.float32),
            np.empty((chunks, d, M), np.float32),
            np.empty((chunks, K, M), np.float32),
            np.empty(chunks),
        )

    def step(self, mu: float) -> float:
        """θ ← θ − μ ∇L(θ); returns L at the θ it started from."""
        return _epoch(self.X, self.Y, self.Vt, self.W, mu, *self._buffers)

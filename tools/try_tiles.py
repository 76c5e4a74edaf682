"""Try tiles of `cuda-tiled` on a GPU: X Vᵀ and Gᵀ X, right against float64, and how fast.

    python tools/try_tiles.py

Prints a line of JSON for each try, in about a minute; most of it is compilation. The tiles that win
become `LARGE`, `TALL` and `SLIM` in kernels/cuda/products.py.
"""

import json
import time

import numpy as np
from numba import cuda

from twolayer.device import multiprocessors
from twolayer.kernels.activations import ACTIVATIONS
from twolayer.kernels.cuda import doubles, epilogues, products
from twolayer.kernels.cuda.insides import in_simulator
from twolayer.kernels.cuda.products import Tile
from twolayer.products import parts_of

SHAPES = [(60_000, 784, 1024), (100_000, 784, 128)]
SQUARE = [Tile(128, 128, depth, 8, width) for width in (8, 16) for depth in (8, 16)]
TALL = [Tile(256, 64, 8, 8, 8), Tile(256, 64, 16, 8, 8), Tile(256, 64, 16, 8, 16)]
SLIM = [Tile(128, 64, 8, 8, 8), Tile(128, 64, 16, 8, 8), Tile(128, 64, 16, 8, 16)]
DOUBLE = doubles.tile_for(128, 128)
ENGINES = [
    ("float32", products.register_tile, SQUARE, (TALL, SLIM)),
    ("float64", doubles.at_once, [DOUBLE], ([], [])),
    ("float64", doubles.in_halves, [DOUBLE], ([], [])),
]
TRIES = 7


def matrix(rows, columns, dtype):
    """Numbers of one variance."""
    return np.random.default_rng(rows + columns).standard_normal((rows, columns)).astype(dtype)


def milliseconds(launch):
    """The median of a few launches after one that is not counted."""
    launch()
    found = []
    for _ in range(1 if in_simulator() else TRIES):
        begin, end = cuda.event(), cuda.event()
        begin.record()
        launch()
        end.record()
        end.synchronize()
        found.append(begin.elapsed_time(end))
    return sorted(found)[len(found) // 2]


class Trial:
    """The operands of one shape, on the host and on the device, and what their products are."""

    def __init__(self, n, d, M, dtype):
        self.n, self.d, self.M, self.dtype = n, d, M, dtype
        X, V, G = matrix(n, d, dtype), matrix(M, d, dtype) / 28, matrix(n, M, dtype)
        self.rows = slice(None, None, max(1, n // 64))
        self.Z = np.tanh(X[self.rows].astype(float) @ V.T.astype(float))
        self.sums = G[:, :4].T.astype(float) @ X.astype(float)
        self.device = [cuda.to_device(array) for array in (X, V, G)]
        self.made = [cuda.device_array((n, M), dtype) for _ in range(2)]

    def hidden(self, engine, tile):
        """Milliseconds of Z = σ(X Vᵀ), S = σ′, and the largest error of Z."""
        (X, V, _), (Z, S) = self.device, self.made
        sigma = epilogues.activate(ACTIVATIONS["tanh"])
        kernel = products.product(self.dtype, tile, (True, True), sigma, engine)
        bound = kernel[(products.blocks(tile, self.n, self.M), 1, 1), tile.threads]
        found = milliseconds(lambda: bound(X, V, Z, S, self.n, self.M, self.d))
        return found, float(abs(Z.copy_to_host()[self.rows] - self.Z).max())

    def sum(self, engine, tile, share):
        """Milliseconds of Gᵀ X in parts of `share`, and the largest error against the largest."""
        X, _, G = self.device
        parts = -(-self.n // share)
        C = cuda.device_array((parts, self.M * self.d), self.dtype)
        kernel = products.product(self.dtype, tile, (False, False), epilogues.partial, engine)
        bound = kernel[(products.blocks(tile, self.M, self.d), 1, parts), tile.threads]
        found = milliseconds(lambda: bound(G, X, C, C, self.M, self.d, share))
        made = C.copy_to_host().astype(float).sum(0).reshape(self.M, self.d)[: len(self.sums)]
        return found, float(abs(made - self.sums).max() / abs(self.sums).max())


def main():
    """Try all tiles on all shapes."""
    begun = time.monotonic()
    for dtype, engine, square, (tall, slim) in ENGINES:
        for n, d, M in SHAPES if dtype == "float32" else SHAPES[:1]:
            trial = Trial(n, d, M, dtype)

            def say(product, tile, parts, result, where=(dtype, engine.__name__, n, d, M)):
                ms, error = result
                rate = 2e-9 * where[2] * where[3] * where[4] / ms
                line = {
                    "product": product, "dtype": where[0], "engine": where[1], "n": where[2],
                    "M": where[4], "tile": list(tile), "parts": parts, "ms": round(ms, 4),
                    "TFLOP/s": round(rate, 1), "error": error, "s": round(time.monotonic() - begun),
                }  # fmt: skip
                print(json.dumps(line), flush=True)

            for tile in square:
                say("X V'", tile, 1, trial.hidden(engine, tile))
            for tile in square + (tall if M >= 256 else slim):
                slots = multiprocessors() * products.resident(dtype, tile)
                size = np.dtype(dtype).itemsize
                parts, share = parts_of(n, tile, M, d, slots, 256, size)
                say("G' X", tile, parts, trial.sum(engine, tile, share))


if __name__ == "__main__":
    main()

"""What the tests of packed matrices share."""

import numpy as np

from twolayer.kernels.cuda.memory import packing


def unpacked(words, rows, columns):
    """Both parts of a packed matrix with its padding, by the layout's own formula."""
    R, C = packing.padded_rows(rows), packing.padded_columns(columns)
    i, j = np.meshgrid(np.arange(R), np.arange(C), indexing="ij")
    r, c = i % 128, j % 64
    block = (i // 128 * (C // 64) + j // 64) * 16384
    at = block + r * 64 + (c // 8 ^ (r & 7)) * 8 + c % 8
    half_words = np.asarray(words)[: R * C].view(np.float16).astype(np.float32)
    return half_words[at], half_words[at + 8192]

"""Engines whose compiled code takes a record for each chunk of the samples."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from ..interface import Engine
from ..kernels.cpu import blocks
from ..kernels.cpu.records import records
from ..machine.buffers import together


def as_labels(Y: np.ndarray) -> np.ndarray:
    """The place of the 1 in each row of Y (n, K), (n, 1); Y where other numbers are not 0."""
    if Y.shape[1] == 1 or np.count_nonzero(Y) != len(Y):
        return Y
    labels = Y.argmax(axis=1)
    one_each = (np.take_along_axis(Y, labels[:, None], axis=1) == 1).all()
    return labels[:, None].astype(Y.dtype) if one_each else Y


class ChunkedEngine(Engine):
    """Has the records of its chunks in `_records`; a subclass says what kind of record they are."""

    record: np.dtype

    def _allocate(
        self, chunks: int, sizes: Mapping[str, tuple[int, int]], numbers: Mapping[str, Any]
    ) -> None:
        """Make buffers of these sizes, and the records; numbers, what else the records hold."""
        self._chunks, self._numbers = chunks, dict(numbers)
        self._numbers["features"] = blocks.features(self.net.sigma, self.dtype)
        self._buffers = together(sizes, self.dtype)
        self._bind()

    def _bind(self) -> None:
        """Make the records, for the buffers and the numbers there are."""
        self._records = records(self.record, self._chunks, self._numbers, self._buffers)

    def hold(self, X: np.ndarray, Y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Y (n, K) as it is, or as labels (n, 1) where a single 1 in each row is all there is."""
        Y = as_labels(Y) if self.net.objective.label_columns else Y
        form = blocks.losses if Y.shape[1] == self.shape.K else blocks.labels
        if form.__name__ not in self._numbers:
            self._set(form.__name__, form(self.net.objective, self.dtype))
        return X, Y

    def _need_values(self) -> None:
        """Have σ's pass without slopes, which epochs do without."""
        if "values" not in self._numbers:
            self._set("values", blocks.values(self.net.sigma, self.dtype))

    def _need_links(self) -> None:
        """Have h's pass, which epochs do without."""
        if "links" not in self._numbers:
            self._set("links", blocks.links(self.net.objective, self.dtype))

    def _set(self, name: str, address: int) -> None:
        self._numbers[name] = self._records[name] = address

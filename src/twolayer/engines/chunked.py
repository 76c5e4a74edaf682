"""Engines whose compiled code takes a record for each chunk of the samples."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from ..interface import Engine
from ..kernels.cpu import blocks
from ..kernels.cpu.records import records
from ..machine.buffers import together


class ChunkedEngine(Engine):
    """Has the records of its chunks in `_records`; a subclass says what kind of record they are."""

    record: np.dtype

    def _allocate(
        self, chunks: int, sizes: Mapping[str, tuple[int, int]], numbers: Mapping[str, Any]
    ) -> None:
        """Make buffers of these sizes, and the records; numbers, what else the records hold."""
        self._chunks, self._numbers = chunks, dict(numbers)
        self._numbers["features"] = blocks.features(self.net.sigma, self.dtype)
        self._numbers["losses"] = blocks.losses(self.net.objective, self.dtype)
        self._buffers = together(sizes, self.dtype)
        self._bind()

    def _bind(self) -> None:
        """Make the records, for the buffers and the numbers there are."""
        self._records = records(self.record, self._chunks, self._numbers, self._buffers)

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

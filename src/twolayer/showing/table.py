"""Tables of which no figure and no name is ever cut: where they are too wide, they turn."""

from __future__ import annotations

from collections.abc import Iterator

import rich.table
from rich.console import Console, ConsoleOptions, RenderableType, RenderResult
from rich.text import Text

_ENDLESS = 1 << 16  # columns
_READABLE = 20  # columns at least for what can be wrapped
_GAP = 2  # columns between two of the table's


class Table(rich.table.Table):
    """A table without lines. Where its figures do not fit beside each other, each row is a list.

    Only columns that are not `no_wrap` are ever wrapped.
    """

    def __init__(self, *headers: str, title: str | None = None) -> None:
        super().__init__(
            *headers, title=title, title_justify="left", title_style="bold", box=None,
            pad_edge=False,
        )  # fmt: skip

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        least, most = self._widths(console, options)
        spare = options.max_width - _GAP * (len(least) - 1) - sum(least)
        if spare < 0:
            yield from self._turned()
            return
        for column, low, high in zip(self.columns, least, most, strict=True):
            column.width = low + min(high - low, spare)
            spare -= column.width - low
        yield from super().__rich_console__(console, options)

    def _widths(self, console: Console, options: ConsoleOptions) -> tuple[list[int], list[int]]:
        """Of each column the least and the most that it can use."""
        endless = options.update(max_width=_ENDLESS)
        least, most = [], []
        for column in self.columns:
            found = [console.measure(c, options=endless) for c in (column.header, *column.cells)]
            most.append(max(one.maximum for one in found))
            word = most[-1] if column.no_wrap else max(one.minimum for one in found)
            least.append(max(word, min(most[-1], _READABLE)))
        return least, most

    def _turned(self) -> Iterator[RenderableType]:
        """A line for each header and cell of a row, row by row."""
        if self.title is not None:
            yield Text(str(self.title), "bold")
        heads = [str(column.header) for column in self.columns]
        width = max(map(len, heads))
        cells = zip(*(column.cells for column in self.columns), strict=True)
        for row, texts in zip(self.rows, cells, strict=True):
            lines = [
                Text.assemble((head.ljust(width), "dim"), "  ", (str(cell), row.style or ""))
                for head, cell in zip(heads, texts, strict=True) if cell
            ]  # fmt: skip
            if lines:
                yield Text("\n", overflow="fold").join([*lines, Text()])

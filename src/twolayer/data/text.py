"""Tables of numbers in text, as spreadsheets, pandas and NumPy write them."""

from __future__ import annotations

import csv
import itertools
import re
from collections.abc import Iterator, Sequence
from contextlib import suppress
from decimal import Decimal
from pathlib import Path
from typing import NamedTuple

import numpy as np

from ..texts import parts
from . import sources, spilled
from .sources import Source, changed
from .spilled import Tell

_MISSING = ("", "NA", "N/A", "#N/A", "n/a", "<NA>", "nan", "NaN", "null", "NULL", "?")
# What a spreadsheet writes where a formula failed; other lines that begin so are comments.
_FAILED = ("#N/A", "#DIV/0!", "#REF!", "#VALUE!", "#NAME?", "#NUM!", "#NULL!")
_SAMPLE = 1 << 20  # characters that tell how many numbers there are
_LOOKED_AT = 50  # rows that the first one is compared with
_SHOWN = 40  # characters of what is no number
_LIKE_A_NUMBER = re.compile(r"\W*\d")  # $10, 5%, 0x1, 2020-01-01: names seldom begin so
_COUNTED = 3  # rows from which on a column that counts them is no accident
_RISING = 4  # columns from which on numbers that rise in the first row alone are no accident


class Columns(NamedTuple):
    """What the columns of a text are.

    targets, how many of the last are no inputs, None for all; header, whether the first line names
    them, None to find out; drop, names or numbers from 1 of those to leave out, with commas
    between; words, whether targets may be words, None where they are not looked at.
    """

    targets: int | None = 1
    header: bool | None = None
    drop: str | None = None
    words: bool | None = False


LAST, NONE = Columns(1), Columns(0)


def read(
    path: Path, columns: Columns, tell: Tell, streamed: bool | None = None
) -> tuple[Source, Source]:
    """X (n, d) in float64 and Y (n, targets), numbers or words; tell takes what to look at.

    Commas, tabs, spaces or, then with decimal commas too, semicolons are between the numbers.
    streamed is as for `spilled.on_disk`. Raises ValueError for rows of different lengths and for
    what is no number.
    """
    try:
        return _read(path, columns, tell, streamed)
    except UnicodeDecodeError:
        raise ValueError(f"{path}: expected text in UTF-8, got other bytes") from None
    except csv.Error as error:
        raise ValueError(f"{path}: expected rows of numbers, got: {error}") from None


def _read(path: Path, columns: Columns, tell: Tell, streamed: bool | None) -> tuple[Source, Source]:
    first = [line for _, line in itertools.islice(_lines(path), 2)]
    separator = _separator(first[-1]) if first else None
    head = [_cells(line, separator) for line in first]
    named = bool(head) and _is_named(path, head, columns.header, tell)
    if len(head) <= named:
        raise ValueError(f"{path}: expected numbers, got no line of them")
    width = len(head[-1])
    dropped = _dropped(path, columns.drop, _names(path, head, columns) if named else [], width)
    kept = [i for i in range(width) if i not in dropped]
    count = len(kept) if columns.targets is None else columns.targets
    d = len(kept) - count
    if count < 0 or (d < 1 and columns.targets is not None):
        raise ValueError(
            f"{path}: expected columns of inputs and {columns.targets} of targets, "
            f"got {len(kept)} in all"
        )
    numbers = _count(path, separator)
    # In memory blocks are collected, and then copied into one array.
    spill = spilled.on_disk(path, 2 * 8 * numbers, 8 * numbers, streamed, tell)
    X, Y = spilled.Rows(path, spill), spilled.Rows(path, spill)
    if columns.words is None:
        kept = kept[:d]
    rows = _Rows(path, separator, int(named), width, kept, kept[d:], bool(columns.words))
    total, counts, begin = 0, True, 0.0
    for table, codes in rows.blocks():
        if not total and columns.header is None and not named:
            _look_at_the_first_row(path, table, tell)
        counts = counts and min(len(kept) - 1, table.shape[1]) > 0
        if counts:
            begin = begin if total else table[0, 0]
            expected = begin + np.arange(total, total + len(table))
            counts = begin in (0, 1) and bool((table[:, 0] == expected).all())
        total += len(table)
        X.append(table[:, :d])
        Y.append(codes if columns.words else table[:, d:])
    if rows.commas:
        tell(f"{path}: decimal commas are read as points")
    if counts and total >= _COUNTED:
        advice = f"--drop {kept[0] + 1}" if d else "to_csv(index=False)"
        tell(f"{path}: column {kept[0] + 1} counts the rows and is used: {advice} leaves it out")
    y = Y.source()
    if columns.words:
        words = rows.words
        y = changed(y, words.dtype, lambda block: words[block])
    return X.source(), y


def _lines(path: Path) -> Iterator[tuple[int, str]]:
    """The lines that are neither empty nor comments, with their numbers."""
    with path.open(encoding="utf-8-sig") as file:
        for number, line in enumerate(file, 1):
            begin = line.lstrip()
            if line.strip(" \r\n") and (not begin.startswith("#") or begin.startswith(_FAILED)):
                yield number, line


def _separator(line: str) -> str | None:
    """What is between the cells of a line; None for spaces."""
    bare = re.sub(r'"[^"]*"|,\s+', "", line.strip("\r\n"))
    return next((mark for mark in ";\t" if mark in bare), "," if "," in line else None)


def _cells(line: str, separator: str | None) -> list[str]:
    if separator is None:
        return line.split()
    return [cell.strip() for cell in next(csv.reader([line], delimiter=separator))]


def _is_named(path: Path, head: list[list[str]], header: bool | None, tell: Tell) -> bool:
    """Whether the first line has the names of the columns."""
    if header is not None:
        return header
    first, below = head[0], head[-1]
    numbers = [_is_number(cell) for cell in first]
    counted = [str(i) for i in range(len(first))]
    named = len(first) > 1 and (first == counted or first == ["", *counted[:-1]])
    odd = [cell for cell, number in zip(first, numbers, strict=True) if not number]
    if not named and not _are_names(path, first, below, numbers):
        return False
    # Words beside a number may be data too; years beside several words hardly are.
    digits = all(cell.isdigit() for cell, number in zip(first, numbers, strict=True) if number)
    doubtful = any(numbers) and (not digits or len(odd) == 1)
    if named or doubtful or any(map(_LIKE_A_NUMBER.match, odd)):
        shown = ",".join(cell[:_SHOWN] for cell in first[:4])
        tell(
            f"{path}: the first line, {shown}, …, is taken for names of columns: "
            "--no-header if it is data"
        )
    return True


def _are_names(path: Path, first: list[str], below: list[str], numbers: list[bool]) -> bool:
    """Whether what is no number in the first line stands above numbers."""
    if not any(numbers):
        said = any(cell not in _MISSING for cell in first)
        return said and (any(map(_is_number, below)) or not _occurs_again(path))
    # Years among names: where there is a word, there are numbers below.
    words = [i for i, number in enumerate(numbers) if not number and (i or first[i])]
    if not words or len(below) != len(first):
        return False
    return all(first[i] not in _MISSING and _is_number(below[i]) for i in words)


def _occurs_again(path: Path) -> bool:
    """Whether the first line, all of words, is one of several alike."""
    lines = (line.strip() for _, line in _lines(path))
    return next(lines) in lines


def _look_at_the_first_row(path: Path, table: np.ndarray, tell: Tell) -> None:
    rising = [bool((row[1:] > row[:-1]).all()) for row in table[:_LOOKED_AT]]
    if table.shape[1] >= _RISING and len(rising) > 1 and rising[0] and not any(rising[1:]):
        shown = ",".join(f"{number:g}" for number in table[0, :4])
        tell(f"{path}: the first line, {shown}, …, is taken for data: --header if it names columns")


def _names(path: Path, head: list[list[str]], columns: Columns) -> list[str]:
    """The names of the columns; R and pandas may leave out that of the first, which counts."""
    names, width = head[0], len(head[-1])
    if len(names) == width - 1 and head[-1][-1]:  # where nothing is last, lines end in a mark
        return ["", *names]
    if len(names) not in (width - 1, width) and columns.drop is not None:
        raise ValueError(
            f"drop: expected as many names as columns in {path}, {width}, got {len(names)}"
        )
    return names


def _dropped(path: Path, drop: str | None, names: Sequence[str], width: int) -> set[int]:
    found = set()
    for name in [] if drop is None else parts(drop):
        if names.count(name) > 1:
            raise ValueError(f"drop: {path} has several columns {name!r}: give their numbers")
        if name in names:
            found.add(names.index(name))
        elif name.isdecimal() and 1 <= int(name) <= width:
            found.add(int(name) - 1)
        else:
            known = f"{', '.join(names)} or 1 to {width}" if names else f"1 to {width}"
            raise ValueError(f"drop: expected columns of {path}, {known}, got {name!r}")
    return found


def _count(path: Path, separator: str | None) -> int:
    """How many numbers there are, judged by the first of them."""
    with path.open(encoding="utf-8-sig") as file:
        sample = file.read(_SAMPLE)
    cells = sample.count("\n") + sum(map(sample.count, separator or " "))
    return int(path.stat().st_size * max(1, cells) / len(sample))


class _Rows:
    """The rows of numbers in a text, as an iterator of lines for NumPy."""

    def __init__(
        self, path: Path, separator: str | None, skip: int, width: int, kept: list[int],
        targets: list[int],
        words: bool,
    ) -> None:  # fmt: skip
        self.path, self.separator, self.skip, self.width = path, separator, skip, width
        self.number, self.commas, self._points = 0, False, False
        self._targets, self._words = targets, targets if words else []
        self._numbers = [i for i in kept if i not in self._words]
        self._codes: dict[str, int] = {}
        self._found: list[list[int]] = []

    def blocks(self) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """The columns of numbers, and the numbers of the words in the others, block by block."""
        lines, head = iter(self), list[str]()
        count = max(1, sources.BLOCK // (8 * self.width))
        try:
            for line in lines:
                # The first line goes with each block, whose lines must be as long.
                some = itertools.chain(head, [line], itertools.islice(lines, count - 1))
                table = self._table(some)[len(head) :]
                head = head or [line]
                yield table, np.array(self._found, np.int64)
                self._found = []
        except UnicodeDecodeError:
            raise
        except ValueError as error:
            raise self._wrong(str(error)) from None

    def _table(self, lines: Iterator[str]) -> np.ndarray:
        if not self._numbers:
            return np.empty((sum(1 for _ in lines), 0))
        return np.loadtxt(lines, delimiter=self.separator, ndmin=2, quotechar='"', comments=None)

    @property
    def words(self) -> np.ndarray:
        """The words by number; numbers where all of them are."""
        found = np.array([*self._codes])
        with suppress(ArithmeticError, TypeError):  # a word is no decimal number
            # Python would read 1_1 as 11, and float64 makes one number of large integers.
            count = len({Decimal(word.replace("_", "x")) for word in self._codes})
            for dtype in (np.int64, np.float64):
                with suppress(ValueError, OverflowError):
                    numbers = found.astype(dtype)
                    if len(np.unique(numbers)) == count:
                        return numbers
        return found

    def __iter__(self) -> Iterator[str]:
        for number, line in itertools.islice(_lines(self.path), self.skip, None):
            self.number = number
            if len(self._numbers) < self.width:
                line = self._part(line)
            if self.separator == ";":
                self.commas |= "," in line
                self._points |= "." in line
                if self.commas and self._points:
                    raise ValueError("both decimal points and commas")
                line = line.replace(",", ".")
            yield line

    def _part(self, line: str) -> str:
        """The cells that are numbers; words are kept."""
        cells = _cells(line, self.separator)
        if len(cells) != self.width:
            raise ValueError(f"{len(cells)} columns after {self.width}")
        words = [cells[i] for i in self._words]
        if missing := set(words) & {*_MISSING}:
            raise ValueError(f"the label {missing.pop()!r}")
        if words:
            self._found.append([self._codes.setdefault(word, len(self._codes)) for word in words])
        for i in self._numbers:
            if not cells[i]:
                raise ValueError(f"nothing in column {i + 1}")  # NumPy skips lines of nothing
        mark = self.separator or " "
        return mark.join(f'"{cells[i]}"' if mark in cells[i] else cells[i] for i in self._numbers)

    def _wrong(self, what: str) -> ValueError:
        """NumPy's sentence, or that of a line, as one that names the place in the file."""
        if cell := re.search(r"string (['\"])(.*?)\1? to float64 at row \d+, column (\d+)", what):
            column = self._numbers[int(cell[3]) - 1] + 1
            label = cell[2] not in _MISSING and column - 1 in self._targets
            what = (
                f"{cell[2][:_SHOWN]!r} in column {column}"
                if cell[2]
                else f"nothing in column {column}"
            )
            drop = f": --drop {column} leaves the column out"
            advice = ": --classes numbers labels that are words" if label else drop
        else:
            if ragged := re.search(r"columns changed from (\d+) to (\d+)", what):
                what = f"{ragged[2]} columns after {ragged[1]}"
            advice = ""
        return ValueError(
            f"{self.path}: expected rows of as many numbers each, got {what}, "
            f"in line {self.number}{advice}"
        )


def _is_number(text: str) -> bool:
    try:
        float(text.replace(",", "."))
    except ValueError:
        return False
    return True

"""Standard output and error that end no work: what they cannot show or take is not worth it."""

from __future__ import annotations

import codecs
import errno
import os
import sys
import unicodedata
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from typing import Any, TextIO

# What is written in place of characters that the encoding lacks; "?" for all others.
_SPELLED = {
    "σ": "sigma", "ℓ": "l", "θ": "theta", "μ": "mu", "µ": "u", "δ": "delta", "∇": "grad ",
    "±": "+-", "×": "x", "÷": "/", "·": "*", "–": "-", "−": "-", "′": "'", "→": "->", "≤": "<=",
    "≥": ">=", "≈": "~",
}  # fmt: skip


def _spell(error: UnicodeError) -> tuple[str, int]:
    """The handler of what cannot be encoded: the nearest that can."""
    assert isinstance(error, UnicodeEncodeError)
    # Of a table of 256 characters the codec does not say which one it is.
    encoding = "ascii" if error.encoding == "charmap" else error.encoding
    found = []
    for character in error.object[error.start : error.end]:
        parts = unicodedata.normalize("NFKD", character)
        plain = "".join(part for part in parts if not unicodedata.combining(part))
        for text in (plain, _SPELLED.get(character, "?"), "?"):
            with suppress(UnicodeEncodeError):
                text.encode(encoding)
                found.append(text)
                break
    return "".join(found), error.end


codecs.register_error("twolayer", _spell)


class Stream:
    """A text stream that spells what it cannot show, and after an error takes all in silence.

    `error` is the first one; whatever holds the same descriptor writes to nowhere from then on.
    """

    error: Exception | None = None
    missing = False  # whether it stands for one that was closed from the start

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def __getattr__(self, name: str) -> Any:
        if name == "buffer":  # click writes UTF-8 there if the encoding is ASCII
            raise AttributeError(name)
        return getattr(self._stream, name)

    def write(self, text: str) -> int:
        """Write, or pretend to."""
        self._attempt(lambda: self._stream.write(text))
        return len(text)

    def flush(self) -> None:
        """Flush, or pretend to."""
        self._attempt(self._stream.flush)

    def _attempt(self, act: Callable[[], object]) -> None:
        if self.error is not None:
            return
        try:
            act()
        except (OSError, ValueError) as error:  # ValueError: it was closed
            self.error = error
            with suppress(OSError, ValueError):  # what is buffered would fail again at the exit
                nowhere = os.open(os.devnull, os.O_WRONLY)
                os.dup2(nowhere, self._stream.fileno())
                os.close(nowhere)

    @property
    def failure(self) -> str | None:
        """Why what was written is lost; None where all was taken or nobody reads on."""
        if self.error is None or getattr(self.error, "errno", None) == errno.EPIPE:
            return None
        return getattr(self.error, "strerror", None) or str(self.error)


@contextmanager
def patient() -> Iterator[Stream]:
    """Let `sys.stdout` and `sys.stderr` be such streams, or nowhere if they are closed."""
    for _ in range(3):  # so that no file that is opened later takes the place of one of the three
        handle = os.open(os.devnull, os.O_RDWR)
        if handle > 2:
            os.close(handle)
            break
    before = sys.stdout, sys.stderr
    with ExitStack() as stack:
        found = [stream or stack.enter_context(_nowhere()) for stream in before]
        for stream in found:
            if hasattr(stream, "reconfigure") and not stream.closed:
                stack.callback(_spell_in, stream, stream.errors)
                _spell_in(stream, "twolayer")
        sys.stdout, sys.stderr = out, err = [Stream(stream) for stream in found]
        out.missing = before[0] is None
        try:
            yield out
        finally:
            out.flush()
            err.flush()
            sys.stdout, sys.stderr = before


def _nowhere() -> TextIO:
    return open(os.devnull, "w", encoding="utf-8")


def _spell_in(stream: Any, errors: str | None) -> None:
    with suppress(OSError, ValueError):  # it flushes
        stream.reconfigure(errors=errors)

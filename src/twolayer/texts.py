"""How lists are read from one text, how an exception is told in one, and what was meant."""

from __future__ import annotations

from collections.abc import Iterable
from difflib import get_close_matches

TOO_LITTLE = "found too little memory"  # how what is said of who has none begins
# What the package and Python refuse with a whole sentence.
SENTENCES = (ValueError, TypeError, MemoryError, RuntimeError, OSError)


def parts(text: str) -> list[str]:
    """The parts between commas, without blanks around them."""
    return [part.strip() for part in text.split(",")]


def meant(name: object, known: Iterable[str]) -> str:
    """A question to put behind an unknown name, if it is much like a known one."""
    near = get_close_matches(str(name), list(known), 1, 0.75)
    return f": did you mean {near[0]}?" if near else ""


def counted(number: int, what: str) -> str:
    """So many of what is named in the singular, as in "1 thread" and "2 threads"."""
    return f"{number} {what}{'' if number == 1 else 's'}"


def missing(who: str, package: str, extra: str) -> str:
    """That a package is not installed, and what to do: there is no release to install from."""
    return (
        f"{who} {package}, which is not installed: run `pip install --editable '.[{extra}]'` in a "
        "checkout of twolayer"
    )


def sentence(error: BaseException, *whole: type[BaseException]) -> str:
    """What an exception says, its type first but for the kinds whose texts are whole sentences."""
    text = str(error)
    if text and isinstance(error, whole):
        return text
    return f"{type(error).__name__}: {text or 'no reason given'}"


def cause(error: BaseException, *whole: type[BaseException]) -> str:
    """Why a variant that raised this is left out, as `sentence`; too little memory is named."""
    text = sentence(error, MemoryError, *whole)
    return f"{TOO_LITTLE}: {text}" if isinstance(error, MemoryError) else text

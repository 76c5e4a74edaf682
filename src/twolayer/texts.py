"""How lists are read from one text, and how an exception is told in one."""

from __future__ import annotations


def parts(text: str) -> list[str]:
    """The parts between commas, without blanks around them."""
    return [part.strip() for part in text.split(",")]


def sentence(error: BaseException, *whole: type[BaseException]) -> str:
    """What an exception says, its type first but for the kinds whose texts are whole sentences."""
    text = str(error)
    if text and isinstance(error, whole):
        return text
    return f"{type(error).__name__}: {text or 'no reason given'}"

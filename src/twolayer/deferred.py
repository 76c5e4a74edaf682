"""What lower modules use of higher ones: the package's root says where it is, at its first use.

Variants that are made of others stand above the list that names them, and what a notebook shows of
an object above the object.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

VARIANTS: list[Callable[[], Iterable[Any]]] = []
HTML: list[Callable[[Any], str]] = []


def html(thing: Any) -> str:
    """What a notebook shows of an object."""
    return HTML[0](thing)

"""Variants that are made of others, and so stand above the list that names them.

The package's root says where they are; the list fetches them when it is used first.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

VARIANTS: list[Callable[[], Iterable[Any]]] = []

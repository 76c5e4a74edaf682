"""A digest of sources, apart from all that imports a compiler."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from pathlib import Path


def digest(folders: Iterable[Path]) -> str:
    """Digest of the names and contents of all Python files below the folders."""
    result = hashlib.sha256()
    for folder in folders:
        for path in sorted(folder.rglob("*.py")):
            result.update(f"{path.relative_to(folder)}\0".encode())
            result.update(path.read_bytes())
    return result.hexdigest()

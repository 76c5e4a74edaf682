"""A digest of sources, apart from all that imports a compiler."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from importlib.util import find_spec
from pathlib import Path


def folder_of(package: str) -> Path:
    """Where the sources of a package are that can be imported; only those above it are."""
    spec = find_spec(package)
    assert spec is not None
    assert spec.origin is not None
    return Path(spec.origin).parent


def digest(folders: Iterable[Path]) -> str:
    """Digest of the names and contents of all Python files below the folders."""
    result = hashlib.sha256()
    for folder in folders:
        for path in sorted(folder.rglob("*.py")):
            result.update(f"{path.relative_to(folder)}\0".encode())
            result.update(path.read_bytes())
    return result.hexdigest()

"""The commit that this process's sources are of, where they lie in a checkout."""

from __future__ import annotations

import contextlib
import os
import re
import subprocess
from functools import cache
from pathlib import Path
from typing import NamedTuple

MEASURED = ("src/twolayer", "kernels", "variants", "pyproject.toml")  # nothing else has a say

CLEAN, CHANGED = "clean", "changed"
_ID = re.compile(r"[0-9a-f]{40}(?:[0-9a-f]{24})?")


class Revision(NamedTuple):
    """commit: its id, in 40 digits or 64; tree: whether the sources are the commit's.

    Both are empty where the package is no checkout, and each where nobody can tell.
    """

    commit: str = ""
    tree: str = ""


@cache
def revision() -> Revision:
    """Of this package, as it was when the process first asked."""
    return of(Path(__file__).resolve().parents[1])


def of(package: Path) -> Revision:
    """Of the package in the folder src/twolayer of a repository; one around it is not its own."""
    root = package.parent.parent
    if package.parent.name != "src" or not (root / ".git").exists():
        return Revision()
    commit = _head(root) or _git(root, "rev-parse", "HEAD") or ""
    if not _ID.fullmatch(commit):
        return Revision()
    changes = _git(root, "status", "--porcelain", "--", *MEASURED)
    return Revision(commit, "" if changes is None else CHANGED if changes else CLEAN)


def _head(root: Path) -> str:
    """The commit that HEAD names, where it stands in plain files; of a worktree, too."""
    with contextlib.suppress(OSError, UnicodeDecodeError):
        folder = root / ".git"
        if folder.is_file():
            folder = root / folder.read_text(encoding="utf-8").removeprefix("gitdir:").strip()
        common = folder
        if (folder / "commondir").exists():
            common = folder / (folder / "commondir").read_text(encoding="utf-8").strip()
        text = (folder / "HEAD").read_text(encoding="utf-8").strip()
        if not text.startswith("ref:"):
            return text
        name = text.removeprefix("ref:").strip()
        if (common / name).is_file():
            return (common / name).read_text(encoding="utf-8").strip()
        for line in (common / "packed-refs").read_text(encoding="utf-8").splitlines():
            commit, _, packed = line.partition(" ")
            if packed == name:
                return commit
    return ""


def _git(root: Path, *arguments: str) -> str | None:
    """What git prints; None where it is missing, fails or hangs."""
    # A hook's variables would lead to another repository.
    own = {name: text for name, text in os.environ.items() if not name.startswith("GIT_")}
    with contextlib.suppress(OSError, subprocess.SubprocessError):
        return subprocess.run(
            ["git", "--no-optional-locks", *arguments], cwd=root, env=own, capture_output=True,
            encoding="utf-8", errors="replace", timeout=10, check=True,
        ).stdout.strip()  # fmt: skip
    return None

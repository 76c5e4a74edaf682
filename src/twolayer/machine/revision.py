"""The commit that this process's sources are of, where they lie in a checkout."""

from __future__ import annotations

import contextlib
import os
import re
import subprocess
from collections.abc import Collection
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
    """Of the package in that folder."""
    root = _root(package)
    if root is None:
        return Revision()
    commit = _head(root) or _git(root, "rev-parse", "HEAD") or ""
    if not _ID.fullmatch(commit):
        return Revision()
    changes = _git(root, "status", "--porcelain", "--", *MEASURED)
    return Revision(commit, "" if changes is None else CHANGED if changes else CLEAN)


class Logged(NamedTuple):
    """A commit in git's log: its time, its place among those of that time, its first line."""

    time: float
    place: int
    subject: str


def log(commits: Collection[str]) -> dict[str, Logged]:
    """What git says of those of the commits that the package's repository has."""
    root = _root(Path(__file__).resolve().parents[1])
    known = [commit for commit in commits if _ID.fullmatch(commit)]
    if root is None or not known:
        return {}
    said = _git(
        root, "log", "--no-walk=sorted", "--ignore-missing", "--format=%H %ct %s", "--stdin",
        given="\n".join(known),
    )  # fmt: skip
    found = {}
    for place, line in enumerate((said or "").splitlines()):
        commit, time, subject = line.split(" ", 2)
        found[commit] = Logged(float(time), -place, subject)
    return found


def resolve(name: str) -> str:
    """The commit that a name such as HEAD~1 stands for in the package's repository, or nothing."""
    root = _root(Path(__file__).resolve().parents[1])
    if root is None or name.startswith("-"):
        return ""
    return _git(root, "rev-parse", "--verify", "--quiet", f"{name}^{{commit}}") or ""


def _root(package: Path) -> Path | None:
    """The repository that has the package as src/twolayer; not one that only lies around it."""
    root = package.parent.parent
    return root if package.parent.name == "src" and (root / ".git").exists() else None


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


def _git(root: Path, *arguments: str, given: str = "") -> str | None:
    """What git prints; None where it is missing, fails or hangs."""
    # A hook's variables would lead to another repository.
    own = {name: text for name, text in os.environ.items() if not name.startswith("GIT_")}
    with contextlib.suppress(OSError, subprocess.SubprocessError):
        return subprocess.run(
            ["git", "--no-optional-locks", *arguments], cwd=root, env=own, capture_output=True,
            input=given, encoding="utf-8", errors="replace", timeout=10, check=True,
        ).stdout.strip()  # fmt: skip
    return None

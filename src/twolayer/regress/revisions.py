"""Revisions of a git repository as folders, one for each side that they are compared on."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import tarfile
import tempfile
import time
from pathlib import Path
from typing import NamedTuple

import platformdirs

WORKING_TREE = "the working tree"
_STALE = 30 * 24 * 3600  # seconds after which a folder that nobody used is removed


class Revision(NamedTuple):
    """One side: how it is called, the id of its files, and the folder that they are in."""

    label: str
    tree: str
    folder: Path


def cache_folder() -> Path:
    """Where revisions and results are kept: $TWOLAYER_REGRESS, else in the user's cache."""
    default = platformdirs.user_cache_path("twolayer") / "regress"
    return Path(os.environ.get("TWOLAYER_REGRESS") or default)


def export(name: str | None, side: str) -> Revision:
    """The files of a revision, or of the working tree where it is None, in a folder of their own.

    Ignored files are left out. The two sides never share a folder: compiled code is kept beside the
    package and refers to it by the name that it was imported under. Raises ValueError for a
    revision that git does not know or that holds no package.
    """
    root = Path(_git("rev-parse", "--show-toplevel", cwd=Path.cwd()))
    label, tree = _working_tree(root) if name is None else _named(root, name, side)
    folder = cache_folder() / "revisions" / f"{tree[:16]}-{side}"
    if not folder.is_dir():
        folder.parent.mkdir(parents=True, exist_ok=True)
        _remove_stale(folder.parent)
        with tempfile.TemporaryDirectory(dir=folder.parent) as temporary:
            unpacked = Path(temporary) / "tree"
            _unpack(root, tree, unpacked)
            with contextlib.suppress(OSError):  # another process was faster
                unpacked.rename(folder)
    if not (folder / "src" / "twolayer" / "__init__.py").is_file():
        raise ValueError(f"{side}: {label} has no package src/twolayer")
    os.utime(folder)
    return Revision(label, tree, folder)


def _named(root: Path, name: str, side: str) -> tuple[str, str]:
    try:
        commit = _git("rev-parse", "--verify", "--quiet", f"{name}^{{commit}}", cwd=root)
    except ValueError:
        raise ValueError(f"{side}: expected a revision that git knows, got {name!r}") from None
    return (
        f"{_git('rev-parse', '--short', commit, cwd=root)} ({name})",
        _git("rev-parse", f"{commit}^{{tree}}", cwd=root),
    )


def _working_tree(root: Path) -> tuple[str, str]:
    """The files as they lie there, staged or not, as a tree of git; the index stays as it is."""
    with tempfile.TemporaryDirectory() as folder:
        index = {"GIT_INDEX_FILE": str(Path(folder) / "index")}
        _git("read-tree", "HEAD", cwd=root, **index)
        _git("add", "--all", cwd=root, **index)
        return WORKING_TREE, _git("write-tree", cwd=root, **index)


def _unpack(root: Path, tree: str, folder: Path) -> None:
    command = ["git", "archive", "--format=tar", tree]
    with subprocess.Popen(command, cwd=root, stdout=subprocess.PIPE) as archive:
        assert archive.stdout is not None
        with tarfile.open(fileobj=archive.stdout, mode="r|") as files:
            files.extractall(folder, filter="data")
    if archive.returncode:
        raise RuntimeError(f"git archive {tree} failed")


def _remove_stale(parent: Path) -> None:
    for folder in parent.iterdir():
        with contextlib.suppress(OSError):
            if time.time() - folder.stat().st_mtime > _STALE:
                shutil.rmtree(folder, ignore_errors=True)


def _git(*arguments: str, cwd: Path, **environment: str) -> str:
    if shutil.which("git") is None:
        raise ValueError("git: the program is not installed, and revisions are its business")
    done = subprocess.run(
        ["git", *arguments], cwd=cwd, env=os.environ | environment, capture_output=True, text=True,
        check=False,
    )  # fmt: skip
    if done.returncode:
        raise ValueError(f"git {arguments[0]}: {' '.join(done.stderr.split()) or 'failed'}")
    return done.stdout.strip()

"""Revisions of a git repository as folders, one for each side that they are compared on."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import re
import shutil
import stat
import subprocess
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path, PurePosixPath
from typing import NamedTuple

import platformdirs

from ..kernels.compiler.digest import digest, folder_of
from ..machine import lines
from ..machine.revision import MEASURED
from ..machine.store import machine_hash
from .processes.loading import NAME

WORKING_TREE = "the working tree"
_PACKAGE = __name__.partition(".")[0]
_PARTS = ("", "kernels", "variants")  # of it, which need not lie in one folder
_STALE = 30 * 24 * 3600  # seconds after which a folder that nobody used is removed

_Complain = Callable[[str], None]


def _silent(sentence: str) -> None:
    pass


class Revision(NamedTuple):
    """One side: how it is called, the id of its files, and the folder that they are in."""

    label: str
    tree: str
    folder: Path

    def compiled(self) -> bool:
        """Whether compiled code lies in the folder."""
        return any(path.suffix in (".code", ".nbi") for path in self.folder.rglob("*"))


def cache_folder() -> Path:
    """Where revisions and results are kept: $TWOLAYER_REGRESS, else in the user's cache."""
    default = platformdirs.user_cache_path("twolayer") / "regress"
    return Path(os.environ.get("TWOLAYER_REGRESS") or default)


def export(
    name: str | None, side: str, complain: _Complain = _silent, files: Sequence[Path] = ()
) -> Revision:
    """The measured files of a revision, or of the working tree where it is None, in a folder.

    files: of variants, by their paths in the repository. A repository without a package of ours
    gets a copy of the one that runs this, so that only those files differ. Ignored files are left
    out, and so is, with complain(sentence), what is neither a file nor a link between these files.
    The two sides never share a folder: compiled code is kept beside the package and refers to it by
    the name that it was imported under. Nothing is written into the repository. Raises ValueError
    for a revision that git does not know or that holds no package.
    """
    root = top(side)
    if name is None:
        return _export(root, WORKING_TREE, None, side, complain, files)
    found = commit(name, side)
    return _export(root, _label(root, found, name), found, side, complain, files)


def export_base(
    name: str, head: str | None, exact: bool = False, complain: _Complain = _silent,
    files: Sequence[Path] = (),
) -> Revision:  # fmt: skip
    """The commit where the head, or HEAD where it is None, left a revision; exact: its tip.

    What the revision gained since is no doing of the head. Raises ValueError as `export` does, and
    where the two have nothing in common.
    """
    tip, other = commit(name, "base"), commit(head or "HEAD", "head")
    root = top("base")
    if exact:
        return _export(root, _label(root, tip, name), tip, "base", complain, files)
    try:
        left = _line("merge-base", tip, other, cwd=root)
    except ValueError:
        raise ValueError(
            f"base: {name} and {head or 'HEAD'} have no commit in common{_to_fetch(root, None)}"
        ) from None
    label = _label(root, left, name if left == tip else f"where {name} was left")
    if head is not None and left == other != tip:
        complain(f"base: {name} holds {head}, which is compared with itself; --exact takes the tip")
    return _export(root, label, left, "base", complain, files)


def commit(name: str, side: str) -> str:
    """The commit that a name stands for; a ValueError says how to get one that is not here."""
    root = top(side)
    try:
        return _line("rev-parse", "--verify", "--quiet", f"{name}^{{commit}}", cwd=root)
    except ValueError:
        raise ValueError(
            f"{side}: expected a revision that git knows, got {name!r}{_to_fetch(root, name)}"
        ) from None


def inside(file: Path) -> Path:
    """A file's path in the repository. Raises ValueError for one elsewhere: it has no revisions."""
    root = top("--variant-file")
    try:
        return (file.parent.resolve() / file.name).relative_to(root.resolve())
    except ValueError:
        raise ValueError(
            f"--variant-file: expected a file in the repository {root}, got {str(file)!r}"
        ) from None


def top(side: str) -> Path:
    """The repository's folder, around the current one."""
    try:
        return Path(_line("rev-parse", "--show-toplevel", cwd=Path.cwd()))
    except ValueError as error:
        raise ValueError(f"{side}: {error}") from None


def git(
    *arguments: str, cwd: Path, given: bytes = b"", own: Mapping[str, str] | None = None
) -> bytes:
    """What git prints, with variables of its own; raises ValueError, in its words, where it fails.

    given: what it reads.
    """
    if shutil.which("git") is None:
        raise ValueError("git: the program is not installed, and revisions are its business")
    done = subprocess.run(
        ["git", *arguments], cwd=cwd, env=os.environ | dict(own or {}), input=given,
        capture_output=True, check=False,
    )  # fmt: skip
    if done.returncode:
        said = " ".join(done.stderr.decode(errors="replace").split())
        raise ValueError(f"git {arguments[0]}: {said or 'failed'}")
    return done.stdout


def _line(*arguments: str, cwd: Path) -> str:
    return os.fsdecode(git(*arguments, cwd=cwd)).rstrip("\n")


def _label(root: Path, found: str, name: str) -> str:
    short = _line("rev-parse", "--short", found, cwd=root)
    return short if found.startswith(name) else f"{short} ({name})"


def _to_fetch(root: Path, name: str | None) -> str:
    """What brings the history, or a revision, that a clone lacks."""
    ways = []
    if _line("rev-parse", "--is-shallow-repository", cwd=root) == "true":
        ways.append("`git fetch --unshallow`")
    if name and "origin" in _line("remote", cwd=root).split():
        with contextlib.suppress(ValueError):  # HEAD~3 is no name of a branch
            git("check-ref-format", "--branch", name, cwd=root)
            short = name.removeprefix("origin/")
            to = f":{name}" if short == name else f":refs/remotes/{name}"
            is_id = re.fullmatch("[0-9a-f]{7,}", name)
            ways.append(f"`git fetch origin {short}{'' if is_id else to}`")
    return f"; get it by {' and '.join(ways)}" if ways else ""


def _export(
    root: Path, label: str, found: str | None, side: str, complain: _Complain, files: Sequence[Path]
) -> Revision:
    measured = [*MEASURED, *map(str, files)]
    with tempfile.TemporaryDirectory() as temporary:
        own = {"GIT_INDEX_FILE": f"{temporary}/index"}
        # Without this a split index would be written into the repository.
        index = partial(git, "-c", "core.splitIndex=false", cwd=root, own=own)
        try:
            if found is None:
                own["GIT_OBJECT_DIRECTORY"] = temporary
                paths = _lying(root, measured, side, complain)
                # --remove: an editor's file may be gone again
                index("update-index", "--add", "--remove", "-z", "--stdin", given=paths)
            else:
                listed = git("ls-tree", "-r", "-z", found, "--", *measured, cwd=root)
                index("update-index", "-z", "--index-info", given=listed)
            tree = _kept(index, side, complain)
            ours = {}
            if files and f"src/{NAME}/__init__.py" not in index("ls-files").decode():
                ours = {
                    part: folder_of(".".join(filter(None, (_PACKAGE, part)))) for part in _PARTS
                }
                tree = hashlib.sha256(f"{tree}{digest(ours.values())}".encode()).hexdigest()
            folder = cache_folder() / "revisions" / f"{tree[:16]}-{side}"
            if not folder.is_dir():
                folder.parent.mkdir(parents=True, exist_ok=True)
                _remove_stale(folder.parent)
                with tempfile.TemporaryDirectory(dir=folder.parent) as beside:
                    index("checkout-index", "--all", f"--prefix={beside}/tree/")
                    for part, source in ours.items():
                        to = Path(beside) / "tree" / "src" / NAME / part
                        without = shutil.ignore_patterns("__pycache__", *([] if part else _PARTS))
                        shutil.copytree(source, to, ignore=without)
                    with contextlib.suppress(OSError):  # another process was faster
                        (Path(beside) / "tree").rename(folder)
        except ValueError as error:
            raise ValueError(f"{side}: {error}") from None
    if not (folder / "src" / "twolayer" / "__init__.py").is_file():
        raise ValueError(f"{side}: {label} has no package src/twolayer")
    os.utime(folder)
    return Revision(label, tree, folder)


def _lying(root: Path, measured: Sequence[str], side: str, complain: _Complain) -> bytes:
    """The paths of the files and links that lie in the working tree and are not ignored."""
    which = ("--cached", "--others", "--exclude-standard")
    listed = set(git("ls-files", "-z", *which, "--", *measured, cwd=root).split(b"\0")) - {b""}
    found = []
    for path in sorted(listed):
        at = root / os.fsdecode(path)
        if any((root / folder).is_symlink() for folder in at.relative_to(root).parents):
            continue  # what it replaced is gone
        with contextlib.suppress(OSError):  # so is what was deleted
            mode = at.lstat().st_mode
            if stat.S_ISREG(mode) or stat.S_ISLNK(mode):
                found.append(path)
            else:
                complain(f"{side}: {os.fsdecode(path)!r} is no file and left out")
    return b"\0".join(found)


def _kept(index: Callable[..., bytes], side: str, complain: _Complain) -> str:
    """Take out of an index what leads out of it; the id of the files that stay."""
    kept, out = [], []
    for entry in index("ls-files", "--stage", "-z").split(b"\0")[:-1]:
        about, _, path = entry.partition(b"\t")
        mode, identity, _ = about.decode().split()
        reason = "is no file" if mode == "160000" else ""  # a repository of its own
        if mode == "120000":
            target = os.fsdecode(index("cat-file", "blob", identity))
            if not _leads_inside(os.fsdecode(path), target):
                reason = f"is a link to {target!r}, which is not measured,"
        if reason:
            out.append(path)
            complain(f"{side}: {os.fsdecode(path)!r} {reason} and left out")
        else:
            kept.append(entry)
    index("update-index", "--force-remove", "-z", "--stdin", given=b"\0".join(out))
    return hashlib.sha256(b"\0".join(kept)).hexdigest()


def _leads_inside(path: str, target: str) -> bool:
    to = PurePosixPath(os.path.normpath(PurePosixPath(path).parent / target))
    return any(to.is_relative_to(folder) for folder in MEASURED)


def _remove_stale(parent: Path) -> None:
    for folder in parent.iterdir():
        with contextlib.suppress(OSError):
            if time.time() - folder.stat().st_mtime > _STALE:
                gone = folder.rename(folder.with_name(f"{folder.name}-gone"))  # no half of one
                shutil.rmtree(gone, ignore_errors=True)


def results_file(run: Sequence[object], folder: Path | None = None) -> Path:
    """The file for a run of these trees, benchmarks and settings on this machine."""
    text = json.dumps([machine_hash(), *map(str, run)])
    key = hashlib.sha256(text.encode()).hexdigest()[:16]
    return newest(folder or cache_folder() / "results", key)


def newest(folder: Path, key: str) -> Path:
    """The file of a run that was interrupted and goes on, or of a new one."""
    folder.mkdir(parents=True, exist_ok=True)
    numbers = [int(path.stem.rpartition("-")[2]) for path in folder.glob(f"{key}-*.jsonl")]
    last = max(numbers, default=0)
    path = folder / f"{key}-{last}.jsonl"
    ended = not last or any(r.get("kind") == "end" for r in lines.read(path, lambda sentence: None))
    return folder / f"{key}-{last + 1}.jsonl" if ended else path

"""What the commits between two revisions accept, and the one of them that made something worse."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Literal, NamedTuple

from .decide import SLOWEST
from .revisions import commit, git, top

TRAILER = "Regress-Accept"  # in a commit's message, with names: what it makes slower on purpose
COSTS = ("memory", "first step")  # with which a table's lines may end, after a variant's name
_PARTS = (*COSTS, SLOWEST.removeprefix(", "))

Judgement = Literal["good", "bad", "skip"]


class Found(NamedTuple):
    """The first commit known to be bad; the candidates are it and skipped ones right before it."""

    first: str
    candidates: list[str]


def accepted(base: str, head: str | None) -> dict[str, str]:
    """What the commits of the head (None: HEAD) that the base lacks accept: name and commit."""
    span = f"{commit(base, 'base')}..{commit(head or 'HEAD', 'head')}"
    trailers = f"%(trailers:key={TRAILER},valueonly,unfold,separator=%x2C)"
    found: dict[str, str] = {}
    for line in git("log", f"--format=%h%x09{trailers}", span, cwd=top("head")).splitlines():
        short, _, names = line.decode(errors="replace").partition("\t")
        for name in _listed(names):
            found.setdefault(name, short)
    return found


def _listed(names: str) -> list[str]:
    """Names with commas between; "numpy, memory" is one, as a table has it."""
    found: list[str] = []
    for name in filter(None, map(str.strip, names.split(","))):
        if name in _PARTS and found:
            found[-1] += f", {name}"
        else:
            found.append(name)
    return found


def subject(name: str) -> str:
    """The short id of a commit, and the first line of its message."""
    return (
        git("log", "-1", "--format=%h (%s)", name, cwd=top("head")).decode(errors="replace").strip()
    )


def commits(good: str, bad: str) -> list[str]:
    """The commits after good up to bad, oldest first; of a merge, the branch it was made on.

    Raises ValueError where bad does not come after good.
    """
    start, end = commit(good, "good"), commit(bad, "bad")
    root = top("good")
    line = git("rev-list", "--first-parent", "--reverse", f"{start}..{end}", cwd=root)
    try:
        git("merge-base", "--is-ancestor", start, end, cwd=root)
    except ValueError:
        raise ValueError(f"good: expected an ancestor of {bad}, got {good!r}") from None
    if not line:
        raise ValueError(f"good: expected an earlier commit than {bad}, got {good!r}")
    return line.decode().split()


def bisect(history: Sequence[str], judge: Callable[[str], Judgement]) -> Found:
    """The first bad commit of a history, oldest first, that is good before it and bad at its end.

    judge(commit) is asked at most about log2 of their number times, and once more for each "skip".
    """
    first, open_, skipped = len(history) - 1, list(range(len(history) - 1)), []
    while open_:
        middle = open_[len(open_) // 2]
        judgement = judge(history[middle])
        if judgement == "skip":
            skipped.append(middle)
            open_.remove(middle)
        elif judgement == "bad":
            first, open_ = middle, [i for i in open_ if i < middle]
        else:
            open_ = [i for i in open_ if i > middle]
            skipped = [i for i in skipped if i > middle]
    doubtful = sorted(i for i in skipped if i < first)
    return Found(history[first], [history[i] for i in (*doubtful, first)])

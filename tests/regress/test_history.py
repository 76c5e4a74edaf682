"""Histories: where a branch left its base, what its commits accept, and which of them did it."""

import math
import random

import pytest
from planted import commit, git

from twolayer.cli.commands import regress
from twolayer.network import Shape
from twolayer.regress import decide, history, revisions, run
from twolayer.regress.costs import Cost, Note

# Where a branch left its base


@pytest.fixture
def branched(small):
    """`main` became faster after `topic` left it, which is the current branch."""
    git(small, "checkout", "--quiet", "-b", "topic")
    commit(small, "topic", variants__w="a new variant")
    git(small, "checkout", "--quiet", "main")
    commit(small, "faster", kernels__k="a faster kernel")
    git(small, "checkout", "--quiet", "topic")
    return small


@pytest.mark.parametrize("head", [None, "topic"])
def test_a_base_is_where_the_head_left_it(branched, head, said):
    left, tip = (revisions.export_base("main", head, exact, said.append) for exact in (False, True))
    first = git(branched, "rev-parse", "--short", "main~1")
    assert left.label == f"{first} (where main was left)"
    assert left.tree == revisions.export("main~1", "base").tree
    assert tip == revisions.export("main", "base")
    assert tip.tree != left.tree
    assert said == []


def test_a_base_that_is_an_ancestor_is_itself(branched):
    expected = revisions.export("main~1", "base")
    for exact in (False, True):
        assert revisions.export_base("main~1", "topic", exact) == expected


def test_a_head_within_its_base_is_told_of(branched, said):
    for head in ("main", "topic", None):
        revisions.export_base("main", head, complain=said.append)
    git(branched, "checkout", "--quiet", "main~1")
    revisions.export_base("main", None, complain=said.append)  # the working tree may have changed
    assert said == []
    revisions.export_base("main", "main~1", complain=said.append)
    assert said == ["base: main holds main~1, which is compared with itself; --exact takes the tip"]


def test_histories_with_nothing_in_common_are_one_sentence(branched):
    git(branched, "checkout", "--quiet", "--orphan", "stranger")
    commit(branched)
    with pytest.raises(ValueError, match=r"^base: main and HEAD have no commit in common$"):
        revisions.export_base("main", None)
    revisions.export_base("main", None, exact=True)


def test_costs_are_accepted_by_the_commits_of_the_head(branched):
    first = commit(branched, "more\n\nRegress-Accept: numpy, numba-fused\nSigned-off-by: nobody")
    commit(branched, "Regress-Accept: no trailer in a subject")
    last = commit(branched, "least\n\nRegress-Accept: cuda,numpy\nRegress-Accept: python-\n loops")
    accepted = history.accepted("main", None)
    assert list(accepted) == ["cuda", "numpy", "python- loops", "numba-fused"]
    assert all(last.startswith(accepted[name]) for name in ("cuda", "numpy"))
    assert first.startswith(accepted["numba-fused"])
    assert history.accepted("main", "topic~1").keys() == {"numpy", "numba-fused"}
    assert history.accepted("topic", "main") == {}


def test_a_line_of_the_table_can_be_accepted(branched):
    lines = "numpy, memory, v n=1 d=2 M=3 K=4, slowest steps,w,first step"
    commit(branched, f"more\n\nRegress-Accept: {lines}")
    names = ["numpy, memory", "v n=1 d=2 M=3 K=4, slowest steps", "w, first step"]
    assert list(history.accepted("main", None)) == names
    starts = [
        {"variant": "v", "pair": pair, "side": side, "load": 1.0, "memory": 1}
        for pair in range(4)
        for side in ("base", "head")
    ]
    found = {d.name.removeprefix("v, ") for d in decide.decide({}, {}, starts)}
    assert found == set(history.COSTS)


# The commit that did it


def test_the_commits_are_those_of_the_branch_oldest_first(branched):
    git(branched, "merge", "--quiet", "--no-edit", "main")
    ids = [git(branched, "rev-parse", name) for name in ("topic~1", "topic")]
    assert history.commits("main~1", "topic") == ids
    assert history.commits("topic~1", "topic") == ids[1:]


@pytest.mark.parametrize(
    ("good", "bad", "sentence"),
    [
        ("topic", "main", "good: expected an ancestor of main, got 'topic'"),
        ("topic", "main~1", "good: expected an ancestor of main~1, got 'topic'"),
        ("main", "main", "good: expected an earlier commit than main, got 'main'"),
        ("nothing", "main", "good: expected a revision that git knows, got 'nothing'"),
        ("main", "nothing", "bad: expected a revision that git knows, got 'nothing'"),
    ],
)
def test_a_history_with_no_way_is_one_sentence(branched, good, bad, sentence):
    with pytest.raises(ValueError, match=f"^{sentence}$"):
        history.commits(good, bad)


@pytest.mark.parametrize("share", [0, 0.1, 0.5, 1])
def test_a_planted_commit_is_found(share):
    draw = random.Random(0)
    for _ in range(300):
        commits = [f"commit {i}" for i in range(draw.randint(1, 70))]
        planted = draw.randrange(len(commits))
        skips = {i for i in range(len(commits) - 1) if draw.random() < share}
        asked = []

        def judge(commit, commits=commits, planted=planted, skips=skips, asked=asked):
            asked.append(commits.index(commit))
            if asked[-1] in skips:
                return "skip"
            return "bad" if asked[-1] >= planted else "good"

        found = history.bisect(commits, judge)
        assert commits[planted] in found.candidates
        assert found.candidates[-1] == found.first
        if not {planted - 1, planted} & skips:
            assert found == (commits[planted], [commits[planted]])
        assert {commits.index(c) for c in found.candidates[:-1]} <= skips
        assert len(asked) == len(set(asked))
        halves = len([i for i in asked if i not in skips])
        assert halves <= math.ceil(math.log2(len(commits)))


def test_a_planted_commit_of_sixteen_is_found_among_some_without_a_package(small):
    """What is exported is judged; a commit to the documentation has the tree of the one before."""
    ids = []
    for i in range(16):
        gone = i in (7, 12)  # which are asked for
        git(small, "mv", "--force", "src/twolayer/__init__.py", "moved") if gone else None
        kernel = {"kernels__k": "slow" if i >= 9 else "quick"} if i % 2 else {"docs__d": str(i)}
        ids.append(commit(small, variants__v=str(i // 3), **kernel))
        git(small, "mv", "moved", "src/twolayer/__init__.py") if gone else None

    def judge(name):
        try:
            folder = revisions.export(name, "head").folder
        except ValueError:
            return "skip"
        kernel = folder / "kernels" / "k"
        return "bad" if kernel.exists() and kernel.read_text() == "slow" else "good"

    found = history.bisect(history.commits("HEAD~16", "main"), judge)
    assert found == (ids[9], [ids[9]])


NAME = "v n=4 d=3 M=2 K=1"
SAME = decide.Decision(NAME, "v", "time", 4, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 0.01, "same", True)
OUTCOMES = {
    "quick": run.Outcome([SAME]),
    "inaccurate": run.Outcome([SAME], [Cost("accuracy", "v", 1.0, 9.0, "worse")]),
    "slow": run.Outcome([], [], [Note("far", NAME, "takes long")]),
    "lost": run.Outcome([], [], [Note("lost", NAME, "is gone")]),
    "noisy": run.Outcome(),
    "failed": run.Outcome([], [], [Note("failed", NAME, "raises")]),
    "dies": RuntimeError("it died before it measured anything"),
    "broken": run.Unusable("head: it cannot be imported"),
}


class Scripted(run.Run):
    """A run that finds what the head's kernel says."""

    def measure(self, costly=True):
        found = OUTCOMES[(self.head.folder / "kernels" / "k.py").read_text()]
        if isinstance(found, Exception):
            raise found
        return found


def bisected(good="HEAD~1"):
    sides = revisions.export(good, "base"), revisions.export("main", "head")
    suite = [run.Benchmark("v", Shape(4, 3, 2, 1))]
    made = Scripted(*sides, suite, revisions.results_file(("a test",)))
    with pytest.raises(regress.typer.Exit) as end:
        regress._bisect(made, good, "main")
    return end.value.exit_code


def test_what_says_nothing_of_the_slowdown_is_skipped(small, capsys):
    """A noisy hour, a variant that is lost, or dies, or a package that is gone for a while."""
    first = git(small, "rev-parse", "HEAD")
    for kernel in ("quick", "inaccurate"):
        made_commit(small, kernel)
    skipped = [made_commit(small, kernel) for kernel in ("lost", "noisy", "dies", "broken")]
    git(small, "mv", "src/twolayer/__init__.py", "moved")
    skipped.append(commit(small, "no package"))
    git(small, "mv", "moved", "src/twolayer/__init__.py")
    bad = [made_commit(small, "slow") for _ in range(2)]
    assert bisected(first) == 1
    said = capsys.readouterr()
    named = [line.partition(" ")[0] for line in said.out.splitlines()]
    assert all(any(full.startswith(name) for full in (*skipped, bad[0])) for name in named)
    assert bad[0].startswith(named[-1])
    assert not any(bad[1].startswith(name) for name in named)
    assert "(quick)" not in said.out
    assert "(inaccurate)" not in said.out


@pytest.mark.parametrize(("kernel", "code"), [("quick", 3), ("noisy", 3), ("failed", 2)])
def test_an_end_that_is_not_slower_has_its_own_exit_code(small, kernel, code, capsys):
    made_commit(small, kernel)
    assert bisected() == code
    assert "main is not slower than HEAD~1" in capsys.readouterr().err


def test_a_history_without_a_way_is_refused_before_anything_is_measured(small):
    with pytest.raises(ValueError, match=r"^good: expected an earlier commit than main"):
        bisected("main")


def made_commit(folder, kernel):
    """One more commit, with that text as its kernel."""
    (folder / "kernels" / "k.py").write_text(kernel)
    return commit(folder, kernel)

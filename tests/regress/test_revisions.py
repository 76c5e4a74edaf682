"""Revisions as folders: what is taken from a repository, what is left alone, and its history."""

import math
import os
import random
import shutil

import pytest
from histories import commit, git, made, write

from twolayer.regress import bisect, revisions


@pytest.fixture(scope="module")
def original(tmp_path_factory):
    return made(tmp_path_factory.mktemp("original"))


@pytest.fixture
def here(original, tmp_path, monkeypatch):
    """A repository of its own for each test, as the current folder."""
    folder = tmp_path / "a repository"
    shutil.copytree(original, folder, symlinks=True)
    git(folder, "update-index", "--refresh")
    monkeypatch.chdir(folder)
    monkeypatch.setenv("TWOLAYER_REGRESS", str(tmp_path / "regress"))
    return folder


@pytest.fixture
def said():
    return []


def everything(folder):
    """Every file and folder below, with what a change would change."""
    return {
        path: (about.st_mtime_ns, about.st_size, about.st_ino)
        for path in (folder, *folder.rglob("*"))
        for about in [path.lstat()]
    }


def names(revision):
    files = (p for p in revision.folder.rglob("*") if p.is_symlink() or p.is_file())
    return sorted(str(path.relative_to(revision.folder)) for path in files)


MEASURED = [
    "kernels/k.py",
    "src/twolayer/__init__.py",
    "src/twolayer/kernels",
    "src/twolayer/variants",
    "variants/v.py",
]


# What is taken


def test_a_revision_and_the_working_tree_are_exported_apart(here, said):
    write(here, "variants/v.py", "changed")
    write(here, "variants/new.py", "new")
    write(here, "variants/a.log", "ignored")
    (here / "kernels" / "k.py").unlink()
    old, new = revisions.export("main", "base", said.append), revisions.export(None, "head")
    assert names(old) == MEASURED
    assert (old.folder / "src/twolayer/variants/v.py").read_text() == "a variant"
    assert (new.folder / "src/twolayer/variants/v.py").read_text() == "changed"
    assert set(names(new)) == {*MEASURED, "variants/new.py"} - {"kernels/k.py"}
    assert old.tree != new.tree
    assert (old.label[8:], new.label) == ("(main)", revisions.WORKING_TREE)
    assert said == []


def test_the_sides_never_share_a_folder(here):
    base, head = (revisions.export("main", side) for side in ("base", "head"))
    assert base.tree == head.tree
    assert base.folder != head.folder


def test_the_repository_is_not_written_into(here):
    write(here, "variants/v.py", "changed")
    write(here, "variants/new.py", "new")
    git(here, "add", "variants/new.py")
    git(here, "config", "core.splitIndex", "true")
    (here / "data.bin").touch()
    os.truncate(here / "data.bin", 300_000_000)
    before = everything(here)
    found = revisions.export(None, "head")
    revisions.export("main", "base")
    assert everything(here) == before
    assert sum(path.lstat().st_size for path in found.folder.rglob("*")) < 1_000_000


def outside(here):
    write(here, "here.log", "ignored")
    write(here, "table.md", "untracked")
    write(here, "env/bin/python.py", "untracked")
    write(here, "docs/d.md", "changed")
    commit(here, "docs", docs__new="page")
    write(here, "docs/new", "changed")


def inside(path):
    return lambda here: write(here, path, "changed")


def executable(here):
    (here / "kernels" / "k.py").chmod(0o755)


@pytest.mark.parametrize(
    ("change", "same"),
    [
        (outside, True),
        (inside("kernels/a.log"), True),  # git ignores it
        (inside("kernels/k.py"), False),
        (inside("kernels/untracked.py"), False),
        (inside("src/twolayer/new/code.py"), False),
        (inside("pyproject.toml"), False),
        (executable, False),
    ],
)
def test_the_tree_depends_on_what_is_measured_alone(here, change, same):
    before = revisions.export("HEAD", "base").tree
    assert revisions.export(None, "base").tree == before
    change(here)
    changed = revisions.export(None, "base").tree
    assert (changed == before) == same
    commit(here)
    assert revisions.export("HEAD", "base").tree == changed


def test_files_that_are_tracked_though_ignored_are_taken(here):
    write(here, "variants/a.log", "kept")
    git(here, "add", "--force", "variants/a.log")
    assert "variants/a.log" in names(revisions.export(None, "head"))


def test_sources_in_the_package_itself_are_taken(here):
    """Old revisions have folders where the links are."""
    for name in ("kernels", "variants"):
        (here / "src" / "twolayer" / name).unlink()
        (here / name).rename(here / "src" / "twolayer" / name)
    assert "src/twolayer/kernels/k.py" in names(revisions.export(None, "head"))
    commit(here)
    assert revisions.export(None, "head") == revisions.export("HEAD", "head")._replace(
        label=revisions.WORKING_TREE
    )


@pytest.mark.parametrize("target", ["/etc/hosts", "../../..", "../README", "no/../../../where"])
@pytest.mark.parametrize("name", [None, "HEAD"])
def test_a_link_that_leads_out_is_left_out(here, said, target, name):
    (here / "variants" / "linked").symlink_to(target)
    (here / "variants" / "dangling").symlink_to("not-yet")
    if name:
        commit(here)
    found = names(revisions.export(name, "head", said.append))
    assert found == sorted([*MEASURED, "variants/dangling"])
    assert said == [
        f"head: 'variants/linked' is a link to {target!r}, which is not measured, and left out"
    ]


def test_a_link_in_the_place_of_a_folder_is_what_counts(here, tmp_path, said):
    (here / "kernels").rename(tmp_path / "elsewhere")
    (here / "kernels").symlink_to(tmp_path / "elsewhere")
    found = revisions.export(None, "head", said.append)
    assert "kernels/k.py" not in names(found)
    assert [sentence[:31] for sentence in said] == ["head: 'kernels' is a link to '/"]


def test_what_is_no_file_does_not_end_it(here, said):
    os.mkfifo(here / "pipe")
    os.mkfifo(here / "variants" / "pipe")
    (here / "kernels" / "k.py").unlink()
    os.mkfifo(here / "kernels" / "k.py")
    for folder in (here / "nested", here / "variants" / "nested"):
        folder.mkdir()
        git(folder, "init", "--quiet")
    made(here / "variants" / "filled")
    found = names(revisions.export(None, "head", said.append))
    assert found == [name for name in MEASURED if name != "kernels/k.py"]
    left = ("kernels/k.py", "variants/filled/", "variants/nested/")
    assert said == [f"head: {path!r} is no file and left out" for path in left]


@pytest.mark.parametrize("name", [None, "HEAD"])
def test_a_submodule_is_left_out(here, original, said, name):
    before = revisions.export("HEAD", "head").tree
    allowed = ("-c", "protocol.file.allow=always")
    git(here, *allowed, "submodule", "--quiet", "add", str(original), "variants/other")
    commit(here)
    found = revisions.export(name, "head", said.append)
    assert found.tree == before
    assert said == ["head: 'variants/other' is no file and left out"]


@pytest.mark.parametrize("name", [None, "HEAD"])
def test_any_name_is_a_name(here, name):
    odd = sorted(["variants/a b", "variants/a\nb", "variants/ä€", 'variants/"', "variants/\udcff"])
    for path in odd:
        write(here, path, path[9:].encode(errors="replace").decode())
    commit(here)
    assert names(revisions.export(name, "head")) == sorted([*MEASURED, *odd])


def test_a_subfolder_and_another_worktree_give_the_same(here, tmp_path, monkeypatch):
    expected = revisions.export(None, "head")
    monkeypatch.chdir(here / "docs")
    assert revisions.export(None, "head") == expected
    git(here, "worktree", "add", "--quiet", "--detach", str(tmp_path / "worktree"))
    monkeypatch.chdir(tmp_path / "worktree")
    assert revisions.export(None, "head") == expected
    write(tmp_path / "worktree", "kernels/k.py", "changed")
    assert revisions.export(None, "head").tree != expected.tree


def test_objects_of_another_repository_are_found(here, tmp_path, monkeypatch):
    clone = tmp_path / "shared"
    git(tmp_path, "clone", "--quiet", "--shared", str(here), str(clone))
    expected = revisions.export("main", "head")
    shutil.rmtree(tmp_path / "regress")
    monkeypatch.chdir(clone)
    assert revisions.export("main", "head") == expected
    assert revisions.export(None, "head").tree == expected.tree


# What is refused


@pytest.mark.parametrize("name", ["no-such-branch", "-x", "main~7", ""])
def test_an_unknown_revision_is_one_sentence(here, name):
    with pytest.raises(ValueError, match="base: expected a revision that git knows, got") as error:
        revisions.export(name, "base")
    assert "fetch" not in str(error.value)  # there is nothing to fetch from


def test_a_clone_that_lacks_a_revision_says_what_to_fetch(here, tmp_path, monkeypatch):
    commit(here, "second")
    git(here, "branch", "other")
    clone = tmp_path / "shallow"
    git(tmp_path, "clone", "--quiet", "--depth=1", f"file://{here}", str(clone))
    monkeypatch.chdir(clone)
    known = "base: expected a revision that git knows, got"
    with pytest.raises(ValueError, match="base") as error:
        revisions.export("main~1", "base")
    assert str(error.value) == f"{known} 'main~1'; get it by `git fetch --unshallow`"
    for name, fetch in [
        ("other", "git fetch origin other:other"),
        ("origin/other", "git fetch origin other:refs/remotes/origin/other"),
    ]:
        with pytest.raises(ValueError, match="base") as error:
            revisions.export_base(name, None)
        ways = f"`git fetch --unshallow` and `{fetch}`"
        assert str(error.value) == f"{known} {name!r}; get it by {ways}"
        git(clone, *fetch.split()[1:])
        revisions.export_base(name, None)
    git(clone, "fetch", "--quiet", "--unshallow")
    revisions.export("main~1", "base")


def test_a_revision_without_the_package_is_refused(here):
    git(here, "rm", "-r", "--quiet", "src")
    with pytest.raises(ValueError, match="head: the working tree has no package src/twolayer"):
        revisions.export(None, "head")


def test_a_repository_without_a_commit_has_a_working_tree_only(here):
    expected = revisions.export("main", "head").tree
    shutil.rmtree(here / ".git")
    with pytest.raises(ValueError, match="head: git rev-parse: fatal: not a git repository"):
        revisions.export(None, "head")
    git(here, "init", "--quiet")
    assert revisions.export(None, "head").tree == expected
    with pytest.raises(ValueError, match="head: expected a revision that git knows, got 'HEAD'"):
        revisions.export("HEAD", "head")


@pytest.mark.parametrize("name", [None, "main"])
def test_a_repository_that_git_does_not_trust_is_one_sentence(here, monkeypatch, name):
    monkeypatch.setenv("GIT_TEST_ASSUME_DIFFERENT_OWNER", "1")
    with pytest.raises(ValueError, match="head: git rev-parse: fatal: detected dubious ownership"):
        revisions.export(name, "head")


# Where a branch left its base


@pytest.fixture
def branched(here):
    """`main` became faster after `topic` left it, which is the current branch."""
    git(here, "checkout", "--quiet", "-b", "topic")
    commit(here, "topic", variants__w="a new variant")
    git(here, "checkout", "--quiet", "main")
    commit(here, "faster", kernels__k="a faster kernel")
    git(here, "checkout", "--quiet", "topic")
    return here


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
    last = commit(branched, "least\n\nRegress-Accept: cuda\nRegress-Accept: python-\n loops")
    accepted = revisions.accepted("main", None)
    assert list(accepted) == ["cuda", "python- loops", "numpy", "numba-fused"]
    assert all(last.startswith(accepted[name]) for name in ("cuda", "python- loops"))
    assert first.startswith(accepted["numpy"])
    assert revisions.accepted("main", "topic~1").keys() == {"numpy", "numba-fused"}
    assert revisions.accepted("topic", "main") == {}


# The commit that did it


def test_the_commits_are_those_of_the_branch_oldest_first(branched):
    git(branched, "merge", "--quiet", "--no-edit", "main")
    ids = [git(branched, "rev-parse", name) for name in ("topic~1", "topic")]
    assert bisect.commits("main~1", "topic") == ids
    assert bisect.commits("topic~1", "topic") == ids[1:]


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
        bisect.commits(good, bad)


@pytest.mark.parametrize("share", [0, 0.1, 0.5, 1])
def test_a_planted_commit_is_found(share):
    draw = random.Random(0)
    for _ in range(300):
        history = [f"commit {i}" for i in range(draw.randint(1, 70))]
        planted = draw.randrange(len(history))
        skips = {i for i in range(len(history) - 1) if draw.random() < share}
        asked = []

        def judge(commit, history=history, planted=planted, skips=skips, asked=asked):
            asked.append(history.index(commit))
            if asked[-1] in skips:
                return "skip"
            return "bad" if asked[-1] >= planted else "good"

        found = bisect.bisect(history, judge)
        assert history[planted] in found.candidates
        assert found.candidates[-1] == found.first
        if not {planted - 1, planted} & skips:
            assert found == (history[planted], [history[planted]])
        assert {history.index(c) for c in found.candidates[:-1]} <= skips
        assert len(asked) == len(set(asked))
        halves = len([i for i in asked if i not in skips])
        assert halves <= math.ceil(math.log2(len(history)))

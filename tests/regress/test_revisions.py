"""Revisions as folders: what is taken from a repository, and what is left alone."""

import os
import shutil

import pytest
from planted import commit, git, made, write

from twolayer.regress import revisions


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


def test_a_revision_and_the_working_tree_are_exported_apart(small, said):
    write(small, "variants/v.py", "changed")
    write(small, "variants/new.py", "new")
    write(small, "variants/a.log", "ignored")
    (small / "kernels" / "k.py").unlink()
    old, new = revisions.export("main", "base", said.append), revisions.export(None, "head")
    assert names(old) == MEASURED
    assert (old.folder / "src/twolayer/variants/v.py").read_text() == "a variant"
    assert (new.folder / "src/twolayer/variants/v.py").read_text() == "changed"
    assert set(names(new)) == {*MEASURED, "variants/new.py"} - {"kernels/k.py"}
    assert old.tree != new.tree
    assert (old.label[8:], new.label) == ("(main)", revisions.WORKING_TREE)
    assert said == []


def test_a_label_names_a_commit_once(small):
    full = git(small, "rev-parse", "main")
    short = git(small, "rev-parse", "--short", "main")
    for name, label in ((full, short), (short, short), ("HEAD", f"{short} (HEAD)")):
        assert revisions.export(name, "head").label == label


def test_the_sides_never_share_a_folder(small):
    base, head = (revisions.export("main", side) for side in ("base", "head"))
    assert base.tree == head.tree
    assert base.folder != head.folder


def test_the_repository_is_not_written_into(small):
    write(small, "variants/v.py", "changed")
    write(small, "variants/new.py", "new")
    git(small, "add", "variants/new.py")
    git(small, "config", "core.splitIndex", "true")
    (small / "data.bin").touch()
    os.truncate(small / "data.bin", 300_000_000)
    before = everything(small)
    found = revisions.export(None, "head")
    revisions.export("main", "base")
    assert everything(small) == before
    assert sum(path.lstat().st_size for path in found.folder.rglob("*")) < 1_000_000


def outside(small):
    write(small, "here.log", "ignored")
    write(small, "table.md", "untracked")
    write(small, "env/bin/python.py", "untracked")
    write(small, "docs/d.md", "changed")
    commit(small, "docs", docs__new="page")
    write(small, "docs/new", "changed")


def inside(path):
    return lambda small: write(small, path, "changed")


def executable(small):
    (small / "kernels" / "k.py").chmod(0o755)


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
def test_the_tree_depends_on_what_is_measured_alone(small, change, same):
    before = revisions.export("HEAD", "base").tree
    assert revisions.export(None, "base").tree == before
    change(small)
    changed = revisions.export(None, "base").tree
    assert (changed == before) == same
    commit(small)
    assert revisions.export("HEAD", "base").tree == changed


def test_files_that_are_tracked_though_ignored_are_taken(small):
    write(small, "variants/a.log", "kept")
    git(small, "add", "--force", "variants/a.log")
    assert "variants/a.log" in names(revisions.export(None, "head"))


def test_sources_in_the_package_itself_are_taken(small):
    """Old revisions have folders where the links are."""
    for name in ("kernels", "variants"):
        (small / "src" / "twolayer" / name).unlink()
        (small / name).rename(small / "src" / "twolayer" / name)
    assert "src/twolayer/kernels/k.py" in names(revisions.export(None, "head"))
    commit(small)
    assert revisions.export(None, "head") == revisions.export("HEAD", "head")._replace(
        label=revisions.WORKING_TREE
    )


@pytest.mark.parametrize("target", ["/etc/hosts", "../../..", "../README", "no/../../../where"])
@pytest.mark.parametrize("name", [None, "HEAD"])
def test_a_link_that_leads_out_is_left_out(small, said, target, name):
    (small / "variants" / "linked").symlink_to(target)
    (small / "variants" / "dangling").symlink_to("not-yet")
    if name:
        commit(small)
    found = names(revisions.export(name, "head", said.append))
    assert found == sorted([*MEASURED, "variants/dangling"])
    assert said == [
        f"head: 'variants/linked' is a link to {target!r}, which is not measured, and left out"
    ]


def test_a_link_in_the_place_of_a_folder_is_what_counts(small, tmp_path, said):
    (small / "kernels").rename(tmp_path / "elsewhere")
    (small / "kernels").symlink_to(tmp_path / "elsewhere")
    found = revisions.export(None, "head", said.append)
    assert "kernels/k.py" not in names(found)
    assert [sentence[:31] for sentence in said] == ["head: 'kernels' is a link to '/"]


def test_what_vanishes_meanwhile_does_not_end_it(small, monkeypatch):
    lying = revisions._lying
    monkeypatch.setattr(revisions, "_lying", lambda *about: lying(*about) + b"\0variants/gone")
    assert names(revisions.export(None, "head")) == MEASURED


def test_what_is_no_file_does_not_end_it(small, said):
    os.mkfifo(small / "pipe")
    os.mkfifo(small / "variants" / "pipe")
    (small / "kernels" / "k.py").unlink()
    os.mkfifo(small / "kernels" / "k.py")
    for folder in (small / "nested", small / "variants" / "nested"):
        folder.mkdir()
        git(folder, "init", "--quiet")
    made(small / "variants" / "filled")
    found = names(revisions.export(None, "head", said.append))
    assert found == [name for name in MEASURED if name != "kernels/k.py"]
    left = ("kernels/k.py", "variants/filled/", "variants/nested/")
    assert said == [f"head: {path!r} is no file and left out" for path in left]


@pytest.mark.parametrize("name", [None, "HEAD"])
def test_a_submodule_is_left_out(small, original, said, name):
    before = revisions.export("HEAD", "head").tree
    allowed = ("-c", "protocol.file.allow=always")
    git(small, *allowed, "submodule", "--quiet", "add", str(original), "variants/other")
    commit(small)
    found = revisions.export(name, "head", said.append)
    assert found.tree == before
    assert said == ["head: 'variants/other' is no file and left out"]


@pytest.mark.parametrize("name", [None, "HEAD"])
def test_any_name_is_a_name(small, name):
    odd = sorted(["variants/a b", "variants/a\nb", "variants/ä€", 'variants/"', "variants/\udcff"])
    for path in odd:
        write(small, path, path[9:].encode(errors="replace").decode())
    commit(small)
    assert names(revisions.export(name, "head")) == sorted([*MEASURED, *odd])


def test_a_subfolder_and_another_worktree_give_the_same(small, tmp_path, monkeypatch):
    expected = revisions.export(None, "head")
    monkeypatch.chdir(small / "docs")
    assert revisions.export(None, "head") == expected
    git(small, "worktree", "add", "--quiet", "--detach", str(tmp_path / "worktree"))
    monkeypatch.chdir(tmp_path / "worktree")
    assert revisions.export(None, "head") == expected
    write(tmp_path / "worktree", "kernels/k.py", "changed")
    assert revisions.export(None, "head").tree != expected.tree


def test_objects_of_another_repository_are_found(small, tmp_path, monkeypatch):
    clone = tmp_path / "shared"
    git(tmp_path, "clone", "--quiet", "--shared", str(small), str(clone))
    expected = revisions.export("main", "head")
    shutil.rmtree(tmp_path / "regress")
    monkeypatch.chdir(clone)
    assert revisions.export("main", "head") == expected
    assert revisions.export(None, "head").tree == expected.tree


# What is refused


@pytest.mark.parametrize("name", ["no-such-branch", "-x", "main~7", ""])
def test_an_unknown_revision_is_one_sentence(small, name):
    with pytest.raises(ValueError, match="base: expected a revision that git knows, got") as error:
        revisions.export(name, "base")
    assert "fetch" not in str(error.value)  # there is nothing to fetch from


def test_a_clone_that_lacks_a_revision_says_what_to_fetch(small, tmp_path, monkeypatch):
    commit(small, "second")
    git(small, "branch", "other")
    clone = tmp_path / "shallow"
    git(tmp_path, "clone", "--quiet", "--depth=1", f"file://{small}", str(clone))
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


def test_a_revision_without_the_package_is_refused(small):
    git(small, "rm", "-r", "--quiet", "src")
    with pytest.raises(ValueError, match="head: the working tree has no package src/twolayer"):
        revisions.export(None, "head")


def test_a_repository_without_a_commit_has_a_working_tree_only(small):
    expected = revisions.export("main", "head").tree
    shutil.rmtree(small / ".git")
    with pytest.raises(ValueError, match="head: git rev-parse: fatal: not a git repository"):
        revisions.export(None, "head")
    git(small, "init", "--quiet")
    assert revisions.export(None, "head").tree == expected
    with pytest.raises(ValueError, match="head: expected a revision that git knows, got 'HEAD'"):
        revisions.export("HEAD", "head")


@pytest.mark.parametrize("name", [None, "main"])
def test_a_repository_that_git_does_not_trust_is_one_sentence(small, monkeypatch, name):
    monkeypatch.setenv("GIT_TEST_ASSUME_DIFFERENT_OWNER", "1")
    with pytest.raises(ValueError, match="head: git rev-parse: fatal: detected dubious ownership"):
        revisions.export(name, "head")

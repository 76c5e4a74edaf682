"""Each measurement knows the commit of the sources, read cheaply from any kind of checkout."""

import shutil
import subprocess

import pytest

from twolayer.machine import revision as revisions
from twolayer.machine.store import Measurement, Store


def git(folder, *arguments):
    done = subprocess.run(
        ["git", "-c", "user.name=a", "-c", "user.email=a@b", *arguments], cwd=folder, check=True,
        capture_output=True, text=True,
    )  # fmt: skip
    return done.stdout.strip()


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A repository with a package and another file, in one commit."""
    root = tmp_path_factory.mktemp("made") / "repository"
    (root / "src" / "twolayer").mkdir(parents=True)
    (root / "src" / "twolayer" / "__init__.py").write_text("")
    (root / "README.md").write_text("")
    git(root, "init", "--quiet", "--initial-branch", "a/b")
    git(root, "add", ".")
    git(root, "commit", "--quiet", "--message", "First")
    return root


@pytest.fixture
def repository(made, tmp_path):
    return shutil.copytree(made, tmp_path / "repository")


def worktree(root):
    git(root, "worktree", "add", "--quiet", root.parent / "other", "-b", "c")
    return root.parent / "other"


# Kinds of checkouts: what is done to a plain one, and where the package lies then.
KINDS = {
    "a branch": lambda root: root,
    "packed": lambda root: git(root, "pack-refs", "--all") or root,
    "detached": lambda root: git(root, "checkout", "--quiet", "--detach") or root,
    "a worktree": worktree,
}


@pytest.mark.parametrize("kind", KINDS)
def test_the_commit_is_read_without_git(repository, kind, monkeypatch):
    root = KINDS[kind](repository)
    commit = git(root, "rev-parse", "HEAD")
    package = root / "src" / "twolayer"
    assert revisions.of(package) == (commit, "clean")
    monkeypatch.setenv("PATH", "")
    assert revisions.of(package) == (commit, "")


def test_refs_that_no_file_has_are_left_to_git(repository):
    commit = git(repository, "rev-parse", "HEAD")
    (repository / ".git" / "refs" / "heads" / "a" / "b").write_text("damaged")
    assert revisions.of(repository / "src" / "twolayer") == ("", "")
    git(repository, "update-ref", "--no-deref", "HEAD", commit)
    assert revisions.of(repository / "src" / "twolayer").commit == commit


@pytest.mark.parametrize(
    ("file", "tree"),
    [("src/twolayer/__init__.py", "changed"), ("variants/new.py", "changed"),
     ("README.md", "clean"), ("notes.txt", "clean")],
)  # fmt: skip
def test_only_sources_make_a_tree_changed(repository, file, tree):
    (repository / file).parent.mkdir(exist_ok=True)
    (repository / file).write_text("x = 1")
    assert revisions.of(repository / "src" / "twolayer").tree == tree


def test_an_installed_package_is_not_of_the_repository_around_it(repository, monkeypatch):
    site = repository / "env" / "lib" / "site-packages" / "twolayer"
    site.mkdir(parents=True)
    assert revisions.of(site) == ("", "")
    # Nor is a checkout that of a hook which runs it.
    monkeypatch.setenv("GIT_DIR", str(repository / "none"))
    assert revisions.of(repository / "src" / "twolayer").tree == "clean"


def test_it_is_kept_and_read_once(tmp_path, monkeypatch):
    here = revisions.revision()
    monkeypatch.setenv("PATH", "")
    with Store(tmp_path / "store.sqlite") as store:
        store.add(Measurement(kind="epoch"), {"cpu": "an abacus"})
        (found,) = store.select()
    assert (found.commit, found.tree) == here


def test_git_puts_commits_in_order_and_names_them(repository, monkeypatch):
    first = git(repository, "rev-parse", "HEAD")
    git(repository, "commit", "--quiet", "--allow-empty", "--message", "Second, of the same time")
    second = git(repository, "rev-parse", "HEAD")
    monkeypatch.setattr(revisions, "_root", lambda package: repository)
    found = revisions.log([second, first, "f" * 40, "-x", ""])
    assert {commit: one.subject for commit, one in found.items()} == {
        first: "First", second: "Second, of the same time",
    }  # fmt: skip
    assert found[first][:2] < found[second][:2]
    assert [revisions.resolve(name) for name in ("HEAD~1", "a/b", second[:8])] == [
        first, second, second,
    ]  # fmt: skip
    assert [revisions.resolve(name) for name in ("none", "-x", "")] == ["", "", ""]
    monkeypatch.setattr(revisions, "_root", lambda package: None)
    assert revisions.log([first]) == {}
    assert revisions.resolve("HEAD") == ""

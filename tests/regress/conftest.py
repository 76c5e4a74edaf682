"""A small repository for each test, and one of the present sources; what is said of them."""

import shutil
from functools import partial
from pathlib import Path

import pytest
from planted import git, made

from twolayer.regress import run

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def original(tmp_path_factory):
    return made(tmp_path_factory.mktemp("original"))


@pytest.fixture
def small(original, tmp_path, monkeypatch):
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


@pytest.fixture(scope="module")
def repository(tmp_path_factory):
    """The present sources as a repository of one commit, tagged `sound`."""
    folder = tmp_path_factory.mktemp("repository")
    for name in ("src", "kernels", "variants"):
        shutil.copytree(
            ROOT / name,
            folder / name,
            symlinks=True,
            ignore=shutil.ignore_patterns("__pycache__", "*.egg-info"),
        )
    (folder / ".gitignore").write_text("__pycache__/\n")
    git(folder, "init", "--quiet", "--initial-branch=main")
    git(folder, "add", "--all")
    git(folder, "commit", "--quiet", "--message=sound")
    git(folder, "tag", "sound")
    return folder


@pytest.fixture
def here(repository, monkeypatch, tmp_path_factory):
    """That repository, clean, as the current folder; revisions are kept for all tests."""
    git(repository, "reset", "--quiet", "--hard", "sound")
    git(repository, "clean", "--quiet", "--force", "-d")
    monkeypatch.chdir(repository)
    monkeypatch.setenv("TWOLAYER_REGRESS", str(tmp_path_factory.getbasetemp() / "regress"))
    return repository


@pytest.fixture
def brief(monkeypatch):
    """Two processes, where as many say no more of what is looked at."""
    monkeypatch.setattr("twolayer.cli.commands.regress.Run", partial(run.Run, looks=(2,)))


@pytest.fixture
def commit(here):
    """commit(message): the id of a commit of all that is changed."""

    def make(message):
        git(here, "commit", "--all", "--quiet", f"--message={message}")
        return git(here, "rev-parse", "HEAD")

    return make

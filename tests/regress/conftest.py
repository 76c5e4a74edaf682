"""A small repository for each test, and what is said of it."""

import shutil

import pytest
from histories import git, made


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

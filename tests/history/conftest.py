"""Stores of two machines and twenty commits."""

import pytest
from past import fill

from twolayer.machine import revision
from twolayer.machine.revision import Logged
from twolayer.machine.store import Store


@pytest.fixture
def store(tmp_path, monkeypatch):
    """An empty store, which is the user's."""
    path = tmp_path / "store.sqlite"
    monkeypatch.setenv("TWOLAYER_STORE", str(path))
    monkeypatch.setattr(revision, "_root", lambda package: None)  # no commit is git's
    monkeypatch.setenv("COLUMNS", "200")
    monkeypatch.chdir(tmp_path)
    with Store(path) as made:
        yield made


@pytest.fixture
def full(store):
    """Two variants on two machines over twenty commits; numpy is slower from the eleventh on."""
    fill(store.path, [1.0] * 10 + [1.2] * 10)
    return store


@pytest.fixture
def logged(monkeypatch):
    """logged(commits): git has them, in that order."""

    def know(*commits):
        found = {commit: Logged(1.0, place, f"No. {place}") for place, commit in enumerate(commits)}
        monkeypatch.setattr(revision, "log", lambda wanted: found)

    return know

"""A store of its own for each test, and races that nobody ran."""

import pytest
from made_up import made_up_contest

from twolayer.choosing import decide
from twolayer.machine.store import Store


@pytest.fixture
def store(tmp_path, monkeypatch):
    """An empty store for one test, which TWOLAYER_STORE names."""
    path = tmp_path / "store.sqlite"
    monkeypatch.setenv("TWOLAYER_STORE", str(path))
    with Store(path) as made:
        yield made


@pytest.fixture
def raced(monkeypatch):
    """raced(NAME=seconds or a sentence or an exception, …): what a race finds of each variant."""

    def make(**found):
        def race(net, q, field_of, progress):
            entries, rows = made_up_contest(net, q, field_of, progress)
            for entry in entries:
                result = found.get(entry.variant.name.replace("-", "_"))
                if isinstance(result, Exception):
                    entry.fail(result)
                elif isinstance(result, str):
                    entry.blocks, entry.skipped = [], result
                elif result is not None:
                    entry.blocks = [result] * 5
            return entries, rows

        monkeypatch.setattr(decide, "contest", race)

    return make

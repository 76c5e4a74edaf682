"""Choosing from a store that was spoilt: the answer is right all the same."""

import random
import sqlite3

import pytest

import twolayer as tl
from twolayer import choosing
from twolayer.choosing import known
from twolayer.machine.store import Store

NET = tl.Network("tanh", "squared")
SMALL, LARGE = {"n": 5, "d": 3, "M": 4, "K": 2}, {"n": 3000, "d": 3, "M": 4, "K": 2}


def damage(path, chance):
    """One of many ways in which a store can be spoilt."""
    content = bytearray(path.read_bytes())
    kind = chance.randrange(7)
    if kind == 0:
        del content[chance.randrange(len(content)) :]
    elif kind == 1:
        start = chance.randrange(len(content))
        content[start : start + 4096] = chance.randbytes(4096)
    elif kind in (2, 3):
        for _ in range(1 if kind == 2 else 300):
            content[chance.randrange(len(content))] = chance.randrange(256)
    elif kind == 4:  # a digit inside an entry: still a database, still JSON
        places = [i for i, byte in enumerate(content) if chr(byte).isdigit()]
        for place in chance.sample(places, 20):
            content[place] = ord(chance.choice("0123456789"))
    elif kind == 5:
        db = sqlite3.connect(path)
        db.execute(chance.choice(["DROP TABLE machine", "ALTER TABLE measurement DROP COLUMN K"]))
        db.commit()
        db.close()
        return
    else:
        for suffix in ("", "-wal", "-shm"):
            path.with_name(path.name + suffix).unlink(missing_ok=True)
        path.mkdir()
        return
    path.write_bytes(content)


def answers_after_damage(path, seed, monkeypatch):
    monkeypatch.setenv("TWOLAYER_STORE", str(path))
    names = ["numpy", "numba-loops", "numba-fused"]
    tl.choose(NET, **SMALL, variants=names)
    damage(path, random.Random(seed))
    choosing._answers.clear()
    return [tl.choose(NET, **shape, variants=names).variant for shape in (SMALL, LARGE)]


@pytest.mark.filterwarnings("ignore:the store")
@pytest.mark.filterwarnings("ignore:.*damaged measurements")
@pytest.mark.parametrize("seed", [0, 1, 2, 3, 4, 6, 7, 12])
def test_a_damaged_store_gives_a_right_answer(seed, tmp_path, monkeypatch):
    found = answers_after_damage(tmp_path / "store.sqlite", seed, monkeypatch)
    assert found == ["numba-loops", "numba-fused"]


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:the store")
@pytest.mark.filterwarnings("ignore:.*damaged measurements")
def test_200_damaged_stores_give_right_answers(tmp_path, monkeypatch):
    for seed in range(20, 220):
        path = tmp_path / str(seed) / "store.sqlite"
        found = answers_after_damage(path, seed, monkeypatch)
        assert found == ["numba-loops", "numba-fused"], seed


def test_a_changed_number_inside_an_entry_is_noticed(tmp_path):
    with Store(tmp_path / "store.sqlite") as store:
        for seconds in (0.25, 0.5):
            entry = {"cold": seconds == 0.5, "seconds": [seconds]}
            known.keep(store, known.START, entry, variant="numpy", device="cpu")
        with sqlite3.connect(store.path) as db:
            db.execute("UPDATE measurement SET metrics = replace(metrics, '0.25', '0.35')")
        db.close()
        assert known.start(store, "numpy", "cpu", cold=False) is None
        assert known.start(store, "numpy", "cpu", cold=True) == [0.5]

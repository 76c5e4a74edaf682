"""Choosing from a store that was spoilt: the answer is right all the same."""

import random
import sqlite3

import pytest
from made_up import make_up_models

import twolayer as tl
from twolayer import choosing
from twolayer.choosing import calibrate, decide, known
from twolayer.choosing.model import Sample
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
    with Store(path) as made:
        make_up_models(made)
    tl.choose(NET, **SMALL, variants=names)
    damage(path, random.Random(seed))
    choosing._answers.clear()
    monkeypatch.setattr(decide, "_race", lambda net, q, field: {})

    def time(task, q):  # as the made-up models have it
        rate = {"numba-loops": 1e-6, "numba-fused": 1e-7}.get(task.variant.name, 5e-7)
        start = {"numba-loops": 1e-6, "numba-fused": 1e-5}.get(task.variant.name, 2e-5)
        return Sample(q, 1e-3, start + rate * q.n)

    monkeypatch.setattr(calibrate, "_time", time)
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
    store = Store(tmp_path / "store.sqlite")
    make_up_models(store)
    with sqlite3.connect(store.path) as db:
        db.execute("UPDATE measurement SET metrics = replace(metrics, '1e-07', '1e-01')")
    db.close()
    assert known.calibrated(store, "numba-fused", "cpu", "float32", 1) is None
    assert known.calibrated(store, "numpy", "cpu", "float32", 1) is not None

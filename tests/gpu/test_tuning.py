"""Which candidate of a plan on a GPU is taken: forced, measured here, shipped, or the first."""

import json

import pytest

from twolayer import Shape
from twolayer.engines import tuning
from twolayer.machine.store import Store

CANDIDATES = [{"engine": "a"}, {"engine": "b"}, {"engine": "c"}]
SHAPE = Shape(60_000, 784, 1024, 10)
NAME = "Kind float32 n<=65536 d<=1024 M<=1024 K<=16"


@pytest.fixture(autouse=True)
def fresh(monkeypatch, tmp_path):
    monkeypatch.setenv("TWOLAYER_STORE", str(tmp_path / "store.sqlite"))
    tuning._measured.cache_clear()
    yield
    tuning._measured.cache_clear()


def chosen(device="NVIDIA Z9", shape=SHAPE, candidates=CANDIDATES):
    return tuning.chosen("Kind", shape, "float32", device, candidates)


def keep(*times, shape=SHAPE, device="NVIDIA Z9"):
    seconds = {json.dumps(one): time for one, time in zip(CANDIDATES, times, strict=True)}
    tuning.learn(Store(), "Kind", shape, "float32", device, seconds)


def test_classes_hold_shapes_of_about_a_size():
    assert tuning.name_of("Kind", SHAPE, "float32") == NAME
    assert tuning.shape_class(Shape(1, 1, 1, 1)) == "n<=1 d<=1 M<=1 K<=1"
    assert tuning.shape_class(Shape(65_537, 8, 9, 1)) == "n<=262144 d<=8 M<=16 K<=1"


def test_the_first_is_taken_where_nothing_is_known():
    assert chosen() == CANDIDATES[0]


def test_what_was_measured_here_counts_and_the_last_time_most():
    keep(3.0, 1.0, 2.0)
    assert chosen() == CANDIDATES[1]
    keep(3.0, 2.0, 1.0)
    assert chosen() == CANDIDATES[2]
    assert chosen(device="NVIDIA Y8") == CANDIDATES[0]
    assert chosen(shape=SHAPE._replace(K=20)) == CANDIDATES[0]


def test_what_is_no_candidate_any_more_is_not_taken():
    keep(3.0, 2.0, 1.0)
    assert chosen(candidates=CANDIDATES[:2]) == CANDIDATES[0]


def test_what_comes_with_the_package_counts_where_nothing_was_measured(monkeypatch):
    table = {NAME: CANDIDATES[2]}
    monkeypatch.setattr(tuning, "_shipped", lambda device: table if "Z9" in device else {})
    assert chosen() == CANDIDATES[2]
    assert chosen(device="NVIDIA Y8") == CANDIDATES[0]
    keep(3.0, 1.0, 2.0)
    assert chosen() == CANDIDATES[1]


def test_a_forced_candidate_goes_before_all():
    keep(3.0, 1.0, 2.0)
    with tuning.forced(CANDIDATES[2]):
        assert chosen() == CANDIDATES[2]
    assert chosen() == CANDIDATES[1]


def test_the_shipped_table_names_models_and_classes():
    table = tuning._shipped("NVIDIA H100 80GB HBM3")
    assert table
    assert tuning._shipped("NVIDIA Z9") == {}
    for name, best in table.items():
        kind, dtype, *sizes = name.split()
        assert kind in ("CudaFused", "PlanesEngine", "TiledEngine")
        assert dtype in ("float32", "float64")
        assert [size[:3] for size in sizes] == ["n<=", "d<=", "M<=", "K<="]
        assert isinstance(best, dict)

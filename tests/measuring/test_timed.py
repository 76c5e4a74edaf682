"""What is wrong on its own workload is timed nowhere, and the reason says what is wrong."""

from types import SimpleNamespace

import numba
import pytest
from places import FAULTS, PLACES, SHAPE, Faulty

import twolayer as tl
from twolayer.checking.answers import DISAGREES
from twolayer.machine.hardware import cpu_count
from twolayer.measuring import device_clock, timing


@pytest.fixture
def device(monkeypatch):
    """A device without a clock, which the CPU stands in for."""
    event = SimpleNamespace(
        record=lambda: None, synchronize=lambda: None, elapsed_time=lambda end: 1.0
    )
    memory = SimpleNamespace(get_memory_info=lambda: SimpleNamespace(free=1 << 30))
    there = SimpleNamespace(
        event=lambda: event, synchronize=lambda: None, to_device=lambda array: array,
        current_context=lambda: memory,
        get_current_device=lambda: SimpleNamespace(L2_CACHE_SIZE=SHAPE.bytes("float32")),
    )  # fmt: skip
    monkeypatch.setattr(numba, "cuda", there, raising=False)
    monkeypatch.setattr(device_clock, "device_name", lambda: "a device")
    device_clock._answers.cache_clear()


def cases_of(places):
    for name, (_, _, options) in places.items():
        for fault in options.get("faults", FAULTS):
            yield pytest.param(name, fault, id=f"{name}: {fault}")


@pytest.fixture(autouse=True)
def _brief(monkeypatch):
    monkeypatch.setattr(timing.warm_up, "__defaults__", (0, 3))


def made(name, wrong=None):
    options = PLACES[name][2]
    kind = type("Made", (Faulty,), {} if wrong is None else {"wrong": wrong})
    return tl.Variant("faulty", options.get("device", "cpu"), "for a test", kind)


@pytest.mark.usefixtures("device")
@pytest.mark.parametrize(("name", "fault"), [*cases_of(PLACES)])
def test_what_is_wrong_is_not_timed(name, fault, monkeypatch, tmp_path):
    if fault == "on several threads" and cpu_count() < 2:
        pytest.skip("needs two CPUs")
    function, n, _ = PLACES[name]
    figures, said = function(made(name, FAULTS[fault](n)), monkeypatch, tmp_path)
    assert not figures
    assert DISAGREES in said
    assert "rows is off by" in said


@pytest.mark.usefixtures("device")
@pytest.mark.parametrize("name", [*PLACES])
def test_what_is_right_is_timed(name, monkeypatch, tmp_path):
    if cpu_count() < 2:
        pytest.skip("needs two CPUs")
    figures, said = PLACES[name][0](made(name), monkeypatch, tmp_path)
    assert figures, said
    assert not said

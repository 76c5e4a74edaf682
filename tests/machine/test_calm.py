"""What disturbs a measurement is noticed; what this process does itself is not."""

import subprocess
import sys
import time
import types

import pytest

from twolayer.machine import calm
from twolayer.machine.calm import Calm


@pytest.fixture(autouse=True)
def nothing_disturbs():
    """Nothing stands in for the machine here."""


BUSY = "import time\nend = time.time() + 30\nwhile time.time() < end: pass"


def counted(monkeypatch, *counters):
    made = iter(counters)
    monkeypatch.setattr(calm, "_counters", lambda: next(made))
    monkeypatch.setattr(calm, "_on_battery", lambda: False)


def counters(now=0.0, busy=0.0, stolen=0.0, mine=0.0, throttled=0):
    return calm._Counters(now, busy, stolen, mine, throttled)


@pytest.mark.parametrize(
    ("after", "words"),
    [
        (counters(10, busy=20, mine=20), []),
        (counters(10, busy=10.5, mine=10), []),
        (counters(10, busy=15, mine=10), ["other programs kept 0.5 CPUs busy"]),
        (counters(10, busy=10, mine=10, stolen=3), ["the hypervisor took 0.3 CPUs away"]),
        (counters(10, throttled=2), ["the processor was slowed down as it got too hot"]),
        (counters(10, busy=9, mine=12), []),  # counters of the system lag behind
        (counters(0.1, busy=0.1), []),  # so short that they say nothing
    ],
)
def test_what_others_took_is_told(monkeypatch, after, words):
    counted(monkeypatch, counters(), after)
    found = calm.Watch().calm()
    assert found.reasons == words
    assert str(found) == (words[0] if words else "calm")


def test_waiting_ends_with_the_disturbance_or_in_time(monkeypatch):
    looks = [Calm(others=1.0), Calm(others=0.5), Calm()]
    told = []
    monkeypatch.setattr(calm, "look", lambda: looks.pop(0))
    assert not calm.wait(60, told.append).reasons
    assert told == ["other programs kept 1.0 CPUs busy: waiting up to 60 s for calm"]
    monkeypatch.setattr(calm, "look", lambda: Calm(others=2.0))
    assert calm.wait(0).reasons == ["other programs kept 2.0 CPUs busy"]


def test_what_this_process_and_its_children_do_is_their_own():
    before = calm._mine()
    end = time.process_time() + 0.2
    while time.process_time() < end:
        pass
    assert calm._mine() - before > 0.15
    with subprocess.Popen([sys.executable, "-c", BUSY]) as child:
        alone = calm._mine()
        deadline = time.monotonic() + 20
        while calm._mine() - alone < 0.1:
            assert time.monotonic() < deadline
        child.kill()


@pytest.mark.slow  # as no other test may run beside it
def test_a_planted_load_is_noticed_each_time_and_calm_is_calm():
    for _ in range(20):
        assert not calm.look().reasons
    # A process of its own, which is no child of this one.
    starter = (
        "import subprocess, sys\n"
        "command = [sys.executable, '-c', sys.argv[1]]\n"
        "print(subprocess.Popen(command, stdout=-3, stderr=-3).pid)"
    )
    started = subprocess.run(
        [sys.executable, "-c", starter, BUSY], capture_output=True, text=True, check=True
    )
    try:
        for _ in range(20):
            assert calm.look().reasons
    finally:
        subprocess.run(["kill", started.stdout.strip()], check=True)


def test_a_thread_that_is_bound_to_a_cpu_sees_what_others_do_on_all(monkeypatch):
    """OpenMP binds the one that starts its threads."""
    monkeypatch.setattr(calm, "allowed_cpus", lambda: {0, 1})
    times = types.SimpleNamespace(user=1.0, nice=0.0, system=0.5, irq=0.0, softirq=0.0, steal=0.25)
    monkeypatch.setattr(calm.psutil, "cpu_times", lambda percpu: [times] * 3)
    monkeypatch.setattr(calm.os, "sched_getaffinity", lambda process: {0}, raising=False)
    found = calm._counters()
    assert (found.busy, found.stolen) == (3.0, 0.5)

"""What disturbs a measurement here: other programs, a hypervisor, a processor that is held back.

Times of the CPUs come from the system's own counters, which are kept for each CPU: what they were
busy with, less what this process and its children took, is what others took.
"""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import psutil

DISTURBED = 0.1  # CPUs that others take, or that are stolen, beyond which figures are marked
LOOK = 0.25  # seconds, of counters that many systems keep in hundredths
_HEAT = "cpu*/thermal_throttle/core_throttle_count"
_CPUS = Path("/sys/devices/system/cpu")


@dataclass(frozen=True)
class Calm:
    """What was met while something was measured.

    others: CPUs that other programs kept busy, in the mean; stolen: CPUs that a hypervisor gave to
    others; throttled: how often the processor got too hot; battery: whether it ran on one.
    """

    seconds: float = 0.0
    others: float = 0.0
    stolen: float = 0.0
    throttled: int = 0
    battery: bool = False

    @property
    def reasons(self) -> list[str]:
        """What makes figures doubtful, each in some words; none on a calm machine."""
        found = []
        if self.others > DISTURBED:
            found.append(f"other programs kept {self.others:.1f} CPUs busy")
        if self.stolen > DISTURBED:
            found.append(f"the hypervisor took {self.stolen:.1f} CPUs away")
        if self.throttled:
            found.append("the processor was slowed down as it got too hot")
        if self.battery:
            found.append("it ran on battery")
        return found

    def __str__(self) -> str:
        return " and ".join(self.reasons) or "calm"


class _Counters(NamedTuple):
    """Seconds since some moment, and how often the processor got too hot."""

    now: float
    busy: float
    stolen: float
    mine: float
    throttled: int


class Watch:
    """Looks at the machine from its making on."""

    def __init__(self) -> None:
        self._start = _counters()

    def calm(self) -> Calm:
        """What was met until now. Over less than `LOOK` the counters say nothing of others."""
        start, end = self._start, _counters()
        seconds = end.now - start.now
        if seconds < LOOK:
            return Calm(seconds, battery=_on_battery())
        others = (end.busy - start.busy) - (end.mine - start.mine)
        return Calm(
            seconds, max(others / seconds, 0.0), max((end.stolen - start.stolen) / seconds, 0.0),
            max(end.throttled - start.throttled, 0), _on_battery(),
        )  # fmt: skip


def look() -> Calm:
    """What is met in a moment in which this process does nothing."""
    watch = Watch()
    time.sleep(1.2 * LOOK)
    return watch.calm()


def wait(seconds: float, tell: Callable[[str], None] = lambda sentence: None) -> Calm:
    """Return once nothing disturbs, or after so many seconds; what the last look met.

    tell(sentence) is called once where it has to wait.
    """
    end, told = time.monotonic() + seconds, False
    while (found := look()).reasons and time.monotonic() < end:
        if not told:
            tell(f"{found}: waiting up to {seconds:g} s for calm")
            told = True
    return found


def governor() -> str:
    """How the first CPU's clock is governed, where Linux says so."""
    with contextlib.suppress(OSError):
        return (_CPUS / "cpu0" / "cpufreq" / "scaling_governor").read_text().strip()
    return ""


def _counters() -> _Counters:
    every = psutil.cpu_times(percpu=True)
    with contextlib.suppress(AttributeError, OSError):  # Linux alone can bind a process to CPUs
        cpus = os.sched_getaffinity(0)
        every = [times for number, times in enumerate(every) if number in cpus] or every
    kinds = ("user", "nice", "system", "irq", "softirq")
    busy = sum(getattr(times, kind, 0.0) for times in every for kind in kinds)
    stolen = sum(getattr(times, "steal", 0.0) for times in every)
    return _Counters(time.monotonic(), busy, stolen, _mine(), _throttled())


def _mine() -> float:
    """Seconds of CPU that this process and its children took, ended and running ones."""
    found = sum(os.times()[:4])
    with contextlib.suppress(psutil.Error):
        for child in psutil.Process().children(recursive=True):
            with contextlib.suppress(psutil.Error):
                found += sum(child.cpu_times()[:4])
    return found


def _throttled() -> int:
    found = 0
    for path in _CPUS.glob(_HEAT):
        with contextlib.suppress(OSError, ValueError):
            found += int(path.read_text())
    return found


def _on_battery() -> bool:
    with contextlib.suppress(Exception):  # not on each system, and some drivers fail
        battery = psutil.sensors_battery()
        return battery is not None and battery.power_plugged is False
    return False

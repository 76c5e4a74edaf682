"""What disturbs a measurement here: other programs, a hypervisor, a processor that is held back.

Times of the CPUs come from the system's own counters, which are kept for each CPU: what they were
busy with, less what this process and its children took, is what others took.
"""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, NamedTuple

import psutil

from .given import allowed_cpus

DISTURBED = 0.1  # CPUs that others take, or that are stolen, beyond which figures are marked
LOOK = 0.25  # seconds, of counters that many systems keep in hundredths
MARK = "†"  # of rows that were measured while something disturbed
# Drivers whose "powersave" goes as fast as there is work.
_ADAPTIVE = ("intel_pstate", "amd-pstate-epp")
_HEAT = "cpu*/thermal_throttle/core_throttle_count"
_CPUS = Path("/sys/devices/system/cpu")


@dataclass(frozen=True)
class Calm:
    """What was met while something was measured.

    others: CPUs that other programs kept busy, in the mean; stolen: CPUs that a hypervisor gave to
    others; throttled: how often the processor got too hot; battery: whether it ran on one;
    governor: what holds the processor's clock down, if anything does.
    """

    seconds: float = 0.0
    others: float = 0.0
    stolen: float = 0.0
    throttled: int = 0
    battery: bool = False
    governor: str = ""

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
        if self.governor:
            found.append(f"the governor {self.governor} held the processor back")
        return found

    def mark(self, label: str) -> str:
        """The label of a row that was measured meanwhile."""
        return f"{label} {MARK}" if self.reasons else label

    def report(self) -> dict[str, Any]:
        """All of it as JSON values."""
        return asdict(self) | {"reasons": self.reasons}

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
        battery, governor = _on_battery(), _slow_governor()
        if seconds < LOOK:
            return Calm(seconds, battery=battery, governor=governor)
        others = (end.busy - start.busy) - (end.mine - start.mine)
        return Calm(
            seconds, max(others / seconds, 0.0), max((end.stolen - start.stolen) / seconds, 0.0),
            max(end.throttled - start.throttled, 0), battery, governor,
        )  # fmt: skip


def worst(found: Iterable[Calm]) -> Calm:
    """The most of each that was met in any of them."""
    every = [Calm(), *found]
    return Calm(
        sum(calm.seconds for calm in every), max(calm.others for calm in every),
        max(calm.stolen for calm in every), sum(calm.throttled for calm in every),
        any(calm.battery for calm in every), max(calm.governor for calm in every),
    )  # fmt: skip


def note(found: Iterable[Calm]) -> str:
    """What the mark of some rows means, in a sentence; empty where all was calm."""
    met = worst(found)
    return f"{MARK} measured while {met}." if met.reasons else ""


@contextlib.contextmanager
def watched(keep: Callable[[Calm], None]) -> Iterator[None]:
    """Keep what is met inside, however that ends."""
    watch = Watch()
    try:
        yield
    finally:
        keep(watch.calm())


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


def _slow_governor() -> str:
    """The governor where it holds the clock down whatever there is to do."""
    with contextlib.suppress(OSError):
        driver = (_CPUS / "cpu0" / "cpufreq" / "scaling_driver").read_text().strip()
        return "powersave" if governor() == "powersave" and driver not in _ADAPTIVE else ""
    return ""


def _counters() -> _Counters:
    every = psutil.cpu_times(percpu=True)
    cpus = allowed_cpus()  # of the process: OpenMP may have bound this thread to one of them
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

"""How figures read: times, sizes and memory."""

from __future__ import annotations

_TIMES = (("s", 1.0), ("ms", 1e-3), ("µs", 1e-6), ("ns", 1e-9))


def fixed(value: float, places: int) -> str:
    """So many digits behind the point, "12.30", and a power of ten for what is beyond reading."""
    return f"{value:.{places}f}" if not abs(value) >= 1e6 else f"{value:.3g}"


def duration(seconds: float, trim: bool = False) -> str:
    """Three digits and a unit, "1.20 ms"; without zeros behind the point if asked, "1.2 ms"."""
    unit, size = next((u for u in _TIMES if seconds >= 0.9995 * u[1]), _TIMES[-1])
    value = seconds / size
    text = fixed(value, 0 if value >= 99.95 else 1 if value >= 9.995 else 2)
    if trim and "." in text:
        text = text.rstrip("0").rstrip(".")
    return f"{text} {unit}"


def memory(nbytes: int | None) -> str:
    """Bytes in MiB, "12.3"; nothing where they are not known."""
    return "" if nbytes is None else fixed(nbytes / 2**20, 1)


def count(value: int) -> str:
    """A size, "10k"."""
    for unit, size in (("M", 10**6), ("k", 10**3)):
        if value >= size and value % (size // 10) == 0:
            return f"{value / size:g}{unit}"
    return str(value)

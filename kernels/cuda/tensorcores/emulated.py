"""What `hopper`'s operations do under `check_blocks`.

Everything that goes on by itself is as late as it may be: a bulk copy lands when somebody waits for
it, and a product reads its factors when it is waited for. Until then the targets hold NaN.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from ..driver.simulated import collective

_SIZE = 0x3FFFFFFF  # bits of a barrier: arrivals 16, arrivals to come 16, bytes to come 30, parity
_flying: dict[tuple[int, int], list[Callable[[], int]]] = {}


def _key(barriers: np.ndarray, i: Any) -> tuple[int, int]:
    return barriers.ctypes.data, int(i)


def _read(barriers: np.ndarray, i: Any) -> tuple[int, int, int, int]:
    state = int(barriers[i])
    return state & 0xFFFF, state >> 16 & 0xFFFF, state >> 32 & _SIZE, state >> 63


def _write(barriers: np.ndarray, i: Any, arrivals: int, left: int, size: int, parity: int) -> None:
    if left == 0 and size == 0:
        left, parity = arrivals, 1 - parity
    barriers[i] = arrivals | left << 16 | size << 32 | parity << 63


def start(barriers: np.ndarray, i: Any, arrivals: Any) -> None:
    """Begin the first phase of barrier i."""
    _flying[_key(barriers, i)] = []
    barriers[i] = int(arrivals) | int(arrivals) << 16


def arrive(barriers: np.ndarray, i: Any, size: Any) -> None:
    """Arrive at barrier i, and announce `size` bytes."""
    arrivals, left, before, parity = _read(barriers, i)
    if not 0 < left <= arrivals:
        raise RuntimeError(f"barrier {i}: never started, or too many arrive")
    _write(barriers, i, arrivals, left - 1, before + int(size), parity)


def wait(barriers: np.ndarray, i: Any, parity: Any) -> None:
    """Wait until the phase of that parity of barrier i has ended."""

    def ended() -> bool:
        if _read(barriers, i)[3] == parity:
            _land(barriers, i)
        return _read(barriers, i)[3] != parity

    collective("until", ended, lambda values: values, depth=3)


def _land(barriers: np.ndarray, i: Any) -> None:
    copies = _flying[_key(barriers, i)]
    while copies:
        landed = copies.pop()()
        arrivals, left, size, parity = _read(barriers, i)
        if landed > size:
            raise RuntimeError(f"barrier {i}: {landed} bytes landed, {size} were announced")
        _write(barriers, i, arrivals, left, size - landed, parity)


def fetch(shared, at, source, begin, count, barriers, i) -> None:
    """shared[at:at + count] = source[begin:begin + count], at the wait for barrier i."""
    at, begin, count = int(at), int(begin), int(count)
    if at % 4 or begin % 4 or count % 4:
        raise ValueError(f"bulk copy of {count} from {begin} to {at}: not aligned")
    if begin + count > source.size or at + count > shared.size:
        raise IndexError(f"bulk copy of {count} from {begin} to {at}: out of bounds")
    target = shared[at : at + count]
    target.fill(0xFFFFFFFF)

    def land() -> int:
        target[...] = source[begin : begin + count]
        return target.nbytes

    _flying[_key(barriers, i)].append(land)


class _Product:
    """64 × 128 sums of a warpgroup, and what is to be added to them."""

    def __init__(self, parts: list, layout: Any) -> None:
        sums, self.shared, a, b, queue = parts[0]
        if any(part[2:4] != (a, b) for part in parts):
            raise RuntimeError("a warpgroup's threads multiply different factors")
        self.sums, self.layout = [part[0] for part in parts], layout
        self.places, self.last, self.done = (a, b), True, False
        self.before = queue[-1] if queue else None
        if self.before is None:
            self.result = np.zeros((64, 128), np.float32)
            for t, sums in enumerate(self.sums):
                self.result[_rows(t), _columns(t)] = sums
        else:
            self.before.last = False
        for sums in self.sums:
            sums.fill(np.nan)

    def finish(self) -> None:
        if self.done:
            return
        if self.before is not None:
            self.before.finish()
            self.result = self.before.result
        a, b = (
            [factor(self.shared, place, size, plane, self.layout) for plane in range(2)]
            for place, size in zip(self.places, (64, 128), strict=True)
        )
        with np.errstate(all="ignore"):
            added = a[1] @ b[0].T + a[0] @ b[1].T + a[0] @ b[0].T
            self.result = (self.result + added).astype(np.float32)
        self.done, self.before = True, None
        if self.last:
            for t, sums in enumerate(self.sums):
                sums[:] = self.result[_rows(t), _columns(t)]


def _rows(t: int) -> np.ndarray:
    e = np.arange(64)
    return t // 32 * 16 + t % 32 // 4 + e % 4 // 2 * 8


def _columns(t: int) -> np.ndarray:
    e = np.arange(64)
    return e // 4 * 8 + t % 4 * 2 + e % 2


def factor(shared: np.ndarray, at: int, size: int, plane: int, layout: Any) -> np.ndarray:
    """One plane of a factor, size × 64, from where the descriptors of its four products say."""
    i, k = np.arange(size)[:, np.newaxis], np.arange(64)
    within, steps = k % 16, k // 16 * layout.step + plane * layout.low
    if layout.across:
        place = (
            i // 64 * layout.leading + within // 8 * layout.stride + within % 8 * 128 + i % 64 * 2
        )
    else:
        place = i // 8 * layout.stride + i % 8 * 128 + within * 2
    place = place + steps + 4 * at
    place ^= (place >> 7 & 7) << 4
    return shared.view(np.float16)[place // 2].astype(np.float64)


def multiply(sums: np.ndarray, shared: np.ndarray, a: int, b: int, layout: Any) -> None:
    """Begin sums += A B, all threads of the warpgroup together."""
    import greenlet

    thread: Any = greenlet.getcurrent()
    queue = thread.__dict__.setdefault("products", [])

    def combine(parts: list) -> list:
        return [_Product(parts, layout)] * len(parts)

    queue.append(collective("warpgroup", (sums, shared, a, b, queue), combine, depth=3))


def products_left(count: int) -> None:
    """Wait until at most `count` of this thread's products go on."""
    import greenlet

    thread: Any = greenlet.getcurrent()
    queue = thread.__dict__.setdefault("products", [])
    while len(queue) > count:
        queue.pop(0).finish()

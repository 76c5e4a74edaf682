"""Which benchmarks two revisions are compared on."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

from .. import variants
from ..measuring.workloads import workloads
from ..network import Network, Shape, one_of

_FOR_READING = ("python-loops", "numpy-samples", "cuda-samples")


class Benchmark(NamedTuple):
    """A variant on a shape, and the name that reports call it by. device: its own where None."""

    variant: str
    shape: Shape
    activation: str = "tanh"
    loss: str = "squared"
    dtype: str = "float32"
    device: str | None = None

    @property
    def name(self) -> str:
        """The variant and its problem."""
        return f"{self.variant} {self.shape}"

    def request(self) -> dict[str, Any]:
        """What a worker needs to know of it."""
        return {**self._asdict(), "shape": list(self.shape), "name": self.name}


def benchmarks(
    net: Network, dtype: str, shapes: Sequence[str] = (), names: Sequence[str] | None = None,
    device: str | None = None, known: Sequence[tuple[str, Sequence[Sequence[str]]]] = (),
    of_files: bool = False,
) -> list[Benchmark]:  # fmt: skip
    """Our own compiled variants and numpy, or those named, on the quick profile's shapes or others.

    What is made for reading is left out: it takes the interpreter's time, which none here changes,
    or, on a GPU, that of atomic additions. known: the variants of either revision, each with its
    devices in those that have it; those of this package where there are none. of_files: whether
    they are a user's, which count wherever they run.
    Raises ValueError where none of those by default runs on the device here.
    """
    if device is not None:
        one_of("device", device, ("cpu", "cuda"))
    if names is None:
        ours = [
            variant
            for variant in variants.REGISTRY
            if variant.device == (device or "cpu")
            and not variant.requires
            and variant.name not in _FOR_READING
        ]
        reasons = {variant.name: variant.unavailable() for variant in ours}
        if all(reasons.values()):
            why = "; ".join(f"{name}: {reason}" for name, reason in reasons.items())
            raise ValueError(f"device: expected a device that is here, got {device!r}: {why}")
        chosen = list(reasons)
        if known:
            chosen = [
                name
                for name, there in known
                if of_files or name not in _FOR_READING
                if _is_compared(there, device, of_files)
            ]
        if not chosen:
            have = ", ".join(f"{name} on {' and '.join(there[0])}" for name, there in known)
            raise ValueError(f"device: expected one that variants run on, got {device!r}: {have}")
    else:
        # Only one of the revisions may know a variant, so the names are not looked up here.
        chosen = list(dict.fromkeys(names))
    if shapes:
        sizes = [Shape.parse(text) for text in shapes]
    else:
        groups = workloads(net, dtype, quick=True).values()
        sizes = [workload.shape for group in groups for workload in group]
    return [
        Benchmark(name, size, net.activation, net.loss, dtype, device)
        for name in chosen
        for size in dict.fromkeys(sizes)
    ]


def _is_compared(there: Sequence[Sequence[str]], device: str | None, of_files: bool) -> bool:
    """Whether a variant that nobody named is, by its devices in each revision that has it."""
    if device is None:
        return of_files or any(devices[0] == "cpu" for devices in there)
    return any(device in devices for devices in there)

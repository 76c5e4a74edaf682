"""What plans ask of the current GPU: its name, its parts, its memory."""

from __future__ import annotations

import numpy as np

from ..kernels.cuda.memory.copies import padded
from ..machine.hardware import gpu_count
from ..network import Shape

NO_GPU = "no NVIDIA GPU"  # how the reason begins where there is none, or none that can be used
_MULTIPROCESSORS = 132  # where the device does not say, as in a simulator


def capability() -> tuple[int, int]:
    """The compute capability of the device that a first call here would take; none is begun."""
    from numba import cuda

    return tuple((cuda.gpus.current or cuda.gpus[0]).compute_capability)[:2]


def device_number() -> int:
    """Which device the calling thread has; a new thread gets the first."""
    from numba import cuda

    return int(getattr(getattr(cuda.current_context(), "device", None), "id", 0))


def device_name() -> str:
    """The name of the current device, as in "NVIDIA H200"."""
    from numba import cuda

    name = getattr(cuda.get_current_device(), "name", "a simulated GPU")
    return name.decode() if isinstance(name, bytes) else str(name)


def compute_capability() -> tuple[int, int]:
    """The compute capability of the current device."""
    from numba import cuda

    return tuple(cuda.get_current_device().compute_capability)[:2]


def multiprocessors() -> int:
    """Multiprocessors of the current device."""
    from numba import cuda

    return int(getattr(cuda.get_current_device(), "MULTIPROCESSOR_COUNT", _MULTIPROCESSORS))


def lacks_gpu() -> str | None:
    """None, or that there is no GPU, found without importing a library that uses one."""
    return None if gpu_count() else NO_GPU


def free_memory() -> int:
    """Bytes of the current device's memory that are free."""
    from numba import cuda

    context = cuda.current_context()
    waiting = getattr(getattr(context, "memory_manager", None), "deallocations", None)
    if waiting is not None:  # what nobody holds any more, but still counts as used
        waiting.clear()
    return context.get_memory_info().free


def enough_memory(shape: Shape, needed: int, free: int) -> None:
    """Raise MemoryError, before anything is allocated, if so many bytes are not free on a GPU."""
    if needed > free:
        raise MemoryError(
            f"a plan on the GPU with {shape}: needs {needed / 2**30:.2f} GiB of its memory, "
            f"{free / 2**30:.2f} GiB are free"
        )


def elements(shape: Shape, dtype: np.dtype) -> int:
    """Elements of V and W with their padding."""
    return shape.M * padded(shape.d, dtype) + shape.K * padded(shape.M, dtype)

"""A kernel's machine code for a compute capability, compiled as for a launch, without a GPU.

It depends on the insides of numba-cuda 0.30.
"""

from __future__ import annotations

import os
import re
import subprocess
import tempfile
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple


class MachineCode(NamedTuple):
    """A kernel's machine code: resources, and the operations in order with their addresses."""

    registers: int
    stack: int  # bytes
    shared: int  # bytes
    lines: list[tuple[int, str, str]]  # address, operation, operands

    @property
    def operations(self) -> list[str]:
        """The names of all instructions."""
        return [operation for _, operation, _ in self.lines]

    def count(self, *prefixes: str) -> int:
        """How many instructions begin with one of the prefixes."""
        return sum(operation.startswith(prefixes) for operation in self.operations)

    def inner_loop(self, prefix: str) -> list[str]:
        """As `innermost`, of the loops that read shared memory: σ multiplies and adds as well."""
        return self.innermost(prefix, "LDS")

    def innermost(self, prefix: str, reads: str = "") -> list[str]:
        """The operations of the shortest loop around most of those that begin with `prefix`.

        Only loops with an operation that begins with `reads` count.
        """
        loops = []
        for address, operation, operands in self.lines:
            target = re.search(r"0x([0-9a-f]+)", operands) if operation == "BRA" else None
            if target and int(target[1], 16) < address:
                start = int(target[1], 16)
                loop = [op for at, op, _ in self.lines if start <= at <= address]
                if any(op.startswith(reads) for op in loop):
                    loops.append(loop)
        if not loops:
            return []
        most = max(sum(op.startswith(prefix) for op in loop) for loop in loops)
        full = [x for x in loops if sum(op.startswith(prefix) for op in x) >= 0.9 * most]
        return min(full, key=len)


def machine_code(kernel: Any, arguments: tuple, capability: tuple = (9, 0)) -> MachineCode:
    """Compile a kernel's signature for a compute capability, and disassemble it."""
    cubin = build(kernel, arguments, capability)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "kernel.cubin"
        path.write_bytes(cubin)
        listing = _disassemble(path)
    usage = re.findall(r"(REG|STACK|SHARED):(\d+)", listing)
    found = {name: int(number) for name, number in usage}
    pattern = r"^\s+/\*([0-9a-f]{4,})\*/\s+(?:@!?U?P[T\d]+ )?([A-Z0-9_.]+)([^;]*);"
    lines = [(int(a, 16), op, rest) for a, op, rest in re.findall(pattern, listing, re.M)]
    return MachineCode(found["REG"], found["STACK"], found.get("SHARED", 0), lines)


def build(kernel: Any, arguments: tuple, capability: tuple = (9, 0)) -> bytes:
    """The cubin of a kernel for argument types, linked as a launch links it; needs no driver."""
    return _library(kernel, arguments).get_cubin(cc=capability).code


@lru_cache(maxsize=4)
def _library(kernel: Any, arguments: tuple) -> Any:
    """A kernel before it is linked for a device; most of the time of a build goes here."""
    from numba import types
    from numba.cuda import compiler, dispatcher

    class Device:
        compute_capability = (9, 0)

    before = dispatcher.get_current_device
    dispatcher.get_current_device = lambda: Device  # device functions ask for it
    try:
        library, _ = compiler._compile_pyfunc_with_fixup(
            kernel.py_func,
            types.void(*arguments),
            device=False,
            abi="numba",
            cc=Device.compute_capability,
            fastmath=kernel.targetoptions.get("fastmath", False),
            launch_bounds=kernel.targetoptions.get("launch_bounds"),
            lto=False,
        )
    finally:
        dispatcher.get_current_device = before
    library._lto = True
    library._max_registers = None
    return library


def _disassemble(path: Path) -> str:
    import nvidia

    folders = [str(Path(root) / "cu13" / "bin") for root in nvidia.__path__]
    search = os.pathsep.join([*folders, os.environ.get("PATH", "")])
    command = ["cuobjdump", "-res-usage", "-sass", str(path)]
    done = subprocess.run(
        command, capture_output=True, text=True, check=True, env=os.environ | {"PATH": search}
    )
    return done.stdout

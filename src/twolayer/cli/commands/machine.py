"""`twolayer machine`: what the project sees of this computer."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from ...interface import check_threads
from ...machine import calm, hardware
from ...machine.store import Store
from ...network import DTYPES
from ...showing import output, units
from ...showing.table import Table
from ...texts import counted
from .. import options


def machine(
    probe: Annotated[
        bool,
        typer.Option(
            "--probe", help="Measure the roofline: what arithmetic and memory allow.",
            rich_help_panel=options.MEASURING,
        ),
    ] = False,
    threads: options.Threads = None,
    json: options.JsonFile = None,
) -> None:  # fmt: skip
    """Show the processor, caches, threads, libraries, GPUs and store, and whether it is calm.

    Everything that is measured is kept with these.
    """
    output.check_writable(json=json)
    if not probe:
        options.refuse("without --probe", threads=threads)
    most, why = hardware.thread_limit()
    met = calm.look()  # before this process does anything
    store, free = Store(), hardware.available_memory()
    seen: dict[str, Any] = {**hardware.fingerprint()}
    roofs: dict[str, Any] = {}
    if probe:
        from ...measuring.roofline import probe as measure

        count = check_threads(threads)
        roofs = {dtype: measure(dtype, count)._asdict() | {"threads": count} for dtype in DTYPES}
    size = store.path.stat().st_size if store.path.is_file() else 0
    report = {
        "machine": seen, "threads": most, "memory": free,
        "governor": calm.governor(), "calm": met.report(), "roofline": roofs,
        "store": {"path": str(store.path), "bytes": size},
    }  # fmt: skip
    rows = {
        "processor": seen["cpu"],
        "compiled for": seen["cpu_target"],
        "CPUs": f"{counted(hardware.cpu_count(), 'CPU')} of this process; the machine has "
        f"{seen['cores']} cores, {seen['logical_cores']} logical",
        "threads": f"at most {most}, {why}",
        "caches": ", ".join(f"L{n} {b >> 10} KiB" for n, b in hardware.cache_sizes().items()),
        "memory": f"{units.memory(free)} MiB free",
        "governor": report["governor"],
        "GPUs": "; ".join(seen["gpus"]) or "none",
        "system": seen["os"],
        "Python": seen["python"],
        "libraries": ", ".join(seen["libraries"]),
        "BLAS": "; ".join(seen["blas"]),
        "settings": ", ".join(seen["variables"]),
        "store": f"{store.path}, {units.memory(size)} MiB",
        **{
            f"roofline, {dtype}": f"{roof['flops'] / 1e9:.0f} GFLOP/s, "
            f"{roof['bandwidth'] / 1e9:.1f} GB/s, {counted(roof['threads'], 'thread')}"
            for dtype, roof in roofs.items()
        },
        "now": met,
    }

    def show() -> None:
        table = Table("what", "is")
        for name, text in rows.items():
            if str(text):
                table.add_row(name, str(text))
        output.stdout().print(table)

    output.deliver(show, (json, lambda file: output.write_json(file, report)))

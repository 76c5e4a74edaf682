"""Tell asv about this machine, under the name `local`.

    python tools/asv_machine.py

Every field is a part of the name of asv's series. So there are those that a step in a curve may
come from, and no host name, version of the kernel or exact size of the memory, which change while
the machine stays the same.
"""

from __future__ import annotations

import platform
import sys

from asv.machine import MachineCollection

from twolayer.machine.calm import look
from twolayer.machine.hardware import fingerprint

NAME = "local"


def fields() -> dict[str, str]:
    """What asv keeps with each result."""
    about = fingerprint()
    return {
        "machine": NAME,
        "arch": platform.machine(),
        "os": platform.system(),
        "cpu": f"{about['cpu']} ({about['cpu_target']})",
        "num_cpu": str(about["cpus"]),
    }


def main() -> None:
    """Tell asv, and the user where other programs run."""
    MachineCollection.save(NAME, fields())
    if reasons := look().reasons:
        print(
            f"Before asv began, {' and '.join(reasons)}. A parallel epoch then waits for its "
            "threads: expect steps that are none.",
            file=sys.stderr,
        )


if __name__ == "__main__":
    main()

"""Measure by asv what came to this branch since the last night, newest first, until time is up.

    python tools/asv_night.py --hours 5 --show-stderr --bench Samples

The other arguments are those of `asv run`. asv keeps a commit's results once all are there, so what
a night leaves out is found by the next one.
"""

from __future__ import annotations

import argparse
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

from asv_machine import NAME

RESULTS = Path(".asv/results") / NAME


def waiting() -> list[str]:
    """The commits without results back to the oldest that has some, newest first.

    HEAD alone where none has. Merged branches count as their merge, as in asv's curves.
    """
    listed = ["git", "rev-list", "--first-parent", "HEAD"]
    commits = subprocess.run(listed, check=True, capture_output=True, text=True).stdout.split()
    measured = {path.name[:8] for path in RESULTS.glob("*-*.json")}
    known = [number for number, commit in enumerate(commits) if commit[:8] in measured]
    since = commits[: known[-1]] if known else commits[:1]
    return [commit for commit in since if commit[:8] not in measured]


def night(commits: list[str], seconds: float, measure: Callable[[str, float], int]) -> int:
    """Call measure(commit, seconds left) while the longest so far fits; the highest exit code."""
    end = time.monotonic() + seconds
    longest, worst = 0.0, 0
    for number, commit in enumerate(commits):
        started = time.monotonic()
        if started + longest > end:
            print(f"{len(commits) - number} of {len(commits)} commits are left for the next night")
            break
        worst = max(worst, measure(commit, end - started))
        longest = max(longest, time.monotonic() - started)
    return worst


def main() -> None:
    """Measure, and exit with 0, or with 2 where a benchmark failed or a commit took too long."""
    parser = argparse.ArgumentParser(description=__doc__, allow_abbrev=False)
    parser.add_argument("--hours", type=float, required=True)
    known, others = parser.parse_known_args()

    def measure(commit: str, seconds: float) -> int:
        command = [sys.executable, "-m", "asv", "run", "--machine", NAME, *others, f"{commit}^!"]
        with subprocess.Popen(command) as asv:
            try:
                return asv.wait(seconds)
            except subprocess.TimeoutExpired:
                asv.send_signal(signal.SIGINT)  # it ends the benchmark's process, too
        print(f"{commit} could not be measured in the time left; the next night takes it up")
        return 2

    sys.exit(night(waiting(), 3600 * known.hours, measure))


if __name__ == "__main__":
    main()

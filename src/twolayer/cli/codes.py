"""The exit codes of all commands."""

from __future__ import annotations

RIGHT = 0
WRONG = 1
FAILED = 2
TOO_LITTLE = 3
INTERRUPTED = 130  # what shells report of a program that Ctrl-C ended

MEANINGS = {
    RIGHT: "done, and nothing was found wrong",
    WRONG: "a variant disagrees with the oracle, a revision is slower, a training diverged",
    FAILED: "the arguments or the machine do not allow it, or something failed",
    TOO_LITTLE: "nothing was verified or timed, or too little to tell",
    INTERRUPTED: "interrupted",
}


def epilog() -> str:
    """The table in one paragraph, for --help."""
    return "Exit codes: " + "; ".join(f"{code} {text}" for code, text in MEANINGS.items()) + "."


def of(wrong: bool, enough: bool) -> int:
    """The code of a command that checks variants."""
    return WRONG if wrong else RIGHT if enough else TOO_LITTLE

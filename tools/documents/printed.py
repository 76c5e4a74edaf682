"""What the documents show of a command is what it prints.

    python tools/documents/printed.py --write    runs them all, and shows what they print

A block of ```console has commands after "$ ", each with its output. Those of a page run in one
folder, with the files that the page defines. tests/repository/test_examples.py compares the shapes
of outputs.
"""

import argparse
import contextlib
import re
import shlex
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

from typer.testing import CliRunner

import twolayer as tl
from twolayer.cli import app

ROOT = Path(__file__).parents[2]
PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")])
WIDTH = "100"
_BLOCK = re.compile(r"(?<=^```console\n)(.*?)(?=^```$)", re.MULTILINE | re.DOTALL)
FILE = re.compile(r"`(\w+\.py)`:\n\n```python\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_FIGURE = re.compile(r"\d[\d.,]*(e[-+]?\d+)?( ([nµm]?s|[KMG]?i?B)\b)?|–")
# Lines that not every machine and run prints: of a tie, for example, `choose` speaks otherwise.
_SOMETIMES = re.compile(r"skipped: |While it was timed |NAME (took the least time|and) ")
_LISTS = (tl.activations, tl.losses, tl.optimizers, tl.variants)


def shown(text: str) -> list[tuple[str, str]]:
    """The commands of a page and what it shows of their outputs."""
    blocks = "".join(_BLOCK.findall(text))
    return re.findall(r"^\$ (.*)\n((?:(?!\$ ).*\n)*)", blocks, re.MULTILINE)


def run(command: str) -> str:
    """What a command prints to stdout in the present folder; what it registers is forgotten."""
    name, *arguments = shlex.split(command)
    assert name == "twolayer", command
    known = [{entry.name: entry for entry in module.REGISTRY} for module in _LISTS]
    result = CliRunner().invoke(app, arguments, env={"COLUMNS": WIDTH}, prog_name="twolayer")
    for module, entries in zip(_LISTS, known, strict=True):
        module.REGISTRY._entries = entries
    if result.exit_code:
        raise RuntimeError(f"{command}: exit code {result.exit_code}: {result.output}")
    return "".join(f"{line.rstrip()}\n" for line in result.stdout.splitlines() if line.strip())


@contextlib.contextmanager
def folder_of(text: str):
    """A folder to work in, with the files that a page defines."""
    with tempfile.TemporaryDirectory() as folder, contextlib.chdir(folder):
        for name, code in FILE.findall(text):
            Path(name).write_text(code, encoding="utf-8")
        yield


def shape(output: str) -> set[str]:
    """The lines of an output without what differs from machine to machine and from run to run."""
    names = "|".join(sorted(map(re.escape, tl.variants.names()), key=len, reverse=True))
    output = re.sub(rf"\b({names})\b", "NAME", output)
    output = re.sub(r"\babout (?=\d)", "", output)
    output = _FIGURE.sub("#", output)
    output = re.sub(r"(?<=# # )\S.* float#.*", "WHERE", output)  # of `verify`, the closest case
    output = re.sub(r"#( +#)+", "#", output)  # rows may have empty cells
    lines = [" ".join(line.split()) for line in output.splitlines() if not _SOMETIMES.match(line)]
    return {*filter(None, lines)}


def rewritten(text: str, printed: Callable[[str], str]) -> str:
    """A page with what its commands print."""

    def block(found: re.Match[str]) -> str:
        commands = re.findall(r"^\$ (.*)$", found[0], re.M)
        return "".join(f"$ {command}\n{printed(command)}" for command in commands)

    return _BLOCK.sub(block, text)


def main() -> None:
    """Run the commands of pages."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("pages", nargs="*", type=Path, default=PAGES, help="by default all")
    parser.add_argument("--write", action="store_true", help="write the pages")
    options = parser.parse_args()
    different = False
    for page in options.pages:
        page = page.resolve()
        text = page.read_text(encoding="utf-8")
        if not shown(text):
            continue
        with folder_of(text):
            new = rewritten(text, run)
        before, after = ([shape(output) for _, output in shown(t)] for t in (text, new))
        if before != after:
            different = True
            print(f"{page.relative_to(ROOT)}: another output is shown")
        if options.write:
            page.write_text(new, encoding="utf-8")
    sys.exit(different and not options.write)


if __name__ == "__main__":
    main()

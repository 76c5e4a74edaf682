"""Commands that print and write, for the folder of the fixture `brief`, and how to call them."""

import io
import sys

import pytest
from typer.main import get_command

from twolayer.cli import app

# What is run: the command line, and how its file is named.
RUNS = {
    "list": ("list --json {}", ".json"),
    "verify": ("verify --variants numpy --activation tanh --loss squared --shape 5,3,4,2 --json {}",
               ".json"),
    "bench": ("bench --variants numpy --shape 9,2,4,1 --json {}", ".json"),
    "peers": ("peers --variants numpy,numpy-samples --shape 9,2,4,1 --json {}", ".json"),
    "updates": ("updates --variants numpy --shape 9,2,4,1 --json {}", ".json"),
    "machine": ("machine --json {}", ".json"),
    "bench --plot": ("bench --variants numpy --shape 9,2,4,1 --plot {}", ".svg"),
    "bench --roofline": ("bench --variants numpy --shape 9,2,4,1 --roofline {}", ".svg"),
    "choose": ("choose --shape 5,3,4,2 --explain --json {}", ".json"),
    "train --json": ("train data.csv --epochs 2 --json {}", ".json"),
    "train --save": ("train data.csv --epochs 2 --save {}", ".npz"),
    "train --plot": ("train data.csv --epochs 2 --plot {}", ".svg"),
    "predict": ("predict net.npz x.csv --save {}", ".csv"),
    "regress --json": ("regress HEAD --variants numpy --json {}", ".json"),
    "regress --markdown": ("regress HEAD --variants numpy --markdown {}", ".md"),
    "report": ("report --variants numpy {}", ".html"),
    "report --json": ("report --variants numpy r.html --json {}", ".json"),
    "history": ("history --shape 7,3,5,2 --json {}", ".json"),
    "history --plot": ("history --shape 7,3,5,2 --plot {}", ".svg"),
    "compare": ("compare aaaaaaa bbbbbbb --json {}", ".json"),
    "machines": ("machines --add --folder m --html {}", ".html"),
}  # fmt: skip


def call(line, stdout, stderr):
    """The exit code of a command with those streams."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", ["twolayer", *line.split()])
        patch.setattr(sys, "stdout", stdout)
        patch.setattr(sys, "stderr", stderr)
        with pytest.raises(SystemExit) as end:
            get_command(app).main(line.split(), prog_name="twolayer")
    for stream in (stdout, stderr):
        if stream is not None and not isinstance(stream.buffer, io.BytesIO):
            stream.close()  # as at the exit, where it must not fail
    return end.value.code

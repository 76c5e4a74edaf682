"""Numbers of absurd length, and what is none, in every option that takes a number."""

import io
import re
import typing
from importlib import import_module

import pytest
from command_runs import call

from twolayer.cli import COMMANDS

NUMBERS = ("9" * 400, "9" * 5000, "1e400", "-1", "0", "nan", "")
TEXTS = {
    "choose": ["--max-memory {}"],
    "verify": ["--shape 3,{},3,1"],
    "bench": ["--shape 3,{},3,1", "--sweep n={}"],
    "updates": ["--batches {}"],
    "machine": ["--probe --threads {}"],
}
NEEDED = {
    "choose": "--shape 5,3,4,2",
    "train": "data.csv --epochs 2",
    "predict": "net.npz x.csv --save f.csv",
    "bench": "--variants numpy --shape 9,2,3,1",
    "peers": "--variants numpy --shape 9,2,3,1",
    "updates": "--variants numpy --shape 9,2,3,1 --optimizers sgd",
    "verify": "--variants numpy --shape 3,2,3,1 --activation tanh --loss squared",
    "report": "--variants numpy",
}


def options():
    for command, (module, function, _) in COMMANDS.items():
        if command == "regress":  # which would run
            continue
        made = getattr(import_module(f"twolayer.cli.commands.{module}"), function)
        for name, kind in typing.get_type_hints(made).items():
            if {int, float} & {kind, *typing.get_args(kind)}:
                yield command, f"--{name} {{}}".replace("_", "-")
        yield from ((command, text) for text in TEXTS.get(command, ()))


@pytest.mark.parametrize(("command", "option"), [*options()])
def test_a_number_is_taken_or_refused_in_a_sentence(brief, command, option):
    for number in NUMBERS:
        stderr = io.TextIOWrapper(io.BytesIO(), encoding="utf-8")
        line = f"{command} {NEEDED.get(command, '')} {option.format(number)}"
        code = call(line, io.TextIOWrapper(io.BytesIO(), encoding="utf-8"), stderr)
        stderr.seek(0)
        said = stderr.read()
        assert code in (0, 2, 3), (number[:9], said)
        assert "Traceback" not in said
        assert not re.search(r"\.py, line \d+\)", said), said  # a mistake of ours
        assert not re.match(r"Exceeds the limit|cannot convert|int too large", said), said

"""The present sources as two revisions, of which one is changed, and what is said of them."""

from typer.testing import CliRunner

from twolayer.cli import app
from twolayer.network import Shape
from twolayer.regress import revisions, run

LOSSES_FILE = "kernels/formulas/losses.py"
SQUARE = "return (u - y) * (u - y)"
SHAPE = Shape(40, 5, 6, 2)
WRITING = "# a comment"
QUICK = ("--no-costs", "--seconds=0.01")
MEASURED = (0, 1, 3)  # nothing failed; a busy machine makes alarms, and too little to see


DEFINITION = "    def backpropagate(\n        self, X"
SLOW = """    def backpropagate(self, *arguments):
        for _ in range(29):
            self._once(*arguments)
        return self._once(*arguments)

    def _once(
        self, X"""


def edit(folder, path, old, new):
    text = (folder / path).read_text()
    assert old in text
    (folder / path).write_text(text.replace(old, new, 1))


def shaped(shape):
    return f"--shape={','.join(map(str, shape))}"


def regress(*arguments, code, limit=1, shape=SHAPE):
    settings = (*QUICK, f"--budget={limit}", shaped(shape))
    result = CliRunner().invoke(app, ["regress", *arguments, *settings])
    assert result.exit_code in (code if isinstance(code, tuple) else (code,)), result.output
    return " ".join(result.output.split())


def made_run(here, path, base=None, head=None, names=("numpy",), make=run.Run, **settings):
    sides = revisions.export(base, "base"), revisions.export(head, "head")
    suite = [run.Benchmark(name, SHAPE) for name in names]
    return make(*sides, suite, path, seconds=0.001, limit=1, looks=(2,), **settings)

"""Repositories for tests, the present sources as two revisions of which one is changed, and what is
said of them.
"""

import os
import subprocess

from typer.testing import CliRunner

from twolayer.cli import app
from twolayer.network import Shape
from twolayer.regress import revisions, run

CONFIG = {
    f"GIT_{who}_{what}": "nobody" for who in ("AUTHOR", "COMMITTER") for what in ("NAME", "EMAIL")
}
LOSSES_FILE = "kernels/formulas/losses.py"
SQUARE = "return (u - y) * (u - y)"
WRONG = SQUARE + " * 3"
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


def body(*lines):
    """A `backpropagate` of numpy that begins with these lines."""
    text = "".join(f"        {line}\n" for line in lines)
    return (
        "    def backpropagate(self, *arguments):\n"
        f"{text}        return self._once(*arguments)\n\n    def _once(\n        self, X"
    )


def plant(folder, *lines):
    edit(folder, "variants/numpy.py", DEFINITION, body(*lines))


def git(folder, *arguments, **environment):
    done = subprocess.run(
        ["git", *arguments],
        cwd=folder,
        env=os.environ | CONFIG | environment,
        capture_output=True,
        text=True,
        check=True,
    )
    return done.stdout.strip()


def write(folder, path, text):
    (folder / path).parent.mkdir(parents=True, exist_ok=True)
    (folder / path).write_text(text)


def commit(folder, message="a change", **files):
    """Its id; files: text by path, with "__" for a slash."""
    for path, text in files.items():
        write(folder, path.replace("__", "/"), text)
    git(folder, "add", "--all")
    git(folder, "commit", "--quiet", "--allow-empty", f"--message={message}")
    return git(folder, "rev-parse", "HEAD")


def made(folder):
    """A package with one kernel and one variant, as the first commit of `main`."""
    write(folder, "src/twolayer/__init__.py", "")
    write(folder, "variants/v.py", "a variant")
    write(folder, "kernels/k.py", "a kernel")
    write(folder, "docs/d.md", "a page")
    write(folder, ".gitignore", "*.log\n")
    for name in ("kernels", "variants"):
        (folder / "src" / "twolayer" / name).symlink_to(f"../../{name}")
    git(folder, "init", "--quiet", "--initial-branch=main")
    commit(folder, "first")
    return folder

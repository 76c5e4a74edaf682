"""`twolayer verify`: its table, its exit codes, its figures."""

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from twolayer import Network, variants
from twolayer.checking import cases, promises
from twolayer.cli import COMMANDS, app, codes
from twolayer.network import Shape

runner = CliRunner()

WRONG = """
from twolayer import Engine, Variant

class Wrong(Engine):
    def backpropagate(self, X, Y, theta, gradient):
        for part in gradient:
            part[...] = 0
        return 0.0

    def forward(self, X, theta, F):
        F[...] = 0

wrong = Variant("wrong-zero", "cpu", "returns zeros", Wrong)
"""


@pytest.fixture(autouse=True)
def _own_list(monkeypatch):
    """What a test's file adds to the variants is gone after it."""
    monkeypatch.setattr(variants.REGISTRY, "_entries", dict(variants.REGISTRY._entries))


def run(*arguments):
    return runner.invoke(app, ["verify", *arguments])


def test_right_variants_agree(tmp_path):
    figures = tmp_path / "figures.json"
    result = run(
        "--variants", "numpy,python-loops", "--activation", "tanh", "--loss", "softmax,squared",
        "--dtype", "float64", "--shape", "5,3,4,2", "--json", str(figures),
    )  # fmt: skip
    assert result.exit_code == 0, result.output
    assert "python-loops" in result.stdout
    records = json.loads(figures.read_text())["results"]
    assert {record["variant"] for record in records} == {"numpy", "python-loops"}
    assert all(record["agrees"] and record["ratio"] <= 1 for record in records)


def test_every_kind_of_check_is_made(tmp_path):
    figures = tmp_path / "figures.json"
    result = run(
        "--variants", "numpy", "--activation", "identity,tanh", "--loss", "squared",
        "--dtype", "float32", "--json", str(figures),
    )  # fmt: skip
    assert result.exit_code == 0, result.output
    made = {record["case"] for record in json.loads(figures.read_text())["results"]}
    kinds = {f"promise: {name}" for name in (*promises.EVERYWHERE, *promises.ONCE)}
    kinds |= {case.name for case in cases.all_cases(Network("tanh", "squared"), "float32")}
    assert made == kinds | {"exact integers", "exact integers of many bits", "a corner"}


def test_a_wrong_variant_is_named_and_the_exit_code_is_1(tmp_path):
    file = tmp_path / "wrong.py"
    file.write_text(WRONG)
    result = run("--variants", "numpy", "--variant-file", str(file), "--shape", "5,3,4,2")
    assert result.exit_code == 1
    assert "wrong-zero" in result.output
    assert "times the bound" in result.output


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (("--variants", "nump"), "variant: expected one of"),
        (("--activation", "sine"), "activation: expected one of"),
        (("--loss", "hinge"), "loss: expected one of"),
        (("--dtype", "float16"), "dtype: expected dtype float32 or float64"),
        (("--shape", "5,3"), "shape: expected four sizes n,d,M,K, positive integers"),
        (("--threads", "0"), "threads: expected a positive integer"),
        (("--json", "/nowhere/x.json"), "json: expected a file in an existing folder"),
    ],
)
def test_bad_options_are_one_sentence(arguments, sentence):
    result = run(*arguments)
    assert result.exit_code == 2
    assert sentence in result.output
    assert len(result.output.strip().splitlines()) == 1


def test_thorough_says_how_to_draw_the_same_shapes_again(tmp_path, monkeypatch):
    drawn = []
    monkeypatch.setattr(
        cases, "drawn_shapes", lambda seed: drawn.append(seed) or (Shape(5, 3, 4, 2),)
    )
    for seed in ((), ("--seed", "5")):
        result = run("--variants", "numpy", "--thorough", *seed, "--shape", "9,2,3,1")
        assert result.exit_code == 0, result.output
        assert result.stdout.startswith(f"--seed {drawn[-1]}\n")
    assert drawn[0] != drawn[1] == 5


def test_a_seed_draws_the_same_shapes():
    assert cases.drawn_shapes(5) == cases.drawn_shapes(5) != cases.drawn_shapes(6)


IDLE = """
from twolayer import Variant
from twolayer.variants import get

idle = Variant("{name}", "cpu", "", get("numpy").make, {why})
"""


@pytest.mark.parametrize(
    ("name", "why"),
    [
        ("idle-refuses", "refuses=lambda shape, dtype: 'is made for no shape'"),
        ("idle-absent", "requires=('no_such_package',)"),
    ],
)
def test_nothing_verified_is_exit_code_3(tmp_path, name, why):
    file = tmp_path / "idle.py"
    file.write_text(IDLE.format(name=name, why=why))
    result = run("--variant-file", str(file), "--variants", name, "--shape", "5,3,4,2")
    assert result.exit_code == 3, result.output
    assert "nothing was verified" in result.output
    assert "None" not in result.output


def test_every_command_tells_its_exit_codes():
    page = Path(__file__).parents[2] / "docs" / "reference" / "commands.md"
    table = page.read_text(encoding="utf-8")
    for code, meaning in codes.MEANINGS.items():
        assert f"| {code} | {meaning} |" in table
    for name in COMMANDS:
        shown = " ".join(runner.invoke(app, [name, "--help"]).output.split())
        assert "Exit codes: 0" in shown


@pytest.mark.parametrize(
    ("wrong", "enough", "failed", "code"),
    [
        (True, True, False, 1), (True, False, False, 1), (True, True, True, 1),
        (False, True, True, 2), (False, False, False, 3), (False, True, False, 0),
    ],
)  # fmt: skip
def test_a_wrong_variant_goes_before_too_little(wrong, enough, failed, code):
    assert codes.of(wrong, enough, failed) == code


GREEDY = """
from twolayer import variants, Variant

class Greedy(variants.get("numpy").make):
    def __init__(self, problem):
        if problem.shape.n > {most}:
            raise MemoryError("needs 9 GiB")
        super().__init__(problem)

greedy = Variant("greedy", "cpu", "wants memory", Greedy)
"""


@pytest.mark.parametrize("most", [0, 5, 20])
@pytest.mark.parametrize("asked", [["--shape", "5,3,4,2", "--shape", "9,3,4,2"], []])
def test_who_finds_too_little_memory_is_not_called_wrong(most, asked, tmp_path):
    """Nor does it hide what others, or its other cases, were found to be."""
    path, figures = tmp_path / "greedy.py", tmp_path / "figures.json"
    path.write_text(GREEDY.format(most=most))
    result = run(
        "--variant-file", str(path), "--variants", "numpy,greedy", "--activation", "tanh", "--loss",
        "squared", "--dtype", "float64", *asked, "--json", str(figures),
    )  # fmt: skip
    short = not asked or most < 9
    assert result.exit_code == (codes.FAILED if short else codes.RIGHT), result.output
    assert ("found too little memory: needs 9 GiB" in result.output) is short
    assert "disagree" not in result.output
    records = json.loads(figures.read_text())["results"]
    assert any(record["undecided"] for record in records) is short
    decided = [record for record in records if not record["undecided"]]
    assert all(record["agrees"] for record in decided)
    assert {record["variant"] for record in decided} == {"numpy", *(["greedy"] if most else [])}


def test_too_little_memory_hides_no_wrong_variant(tmp_path):
    for name, text in (("greedy", GREEDY.format(most=0)), ("wrong", WRONG)):
        (tmp_path / f"{name}.py").write_text(text)
    files = [f"--variant-file={tmp_path / name}.py" for name in ("greedy", "wrong")]
    result = run(
        *files, "--variants", "greedy,wrong-zero", "--loss", "squared", "--shape", "5,3,4,2"
    )
    assert result.exit_code == codes.WRONG, result.output
    assert "disagree" in result.stdout
    assert "found too little memory" in result.stdout

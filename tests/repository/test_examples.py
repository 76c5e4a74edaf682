"""The examples run, draw, and show what they are there to show."""

import importlib.util
from pathlib import Path

import pytest

FOLDER = Path(__file__).parents[2] / "examples"

pytest.importorskip("matplotlib")
pytest.importorskip("sklearn")


def run(name, path, **smaller):
    spec = importlib.util.spec_from_file_location(name, FOLDER / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.main(path, **smaller)


def test_every_example_is_tested():
    tested = {name.removeprefix("test_") for name in globals()}
    assert {path.stem for path in FOLDER.glob("*.py")} <= tested


def test_approximation(tmp_path):
    errors = run("approximation", tmp_path / "a.svg", hidden=(1, 4, 16), epochs=1000)
    assert errors[1] > 2 * errors[4]
    assert errors[4] > errors[16]
    assert "<svg" in (tmp_path / "a.svg").read_text()


def test_problems(tmp_path):
    scores = run("problems", tmp_path / "a.svg")
    assert scores["digits"] > 0.9
    assert scores["breast_cancer"] > 0.9
    assert scores["diabetes"] > 0.3
    assert "<svg" in (tmp_path / "a.svg").read_text()


def test_methods(tmp_path):
    losses = run("methods", tmp_path / "a.svg", epochs=60, steps=[0.1, 10.0])
    assert min(losses.values()) > 0
    assert max(losses["nesterov"], losses["adam"]) < losses["gd"]
    assert "<svg" in (tmp_path / "a.svg").read_text()

"""The workflow of pull requests tells a regression, a failure and too little measured apart."""

import os
import subprocess
from pathlib import Path

import pytest
import yaml

WORKFLOWS = Path(__file__).parents[2] / ".github" / "workflows"


def steps(name):
    """The steps of the only job."""
    (job,) = yaml.safe_load((WORKFLOWS / name).read_text())["jobs"].values()
    return job["steps"]


@pytest.fixture
def compare(tmp_path):
    """compare(code, table): run the script of the comparison where `twolayer` ends with a code."""
    (script,) = (step["run"] for step in steps("regress.yml") if step.get("name") == "Compare")
    program = tmp_path / ".venv" / "bin" / "twolayer"
    program.parent.mkdir(parents=True)
    summary = tmp_path / "summary"

    def run(code, table):
        writing = "echo the table > table.md\n" if table else ""
        program.write_text(f'#!/bin/sh\necho "$@" > arguments\n{writing}exit {code}\n')
        program.chmod(0o755)
        done = subprocess.run(
            ["bash", "--noprofile", "--norc", "-eo", "pipefail", "-c", script],
            cwd=tmp_path,
            env=os.environ | {"BASE": "b1", "HEAD": "h2", "GITHUB_STEP_SUMMARY": str(summary)},
            capture_output=True,
            text=True,
            check=False,
        )
        assert (tmp_path / "arguments").read_text().startswith("regress b1 h2 --markdown table.md")
        return done.returncode, done.stdout, summary.read_text()

    return run


@pytest.mark.parametrize(
    ("code", "ends", "said"),
    [
        (0, 0, ""),
        (1, 1, "::error title=Regression::"),
        (2, 2, "::error title=Failure::"),
        (3, 0, "::warning title=Too little measured::"),
    ],
)
def test_the_outcomes_are_told_apart(compare, code, ends, said):
    found, output, summary = compare(code, table=True)
    assert found == ends
    assert output.startswith(said)
    assert bool(output) == bool(said)
    assert summary == "the table\n"


def test_an_early_end_leaves_a_sentence_for_the_comment(compare):
    found, _, summary = compare(2, table=False)
    assert found == 2
    assert summary == "`twolayer regress` ended early, with exit code 2.\n"


def test_results_are_kept_and_published_after_a_failure_too():
    """asv's exit code is 2 where a single benchmark failed."""
    after = steps("asv.yml")
    measured = [step.get("name") for step in after].index("Measure")
    assert all(step["if"] == "${{ !cancelled() }}" for step in after[measured + 1 :])

"""Variants that do not belong to the package are compared as its own are."""

import pytest
from planted import MEASURED, commit, git, regress

MINE = """import numpy as np
import twolayer as tl
from twolayer.kernels.formulas.losses import LOSSES


class Mine(tl.Engine):
    def backpropagate(self, X, Y, theta, gradient):
        A = X @ theta.V.T
        Z = self.net.sigma.value(A)
        Delta = Z @ theta.W.T
        total = self.net.objective.loss_batch(Delta, Y)
        gradient.V[...] = ((Delta @ theta.W) * self.net.sigma.slope(A)).T @ X / len(X)
        gradient.W[...] = Delta.T @ Z / len(X)
        return total / len(X)

    def forward(self, X, theta, F):
        F[...] = self.net.sigma.value(X @ theta.V.T) @ theta.W.T
        self.net.objective.link_batch(F)


variant = tl.Variant("mine", "cpu", "of somebody else", Mine)
"""
WRONG = MINE.replace("/ len(X)\n        return", "/ len(X) * 2\n        return")


@pytest.fixture
def elsewhere(tmp_path, monkeypatch):
    """A repository that has no package of ours, but a variant: wrong, then right."""
    folder = tmp_path / "elsewhere"
    folder.mkdir()
    git(folder, "init", "--quiet", "--initial-branch=main")
    commit(folder, mine__kept="")
    commit(folder, "wrong", **{"mine.py": WRONG})
    commit(folder, "right", **{"mine.py": MINE})
    monkeypatch.chdir(folder)
    monkeypatch.setenv("TWOLAYER_REGRESS", str(tmp_path / "regress"))
    return folder


def test_a_file_of_another_repository_is_compared_between_its_revisions(elsewhere):
    said = regress("HEAD~1", "--variant-file=mine.py", code=0)
    assert "is repaired: in the base: RuntimeError: base disagrees" in said
    assert "numpy" not in said
    said = regress("HEAD~2", "HEAD~1", "--variant-file=mine.py", code=2)
    assert "failed: RuntimeError: head disagrees" in said
    said = regress("HEAD~2", "HEAD", "--variant-file=mine.py", code=0)
    assert "1 new" in said


def test_a_file_without_revisions_or_variants_is_one_sentence(elsewhere, tmp_path):
    (tmp_path / "mine.py").write_text(MINE)
    said = regress("HEAD", f"--variant-file={tmp_path / 'mine.py'}", code=2)
    assert "--variant-file: expected a file in the repository" in said
    said = regress("HEAD", "--variant-file=nothing.py", code=2)
    assert "--variant-file: expected variants in one of the revisions, got none" in said


@pytest.mark.slow
def test_a_variant_of_an_installed_package_is_compared(here, brief, tmp_path, monkeypatch):
    """It imports the package of each side under the one name that it knows."""
    about = tmp_path / "offering-1.0.dist-info"
    about.mkdir()
    (about / "METADATA").write_text("Metadata-Version: 2.1\nName: offering\nVersion: 1.0\n")
    (about / "entry_points.txt").write_text("[twolayer.variants]\nmine = offering.own:variant\n")
    (tmp_path / "offering").mkdir()
    (tmp_path / "offering" / "__init__.py").write_text("")
    (tmp_path / "offering" / "own.py").write_text(MINE)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    said = regress("sound", "--variants=mine", code=MEASURED)
    assert "mine on" not in said
    assert "left out" not in said

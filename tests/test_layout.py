"""The two folders at the top, the links to them, and the imports inside the package."""

import ast
import os
import shutil
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
FOLDERS = ("kernels", "variants")
FLAT = ("tests", "tools")
MODULES = {
    f"twolayer/{path.relative_to(parent).as_posix()}"
    for parent, folder in ((ROOT / "src/twolayer", "."), *((ROOT, name) for name in FOLDERS))
    for path in (parent / folder).rglob("*.py")
}


def run(*command: str, folder: Path) -> subprocess.CompletedProcess[str]:
    environment = {k: v for k, v in os.environ.items() if k not in ("PYTHONPATH", "PYTHONSAFEPATH")}
    return subprocess.run(
        [sys.executable, *command],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )


def absolute_imports(source: str) -> list[int]:
    """The lines that import this package by a name of its own."""
    lines = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.level == 0:
            names = [node.module or ""]
        else:
            continue
        if any(name.partition(".")[0] in ("twolayer", *FOLDERS) for name in names):
            lines.append(node.lineno)
    return lines


def test_both_folders_have_modules():
    for folder in FOLDERS:
        assert f"twolayer/{folder}/__init__.py" in MODULES


def test_no_module_of_the_tests_is_named_as_one_of_the_tools():
    """Tests import both by their bare names: of two of one name the first that is loaded wins."""
    tests, tools = ({path.name for path in (ROOT / name).glob("*.py")} for name in FLAT)
    assert not tests & tools


@pytest.mark.parametrize("folder", FOLDERS)
def test_bare_import_from_the_root_is_refused(folder):
    result = run("-c", f"import {folder}", folder=ROOT)
    assert result.returncode == 1
    assert f"ImportError: import twolayer.{folder} instead of {folder}: " in result.stderr


@pytest.mark.parametrize("folder", FOLDERS)
def test_checkout_without_symbolic_links_is_explained(folder, tmp_path):
    package = tmp_path / "twolayer"
    shutil.copytree(ROOT / "src/twolayer", package, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.rmtree(package / folder)
    (package / folder).write_text(f"../../{folder}")
    result = run("-c", "import twolayer", folder=tmp_path)
    assert result.returncode == 1
    sentence = f"ImportError: twolayer/{folder} is a file where a symbolic link belongs: "
    assert sentence in result.stderr


@pytest.mark.parametrize("module", sorted(MODULES))
def test_imports_inside_the_package_are_relative(module):
    source = (ROOT / "src" / module).read_text(encoding="utf-8")
    assert absolute_imports(source) == []


@pytest.mark.parametrize(
    ("source", "lines"),
    [
        ("import twolayer", [1]),
        ("import numpy\nimport twolayer.kernels.losses as losses", [2]),
        ("def f():\n    from twolayer import kernels", [2]),
        ("from kernels import losses", [1]),
        ("from . import kernels\nfrom .variants import names\nimport numpy", []),
    ],
)
def test_absolute_imports_are_seen(source, lines):
    assert absolute_imports(source) == lines


def test_wheel_and_sdist_hold_every_module(tmp_path):
    tree = tmp_path / "tree"
    tree.mkdir()
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, tree)
    for name in ("src", *FOLDERS):
        ignored = shutil.ignore_patterns("__pycache__", "*.egg-info")
        shutil.copytree(ROOT / name, tree / name, symlinks=True, ignore=ignored)
    # The wheel is built from the sdist.
    result = run("-m", "build", "--no-isolation", "--outdir", str(tmp_path), folder=tree)
    assert result.returncode == 0, result.stdout + result.stderr
    with zipfile.ZipFile(next(tmp_path.glob("*.whl"))) as wheel:
        names = wheel.namelist()
    assert {name for name in names if name.endswith(".py")} == MODULES
    assert "twolayer/report/page.html.jinja" in names
    with tarfile.open(next(tmp_path.glob("*.tar.gz"))) as sdist:
        names = {name.partition("/")[2] for name in sdist.getnames()}
    assert {f"src/{module}" for module in MODULES} <= names

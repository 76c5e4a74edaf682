"""The two folders at the top, the links to them, and the imports inside the package."""

import ast
import os
import re
import shutil
import subprocess
import sys
import sysconfig
import venv
import zipfile
from collections import Counter
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
FOLDERS = ("kernels", "variants")

MODULES = {
    f"twolayer/{path.relative_to(parent).as_posix()}"
    for parent, folder in ((ROOT / "src/twolayer", "."), *((ROOT, name) for name in FOLDERS))
    for path in (parent / folder).rglob("*.py")
}


def run(
    *command: str, folder: Path, python: str = sys.executable
) -> subprocess.CompletedProcess[str]:
    environment = {k: v for k, v in os.environ.items() if k not in ("PYTHONPATH", "PYTHONSAFEPATH")}
    return subprocess.run(
        [python, *command],
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


def test_no_two_modules_of_tests_and_tools_have_one_name():
    """They are imported by their bare names: of two of one name the first that is loaded wins."""
    names = Counter(
        path.name for room in ("tests", "tools") for path in (ROOT / room).rglob("*.py")
    )
    del names["conftest.py"]  # which nobody imports by name
    assert max(names.values()) == 1, names.most_common(1)


def test_rooms_and_files_are_small():
    """A room is seen at a glance, a file read in one go; variants are a list, a file each."""
    modules = [
        path for room in ("src", *FOLDERS, "tests", "tools") for path in (ROOT / room).rglob("*.py")
    ]
    rooms = Counter(path.parent for path in modules if path.name != "__init__.py")
    del rooms[ROOT / "variants"]
    assert max(rooms.values()) <= 10, rooms.most_common(3)
    lines = {path: len(path.read_text(encoding="utf-8").splitlines()) for path in modules}
    assert max(lines.values()) <= 400, max(lines, key=lines.get)


def test_documents_name_files_that_are_there():
    named = re.compile(
        r"(?<![\w/])(?:kernels|variants|src|tests|tools|benchmarks)/[\w/]+\.(?:py|json)"
    )
    pages = [*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md"), ROOT / "Makefile"]
    found = {(page.name, path) for page in pages for path in named.findall(page.read_text("utf-8"))}
    assert len(found) > 20
    ours = {"variants/my_variant.py"}  # which a reader is about to write
    assert not [pair for pair in found if not (ROOT / pair[1]).exists() and pair[1] not in ours]


@pytest.mark.parametrize("folder", FOLDERS)
def test_bare_import_from_the_root_is_refused(folder):
    result = run("-c", f"import {folder}", folder=ROOT)
    assert result.returncode == 1
    assert f"ImportError: import twolayer.{folder} instead of {folder}: " in result.stderr


@pytest.mark.parametrize("module", sorted(MODULES))
def test_imports_inside_the_package_are_relative(module):
    source = (ROOT / "src" / module).read_text(encoding="utf-8")
    assert absolute_imports(source) == []


@pytest.mark.parametrize(
    ("source", "lines"),
    [
        ("import twolayer", [1]),
        ("import numpy\nimport twolayer.kernels.formulas.losses as losses", [2]),
        ("def f():\n    from twolayer import kernels", [2]),
        ("from kernels import losses", [1]),
        ("from . import kernels\nfrom .variants import names\nimport numpy", []),
    ],
)
def test_absolute_imports_are_seen(source, lines):
    assert absolute_imports(source) == lines


@pytest.fixture
def checkout(tmp_path):
    """The files of the repository, with text for the two links: a .zip, or Windows' default."""
    tree = tmp_path / "tree"
    tree.mkdir()
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, tree)
    ignored = shutil.ignore_patterns("__pycache__", "*.egg-info")
    for name in ("src", *FOLDERS):
        shutil.copytree(ROOT / name, tree / name, symlinks=True, ignore=ignored)
    for name in FOLDERS:
        link = tree / "src" / "twolayer" / name
        link.unlink()
        link.write_text(f"../../{name}")
    return tree


def check_installed(tmp_path, *what):
    """Install that without its dependencies into an environment that has this one's, and use it."""
    home = tmp_path / "environment"
    venv.create(home, with_pip=False)
    (site,) = home.rglob("site-packages")
    here = sysconfig.get_paths()["purelib"]
    (site / "dependencies.pth").write_text(here)
    python = home / ("Scripts" if os.name == "nt" else "bin") / "python"
    options = ("--no-deps", "--no-build-isolation", "--disable-pip-version-check", "--quiet")
    done = run("-m", "pip", "--python", str(python), "install", *options, *what, folder=tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    result = run("-P", "-c", USED, here, python=str(python), folder=tmp_path)
    assert result.returncode == 0, result.stderr


USED = """
import sys
from importlib import import_module, util
import numpy as np
import twolayer as tl
from twolayer.machine import hardware
for name in ("twolayer", "twolayer.kernels.cuda", "twolayer.variants", "twolayer.showing.plot"):
    assert not util.find_spec(name).origin.startswith(sys.argv[1]), name
X = np.ones((9, 3), np.float32)
for name in ("numpy", "numba-loops"):
    tl.variants.get(name).plan(tl.Network(), X, X[:, :1], tl.Network().init(3, 4, 1)).step(0.1)
assert hardware.source_digest()
import_module("twolayer.cli.commands.list")
"""


def test_wheel_and_sdist_hold_every_module(checkout, tmp_path):
    # The wheel is built from the sdist, so what is installed is what either of them holds.
    result = run("-m", "build", "--no-isolation", "--outdir", str(tmp_path), folder=checkout)
    assert result.returncode == 0, result.stdout + result.stderr
    (wheel,), (_,) = tmp_path.glob("*.whl"), tmp_path.glob("*.tar.gz")
    with zipfile.ZipFile(wheel) as files:
        names = files.namelist()
    assert {name for name in names if name.endswith(".py")} == MODULES
    assert "twolayer/py.typed" in names
    assert "twolayer/report/page.html.jinja" in names
    assert "twolayer/engines/tuned.json" in names
    check_installed(tmp_path, str(wheel))


@pytest.mark.slow  # the wheel's test builds from such a checkout, too
def test_a_checkout_without_links_installs(checkout, tmp_path):
    check_installed(tmp_path, str(checkout))


@pytest.mark.slow  # so is every environment that tests run in
def test_a_checkout_without_links_installs_in_place(checkout, tmp_path):
    check_installed(tmp_path, "--editable", str(checkout))

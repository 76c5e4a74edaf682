"""Names of the package that tests and tools use are there, whatever library is not."""

import ast
import inspect
import pkgutil
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
FILES = sorted(
    path for folder in ("tests", "tools", "benchmarks") for path in (ROOT / folder).rglob("*.py")
)


def there(name):
    """Whether the package has a dotted name; taken as given in modules that cannot be imported."""
    try:
        pkgutil.resolve_name(name)
    except ModuleNotFoundError as error:
        return not (error.name or "").startswith("twolayer")
    except AttributeError:
        return False
    return True


def is_module(name):
    try:
        return inspect.ismodule(pkgutil.resolve_name(name))
    except (ModuleNotFoundError, AttributeError):
        return False


def names(source):
    """The dotted names that a source imports, replaces, or takes of a module though private."""
    tree, modules = ast.parse(source), {}
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "twolayer":
            for alias in node.names:
                yield (name := f"{node.module}.{alias.name}")
                modules[alias.asname or alias.name] = name
        elif isinstance(node, ast.Call) and ast.unparse(node.func).endswith(".setattr"):
            target = node.args[0]
            if isinstance(target, ast.Constant) and re.match(r"twolayer\.", str(target.value)):
                yield target.value
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and re.match("_[^_]", node.attr):
            module = modules.get(ast.unparse(node.value))
            if module and is_module(module):
                yield f"{module}.{node.attr}"


def test_names_that_are_gone_are_found():
    source = (
        "from twolayer.variants import jax as j\nj.place\nj._gone\nj._starting\n"
        "monkeypatch.setattr('twolayer.variants.jax.away', 1)\n"
        "from twolayer.variants.jax import lost\n"
    )
    missing = [name.rpartition(".")[2] for name in names(source) if not there(name)]
    assert sorted(missing) == ["_gone", "away", "lost"]


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_names_are_there(path):
    assert [name for name in names(path.read_text()) if not there(name)] == []

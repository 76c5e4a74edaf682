"""What tests set to something else is looked up when it is used."""

import ast
import re
from pathlib import Path

ROOT = Path(__file__).parents[2]
PATCHED = re.compile(r"""setattr\(\s*"?(?:\w+\.)*?(\w+)(?:, "|\.)([A-Z_]{3,})",""")


def defaults(path):
    """The constants, with their modules, that arguments have by default: bound once for ever."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.FunctionDef | ast.Lambda):
            for default in (*node.args.defaults, *node.args.kw_defaults):
                if isinstance(default, ast.Name):
                    yield path.stem, default.id
                elif isinstance(default, ast.Attribute):
                    yield ast.unparse(default.value).rpartition(".")[2], default.attr


def test_no_default_keeps_what_a_test_replaces():
    texts = [path.read_text(encoding="utf-8") for path in (ROOT / "tests").rglob("*.py")]
    patched = {found for text in texts for found in PATCHED.findall(text)}
    assert ("timing", "WAKE_UP") in patched
    kept = [
        f"{path.relative_to(ROOT)}: {'.'.join(found)}"
        for folder in ("src/twolayer", "kernels", "variants", "tools", "benchmarks")
        for path in (ROOT / folder).rglob("*.py")
        for found in defaults(path)
        if found in patched
    ]
    assert not kept

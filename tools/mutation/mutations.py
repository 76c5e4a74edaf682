"""All single changes of a Python source that a test should find out: see `mutants.py`.

Constants by one, operators, comparisons, ends of ranges and slices, negated conditions, calls and
assignments left out, neighbouring arguments of the same kind exchanged. Decorators, annotations,
docstrings, messages of exceptions and what only binds a name for the first time stay as they are.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from itertools import pairwise
from typing import Any, NamedTuple

ARITHMETIC = {
    ast.Add: ast.Sub, ast.Sub: ast.Add, ast.Mult: ast.Add, ast.Div: ast.Mult, ast.Mod: ast.FloorDiv,
    ast.FloorDiv: ast.Mult, ast.Pow: ast.Mult, ast.LShift: ast.RShift, ast.RShift: ast.LShift,
    ast.MatMult: None, ast.BitAnd: ast.BitOr, ast.BitOr: ast.BitAnd, ast.BitXor: ast.BitOr,
}  # fmt: skip
COMPARISONS = {
    ast.Lt: ast.LtE, ast.LtE: ast.Lt, ast.Gt: ast.GtE, ast.GtE: ast.Gt, ast.Eq: ast.NotEq,
    ast.NotEq: ast.Eq, ast.Is: ast.IsNot, ast.IsNot: ast.Is, ast.In: ast.NotIn, ast.NotIn: ast.In,
}  # fmt: skip
COMMUTATIVE = {"add", "mul", "fadd", "fmul", "max", "min", "and_", "or_", "isinstance", "zip"}


class Mutant(NamedTuple):
    """One change: bytes start to end of a file become `new`."""

    file: str  # below the package
    line: int
    function: str
    kind: str
    old: str
    new: str
    start: int
    end: int
    text: str  # the line where it starts, with « before and » behind what is replaced of it

    @property
    def change(self) -> str:
        """What is replaced by what, on one line."""
        return " ".join(f"{self.old} → {self.new}".split())

    @property
    def key(self) -> str:
        """A name that no other mutant of the same sources has."""
        return f"{self.file}:{self.start}:{self.end}:{self.kind}:{self.new}"


def mutants_of(file: str, text: bytes) -> list[Mutant]:
    """All changes of a source, in the order of its lines."""
    starts, lines = [0], text.splitlines(keepends=True)
    for line in lines:
        starts.append(starts[-1] + len(line))
    tree = ast.parse(text)
    found = []
    for function, node, kind, new in _changes(tree):
        start = starts[node.lineno - 1] + node.col_offset
        end = starts[node.end_lineno - 1] + node.end_col_offset
        old = text[start:end].decode()
        if isinstance(node, ast.expr) and not isinstance(node, (ast.Constant, ast.Name)):
            new = f"({new})"
        line = lines[node.lineno - 1].rstrip()
        first = node.col_offset
        last = min(first + end - start, len(line))
        parts = line[:first].lstrip(), "«".encode(), line[first:last], "»".encode(), line[last:]
        shown = b"".join(parts).decode()
        found.append(Mutant(file, node.lineno, function, kind, old, new, start, end, shown))
    return sorted(set(found), key=lambda one: (one.start, one.end, one.kind, one.new))


def _changes(tree: ast.Module) -> Iterator[tuple[str, Any, str, str]]:
    """Function, node, kind of change and new text for every node that can be changed."""
    stack: list[tuple[str, ast.AST]] = [("", tree)]
    while stack:
        function, node = stack.pop()
        for kind, changed, new in _changed(node):
            yield function, changed, kind, new
        if isinstance(node, (ast.FunctionDef, ast.ClassDef)):
            function = f"{function}.{node.name}".lstrip(".")
            stack += [(function, statement) for statement in node.body]
            if isinstance(node, ast.FunctionDef):
                bound = _bound(node)
                for statement in _own_statements(node):
                    if _can_be_dropped(statement, bound):
                        yield function, statement, "drop", "pass"
        elif isinstance(node, ast.AnnAssign):
            stack += [(function, node.value)] if node.value else []
        elif not isinstance(node, (ast.JoinedStr, ast.Import, ast.ImportFrom, ast.Raise)):
            stack += [(function, child) for child in ast.iter_child_nodes(node)]


def _own_statements(function: ast.FunctionDef) -> Iterator[ast.stmt]:
    """The statements of a function, without those of functions inside it."""
    stack: list[Any] = list(function.body)
    while stack:
        statement = stack.pop()
        yield statement
        if not isinstance(statement, (ast.FunctionDef, ast.ClassDef)):
            for child in ast.iter_child_nodes(statement):
                if isinstance(child, (ast.stmt, ast.ExceptHandler, ast.withitem)):
                    stack.append(child)


def _bound(function: ast.FunctionDef) -> list[str]:
    """The names that a function binds, as often as it does."""
    arguments = [
        argument.arg for argument in ast.walk(function.args) if isinstance(argument, ast.arg)
    ]
    names = [
        n.id for n in ast.walk(function) if isinstance(n, ast.Name) and isinstance(n.ctx, ast.Store)
    ]
    return arguments + names


def _can_be_dropped(statement: ast.stmt, bound: list[str]) -> bool:
    """Whether it is a call, or an assignment to what is there without it."""
    if isinstance(statement, ast.Expr):
        return isinstance(statement.value, ast.Call)
    if isinstance(statement, ast.AugAssign):
        return True
    if not isinstance(statement, ast.Assign):
        return False
    names = [n for t in statement.targets for n in ast.walk(t) if isinstance(n, ast.Name)]
    stored = [n.id for n in names if isinstance(n.ctx, ast.Store)]
    return all(bound.count(name) > 1 for name in stored)


def _changed(node: ast.AST) -> Iterator[tuple[str, ast.AST, str]]:
    """Kind, node and new text of each change of a node itself."""
    if isinstance(node, ast.Constant) and type(node.value) in (int, float, bool):
        value = node.value
        if isinstance(value, bool):
            yield "constant", node, str(not value)
        else:
            yield "constant", node, repr(value + 1)
            if isinstance(value, int) and value:
                yield "constant", node, repr(value - 1)
    elif isinstance(node, (ast.BinOp, ast.AugAssign)) and ARITHMETIC.get(type(node.op)):
        yield "operator", node, _with(node, op=ARITHMETIC[type(node.op)]())
    elif isinstance(node, ast.Compare):
        for i, op in enumerate(node.ops):
            ops = [*node.ops[:i], COMPARISONS[type(op)](), *node.ops[i + 1 :]]
            yield "comparison", node, _with(node, ops=ops)
    elif isinstance(node, ast.BoolOp):
        other = ast.Or() if isinstance(node.op, ast.And) else ast.And()
        yield "operator", node, _with(node, op=other)
    elif isinstance(node, ast.UnaryOp) and isinstance(node.op, (ast.USub, ast.Not)):
        if not isinstance(node.operand, ast.Constant):
            yield "operator", node, ast.unparse(node.operand)
    elif isinstance(node, ast.Call):
        yield from _changed_call(node)
    elif isinstance(node, ast.Slice):
        for end, by in (("lower", ast.Add()), ("upper", ast.Sub())):
            value = getattr(node, end)
            if value is not None and not isinstance(value, ast.Constant):
                yield "end", value, _by_one(value, by)
    if isinstance(node, (ast.If, ast.While, ast.IfExp)):
        equal = isinstance(node.test, ast.Compare) and len(node.test.ops) == 1
        if not (equal and isinstance(node.test.ops[0], (ast.Eq, ast.NotEq, ast.Is, ast.IsNot))):
            yield "negation", node.test, f"not ({ast.unparse(node.test)})"


def _changed_call(node: ast.Call) -> Iterator[tuple[str, ast.AST, str]]:
    name = getattr(node.func, "attr", getattr(node.func, "id", ""))
    arguments = node.args
    if name in ("range", "prange") and arguments:
        if len(arguments) == 1:
            yield "end", node, f"{name}(1, {ast.unparse(arguments[0])})"
        elif not isinstance(arguments[0], ast.Constant):
            yield "end", arguments[0], _by_one(arguments[0], ast.Add())
        end = arguments[min(1, len(arguments) - 1)]
        if not isinstance(end, ast.Constant):
            yield "end", end, _by_one(end, ast.Sub())
    elif name not in COMMUTATIVE:
        for i, (a, b) in enumerate(pairwise(arguments)):
            alike = type(a) is type(b) and not isinstance(a, ast.Starred)
            if alike and ast.dump(a) != ast.dump(b):
                exchanged = [*arguments[:i], b, a, *arguments[i + 2 :]]
                yield "exchange", node, _with(node, args=exchanged)


def _with(node: Any, **changed: Any) -> str:
    fields = {name: getattr(node, name) for name in node._fields}
    return ast.unparse(type(node)(**fields | changed))


def _by_one(node: ast.expr, op: ast.operator) -> str:
    return ast.unparse(ast.BinOp(node, op, ast.Constant(1)))

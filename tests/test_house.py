"""The rules of the house that no linter knows: short files and functions, methods for what differs, nothing twice."""

from __future__ import annotations

import ast
from collections import defaultdict
from collections.abc import Iterable, Iterator
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "altmin_dask"
CODE = sorted(
    file
    for part in ("altmin_dask", "benchmarks", "examples", "tests")
    for file in (ROOT / part).rglob("*.py")
)
FILE_LINES, FUNCTION_LINES, SHARED_LINES = 450, 60, 12

# What is told apart by a method of its own, never by its class: whatever is defined here.
OPEN = ("networks", "solvers", "execution", "training")


def name(file: Path) -> str:
    return str(file.relative_to(ROOT))


@cache
def tree_of(file: Path) -> ast.Module:
    return ast.parse(file.read_text(encoding="utf-8"))


def parsed(folder: Path = PACKAGE) -> Iterator[tuple[Path, ast.Module]]:
    for file in sorted(folder.rglob("*.py")):
        yield file, tree_of(file)


def none_of(found: Iterable[str]) -> None:
    if listed := list(found):
        pytest.fail("\n".join(listed), pytrace=False)


def functions(tree: ast.AST) -> Iterator[ast.FunctionDef | ast.AsyncFunctionDef]:
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            yield node


def test_files_are_short():
    lengths = {name(file): len(file.read_text(encoding="utf-8").splitlines()) for file in CODE}
    none_of(f"{file}: {length} lines" for file, length in lengths.items() if length > FILE_LINES)


def test_functions_are_short():
    none_of(
        f"{name(file)}:{function.lineno} {function.name}: {function.end_lineno - function.lineno + 1} lines"
        for file in CODE
        for function in functions(tree_of(file))
        if function.end_lineno - function.lineno >= FUNCTION_LINES
    )


def test_the_formatter_formats_everything():
    mark = "# fmt: " + "skip"
    counts = {name(file): file.read_text(encoding="utf-8").count(mark) for file in CODE}
    none_of(f"{file}: {count}" for file, count in counts.items() if count)


def asked_for(node: ast.AST) -> list[ast.expr]:
    """The classes that an expression tells apart."""
    match node:
        case ast.Call(func=ast.Name(id="isinstance" | "issubclass"), args=[_, classes]):
            return [part for part in ast.walk(classes) if isinstance(part, ast.Name | ast.Attribute)]
        case ast.MatchClass(cls=kind):
            return [kind]
        case ast.Compare(left=ast.Call(func=ast.Name(id="type")), comparators=classes):
            return classes
    return []


def test_what_differs_is_a_method():
    """No `isinstance` on networks, layers, penalties, executors, algorithms: a new one would have to be added there."""
    kinds = {
        node.name
        for folder in OPEN
        for _, tree in parsed(PACKAGE / folder)
        for node in ast.walk(tree)
        if isinstance(node, ast.ClassDef) and not node.name.endswith(("Error", "Settings"))
    }
    assert {"Dense", "L1", "AlternatingMinimization"} <= kinds  # the names are looked for where they are
    none_of(
        f"{name(file)}:{node.lineno} {ast.unparse(kind)}"
        for file, tree in parsed()
        for node in ast.walk(tree)
        for kind in asked_for(node)
        if ast.unparse(kind).rpartition(".")[2] in kinds
    )


def code_lines(file: Path, tree: ast.Module) -> list[tuple[int, str]]:
    """Numbered lines without space around them; no imports, signatures, docstrings, comments, and nothing empty."""
    left_out: set[int] = set()
    for node in ast.walk(tree):
        match node:
            case ast.Import() | ast.ImportFrom() | ast.Expr(value=ast.Constant(value=str())):
                left_out.update(range(node.lineno, node.end_lineno + 1))
            case ast.FunctionDef() | ast.AsyncFunctionDef():
                left_out.update(range(node.lineno, node.body[0].lineno))
    lines = enumerate(file.read_text(encoding="utf-8").splitlines(), 1)
    stripped = [(number, line.strip()) for number, line in lines if number not in left_out]
    return [(number, line) for number, line in stripped if line and not line.startswith("#")]


def test_nothing_stands_there_twice():
    places: defaultdict[tuple[str, ...], list[str]] = defaultdict(list)
    for file, tree in parsed():
        lines = code_lines(file, tree)
        for first in range(len(lines) - SHARED_LINES + 1):
            piece = lines[first : first + SHARED_LINES]
            places[tuple(line for _, line in piece)].append(f"{name(file)}:{piece[0][0]}")
    none_of(" and ".join(where) for where in places.values() if len(where) > 1)

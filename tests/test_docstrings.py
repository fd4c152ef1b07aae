"""The ``Args`` of a docstring are parameters or fields of what it documents."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / "src/unmask"


def unknown(source: str) -> Iterator[str]:
    for node in ast.walk(ast.parse(source)):
        if not isinstance(node, ast.FunctionDef | ast.ClassDef):
            continue
        _, _, section = (ast.get_docstring(node) or "").partition("Args:\n")
        functions = [node] if isinstance(node, ast.FunctionDef) else node.body
        known = {part.target.id for part in node.body if isinstance(part, ast.AnnAssign) and hasattr(part.target, "id")}
        for function in functions:
            if isinstance(function, ast.FunctionDef):
                known |= {argument.arg for argument in ast.walk(function.args) if isinstance(argument, ast.arg)}
        named = re.findall(r"^    (\w+): ", section.partition("\n\n")[0], re.M)
        yield from (f"{node.name}: {name}" for name in named if name not in known)


@pytest.mark.parametrize("path", sorted(PACKAGE.rglob("*.py")), ids=lambda path: str(path.relative_to(PACKAGE)))
def test_a_docstring_names_parameters_that_there_are(path: Path) -> None:
    assert list(unknown(path.read_text(encoding="utf-8"))) == []


def test_a_wrong_name_is_found() -> None:
    source = 'def f(a):\n    """F.\n\n    Args:\n        a: one.\n        b: two.\n    """\n'
    assert list(unknown(source)) == ["f: b"]

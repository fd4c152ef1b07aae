"""What docs/audit.md shows can be run as it stands, and its tables say what the code says."""

from __future__ import annotations

import ast
import importlib.util
import re
import shlex
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.commands import unmask
from unmask.auditing.budgets import BUDGETS

PAGE = (Path(__file__).parents[1] / "docs" / "audit.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"^```(\w*)\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)
LIBRARIES = {"torchattacks", "foolbox", "art"}


def imported(code: str) -> set[str]:
    names = []
    for node in ast.walk(ast.parse(code)):
        if isinstance(node, ast.Import):
            names += [name.name for name in node.names]
        elif isinstance(node, ast.ImportFrom):
            names.append(node.module or "")
    return {name.partition(".")[0] for name in names}


def test_snippets_and_commands_run_in_order(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Snippets for libraries that are not installed are only read."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    names: dict[str, Any] = {}
    said, wanted = "", []
    for kind, text in BLOCKS:
        if kind == "python" and text.startswith("# my_model.py"):
            (tmp_path / "my_model.py").write_text(text)
        elif kind == "python":
            if all(importlib.util.find_spec(name) for name in imported(text) & LIBRARIES):
                exec(compile(text, "docs/audit.md", "exec"), names)
        elif kind == "text":
            wanted = [line.rstrip() for line in text.splitlines() if line]
        elif not kind:  # "sh" takes long
            assert [line for line in text.splitlines() if unmask(*shlex.split(line)[1:])] == []
            said = said or capsys.readouterr().out
    monkeypatch.delitem(sys.modules, "my_model")
    lines = [line.rstrip() for line in said.splitlines()]
    assert wanted
    assert [line for line in wanted if line not in lines] == []
    assert names["found"].accuracy.value < 0.2


def test_the_budgets_are_those_of_the_code() -> None:
    rows = re.findall(r"^\| `(\w+)` \|((?: \d+ \|){5})$", PAGE, re.MULTILINE)
    told = {name: [int(cell) for cell in cells.split("|")[:-1]] for name, cells in rows}
    assert told == {name: [b.steps, b.restarts, b.targets, b.queries, b.views] for name, b in BUDGETS.items()}

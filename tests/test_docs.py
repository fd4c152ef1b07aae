"""What docs/audit.md shows can be run as it stands, and tables of the documents say what the code says."""

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
from unmask.cases import CASES
from unmask.threats import Threat

PAGE = (Path(__file__).parents[1] / "docs" / "audit.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"^```(\w*)\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)
README = (Path(__file__).parents[1] / "README.md").read_text(encoding="utf-8")
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


def cells(line: str) -> list[str]:
    return [cell.strip() for cell in line.removeprefix("|").removesuffix("|").split("|")]


def rows_of_cases(text: str) -> list[dict[str, str]]:
    """The rows of all tables of Markdown whose first column is "case", by the names of their columns."""
    tables = (table.splitlines() for table in re.findall(r"^\| case \|.*\n(?:\|.*\n)+", text, re.MULTILINE))
    return [dict(zip(cells(header), cells(line), strict=True)) for header, _, *lines in tables for line in lines]


def ball(threat: Threat) -> str:
    """As README writes it: a unit that is not raw is named as in the code."""
    level = round(255 * threat.eps)
    size = f"{level}/255" if threat.eps == level / 255 and threat.norm == "linf" else f"{threat.eps:g}"
    return f"{threat.norm.capitalize()} {size}{'' if threat.unit == 'raw' else f' {threat.unit}'}"


CASE_ROWS = rows_of_cases(README)


def test_threats_in_readme_are_those_of_the_cases() -> None:
    assert len(CASE_ROWS) == 25
    told = [(row["case"], row["threat"]) for row in CASE_ROWS]
    assert told == [(row["case"], ball(CASES[row["case"].split(" ")[0]].threat)) for row in CASE_ROWS]


def test_figures_of_others_in_readme_are_those_of_the_cases_with_their_marks() -> None:
    rows = [row for row in CASE_ROWS if "published" in row]
    assert len(rows) == 15
    for row in rows:
        case = CASES[row["case"].split(" ")[0]]
        for name in ("claimed", "published", "replicated"):
            figure = getattr(case, name)
            if figure is None:
                assert row[name] == ""
                continue
            number, _, mark = row[name].partition(" % ") if row[name][-1] in "*†" else (row[name][:-2], "", "")
            digits = len(number.partition(".")[2])
            assert float(number) == round(100 * figure.value, digits), row["case"]
            assert (mark == "*") == figure.note.startswith("the defense alone")
            assert (mark == "†") == figure.note.startswith("unverified")

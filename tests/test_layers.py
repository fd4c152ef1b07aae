"""Imports go strictly downward: the table of layers of the design, read from the source by ``ast``."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / "src" / "unmask"

# Lowest first; a unit may import any unit of a lower row.
TOP = {"evaluation", "auditing"}  # may import one another, as long as no circle comes of it
ROWS = [
    {"errors", "kinds"},
    {"records", "types", "inputs", "randomness", "progress", "network"},
    {"run_files", "state"},
    {"threats", "losses", "models", "statistics"},
    {"gradients"},
    {"adapters"},
    {"nets", "data", "weights", "report"},
    {"attacks", "defenses", "judging", "training"},
    {"attacking"},
    {"cases", "diagnosis"},
    TOP,
    {"cli"},
    {"__init__", "__main__"},
]
ROW = {unit: row for row, units in enumerate(ROWS) for unit in units}

# Units that may import less than their row allows: of unmask, and of everything else.
WITHIN = {
    "run_files": {"errors", "records"},
    "report": {"errors", "kinds", "records", "run_files", "statistics"},
    "statistics": {"errors", "records"},
    "models": {"errors", "types", "randomness", "state"},
}
OUTSIDE = {
    "errors": set[str](),
    "kinds": set[str](),
    "records": set[str](),
    "run_files": set[str](),
    "types": {"torch"},
    "randomness": {"torch", "numpy"},
    "network": set[str](),
    "statistics": {"numpy", "scipy"},
}


def imports(path: Path, package: Path) -> Iterator[tuple[int, str]]:
    """(line, absolute dotted name) of everything a file imports, inside functions too."""
    parents = path.relative_to(package.parent).parts[:-1]
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        match node:
            case ast.Import():
                yield from ((node.lineno, alias.name) for alias in node.names)
            case ast.ImportFrom():
                above = parents[: len(parents) - node.level + 1] if node.level else ()
                base = ".".join([*above, *([node.module] if node.module else [])])
                yield from ((node.lineno, f"{base}.{alias.name}") for alias in node.names)
            case ast.Call(
                func=ast.Name(id="import_module" | "__import__") | ast.Attribute(attr="import_module"),
                args=[ast.Constant(value=str(name)), *_],
            ):
                yield node.lineno, name


def unit_of(dotted: str, package: Path) -> str:
    """The file or folder directly in the package that a dotted name of it lies in."""
    unit = [*dotted.split("."), "__init__"][1]
    return unit if (package / unit).is_dir() or (package / f"{unit}.py").exists() else "__init__"


def may_import(unit: str, other: str) -> bool:
    if unit == other:
        return True
    if unit in WITHIN:
        return other in WITHIN[unit]
    return ROW[other] < ROW[unit] or {unit, other} <= TOP


def violations(package: Path) -> list[str]:
    """One line for each import that the layers forbid."""
    found, graph = [], dict[str, set[str]]()
    for path in sorted(package.rglob("*.py")):
        unit = path.relative_to(package).parts[0].removesuffix(".py")
        where = path.relative_to(package.parent)
        if unit not in ROW:
            found.append(f"{where}: {unit} is in no layer; add it in {Path(__file__).name}")
            continue
        for line, name in imports(path, package):
            top = name.split(".")[0]
            if top != package.name:
                if unit in OUTSIDE and top not in OUTSIDE[unit] | sys.stdlib_module_names:
                    found.append(f"{where}:{line}: {unit} may not import {top}")
                continue
            other = unit_of(name, package)
            if other not in ROW or not may_import(unit, other):
                found.append(f"{where}:{line}: {unit} may not import {other}")
            elif other != unit:
                graph.setdefault(unit, set()).add(other)
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        found.append(f"circle: {' < '.join(error.args[1])}")
    return found


def test_imports_go_downward() -> None:
    assert violations(PACKAGE) == []


@pytest.mark.parametrize("folder", [p.parent for p in PACKAGE.rglob("__init__.py")], ids=lambda p: p.name)
def test_a_folder_has_at_most_a_dozen_modules(folder: Path) -> None:
    assert len([p for p in folder.glob("*.py") if not p.name.startswith("__")]) <= 12


def test_report_does_not_load_torch() -> None:
    code = "import sys, unmask.report; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


def plant(tmp_path: Path, files: dict[str, str]) -> list[str]:
    package = tmp_path / "unmask"
    for unit in "records types losses models gradients attacks judging cases auditing evaluation".split():
        (package / unit).mkdir(parents=True)
        (package / unit / "__init__.py").write_text("")
    for name, text in files.items():
        (package / name).write_text(text)
    return violations(package)


PLANTED = [  # file, its text, the complaint
    ("losses/a.py", "import unmask.attacks", "unmask/losses/a.py:1: losses may not import attacks"),
    ("losses/a.py", "from unmask import attacks", "unmask/losses/a.py:1: losses may not import attacks"),
    ("losses/a.py", "\nfrom ..attacks.pgd import pgd", "unmask/losses/a.py:2: losses may not import attacks"),
    ("losses/__init__.py", "from ..cases import a", "unmask/losses/__init__.py:1: losses may not import cases"),
    ("types/a.py", "def f():\n  from .. import cases", "unmask/types/a.py:2: types may not import cases"),
    ("attacks/a.py", "from unmask.judging import judge", "unmask/attacks/a.py:1: attacks may not import judging"),
    ("cases/a.py", "from unmask import attackable", "unmask/cases/a.py:1: cases may not import __init__"),
    ("cases/a.py", "import unmask", "unmask/cases/a.py:1: cases may not import __init__"),
    ("cases/a.py", "import_module('unmask.auditing')", "unmask/cases/a.py:1: cases may not import auditing"),
    ("records/a.py", "import json, torch", "unmask/records/a.py:1: records may not import torch"),
    ("models/a.py", "from ..losses import margin", "unmask/models/a.py:1: models may not import losses"),
    ("losses/a.py", "import unmask.extra", "unmask/losses/a.py:1: losses may not import extra"),
    ("extra.py", "", "unmask/extra.py: extra is in no layer; add it in test_layers.py"),
]


@pytest.mark.parametrize(("file", "text", "complaint"), PLANTED, ids=[complaint for *_, complaint in PLANTED])
def test_finds_a_planted_violation(tmp_path: Path, file: str, text: str, complaint: str) -> None:
    stranger = PLANTED[-1][-1]
    assert set(plant(tmp_path, {"extra.py": "", file: text})) == {complaint, stranger}


def test_finds_a_circle_of_siblings(tmp_path: Path) -> None:
    one_way = {"auditing/a.py": "import unmask.evaluation"}
    assert plant(tmp_path / "line", one_way) == []
    (found,) = plant(tmp_path / "circle", one_way | {"evaluation/a.py": "from unmask import auditing"})
    assert found.startswith("circle: ")


def test_allows_what_goes_down(tmp_path: Path) -> None:
    lazy = "def f():\n    from ..attacks import pgd\n    import torch, ray\n"
    assert plant(tmp_path, {"cases/a.py": lazy, "cli.py": "from unmask import auditing, records"}) == []

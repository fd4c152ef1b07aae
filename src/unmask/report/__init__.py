"""Reports of a run, from the files in its folder alone: terminal, Markdown, HTML, JSON."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.console import RenderableType

__all__ = ["summary", "texts", "write"]

# Each function imports what it needs, so that the command line starts without waiting for figures and templates.


def write(run: Path) -> Path:
    """Write report.json, report.md and report.html into the folder of a run; the path of the last.

    Each file appears whole or not at all. A run that is not finished gives a report of what is there.
    Raises UnmaskError where the folder holds no run or a record in it is broken.

    >>> write(Path("/nowhere"))
    Traceback (most recent call last):
    unmask.errors.UnmaskError: /nowhere holds no run: no run.json in it; give the folder that --out named
    """
    _replace(run, texts(run))
    return run / "report.html"


def texts(run: Path) -> dict[str, str]:
    """The names and contents of these files; UnmaskError as above.

    >>> texts(Path("/nowhere"))
    Traceback (most recent call last):
    unmask.errors.UnmaskError: /nowhere holds no run: no run.json in it; give the folder that --out named
    """
    from unmask.report.audit import audit_json
    from unmask.report.html import html
    from unmask.report.markdown import markdown
    from unmask.report.run_folder import RunFolder
    from unmask.report.table import table, to_json

    folder = RunFolder.read(run)
    rows = table(folder)
    data = audit_json(folder, rows[0]) if folder.cases and folder.cases[0].audit else to_json(rows)
    return {"report.json": data, "report.md": markdown(folder, rows), "report.html": html(folder, rows)}


def summary(run: Path) -> RenderableType:
    """The table of a run for ``rich.print``; it suits itself to the width of the terminal.

    Raises UnmaskError as :func:`write` does.

    >>> summary(Path("/nowhere"))
    Traceback (most recent call last):
    unmask.errors.UnmaskError: /nowhere holds no run: no run.json in it; give the folder that --out named
    """
    from rich.console import Group

    from unmask.report.audit import Findings
    from unmask.report.run_folder import RunFolder
    from unmask.report.table import table
    from unmask.report.terminal import Summary

    folder = RunFolder.read(run)
    rows = table(folder)
    return Group(Summary(rows), *(Findings(case, row) for case, row in zip(folder.cases, rows, strict=True)))


def _replace(folder: Path, texts: Mapping[str, str]) -> None:
    for name, text in texts.items():
        unfinished = folder / f".{name}.{os.getpid()}"
        try:
            unfinished.write_text(text, encoding="utf-8")
            os.replace(unfinished, folder / name)
        finally:
            unfinished.unlink(missing_ok=True)

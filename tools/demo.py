"""Say in plain words what a demo has shown: python tools/demo.py FOLDER.

The folder holds a run of the digits cases, ``defenses``, and an audit, ``audit``, as `make demo` leaves them. Every
figure is that of their report.json.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from unmask.report.verdict.masking import Masking

__all__ = ["main", "told"]

RESULTS = {
    Masking.MASKED: "gradients masked",
    Masking.PARTLY_MASKED: "gradients partly masked",
    Masking.NOT_FOUND: "no masking found",
    Masking.INCONCLUSIVE: "inconclusive",
    Masking.INCOMPLETE: "incomplete",
}


def told(folder: Path) -> Iterator[str]:
    """The lines; OSError or ValueError where a report is missing or is none."""
    rows = _read(folder / "defenses")["rows"]
    audit = _read(folder / "audit")
    controls, defenses = ([row for row in rows if row["control"] is wanted] for wanted in (True, False))
    width = max(len(row["case"]) for row in rows)
    yield f"Published defenses, attacked ({_of(rows)}):"
    yield from (_line(row, width) + f" ({', '.join(row['obfuscation'])})" for row in defenses)
    if controls:
        yield "Controls:"
        yield from (_line(row, width) for row in controls)
    yield f"An audit of {audit['target']}, without any information about it (the first {audit['n']} images):"
    yield f"  {_figures(audit['accuracy'])}: {RESULTS[Masking(audit['masking'])]}"
    yield from (f"  {found['kind']} at {_place(found)}; remedy: {found['remedy']}" for found in audit["findings"])
    masked = sum(row["masking"] == Masking.MASKED for row in defenses)
    yield f"In {masked} of {len(defenses)} defenses the plain attack fails only because the gradient is masked."
    yield from (f"Report: {(folder / name / 'report.html').resolve()}" for name in ("defenses", "audit"))


def _place(found: Mapping[str, Any]) -> str:
    return f"{found['module']}: {found['where']}" if found["module"] else str(found["where"])


def _read(run: Path) -> Mapping[str, Any]:
    report: Mapping[str, Any] = json.loads((run / "report.json").read_text(encoding="utf-8"))
    return report


def _of(rows: Sequence[Mapping[str, Any]]) -> str:
    """On how many images: the first n."""
    numbers = sorted({row["clean"]["n"] for row in rows if row["clean"]})
    return f"the first {' or '.join(map(str, numbers))} test images"


def _line(row: Mapping[str, Any], width: int) -> str:
    return f"  {row['case']:{width}}  {_figures(row)}: {RESULTS[Masking(row['masking'])]}"


def _figures(row: Mapping[str, Any]) -> str:
    plain, adaptive = (_percent(row[name]) for name in ("plain", "adaptive"))
    return f"plain {plain} -> adaptive {adaptive}"


def _percent(accuracy: Mapping[str, Any] | None) -> str:
    return f"{100 * accuracy['value']:.1f} %" if accuracy else "unknown"


def main(folder: str) -> None:
    """Print the lines."""
    print("", *told(Path(folder)), sep="\n")


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit("usage: python tools/demo.py FOLDER")
    main(sys.argv[1])

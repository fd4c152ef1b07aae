"""What `make demo` says in the end is what its two reports say, in words."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

from tests.commands import unmask
from tools import demo

EXAMPLE = Path(__file__).parents[1] / "examples" / "own_defense.py"


def accuracy(value: float, n: int = 200) -> dict[str, Any]:
    return {"value": value, "low": 0.0, "high": 1.0, "n": n}


def row(
    case: str, plain: float, adaptive: float, masking: str, *, control: bool = False, n: int = 200
) -> dict[str, Any]:
    figures = {"clean": accuracy(0.9, n), "plain": accuracy(plain, n), "adaptive": accuracy(adaptive, n)}
    kind = "none (control)" if control else "shattered"
    return {"case": case, "obfuscation": [kind], "control": control, "masking": masking, **figures}


def folder(tmp_path: Path, rows: list[dict[str, Any]]) -> Path:
    figures = {"clean": accuracy(0.97), "plain": accuracy(0.9), "adaptive": accuracy(0.015)}
    found = {"kind": "shattered", "module": "part", "where": "a.py:1 round", "remedy": "bpda: part=identity"}
    audit = {"target": "a.py:build", "n": 64, "accuracy": figures, "masking": "masked", "findings": [found]}
    for name, report in (("defenses", {"rows": rows}), ("audit", audit)):
        (tmp_path / name).mkdir()
        (tmp_path / name / "report.json").write_text(json.dumps(report))
    return tmp_path


def test_each_figure_is_that_of_the_reports(tmp_path: Path) -> None:
    rows = [
        row("plain-x", 0.0, 0.0, "no masking found", control=True),
        row("first-x", 0.945, 0.0, "masked"),
        row("second-x", 0.62, 0.41, "partly masked", n=32),
    ]
    lines = list(demo.told(folder(tmp_path, rows)))
    assert lines == [
        "Published defenses, attacked (the first 32 or 200 test images):",
        "  first-x   plain 94.5 % -> adaptive 0.0 %: gradients masked (shattered)",
        "  second-x  plain 62.0 % -> adaptive 41.0 %: gradients partly masked (shattered)",
        "Controls:",
        "  plain-x   plain 0.0 % -> adaptive 0.0 %: no masking found",
        "An audit of a.py:build, without any information about it (the first 64 images):",
        "  plain 90.0 % -> adaptive 1.5 %: gradients masked",
        "  shattered at part: a.py:1 round; remedy: bpda: part=identity",
        "In 1 of 2 defenses the plain attack fails only because the gradient is masked.",
        f"Report: {tmp_path / 'defenses' / 'report.html'}",
        f"Report: {tmp_path / 'audit' / 'report.html'}",
    ]


@pytest.mark.parametrize("masking", ["incomplete", "inconclusive", "no masking found"])
def test_nothing_is_claimed_of_a_defense_that_was_not_found_to_mask(tmp_path: Path, masking: str) -> None:
    lines = list(demo.told(folder(tmp_path, [row("first-x", 0.9, 0.0, masking)])))
    assert lines[1].endswith(f"{masking} (shattered)")
    assert any(line.startswith("In 0 of 1 defenses") for line in lines)


def test_a_figure_that_is_missing_is_unknown(tmp_path: Path) -> None:
    unfinished = row("first-x", 0.9, 0.0, "incomplete") | {"adaptive": None}
    assert "plain 90.0 % -> adaptive unknown: incomplete" in list(demo.told(folder(tmp_path, [unfinished])))[1]


def test_runs_have_what_the_summary_reads(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    small = ("--n", "16")
    cases = ("--case", "plain-digits", "--case", "thermometer-digits")
    assert unmask("reproduce", *cases, *small, "--no-curves", "--out", str(tmp_path / "defenses")) == 0
    audit = ("audit", f"{EXAMPLE}:build", "--data", "digits", "--eps", "0.15", "--budget", "quick")
    assert unmask(*audit, *small, "--out", str(tmp_path / "audit")) == 0
    capsys.readouterr()
    demo.main(str(tmp_path))
    said = capsys.readouterr().out
    assert re.search(r"thermometer-digits +plain \d+\.\d % -> adaptive 0\.0 %: gradients masked \(shattered\)", said)
    assert re.search(r"plain-digits +plain 0\.0 % -> adaptive 0\.0 %: no masking found", said)
    assert "quantize" in said
    assert said.splitlines()[-1] == f"Report: {(tmp_path / 'audit' / 'report.html').resolve()}"

"""The examples run as their first lines say, and show what they promise."""

from __future__ import annotations

import importlib
import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.commands import unmask
from tests.needs import need
from unmask.cases import CASES

EXAMPLES = Path(__file__).parents[1] / "examples"


def test_own_defense() -> None:
    done = subprocess.run([sys.executable, EXAMPLES / "own_defense.py"], capture_output=True, text=True, check=True)
    left = {name: float(share) for name, share in re.findall(r"^([\w-]+): ([\d.]+)%", done.stdout, re.MULTILINE)}
    assert left["clean"] > 90
    assert left["plain"] > 80
    assert left["bpda"] < 5
    assert left["inline"] < 5


def test_a_defense_becomes_a_case_in_forty_lines(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The file of CONTRIBUTING's guide, named in one place, is reproduced from the command line."""
    source = (EXAMPLES / "own_case.py").read_text()
    assert len(source.splitlines()) <= 40
    assert source in (EXAMPLES.parent / "CONTRIBUTING.md").read_text()
    monkeypatch.syspath_prepend(EXAMPLES)
    (case,) = importlib.import_module("own_case").CASES
    monkeypatch.setitem(CASES, case.name, case)
    out = tmp_path / "run"
    assert unmask("reproduce", "--case", case.name, "--n", "16", "--no-curves", "--out", str(out)) == 0
    (row,) = json.loads((out / "report.json").read_text())["rows"]
    assert (row["masking"], row["obfuscation"]) == ("masked", ["shattered"])
    assert row["plain"]["value"] > 0.8
    assert row["adaptive"]["value"] < 0.1
    assert unmask("verify", str(out)) == 0


def test_masked_model(tmp_path: Path) -> None:
    need("mnist")
    command = [sys.executable, "-m", "unmask.cli", "audit", f"{EXAMPLES}/masked_model.py:build", "--data", "mnist"]
    options = ["--eps", "0.3", "--n", "16", "--budget", "quick", "--out", str(tmp_path / "run")]
    subprocess.run([*command, *options], capture_output=True, text=True, check=True)
    report = json.loads((tmp_path / "run" / "report.json").read_text())
    assert {(finding["kind"], finding["module"]) for finding in report["findings"]} == {
        ("shattered", "quantize"),
        ("stochastic", "drop"),
    }
    assert report["accuracy"]["adaptive"]["value"] < 0.2 < report["accuracy"]["plain"]["value"]

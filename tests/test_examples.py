"""The examples run as their first lines say, and show what they promise."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

from tests.needs import need

EXAMPLES = Path(__file__).parents[1] / "examples"


def test_own_defense() -> None:
    done = subprocess.run([sys.executable, EXAMPLES / "own_defense.py"], capture_output=True, text=True, check=True)
    left = {name: float(share) for name, share in re.findall(r"^([\w-]+): ([\d.]+)%", done.stdout, re.MULTILINE)}
    assert left["clean"] > 90
    assert left["plain"] > 80
    assert left["bpda"] < 5
    assert left["inline"] < 5


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

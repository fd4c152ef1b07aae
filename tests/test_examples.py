"""The examples run as their first lines say, and show what they promise."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

EXAMPLES = Path(__file__).parents[1] / "examples"


def test_own_defense() -> None:
    done = subprocess.run([sys.executable, EXAMPLES / "own_defense.py"], capture_output=True, text=True, check=True)
    left = {name: float(share) for name, share in re.findall(r"^([\w-]+): ([\d.]+)%", done.stdout, re.MULTILINE)}
    assert left["clean"] > 90
    assert left["plain"] > 80
    assert left["bpda"] < 5
    assert left["inline"] < 5

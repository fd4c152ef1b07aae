"""The pages of a run in a real browser: nothing is reported to its console, and nothing is wider than the window."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest

from tests.browser import BROWSER, QUIET
from tests.commands import unmask

MEASURE = "<script>parent.postMessage([document.documentElement.scrollWidth, innerWidth].join(' of '), '*')</script>"
FRAME = """<title>not measured</title>
<script>onmessage = message => document.title = message.data</script>
<iframe src="{name}" width="{width}" height="2000" style="border: 0"></iframe>"""  # a window is 500 wide at least

pytestmark = pytest.mark.skipif(BROWSER is None, reason="no Chromium")


@pytest.fixture(scope="module")
def pages(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("runs")
    few = ["--n", "10", "--out"]
    assert unmask("reproduce", "--case", "thermometer-digits", *few, str(folder / "case")) == 0
    audit = ["audit", "case:thermometer-digits", "--data", "digits", "--eps", "0.15", "--budget", "quick"]
    assert unmask(*audit, *few, str(folder / "audit")) == 0
    return {name: folder / name / "report.html" for name in ("case", "audit")}


@pytest.mark.parametrize("name", ["case", "audit"])
@pytest.mark.parametrize("width", [1400, 420])
def test_a_report_fits_its_window(name: str, width: int, pages: dict[str, Path], tmp_path: Path) -> None:
    (tmp_path / "report.html").write_text(pages[name].read_text() + MEASURE)
    frame = tmp_path / "frame.html"
    frame.write_text(FRAME.format(name="report.html", width=width))
    command = [str(BROWSER), *QUIET, f"--user-data-dir={tmp_path / 'profile'}", "--enable-logging=stderr"]
    command += ["--window-size=1600,2400", "--virtual-time-budget=2000", "--dump-dom", frame.as_uri()]
    seen = subprocess.run(command, capture_output=True, text=True, timeout=120)
    measured = re.search(r"<title>(\d+) of (\d+)</title>", seen.stdout)
    assert measured, seen.stderr
    content, window = map(int, measured.groups())
    assert window == width
    assert content <= window
    assert "CONSOLE" not in seen.stderr

"""The pages of a run in a real browser: nothing is reported to its console, nothing is wider than the window, and
an accessibility checker finds nothing."""

from __future__ import annotations

import html
import json
import re
import subprocess
from pathlib import Path

import pytest

from tests.browser import AXE, BROWSER, QUIET
from tests.commands import unmask

MEASURE = "<script>parent.postMessage([document.documentElement.scrollWidth, innerWidth].join(' of '), '*')</script>"
FRAME = """<title>not measured</title>
<script>onmessage = message => document.title = message.data</script>
<iframe src="{name}" width="{width}" height="2000" style="border: 0"></iframe>"""  # a window is 500 wide at least

CHECK = """<script>%s</script><script>
addEventListener('load', () => axe.run(document, {resultTypes: ['violations']}).then(found => parent.postMessage(
  JSON.stringify(found.violations.map(one => [one.id, one.nodes.map(node => node.html.slice(0, 200))])), '*')))
</script>"""

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


@pytest.mark.skipif(AXE is None, reason="no axe-core: pip install axe-core-python")
@pytest.mark.parametrize("name", ["case", "audit"])
@pytest.mark.parametrize("width", [1400, 420])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_an_accessibility_checker_finds_nothing(
    name: str, width: int, scheme: str, pages: dict[str, Path], tmp_path: Path
) -> None:
    """With all that is folded open; the dark style is made the only one, since a window without a head is light."""
    assert AXE is not None
    page = pages[name].read_text().replace("<details>", "<details open>")
    if scheme == "dark":
        page = page.replace("(prefers-color-scheme: dark)", "all").replace('content="light dark"', 'content="dark"')
    (tmp_path / "report.html").write_text(page + CHECK % AXE.read_text(encoding="utf-8"))
    frame = tmp_path / "frame.html"
    frame.write_text(FRAME.format(name="report.html", width=width))
    command = [str(BROWSER), *QUIET, f"--user-data-dir={tmp_path / 'profile'}"]
    command += ["--window-size=1600,2400", "--virtual-time-budget=30000", "--dump-dom", frame.as_uri()]
    seen = subprocess.run(command, capture_output=True, text=True, timeout=300)
    checked = re.search(r"<title>(.*?)</title>", seen.stdout, re.DOTALL)
    assert checked, seen.stderr
    assert json.loads(html.unescape(checked[1])) == []

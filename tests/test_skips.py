"""What `make test` skipped, `make test-all` runs, and a new skip is a failure: the options of ``conftest.py``."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

CONFTEST = Path(__file__).with_name("conftest.py")


def run(folder: Path, option: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "pytest", "--disable-plugin-autoload", "-rs", option, "--rootdir", str(folder)]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=60)


def test_only_what_was_skipped_runs_and_may_be_skipped_for_an_accepted_reason_alone(tmp_path: Path) -> None:
    (tmp_path / "conftest.py").write_text(CONFTEST.read_text())
    source = "import pytest\ndef test_other(): pass\ndef test_gpu(): pytest.skip('no GPU')\n"
    source += "def test_library(): pytest.importorskip('absent')\n"
    (tmp_path / "test_some.py").write_text(source)
    (tmp_path / "test_whole.py").write_text("import pytest\npytest.importorskip('absent')\ndef test_inside(): pass")
    first = run(tmp_path, "--record-skips")
    assert first.returncode == 0
    assert "1 passed, 3 skipped" in first.stdout
    again = run(tmp_path, "--only-skipped")
    assert again.returncode == 1
    assert "3 skipped, 1 deselected" in again.stdout
    assert "not for an accepted reason: test_some.py::test_library: " in again.stdout
    assert "not for an accepted reason: test_whole.py: " in again.stdout
    assert "not for an accepted reason: test_some.py::test_gpu" not in again.stdout
    (tmp_path / "absent.py").touch()
    installed = run(tmp_path, "--only-skipped")
    assert installed.returncode == 0, installed.stdout
    assert "2 passed, 1 skipped, 1 deselected" in installed.stdout

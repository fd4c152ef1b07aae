"""A run that is stopped, at any moment, and started again ends with the records of one that was left alone."""

from __future__ import annotations

import contextlib
import io
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from unmask.cli import main
from unmask.evaluation.store import read_lines

# Kills itself within the call that brings the Nth write to the disk; of a record's line only a part is there.
KILLED = """
import os, signal, sys
real, count, last = os.fsync, 0, int(sys.argv.pop(1))
def fsync(handle):
    global count
    count += 1
    if count == last:
        path = os.readlink(f"/proc/self/fd/{handle}")
        if path.endswith("records.jsonl"):
            os.truncate(path, os.path.getsize(path) - 300)
        os.kill(os.getpid(), signal.SIGKILL)
    real(handle)
os.fsync = fsync
from unmask.cli import main
main()
"""

# Files that may not grow stand in for a full disk: the records of some jobs fit, then no more.
LIMITED = """
import resource
resource.setrlimit(resource.RLIMIT_FSIZE, (6_000, -1))
from unmask.cli import main
main()
"""


def arguments(out: Path) -> list[str]:
    cases = ["--case", "thermometer-digits", "--case", "randomization-digits"]
    return ["reproduce", *cases, "--no-sweep", "--n", "12", "--batch-size", "5", "--out", str(out)]


def start(*arguments: str, code: str | None = None) -> subprocess.Popen[str]:
    program = [sys.executable, *(["-m", "unmask.cli"] if code is None else ["-c", code]), *arguments]
    return subprocess.Popen(program, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)


def finish(*arguments: str) -> str:
    """To the end, in this process; what was printed."""
    printed = io.StringIO()
    with pytest.MonkeyPatch.context() as patch, contextlib.redirect_stdout(printed):
        patch.setattr(sys, "argv", ["unmask", *arguments])
        with pytest.raises(SystemExit) as end:
            main()
    assert end.value.code == 0
    return printed.getvalue()


def stop(process: subprocess.Popen[str], how: signal.Signals, out: Path, records: int) -> str:
    """Send a signal once there are so many records; what the process said."""
    path = out / "records.jsonl"
    while process.poll() is None and (not path.exists() or path.read_bytes().count(b"\n") < records):
        time.sleep(0.01)
    process.send_signal(how)
    return process.communicate()[1]


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("undisturbed") / "run"
    finish(*arguments(out))
    return out


def test_stopped_from_outside(tmp_path: Path, undisturbed: Path, results: Any) -> None:
    out = tmp_path / "run"
    process = start(*arguments(out))
    stop(process, signal.SIGKILL, out, 1)
    assert process.returncode == -signal.SIGKILL
    process = start(*arguments(out))
    said = stop(process, signal.SIGINT, out, 4)
    assert process.returncode == 130
    assert said.splitlines()[-1] == "unmask: interrupted; the same command again continues"
    assert "Traceback" not in said
    before = (out / "records.jsonl").read_bytes()
    finish(*arguments(out))
    assert (out / "records.jsonl").read_bytes().startswith(before)
    assert results(out) == results(undisturbed)


@pytest.mark.skipif(sys.platform != "linux", reason="asks /proc which file is written")
def test_stopped_within_writes(tmp_path: Path, undisturbed: Path, results: Any) -> None:
    """A new run brings run.json and its folder to the disk, then for each job its examples, their folder, its line."""
    out = tmp_path / "run"
    for write, left in ((6, "examples"), (3, "line")):
        process = start(str(write), *arguments(out), code=KILLED)
        said = process.communicate()[1]
        assert process.returncode == -signal.SIGKILL, said
        parts = [path.parent.name for path in out.rglob("*.part")]
        assert (parts == ["examples"]) == (left == "examples")
        assert (out / "records.jsonl").read_bytes().endswith(b"\n") == (left == "examples")
    process = start(*arguments(out), code=LIMITED)
    said = process.communicate()[1]
    assert process.returncode == 2
    assert said.splitlines()[-1] == "unmask: File too large: make room, then the same command again continues"
    assert "Traceback" not in said
    assert 0 < len(read_lines(out)) < 6
    finish(*arguments(out))
    assert results(out) == results(undisturbed)
    assert not list(out.rglob("*.part"))


def test_a_finished_run_is_only_rendered(undisturbed: Path) -> None:
    before = {path: path.stat().st_mtime_ns for path in undisturbed.rglob("*") if path.is_file()}
    finish(*arguments(undisturbed))
    after = {path: path.stat().st_mtime_ns for path in undisturbed.rglob("*") if path.is_file()}
    assert before.keys() == after.keys()
    changed = {path.name for path in before if before[path] != after[path]}
    assert changed == {"report.json", "report.md", "report.html"}


def test_a_fresh_process_verifies_it(undisturbed: Path) -> None:
    run = subprocess.run(
        [sys.executable, "-m", "unmask.cli", "verify", str(undisturbed)], capture_output=True, text=True
    )
    assert run.stdout == "6 records, 72 adversarial examples judged again: none failed.\n"
    assert (run.returncode, run.stderr) == (0, "")

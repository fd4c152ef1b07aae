"""A run that is killed, at any moment, and started again ends with the records of one that was left alone."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

CASES = ["--case", "thermometer-digits", "--case", "randomization-digits", "--no-sweep"]

# Kills itself within the call that brings the Nth write to the disk; of a line of records only the half is there.
SUICIDE = """
import os, signal, sys
real, count = os.fsync, 0
def fsync(handle):
    global count
    count += 1
    if count == int(sys.argv[1]):
        path = os.readlink(f"/proc/self/fd/{handle}")
        if path.endswith("records.jsonl"):
            os.truncate(path, os.path.getsize(path) - 300)
        os.kill(os.getpid(), signal.SIGKILL)
    real(handle)
os.fsync = fsync
del sys.argv[1]
from unmask.cli import main
main()
"""

LIMITED = """
import resource
resource.setrlimit(resource.RLIMIT_FSIZE, (12_000, -1))
from unmask.cli import main
main()
"""


def arguments(out: Path, n: int = 24) -> list[str]:
    return ["reproduce", *CASES, "--n", str(n), "--batch-size", "8", "--out", str(out)]


def start(*arguments: str, code: str | None = None) -> subprocess.Popen[str]:
    program = ["-m", "unmask.cli"] if code is None else ["-c", code]
    return subprocess.Popen(
        [sys.executable, *program, *arguments], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


def finish(*arguments: str) -> str:
    process = start(*arguments)
    out, err = process.communicate(timeout=120)
    assert process.returncode == 0, err
    return out + err


def wait_for_lines(process: subprocess.Popen[str], out: Path, lines: int) -> None:
    path = out / "records.jsonl"
    while process.poll() is None and (not path.exists() or path.read_bytes().count(b"\n") < lines):
        time.sleep(0.02)


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("undisturbed") / "run"
    finish(*arguments(out))
    return out


@pytest.fixture(autouse=True)
def one_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    """Many processes on a busy machine."""
    monkeypatch.setenv("OMP_NUM_THREADS", "1")


def test_killed_between_and_within_jobs(tmp_path: Path, undisturbed: Path, results: Any) -> None:
    out = tmp_path / "run"
    for lines in (1, 4):
        process = start(*arguments(out))
        wait_for_lines(process, out, lines)
        process.send_signal(signal.SIGKILL)
        process.communicate()
        assert process.returncode == -signal.SIGKILL
    before = (out / "records.jsonl").read_bytes()
    finish(*arguments(out))
    assert (out / "records.jsonl").read_bytes().startswith(before[: before.rfind(b"\n") + 1])
    assert results(out) == results(undisturbed)


# The 1st and 2nd bring run.json and its folder to the disk; then each job takes three: its examples, their
# folder, its line.
@pytest.mark.skipif(sys.platform != "linux", reason="asks /proc which file is written")
def test_killed_within_writes(tmp_path: Path, undisturbed: Path, results: Any) -> None:
    out = tmp_path / "run"
    for write in (1, 3, 5, 4):
        process = start(str(write), *arguments(out), code=SUICIDE)
        assert process.wait() == -signal.SIGKILL, process.communicate()[1]
    assert not (out / "records.jsonl").read_bytes().endswith(b"\n")
    finish(*arguments(out))
    assert results(out) == results(undisturbed)
    assert not list(out.rglob("*.part"))


def test_interrupted_by_the_user(tmp_path: Path, undisturbed: Path, results: Any) -> None:
    out = tmp_path / "run"
    process = start(*arguments(out))
    wait_for_lines(process, out, 2)
    process.send_signal(signal.SIGINT)
    err = process.communicate()[1]
    assert process.returncode == 130
    assert err.splitlines()[-1] == "unmask: interrupted; the same command again continues"
    assert "Traceback" not in err
    finish(*arguments(out))
    assert results(out) == results(undisturbed)


def test_a_finished_run_is_only_rendered_and_verifies(undisturbed: Path, results: Any) -> None:
    before = {path: path.stat().st_mtime_ns for path in undisturbed.rglob("*") if path.is_file()}
    (undisturbed / "report.json").unlink()
    finish(*arguments(undisturbed))
    after = {path: path.stat().st_mtime_ns for path in undisturbed.rglob("*") if path.is_file()}
    assert before.keys() == after.keys()
    changed = {path.name for path in before if before[path] != after[path]}
    assert changed == {"report.json", "report.md", "report.html"}
    assert "6 records, 144 adversarial examples judged again: none failed." in finish("verify", str(undisturbed))


def test_a_full_disk(tmp_path: Path, undisturbed: Path, results: Any) -> None:
    """A limit on the size of files stands in for one: the records of a few jobs fit, then no more."""
    out = tmp_path / "run"
    process = start(*arguments(out), code=LIMITED)
    err = process.communicate()[1]
    assert process.returncode == 2
    assert err.splitlines()[-1] == "unmask: File too large: make room, then the same command again continues"
    assert "Traceback" not in err
    assert 1 <= len((out / "records.jsonl").read_bytes().split(b"\n")) - 1 < 6
    finish(*arguments(out))
    assert results(out) == results(undisturbed)

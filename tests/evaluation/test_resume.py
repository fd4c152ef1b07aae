"""A run that is stopped, at any moment, and started again ends with the records of one that was left alone."""

from __future__ import annotations

import contextlib
import io
import os
import re
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.commands import unmask
from unmask.judging import Judge
from unmask.run_files import read_lines

FORKS = pytest.mark.skipif(sys.platform != "linux", reason="forks a process that has loaded torch")


def killed(last: int) -> Callable[[], None]:
    """Kills itself within the call that brings that write to the disk; of a record's line only a part is there."""
    real, count = os.fsync, 0

    def fsync(handle: int) -> None:
        nonlocal count
        count += 1
        if count == last:
            path = os.readlink(f"/proc/self/fd/{handle}")
            if path.endswith("records.jsonl"):
                os.truncate(path, os.path.getsize(path) - 300)
            os.kill(os.getpid(), signal.SIGKILL)
        real(handle)

    return lambda: setattr(os, "fsync", fsync)


def limited() -> None:
    """Files may not grow, which comes close to a full disk: the records of some jobs fit, then no more."""
    resource.setrlimit(resource.RLIMIT_FSIZE, (6_000, -1))


def slow() -> None:
    """Each question to the judge waits a moment, so that a signal arrives within a search however fast that is."""
    real = Judge.is_broken

    def is_broken(self: Judge, *asked: Any) -> Any:
        time.sleep(0.02)
        return real(self, *asked)

    Judge.is_broken = is_broken  # type: ignore[assignment, method-assign]


def arguments(out: Path) -> list[str]:
    cases = ["--case", "plain-digits", "--case", "thermometer-digits"]
    return ["reproduce", *cases, "--no-curves", "--n", "12", "--batch-size", "5", "--out", str(out)]


def here(*arguments: str) -> str:
    """To the end, in this process; what was printed."""
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        assert unmask(*arguments) == 0
    return printed.getvalue()


def stop(process: Any, how: signal.Signals, out: Path, records: int) -> int:
    """Send a signal once there are so many records; the exit code."""
    path = out / "records.jsonl"
    while process.is_alive() and (not path.exists() or path.read_bytes().count(b"\n") < records):
        time.sleep(0.01)
    os.kill(process.pid, how)
    process.join()
    return int(process.exitcode)


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("undisturbed") / "run"
    here(*arguments(out))
    return out


@FORKS
def test_stopped_from_outside(tmp_path: Path, undisturbed: Path, results: Any, start: Any) -> None:
    out, said = tmp_path / "run", tmp_path / "said"
    assert stop(start(*arguments(out), before=slow), signal.SIGKILL, out, 1) == -signal.SIGKILL
    assert stop(start(*arguments(out), before=slow), signal.SIGINT, out, 4) == 130
    assert said.read_text().splitlines()[-1] == "unmask: interrupted; the same command continues the run"
    assert "Traceback" not in said.read_text()
    before = (out / "records.jsonl").read_bytes()
    here(*arguments(out))
    assert (out / "records.jsonl").read_bytes().startswith(before)
    assert results(out) == results(undisturbed)


@FORKS
def test_stopped_within_writes(tmp_path: Path, undisturbed: Path, results: Any, finish: Any) -> None:
    """A new run brings run.json and its folder to the disk, then for each job its examples, their folder, its line."""
    out, said = tmp_path / "run", tmp_path / "said"
    for write, left in ((6, "examples"), (3, "line")):
        assert finish(*arguments(out), before=killed(write)) == -signal.SIGKILL, said.read_text()
        parts = [path.parent.name for path in out.rglob("*.part")]
        assert (parts == ["examples"]) == (left == "examples")
        assert (out / "records.jsonl").read_bytes().endswith(b"\n") == (left == "examples")
    assert finish(*arguments(out), before=limited) == 2
    assert said.read_text().splitlines()[-1] == (
        "unmask: File too large: free space, then the same command continues the run"
    )
    assert "Traceback" not in said.read_text()
    assert 0 < len(read_lines(out)) < 6
    here(*arguments(out))
    assert results(out) == results(undisturbed)
    assert not list(out.rglob("*.part"))


def test_a_finished_run_is_only_rendered(undisturbed: Path) -> None:
    before = {path: path.stat().st_mtime_ns for path in undisturbed.rglob("*") if path.is_file()}
    here(*arguments(undisturbed))
    after = {path: path.stat().st_mtime_ns for path in undisturbed.rglob("*") if path.is_file()}
    assert before.keys() == after.keys()
    changed = {path.name for path in before if before[path] != after[path]}
    assert changed == {"report.json", "report.md", "report.html"}


def test_a_fresh_process_verifies_it(undisturbed: Path) -> None:
    run = subprocess.run(
        [sys.executable, "-m", "unmask.cli", "verify", str(undisturbed)], capture_output=True, text=True
    )
    assert re.fullmatch(r"6 records, 72 adversarial examples judged again: all \d+ checks passed\.\n", run.stdout)
    assert run.returncode == 0
    assert all(re.fullmatch(r"load the model \(\d+ s\)", line) for line in run.stderr.splitlines())

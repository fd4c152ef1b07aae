"""However a model ends, and wherever output goes: one line, the right exit code, nothing lost."""

from __future__ import annotations

import contextlib
import os
import shlex
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.commands import unmask
from tests.models import MEANS
from unmask.evaluation.failures import alive, in_one_line

MODEL = (
    MEANS
    + """
import os, sys
BAD, AT = os.environ.get("BAD", ""), int(os.environ.get("AT", "0"))


class Ends(Means):
    calls = 0

    def forward(self, x):
        Ends.calls += 1
        if Ends.calls == AT:
            exec(BAD)
        return super().forward(x)

    def state_dict(self, *args, **kwargs):
        if BAD == "state":
            raise RuntimeError("weights are\\nconfidential")
        return super().state_dict(*args, **kwargs)


def build():
    return Ends().eval()
"""
)

BAD = [
    ("raise RuntimeError('out of tokens')", "RuntimeError"),
    ("sys.exit(0)", "SystemExit"),
    ("os._exit(0)", "os._exit(0)"),
    ("raise BaseException('odd')", "BaseException"),
    ("raise GeneratorExit('early')", "GeneratorExit"),
    ("raise type('Halt', (KeyboardInterrupt,), {})('stop')", "Halt"),
]


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell starts background jobs without
    (tmp_path / "ends.py").write_text(MODEL)
    return tmp_path


def attack(command: str = "attack") -> int:
    sizes = ("--steps", "3") if command == "attack" else ("--budget", "quick")
    return unmask(command, "ends.py:build", "--data", "digits", "--eps", "0.2", "--n", "12", *sizes, "--out", "run")


@pytest.fixture(scope="module")
def attacked(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the model and its finished run."""
    folder = tmp_path_factory.mktemp("attacked")
    (folder / "ends.py").write_text(MODEL)
    with contextlib.chdir(folder):
        assert attack() == 0
    return folder


def only_line(capsys: pytest.CaptureFixture[str]) -> str:
    captured = capsys.readouterr()
    (line,) = [line for line in captured.err.splitlines() if "examples; " not in line]
    assert line.startswith("unmask: ")
    assert captured.out == ""
    return line


@pytest.mark.parametrize(("bad", "told"), BAD)
@pytest.mark.parametrize("command", ["attack", "audit"])
def test_a_model_that_ends_or_raises_at_a_later_call(
    command: str, bad: str, told: str, folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("BAD", bad)
    monkeypatch.setenv("AT", "20")
    assert attack(command) == 2
    assert told in only_line(capsys)


@pytest.mark.parametrize("command", ["attack", "audit"])
def test_the_same_at_the_first_call_and_an_interrupt_of_the_user(
    command: str, folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("AT", "1")
    monkeypatch.setenv("BAD", "raise GeneratorExit('early')")
    assert attack(command) == 2
    assert "GeneratorExit" in only_line(capsys)
    for at in ("1", "20"):
        monkeypatch.setenv("AT", at)
        monkeypatch.setenv("BAD", "import signal; signal.raise_signal(signal.SIGINT)")
        assert attack(command) == 130
        assert only_line(capsys) == "unmask: interrupted; the same command continues the run"


@pytest.mark.parametrize(("bad", "told"), BAD)
def test_nothing_is_verified_where_the_model_ends(
    bad: str, told: str, attacked: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(attacked)
    capsys.readouterr()
    monkeypatch.setenv("BAD", bad)
    monkeypatch.setenv("AT", "3")
    assert unmask("verify", "run") == 2
    assert told in only_line(capsys)
    assert unmask("report", "run") == 0


def test_weights_that_cannot_be_had_are_told_by_every_command(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert attack() == 0
    capsys.readouterr()
    monkeypatch.setenv("BAD", "state")
    for arguments in (["verify", "run"], ["rerun", "run", "--out", "again"]):
        assert unmask(*arguments) == 2
        assert "RuntimeError" in only_line(capsys)
    assert attack() == 2
    assert "weights are" in only_line(capsys)


def test_jobs_that_were_done_stay_and_the_same_command_goes_on(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("BAD", "raise RuntimeError('out of tokens')")
    monkeypatch.setenv("AT", "22")
    assert attack() == 2
    done = (folder / "run" / "records.jsonl").read_bytes()
    assert done.count(b"\n") == 1
    monkeypatch.delenv("BAD")
    assert attack() == 0
    assert (folder / "run" / "records.jsonl").read_bytes().startswith(done)


def test_an_end_of_the_process_is_refused_in_it_and_left_to_its_children() -> None:
    end = os._exit
    with (
        pytest.raises(ValueError, match=r"the model fails with SystemExit at .*: os._exit\(0\)"),
        in_one_line("the model"),
    ):
        os._exit(0)
    assert os._exit is end
    with alive():
        child = os.fork()
        if not child:
            os._exit(7)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 7


def report(shell: str, **environment: str) -> subprocess.CompletedProcess[bytes]:
    command = f"{shlex.quote(sys.executable)} -m unmask.cli report run {shell}"
    return subprocess.run(["bash", "-c", command], capture_output=True, check=False, env={**os.environ, **environment})


def test_streams_that_are_closed_or_narrow_lose_nothing(folder: Path) -> None:
    assert attack() == 0
    whole = (folder / "run" / "report.html").read_bytes()
    for shell in (">&-", ">&- 2>&-", "2>&- | true; exit ${PIPESTATUS[0]}"):
        (folder / "run" / "report.html").unlink()
        ended = report(shell)
        assert (ended.returncode, ended.stderr) == (0, b"")
        assert (folder / "run" / "report.html").read_bytes() == whole
    ended = report("", PYTHONIOENCODING="ascii")
    assert ended.returncode == 0
    assert b"Linf 0.2 raw" in ended.stdout
    ended = report("", LC_ALL="C", PYTHONUTF8="0", PYTHONCOERCECLOCALE="0")
    assert ended.returncode == 0
    assert b"Linf 0.2 raw" in ended.stdout


def test_a_reader_that_goes_away_does_not_change_the_exit_code(folder: Path) -> None:
    assert attack() == 0
    options = "--data digits --eps 0.2 --n 12 --steps 3 --out run --fail-under 1.0"
    command = (
        f"{shlex.quote(sys.executable)} -m unmask.cli attack ends.py:build {options} | true; exit ${{PIPESTATUS[0]}}"
    )
    assert subprocess.run(["bash", "-c", command], capture_output=True, check=False).returncode == 1

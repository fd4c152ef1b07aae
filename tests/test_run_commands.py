"""The commands that check, compare and repeat runs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from tests.commands import unmask


def call(capsys: Any, *arguments: str) -> tuple[int, str, str]:
    code, said = unmask(*arguments), capsys.readouterr()
    return code, said.out, said.err


def test_a_run_repeats_itself_and_holds_against_the_original(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    run, again, other = (str(tmp_path / name) for name in ("run", "again", "other"))
    attack = ["attack", "case:plain-digits", "--data", "digits", "--n", "12", "--attack", "pgd", "--steps", "3"]
    assert call(capsys, *attack, "--eps", "0.05", "--out", run)[0] == 0
    threads = torch.get_num_threads()
    torch.set_num_threads(threads + 1)
    code, out, _ = call(capsys, "rerun", run, "--out", again, "--batch-size", "4")
    assert (code, out.splitlines()[-1]) == (0, "2 of 2 records are the same to the bit.")
    assert "other hardware" not in out  # as many threads as the run had,
    assert torch.get_num_threads() == threads + 1  # but only for the run
    torch.set_num_threads(threads)
    code, out, _ = call(capsys, "verify", again, "--against", run)
    assert code == 0
    assert out.count("0 of 12 examples differ") == 2
    code, _, err = call(capsys, "rerun", run, "--out", run)
    assert (code, "is the run itself" in err) == (2, True)
    assert call(capsys, *attack, "--eps", "0.2", "--out", other)[0] == 0
    code, _, err = call(capsys, "compare", run, other)
    assert (code, "run both on the same" in err) == (2, True)
    code, out, _ = call(capsys, "compare", run, again)
    assert [line.split(":")[0] for line in out.splitlines()] == ["first", "clean", "plain"]


def test_a_class_that_an_attack_took_for_a_wrong_answer_is_one_when_judged_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    path, out = tmp_path / "model.py", str(tmp_path / "run")
    path.write_text("""
from benchmarks.zoo import ZOO
from unmask.cases import find_case

def build():
    return ZOO["RefusingClass"].build(find_case("plain-digits").load()).eval()
""")
    attack = ["attack", f"{path}:build", "--data", "digits", "--n", "8", "--steps", "3", "--eps", "0.05"]
    assert call(capsys, *attack, "--out", out)[0] == 0
    code, said, _ = call(capsys, "verify", out)
    assert (code, said) == (0, "2 records, 16 adversarial examples judged again: all 9 checks passed.\n")


def test_size(monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    code, out, _ = call(capsys, "sample-size", "--accuracy", "0.05", "--width", "0.02")
    assert (code, out.splitlines()[0]) == (0, "--n 1927")
    code, _, err = call(capsys, "sample-size", "--accuracy", "5", "--width", "0.02")
    assert (code, err.count("\n")) == (2, 1)

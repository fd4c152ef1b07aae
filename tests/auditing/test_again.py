"""What was audited can be judged again and done again, here or on a cluster, refusals and all."""

from __future__ import annotations

import logging
import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from tests.commands import unmask
from unmask.attacks.combined import time_limited
from unmask.auditing.budgets import BUDGETS

MODELS = """
import torch
from torch import nn
from benchmarks.zoo import ZOO
from unmask.cases import find_case

refusing = lambda: ZOO["RefusingClass"].build(find_case("plain-digits").load()).eval()
rounded = lambda: nn.Sequential(Round(), find_case("plain-digits").load())

class Round(nn.Module):
    def forward(self, x):
        return torch.round(16 * x) / 16
"""


@pytest.fixture
def models(tmp_path: Path) -> str:
    path = tmp_path / "models.py"
    path.write_text(MODELS)
    return str(path)


@pytest.fixture(scope="module")
def cluster() -> Iterator[None]:
    ray = pytest.importorskip("ray")
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # as workers have
    ray.init(num_cpus=1, include_dashboard=False, log_to_driver=False, logging_level=logging.ERROR)
    yield
    ray.shutdown()
    torch.set_num_threads(threads)


@pytest.mark.filterwarnings("ignore")  # ray's own affairs
@pytest.mark.parametrize("refuse", [["--reject-class", "-1"], []])
def test_an_audit_on_a_cluster_is_that_of_this_process(
    cluster: None, tmp_path: Path, models: str, refuse: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    """Whether the last class is a refusal changes every verdict on a broken example, and no record says it."""
    here, there = str(tmp_path / "here"), str(tmp_path / "there")
    audit = ["audit", f"{models}:refusing", "--data", "digits", "--eps", "0.15", "--n", "6", "--budget", "quick"]
    assert unmask(*audit, *refuse, "--out", here) == 0
    assert unmask("verify", here) == 0
    capsys.readouterr()
    assert unmask("rerun", here, "--out", there, "--executor", "ray", "--ray-workers", "1") == 0
    assert capsys.readouterr().out.splitlines()[-1] == "15 of 15 records are the same to the bit."
    assert unmask("verify", there, "--against", here) == 0


def test_an_audit_by_the_clock_may_leave_something_else(
    tmp_path: Path, models: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    run, again = str(tmp_path / "run"), str(tmp_path / "again")
    audit = ["audit", f"{models}:rounded", "--data", "digits", "--eps", "0.15", "--n", "4", "--budget", "0.1s"]
    monkeypatch.setitem(BUDGETS, "standard", replace(BUDGETS["standard"], steps=20, queries=50, copy=10))
    with pytest.MonkeyPatch.context() as slow:  # a machine that gets nowhere
        slow.setattr(time_limited, "worst", lambda problem, *rest: problem.x)
        assert unmask(*audit, "--out", run) == 0
    assert unmask("verify", run) == 0
    capsys.readouterr()
    assert unmask("rerun", run, "--out", again) == 0
    *lines, why = capsys.readouterr().out.splitlines()
    (pairs,) = (lines[at + 1 :] for at, line in enumerate(lines) if line.endswith("records are the same to the bit."))
    assert [re.search(r", ([\w -]+) at 0\.15 raw: ", pair)[1] for pair in pairs] == [  # type: ignore[index]
        "adaptive",
        "black-box",
        "doubled steps",
    ]
    assert why == (
        "adaptive: its budget was in seconds, so its result depends on the machine, and so do those of the attacks on "
        "what it leaves: black-box, doubled steps."
    )

"""Jobs are done once, by whichever executor, in whichever order."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import pytest

from unmask.evaluation.execute import Outcome, Task
from unmask.evaluation.execution_config import ExecutionConfig
from unmask.evaluation.runner import LocalExecutor, run
from unmask.evaluation.store import Store
from unmask.records import Job, ThreatSpec


@dataclass
class Elsewhere:
    """As a cluster would: jobs cross a wire, each to a worker of its own, and come back in another order."""

    sent: list[str] = field(default_factory=list)
    fails_after: int = 1000

    def map(self, jobs: Iterable[Job], task: Callable[[Job], Task] = Task) -> Iterator[Outcome]:
        wire = [json.dumps(asdict(job)) for job in jobs]
        for line in reversed(wire):
            if len(self.sent) == self.fails_after:
                raise KeyboardInterrupt
            self.sent.append(line)
            raw = json.loads(line)
            yield LocalExecutor(ExecutionConfig(5)).execute(Task(Job(**{**raw, "threat": ThreatSpec(**raw["threat"])})))


def carry_on(folder: Path, plan: Any, executor: Any) -> list[tuple[str, bool]]:
    seen: list[tuple[str, bool]] = []
    with Store.open(folder, {}, {}, plan.jobs) as store:
        run(plan.jobs, store, executor, lambda record, stored: seen.append((record.job.key, stored)))
    return seen


def test_another_executor_gives_the_same_records(
    tmp_path: Path, plan: Callable[..., Any], done: Callable[..., Any], results: Any
) -> None:
    asked = plan("noisy", 9, eot=2)
    carry_on(tmp_path / "elsewhere", asked, Elsewhere())
    assert results(tmp_path / "elsewhere") == results(done(asked))


def test_what_is_done_is_not_done_again(tmp_path: Path, plan: Callable[..., Any], results: Any) -> None:
    asked = plan("linear", 5)
    interrupted = Elsewhere(fails_after=1)
    with pytest.raises(KeyboardInterrupt):
        carry_on(tmp_path, asked, interrupted)
    first, second = (job.key for job in asked.jobs)
    rest = Elsewhere()
    assert carry_on(tmp_path, asked, rest) == [(second, True), (first, False)]
    assert (len(interrupted.sent), len(rest.sent)) == (1, 1)
    nothing = Elsewhere()
    assert carry_on(tmp_path, asked, nothing) == [(first, True), (second, True)]
    assert nothing.sent == []
    assert results(tmp_path).keys() == {first, second}


def test_a_random_model_is_continued_with_the_draws_that_it_would_have_had(
    tmp_path: Path, plan: Callable[..., Any], done: Callable[..., Any], results: Any
) -> None:
    asked = plan("noisy", 9, eot=2)
    with pytest.raises(KeyboardInterrupt):
        carry_on(tmp_path / "stopped", asked, Elsewhere(fails_after=1))
    assert len(results(tmp_path / "stopped")) == 1
    carry_on(tmp_path / "stopped", asked, LocalExecutor())
    assert results(tmp_path / "stopped") == results(done(asked))


def test_what_a_model_raises_under_attack_names_target_and_place(tmp_path: Path, plan: Callable[..., Any]) -> None:
    path = tmp_path / "fragile.py"
    path.write_text(
        "import torch\nfrom torch import nn\n"
        "class M(nn.Module):\n    def forward(self, x):\n"
        "        if x.requires_grad and len(x.unique(dim=0)) < len(x):\n            raise KeyError('filled up')\n"
        "        return x.flatten(1)[:, :10] * 0 + 2 * torch.eye(10)[0]\n"
        "def build(): return M().eval()\n"
    )
    asked = plan(f"{path}:build", 20)
    with pytest.raises(
        ValueError, match=r"fragile\.py:build under apgd fails with KeyError at fragile\.py:6"
    ) as caught:
        carry_on(tmp_path / "run", asked, LocalExecutor())
    assert "\n" not in str(caught.value)
    with Store.open(tmp_path / "run", {}, {}, asked.jobs) as store:
        assert [record.job.role for record in store.records()] == ["clean"]


@pytest.mark.parametrize("device", ["meta", "bogus", "cuda:99"])
def test_a_device_that_cannot_be_used(device: str) -> None:
    with pytest.raises(ValueError, match=f"device '{device}' is not usable .*: try --device cpu"):
        LocalExecutor(ExecutionConfig(device=device))


def test_all_examples_where_there_are_fewer_than_asked_for() -> None:
    local = LocalExecutor()
    assert len(local.dataset("digits", 7)) == 7
    assert len(local.dataset("digits", 10**6)) == len(LocalExecutor().dataset("digits", 10**5))
    with pytest.raises(ValueError, match="there is no data set, folder or file 'nope'"):
        local.dataset("nope", 7)

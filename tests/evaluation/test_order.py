"""An attack that comes after others attacks what they leave, and keeps their candidates for the rest."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from unmask.attacks.problem import Problem
from unmask.cases import AttackSpec
from unmask.data import Dataset
from unmask.errors import UnmaskError
from unmask.evaluation.execute import Outcome, Task
from unmask.evaluation.execution_config import ExecutionConfig
from unmask.evaluation.models.targets import Target
from unmask.evaluation.plan import Plan
from unmask.evaluation.runner import LocalExecutor, run
from unmask.evaluation.store import Store
from unmask.evaluation.verifying.attack_again import Sample, attack_again
from unmask.kinds import Role
from unmask.records import Job, Record, ThreatSpec
from unmask.report.run_folder import RunFolder
from unmask.report.verdict.indicators import _asked

N, EPS = 20, 0.25


class FirstPixel(nn.Module):
    """Class 1 where the first pixel is above 0.5."""

    def forward(self, x: Tensor) -> Tensor:
        pixel = x.flatten(1)[:, 0]
        return torch.stack([0.5 - pixel, pixel - 0.5], 1)


DATA = Dataset(
    "pixels",
    torch.full((N, 1, 2, 2), 0.6) + torch.linspace(0, 0.3, N).view(-1, 1, 1, 1),
    torch.ones(N, dtype=torch.int64),
    ("dark", "bright"),
    "grey images",
)


@dataclass(frozen=True)
class Down:
    """Takes ``by`` from every pixel, and notes how many images it got."""

    by: float
    asked: list[int] = field(default_factory=list, compare=False)

    def __call__(self, problem: Problem) -> Tensor:
        self.asked.append(len(problem.x))
        return problem.x - self.by


def armed(weak: Down, strong: Down) -> Target:
    attacks = {
        "weak": AttackSpec("a step of 0.15", lambda _: weak),
        "strong": AttackSpec("a step of 0.25", lambda _: strong, after=("weak",)),
    }
    return Target(FirstPixel().eval(), attacks=attacks)


def job(attack: str, start: int, stop: int, role: Role = Role.ADAPTIVE, **options: Any) -> Job:
    return Job("pixel", "pixels", attack, ThreatSpec("linf", EPS), 0, start, stop, role, options)


def plan() -> Plan:
    """The later attack last, as plans name attacks."""
    blocks = ((0, 12), (12, N))
    clean = [job("clean", *block, role=Role.CLEAN) for block in blocks]
    weak, strong = ([job(name, *block, **more) for block in blocks] for name, more in _ATTACKS.items())
    return Plan((*clean, *weak, *strong), {})


_ATTACKS: dict[str, dict[str, Any]] = {"weak": {}, "strong": {"after": ["weak"]}}


def done(folder: Path, executor: Any) -> list[Record]:
    asked = plan()
    with Store.open(folder, {}, {}, asked.jobs) as store:
        run(asked.jobs, store, executor, lambda record, stored: None)
        return store.records()


def local(weak: Down, strong: Down, batch: int = 128) -> LocalExecutor:
    made = LocalExecutor(ExecutionConfig(batch))
    made.use("pixel", armed(weak, strong), DATA)
    return made


def of(records: Iterable[Record], attack: str) -> list[Any]:
    return [e for r in sorted(records, key=lambda r: r.job.start) if r.job.attack == attack for e in r.examples]


def test_it_attacks_what_is_left_and_keeps_the_rest(tmp_path: Path) -> None:
    """A pixel below 0.65 falls to the step of 0.15, one below 0.75 to that of 0.25."""
    weak, strong = Down(0.15), Down(0.25)
    records = done(tmp_path, local(weak, strong))
    pixels = DATA.images.flatten(1)[:, 0]
    left = pixels - 0.15 > 0.5
    assert 0 < int(left.sum()) < N
    assert [e.robust == 1 for e in of(records, "weak")] == left.tolist()
    assert [e.robust == 1 for e in of(records, "strong")] == (pixels - 0.25 > 0.5).tolist()
    assert (sum(weak.asked), sum(strong.asked)) == (N, int(left.sum()))
    distances = [e.distance for e in of(records, "strong")]
    assert distances == pytest.approx([0.25 if one else 0.15 for one in left])
    assert [e.index for e in of(records, "strong")] == [*range(N)]


def test_records_do_not_depend_on_the_batch_size(tmp_path: Path) -> None:
    whole, parts = (done(tmp_path / str(b), local(Down(0.15), Down(0.25), b)) for b in (128, 3))
    assert of(whole, "strong") == of(parts, "strong")


@dataclass
class Backwards:
    """Does the jobs of each group in the opposite order."""

    within: LocalExecutor

    def map(self, jobs: Iterable[Job], task: Callable[[Job], Task] = Task) -> Iterator[Outcome]:
        return self.within.map(reversed([*jobs]), task)


def test_any_executor_gives_the_same_records(tmp_path: Path) -> None:
    one = done(tmp_path / "one", local(Down(0.15), Down(0.25)))
    other = done(tmp_path / "other", Backwards(local(Down(0.15), Down(0.25))))
    assert of(one, "strong") == of(other, "strong")


def test_a_resumed_run_attacks_the_same_examples(tmp_path: Path) -> None:
    weak, strong = Down(0.15), Down(0.25)
    records = done(tmp_path, local(weak, strong))
    lines = (tmp_path / "records.jsonl").read_bytes().splitlines(keepends=True)
    (tmp_path / "records.jsonl").write_bytes(b"".join(line for line in lines if b'"strong"' not in line))
    again = Down(0.25)
    assert of(done(tmp_path, local(weak, again)), "strong") == of(records, "strong")
    assert sum(again.asked) == sum(strong.asked)


def test_a_missing_file_of_the_attack_before_it_is_named(tmp_path: Path) -> None:
    done(tmp_path, local(Down(0.15), Down(0.25)))
    lines = (tmp_path / "records.jsonl").read_bytes().splitlines(keepends=True)
    (tmp_path / "records.jsonl").write_bytes(b"".join(line for line in lines if b'"strong"' not in line))
    for one in (tmp_path / "examples").iterdir():
        one.write_bytes(b"")
    with pytest.raises(UnmaskError, match="cannot be read"):
        done(tmp_path, local(Down(0.15), Down(0.25)))


def test_the_attack_is_repeated_on_what_it_attacked(tmp_path: Path) -> None:
    executor = local(Down(0.15), Down(0.25))
    records = done(tmp_path, executor)
    strong = Down(0.25)
    executor.use("pixel", armed(Down(0.15), strong), DATA)
    ours = [c for c in attack_again(records, executor, Sample(N, 0)) if "strong" in c.record]
    assert [c.problem for c in ours] == [None]
    assert sum(strong.asked) == ours[0].attacked == int((DATA.images[:, 0, 0, 0] - 0.15 > 0.5).sum())


def test_a_weaker_attack_than_the_planned_one_is_found(tmp_path: Path) -> None:
    records = done(tmp_path, local(Down(0.15), Down(0.2)))
    honest = local(Down(0.15), Down(0.25))
    (problem,) = (c.problem for c in attack_again(records, honest, Sample(N, 0)) if "strong" in c.record)
    assert "that the run says are robust" in str(problem)


def test_indicators_compare_on_the_examples_that_it_attacked(tmp_path: Path) -> None:
    records = done(tmp_path, local(Down(0.15), Down(0.25)))
    verdicts = {name: {e.index: e for e in of(records, name)} for name in ("weak", "strong")}
    case: Any = type("Case", (), {"case": "pixel", "attacks": {"weak": "", "strong": ""}})
    found = _asked(RunFolder(tmp_path, {}, (), tuple(records)), case, "strong", verdicts)
    assert [*found] == [e.index for e in of(records, "weak") if e.robust]


def test_a_job_names_the_attacks_before_it() -> None:
    with pytest.raises(UnmaskError, match="a job after 'weak'"):
        Job.of({**replace(job("strong", 0, 1, after="weak")).__dict__, "threat": {"norm": "linf", "eps": 0.1}})

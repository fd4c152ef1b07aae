"""Rules of a check that no edit of a short run reaches; each test makes up the values that it needs."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file
from torch import Tensor

from unmask.cases import ImageProbe
from unmask.evaluation.plan import Plan, shards
from unmask.evaluation.runner import LocalExecutor
from unmask.evaluation.store import pack
from unmask.evaluation.verifying import attack_again as anew
from unmask.evaluation.verifying.attack_again import Sample, attack_again
from unmask.evaluation.verifying.beside import untouched
from unmask.evaluation.verifying.check import Check
from unmask.evaluation.verifying.planned_jobs import hold_against_question
from unmask.evaluation.verifying.recheck import recheck
from unmask.kinds import Role
from unmask.records import Example, GradientCounts, Job, Record, ThreatSpec
from unmask.run_files import RunFile, read_records

BALL = ThreatSpec("linf", 0.1)
OPTIONS = {"budget": "quick"}
DIGITS = 500
"""Test images of the data set."""


def job(attack: str, role: str, start: int, stop: int) -> Job:
    return Job("case:plain-digits", "digits", attack, BALL, 0, start, stop, Role(role), OPTIONS)


def question(most: int, jobs: Sequence[Job], **case: Any) -> RunFile:
    asked = {"target": "case:plain-digits", "data": "digits", "n": most, "seed": 0, "threat": asdict(BALL)}
    told = {"case": "case:plain-digits", "data": "digits", "n": min(most, DIGITS), "threat": asdict(BALL)}
    cases = ({**told, "attacks": {"apgd": ""}, **case},)
    return RunFile({**asked, "options": OPTIONS}, cases, tuple(jobs), {}, {}, None)


def problem_of(run: RunFile) -> str | None:
    (check,) = hold_against_question(run, LocalExecutor())
    return check.problem


def planned(n: int) -> list[Job]:
    return [job(*kind, *block) for kind in (("clean", "clean"), ("apgd", "adaptive")) for block in shards(n)]


def test_a_question_for_more_images_than_there_are_is_about_all_of_them() -> None:
    assert problem_of(question(10**6, planned(DIGITS))) is None
    assert problem_of(question(10**6, planned(DIGITS - 1))) == (
        "differs from the configuration: the jobs of clean, the jobs of apgd"
    )


def test_a_control_by_the_same_attack_has_a_range_of_its_own() -> None:
    assert problem_of(question(130, [*planned(130), job("apgd", "control", 0, 12)])) is None


@pytest.mark.parametrize(
    ("name", "value"),
    [("case", "case:madry-digits"), ("data", "mnist"), ("n", 129), ("threat", asdict(BALL) | {"eps": 0.2})],
)
def test_a_case_that_says_other_than_was_asked(name: str, value: Any) -> None:
    assert problem_of(question(130, planned(130), **{name: value})) == f"differs from the configuration: {name}"


@pytest.mark.parametrize(
    "edit",
    [
        {"target": "case:madry-digits"},
        {"data": "mnist"},
        {"seed": 1},
        {"threat": ThreatSpec("linf", 0.05)},
        {"options": {"budget": "full"}},
        {"role": "control"},
        {"stop": 129},
    ],
)
def test_a_job_that_does_other_than_was_asked(edit: dict[str, Any]) -> None:
    *others, last = planned(130)
    found = problem_of(question(130, [*others, replace(last, **edit)]))
    assert found == "differs from the configuration: the jobs of apgd"


@pytest.mark.parametrize("name", ["target", "data", "n", "seed", "threat", "options"])
def test_a_question_with_a_part_missing(name: str) -> None:
    run = question(12, planned(12))
    asked = {key: value for key, value in run.config.items() if key != name}
    with pytest.raises(ValueError, match=f"configuration in run.json is incomplete: {name} is missing"):
        problem_of(replace(run, config=asked))


def example(index: int, robust: float) -> Example:
    return Example(index, 0, 0, robust, robust == 1, robust == 1, robust, 0.1)


def record(job: Job, robust: float = 0.5, gradients: GradientCounts | None = None) -> Record:
    examples = tuple(example(index, robust) for index in range(job.start, job.stop))
    return Record(job, examples, 1, 0, 0, 0, 0.0, gradients=gradients)


@pytest.fixture
def attacks(monkeypatch: pytest.MonkeyPatch) -> Callable[..., list[tuple[Job, list[int]]]]:
    """Has each attack anew leave ``robust`` and count ``gradients``; gives the list of what was attacked."""

    def leave(robust: float, gradients: GradientCounts | None = None) -> list[tuple[Job, list[int]]]:
        seen: list[tuple[Job, list[int]]] = []

        def attacked(job: Job, target: Any, data: Any, index: Tensor, *_: Any) -> Any:
            seen.append((job, index.tolist()))
            return tuple(example(int(i), robust) for i in index), gradients

        monkeypatch.setattr(anew, "attacked", attacked)
        return seen

    return leave


def again(records: Sequence[Record], sample: Sample) -> list[Check]:
    return [*attack_again(records, LocalExecutor(), sample)]


def test_the_blocks_of_an_attack_are_one_and_clean_images_are_not_attacked(attacks: Any) -> None:
    seen = attacks(0.5)
    clean_strength = replace(job("clean", "strength", 0, 6), options={"base": "clean"})
    records = [record(one) for one in (job("clean", "clean", 0, 6), clean_strength)]
    records += [record(job("apgd", "adaptive", *block)) for block in ((6, 12), (0, 6))]
    (check,) = again(records, Sample(12, 0))
    assert [(one.attack, one.start, one.stop, index) for one, index in seen] == [("apgd", 0, 12, [*range(12)])]
    assert (check.attacked, check.examples, check.problem) == (12, 0, None)
    assert check.record == (
        "case:plain-digits apgd 0-12 at linf 0.1 raw, attacked again on 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11"
    )


def test_attacks_on_a_budget_in_seconds_are_left_out_and_controls_are_not(attacks: Any) -> None:
    seen = attacks(0.5)
    kinds = (("timed", "adaptive"), ("timed", "control"), ("apgd", "adaptive"))
    assert len(again([record(job(*kind, 0, 6)) for kind in kinds], Sample(2, 0, ("timed",)))) == 2
    assert [(one.attack, one.role) for one, _ in seen] == [("timed", "control"), ("apgd", "adaptive")]


@pytest.mark.parametrize(
    ("robust", "problem"),
    [(0.25, "2 of 2 are broken that the run says are robust, first example 3"), (0.5, None), (0.75, None)],
)
def test_an_example_must_not_be_broken_in_more_draws_than_the_run_says(
    attacks: Any, robust: float, problem: str | None
) -> None:
    attacks(robust)
    (check,) = again([record(job("apgd", "adaptive", 3, 5), 0.5)], Sample(2, 0))
    assert check.problem == problem


@pytest.mark.parametrize("name", ["examples", "none", "not_finite"])
def test_some_examples_must_not_count_more_gradients_than_all(attacks: Any, name: str) -> None:
    parts = [GradientCounts(3, 3, 3), None, GradientCounts(2, 2, 2)]
    records = [record(job("apgd", "adaptive", 4 * i, 4 * i + 4), gradients=counts) for i, counts in enumerate(parts)]
    for most, problem in ((5, None), (6, f"6 of them count under gradients.{name}, of the whole run only 5")):
        attacks(0.5, replace(GradientCounts(5, 5, 5), **{name: most}))
        (check,) = again(records, Sample(3, 0))
        assert check.problem == problem
    attacks(0.5, None)
    assert again(records, Sample(3, 0))[0].problem is None


@pytest.mark.parametrize(("by", "fails"), [(1e-5, False), (0.1, True)])
@pytest.mark.parametrize("name", ["seen", "measured"])
def test_what_a_lens_shows_may_differ_as_hardware_rounds(
    plan: Callable[..., Plan], tmp_path: Path, done: Callable[..., Path], name: str, by: float, fails: bool
) -> None:
    asked = plan("rounded", 3, steps=1)
    local = LocalExecutor()
    (target_name,) = {job.target for job in asked.jobs}
    data = local.dataset("digits", 3)
    target = local.target(target_name, data)
    local.use(
        target_name, replace(target, image_probe=ImageProbe("before", "mean", lambda _, x: x.flatten(1).mean(1))), data
    )
    folder = done(asked, local)
    one = next(one for one in read_records(folder) if not untouched(one.job))
    assert recheck(folder, one, local) is None
    tensors = load_file(folder / str(one.file))
    raw = pack({**tensors, name: tensors[name] + by})
    (folder / str(one.file)).write_bytes(raw)
    problem = recheck(folder, replace(one, sha256=hashlib.sha256(raw).hexdigest()), local)
    assert problem == (f"not what belongs to these examples: {name}" if fails else None)

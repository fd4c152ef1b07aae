"""Which jobs a case is made of, in which order, and what a report is told of it."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict, replace
from itertools import groupby
from typing import Any

import pytest
import torch

from unmask.cases import CASES, StrengthSweep, find_case
from unmask.data import load
from unmask.evaluation.models.targets import Target
from unmask.evaluation.plan import plan_attack, plan_case
from unmask.records import Job
from unmask.threats import Linf, parse

DIGITS = load("digits")


def examples(jobs: Any) -> list[int]:
    return [index for job in jobs for index in range(job.start, job.stop)]


def test_order_and_ranges() -> None:
    plan = plan_case(find_case("thermometer-digits"), DIGITS, 300, 5)
    groups = [
        (attack, role, eps, options, examples(jobs))
        for (attack, role, eps, options), jobs in groupby(
            plan.jobs, lambda j: (j.attack, j.role, j.threat.eps, dict(j.options))
        )
    ]
    everything, few = list(range(300)), list(range(64))
    assert groups == [
        ("clean", "clean", 0.15, {}, everything),
        ("plain", "plain", 0.15, {}, everything),
        ("bpda", "adaptive", 0.15, {}, everything),
        ("noise", "control", 0.15, {}, few),
        ("plain", "control", 0.0, {"control": "eps 0"}, few),
        ("bpda", "control", 1.0, {"control": "unbounded"}, few),
        *(
            (attack, "eps", 0.15 * share, {"base": base}, few)
            for share in (0.25, 0.5, 0.75, 1.5)
            for attack, base in (("plain", "plain"), ("bpda", "adaptive"))
        ),
    ]
    assert {job.seed for job in plan.jobs} == {5}
    assert [job.stop - job.start for job in plan.jobs[:3]] == [128, 128, 44]


def test_the_curves_are_those_of_an_attack_that_has_the_whole_model() -> None:
    case = find_case("feature-distillation-cifar10")
    assert list(case.attacks)[-1] == "hop-skip-jump"
    plan = plan_case(replace(case, strength_sweep=None), DIGITS, 10, 0)
    few = {job.attack for job in plan.jobs if job.role in ("eps", "control")}
    assert few == {"noise", "plain", "reparameterization"}


def test_clean_plain_and_adaptive_accuracy_at_each_strength() -> None:
    sweep = StrengthSweep("steps", 2.0, (1.0, 2.0), lambda model, value: model, "bpda")
    case = replace(find_case("thermometer-digits"), strength_sweep=sweep)
    plan = plan_case(case, DIGITS, 300, 0)
    assert [(j.attack, j.options, j.stop) for j in plan.jobs if j.role == "strength"] == [
        (attack, {"base": base, "strength": value}, 64)
        for value in (1.0, 2.0)
        for base, attack in (("clean", "clean"), ("plain", "plain"), ("adaptive", "bpda"))
    ]
    assert plan.case_info["strength_sweep"] == {"varied": "steps", "own": 2.0}
    assert not any(job.role == "strength" for job in plan_case(case, DIGITS, 300, 0, curves=False).jobs)


def test_without_sweep_only_the_table_is_left() -> None:
    plan = plan_case(find_case("thermometer-digits"), DIGITS, 10, 0, curves=False)
    assert [job.role for job in plan.jobs] == ["clean", "plain", "adaptive"]


@pytest.mark.parametrize(("n", "most", "expected"), [(200, 50, 50), (20, 50, 20), (10_000, None, len(DIGITS))])
def test_a_slow_case_takes_fewer_examples_and_says_so(n: int, most: int | None, expected: int) -> None:
    plan = plan_case(replace(find_case("plain-digits"), max_examples=most), DIGITS, n, 0)
    assert examples(job for job in plan.jobs if job.role == "adaptive") == list(range(expected))
    assert max(examples(plan.jobs)) == expected - 1
    assert plan.case_info["n"] == expected


@pytest.mark.parametrize("name", [name for name in CASES if name.endswith("-digits")])
def test_jobs_are_plain_data_with_keys_of_their_own(name: str) -> None:
    plan = plan_case(find_case(name), DIGITS, 200, 0)
    assert len({job.key for job in plan.jobs}) == len(plan.jobs)
    for job in plan.jobs:
        raw = json.loads(json.dumps(asdict(job), allow_nan=False))
        assert Job(**{**raw, "threat": job.threat}).key == job.key
        parse(job.threat.norm, job.threat.eps, job.threat.unit)
    assert json.loads(json.dumps(plan.case_info, allow_nan=False))["case"] == name


@pytest.mark.parametrize("name", ["plain-digits", "defense-gan-mnist"])
def test_the_unbounded_control_holds_the_whole_box(name: str) -> None:
    (job,) = (j for j in plan_case(find_case(name), DIGITS, 1, 0).jobs if j.options.get("control") == "unbounded")
    ball = parse(job.threat.norm, job.threat.eps, job.threat.unit)
    black, white = torch.zeros(1, 3, 8, 8), torch.ones(1, 3, 8, 8)
    assert torch.equal(ball.project(white, black), white)


def test_an_attack_on_any_target(plan: Callable[..., Any], models: Any) -> None:
    found = plan("noisy", 5, attack="pgd")
    clean, attack = found.jobs
    assert (clean.role, attack.role, attack.attack, attack.options["steps"]) == ("clean", "plain", "pgd", 8)
    assert found.case_info["random"]
    assert found.case_info["attacks"].keys() == {"pgd"}
    assert plan("linear", 5, bpda=["part"]).jobs[1].role == "adaptive"
    assert not plan("linear", 5).case_info["random"]


def test_a_part_that_is_not_there_is_found_before_anything_is_done() -> None:
    settings = {"attack": "pgd", "steps": 1, "restarts": 1, "bpda": ["nope"]}
    target = Target(torch.nn.Sequential(torch.nn.Flatten()))
    with pytest.raises(ValueError, match="no part 'nope'; its parts: 0"):
        plan_attack("x.py:f", target, DIGITS, Linf(0.1), 5, 0, settings)

"""Doing one job: attack the view, let the judge score the original."""

from __future__ import annotations

import time
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from unmask.attacks.problem import Attack, Problem
from unmask.cases import Attacker
from unmask.data import Dataset
from unmask.evaluation.targets import Target
from unmask.judging import Judge, Verdict
from unmask.randomness import stream
from unmask.records import Example, Job, Record
from unmask.threats import parse
from unmask.types import Victim
from unmask.victims import Passes, bfloat16, lean, steady

__all__ = ["Outcome", "judged", "perform"]

PICTURES = 8
"""Clean images kept beside the adversarial ones, for the report."""


@dataclass(frozen=True)
class Outcome:
    """A record and the tensors that belong to it."""

    record: Record
    tensors: dict[str, Tensor]


def perform(job: Job, target: Target, data: Dataset, *, batch: int = 128, device: str = "cpu") -> Outcome:
    """Attack the examples of a job and judge them.

    ``batch`` bounds memory alone: records do not depend on it. Randomness is keyed by the job's seed,
    the example's position and the purpose, so that they do not depend on the job's range either.
    """
    started = time.monotonic()
    judge = _judge(job, target, device)
    model = target.model
    passes = Passes()
    attacker = target.attackers.get(job.attack)
    attack = attacker.make(model) if attacker else None
    view = _view(model, attacker, target.foreign, passes) if attacker else steady(model)
    exact = steady(model, passes=passes, foreign=target.foreign)
    examples: list[Example] = []
    candidates = []
    for start in range(job.start, job.stop, batch):
        index = torch.arange(start, min(start + batch, job.stop))
        x, y = (t.to(device) for t in data.floats(index))
        x_adv = x if attack is None else _attack(attack, view, exact, judge, job.seed, index, x, y)
        examples += _examples(judge, job.seed, index, x_adv, x, y)
        candidates.append(x_adv.cpu())
    record = Record(
        job=job,
        examples=tuple(examples),
        draws=target.draws,
        forwards=passes.forwards,
        backwards=passes.backwards,
        judged=judge.passes.forwards,
        seconds=time.monotonic() - started,
    )
    pictures = torch.arange(job.start, min(job.start + PICTURES, job.stop))
    tensors = {
        "x_adv": torch.cat(candidates),
        "index": torch.tensor([e.index for e in examples]),
        "label": torch.tensor([e.label for e in examples]),
        "clean": data.floats(pictures)[0],
    }
    return Outcome(record, tensors)


def judged(job: Job, target: Target, data: Dataset, x_adv: Tensor, batch: int, device: str) -> tuple[Example, ...]:
    """The verdicts of a job on candidates that were stored, as :func:`perform` would give them."""
    judge = _judge(job, target, device)
    examples: list[Example] = []
    for start in range(job.start, job.stop, batch):
        index = torch.arange(start, min(start + batch, job.stop))
        x, y = (t.to(device) for t in data.floats(index))
        examples += _examples(judge, job.seed, index, x_adv[index - job.start].to(device), x, y)
    return tuple(examples)


def _judge(job: Job, target: Target, device: str) -> Judge:
    threat = parse(job.threat.norm, job.threat.eps, job.threat.unit)
    return Judge(target.model.to(device), threat, target.draws, target.foreign)


def _view(model: nn.Module, attacker: Attacker, foreign: bool, passes: Passes) -> Victim:
    module = lean(model)
    if attacker.view is not None:
        module = attacker.view(module)
    return steady(bfloat16(module) if attacker.low_precision else module, passes=passes, foreign=foreign)


def _attack(
    attack: Attack,
    view: Victim,
    exact: Victim,
    judge: Judge,
    seed: int,
    index: Tensor,
    x: Tensor,
    y: Tensor,
) -> Tensor:
    """Candidates for one batch. Examples that are wrong without an attack are left as they are."""
    screen = stream(seed, index, "screen")

    def broken(rows: Tensor, x_adv: Tensor, when: int) -> Tensor:
        return judge.broken(x_adv, x[rows], y[rows], screen.select(rows.cpu()).fold(when))

    problem = Problem(view, x, y, judge.threat, stream(seed, index, "attack"), broken, exact)
    rows = (~broken(torch.arange(len(x), device=x.device), x, 0)).nonzero().squeeze(1)
    x_adv = x.clone()
    if len(rows):
        x_adv[rows] = attack(problem.subset(rows))
    return x_adv


def _examples(judge: Judge, seed: int, index: Tensor, x_adv: Tensor, x: Tensor, y: Tensor) -> list[Example]:
    verdict = judge.verdict(x_adv, x, y, stream(seed, index, "score"))
    screened = verdict if judge.draws == 1 else judge.verdict(x_adv, x, y, stream(seed, index, "select"))
    return [_example(verdict, screened, row, int(index[row]), int(y[row])) for row in range(len(x))]


def _example(verdict: Verdict, screened: Verdict, row: int, index: int, label: int) -> Example:
    stands = verdict.stands[:, row] | ~verdict.feasible[row]
    return Example(
        index=index,
        label=label,
        predicted=int(verdict.predicted[0, row]),
        robust=float(verdict.robust[row]),
        one_shot=bool(stands[0]),
        always=bool(stands.all()),
        screened=float(screened.robust[row]),
        distance=float(verdict.distance[row]),
        refused=bool(verdict.refused[0, row]),
    )

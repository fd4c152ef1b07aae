"""Doing one job: attack the view, let the judge score the original."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from itertools import chain
from types import MappingProxyType

import torch
from torch import Tensor

from unmask.attacking import AttackResult, run_attack, verdicts
from unmask.cases import AttackSpec
from unmask.data import Dataset
from unmask.errors import UnmaskError
from unmask.evaluation.attack_registry import BUILT_IN, attack_from_options
from unmask.evaluation.execution_config import ExecutionConfig
from unmask.evaluation.models.targets import Target
from unmask.evaluation.pictures.landscape import landscape_tensors, shows_landscape
from unmask.evaluation.pictures.trajectories import trajectory_tensors
from unmask.evaluation.verifying.beside import beside, shown, untouched
from unmask.judging import Judge, Verdict
from unmask.models.compiling import Compiler
from unmask.models.graph_memory import out_of_memory
from unmask.models.model_wrappers import Passes
from unmask.records import Example, GradientCounts, Job, Record
from unmask.threats import parse

__all__ = ["TRAJECTORY_PREFIX", "Outcome", "Task", "attacked", "execute_job", "rejudge"]

RECORDED = 3
"""Images of an attack's first job of which the trajectory is kept."""

TRAJECTORY_PREFIX = "way_"
"""What the names of the tensors of such a trajectory begin with."""


@dataclass(frozen=True)
class Task:
    """A job, and the candidates (C, H, W) that other attacks have found for some of its examples, by position."""

    job: Job
    broken: Mapping[int, Tensor] = field(default_factory=dict)


@dataclass(frozen=True)
class Outcome:
    """A record and the tensors that belong to it."""

    record: Record
    tensors: dict[str, Tensor]


def execute_job(
    job: Job,
    target: Target,
    data: Dataset,
    config: ExecutionConfig = ExecutionConfig(),
    compiler: Compiler | None = None,
    broken: Mapping[int, Tensor] = MappingProxyType({}),
) -> Outcome:
    """Attack the examples of a job and judge them; those of ``broken`` keep these candidates (C, H, W) and are judged.

    Records do not depend on the batch size of ``config``. Randomness is keyed by the job's seed,
    the example's position and the purpose, so that they do not depend on the job's range either.

    Raises UnmaskError for an attack that there is not, and for answers that cannot be judged.
    """
    started = time.monotonic()
    target = _at_strength(job, target)
    judge, search = _judge(job, target), _search(job, target, compiler)
    positions = torch.arange(job.start, job.stop)
    known = torch.tensor([index in broken for index in positions.tolist()])
    kept = _judged(job, lambda index: torch.stack([broken[one] for one in index.tolist()]).to(config.device))
    examples: list[Example] = []
    candidates, trajectories, slices = dict[int, Tensor](), list[dict[str, Tensor]](), list[dict[str, Tensor]]()
    passes = Passes()
    gradients: list[GradientCounts | None] = []
    failures: dict[str, str] = {}
    for index, x, y, found in chain(
        _each(positions[~known], data, config, judge, search), _each(positions[known], data, config, judge, kept)
    ):
        examples += _examples(job, index, y, found.verdict, found.selection)
        candidates.update(zip(index.tolist(), found.x_adv.cpu(), strict=True))
        passes.forwards += found.passes.forwards
        passes.backwards += found.passes.backwards
        gradients.append(found.gradients)
        failures = {**found.failures, **failures}
        if found.trajectory is not None:
            with suppress(UnmaskError):  # of a view that fails on images as alike as these: a picture less
                trajectories += [*trajectory_tensors(target, found.trajectory, index, x, y, found.x_adv, job.seed)]
                if shows_landscape(job, target):
                    slices += landscape_tensors(target, found.trajectory.rows, index, x, y, found.x_adv, job)
    record = Record(
        job=job,
        examples=tuple(sorted(examples, key=lambda one: one.index)),
        draws=target.draws,
        forwards=passes.forwards,
        backwards=passes.backwards,
        judge_passes=judge.passes.forwards,
        seconds=time.monotonic() - started,
        gradients=_total(gradients),
        failures=failures,
    )
    x_adv = torch.stack([candidates[index] for index in positions.tolist()])
    tensors = {
        "x_adv": x_adv,
        **beside(job, target, data, x_adv.to(config.device)),
        **_joined(trajectories),
        **_joined(slices),
    }
    return Outcome(record, tensors)


def _joined(parts: list[dict[str, Tensor]]) -> dict[str, Tensor]:
    return {name: torch.cat([one[name] for one in parts]) for name in parts[0]} if parts else {}


def rejudge(job: Job, target: Target, data: Dataset, x_adv: Tensor, config: ExecutionConfig) -> tuple[Example, ...]:
    """The verdicts of a job on candidates that were stored, as :func:`execute_job` would give them."""
    judge = _judge(job, _at_strength(job, target))
    examples: list[Example] = []
    stored = _judged(job, lambda index: x_adv[index - job.start].to(config.device))
    for index, _, y, found in _each(torch.arange(job.start, job.stop), data, config, judge, stored):
        examples += _examples(job, index, y, found.verdict, found.selection)
    return tuple(examples)


def attacked(
    job: Job, target: Target, data: Dataset, index: Tensor, config: ExecutionConfig, compiler: Compiler | None
) -> tuple[tuple[Example, ...], GradientCounts | None]:
    """The verdicts of a job's attack on the examples ``index`` alone, which are those that the job gives them."""
    target = _at_strength(job, target)
    judge, search = _judge(job, target), _search(job, target, compiler)
    examples: list[Example] = []
    gradients: list[GradientCounts | None] = []
    for part, _, y, found in _each(index, data, config, judge, search):
        examples += _examples(job, part, y, found.verdict, found.selection)
        gradients.append(found.gradients)
    return tuple(examples), _total(gradients)


def _total(counts: Sequence[GradientCounts | None]) -> GradientCounts | None:
    """None where no gradient was computed."""
    known = [one for one in counts if one is not None]
    return GradientCounts.total(known) if known else None


def _at_strength(job: Job, target: Target) -> Target:
    """The target, at the strength that the job sets."""
    if "strength" not in job.options:
        return target
    if target.strength_sweep is None:
        raise UnmaskError(f"no strength of {job.target} is varied, but a job sets it to {job.options['strength']!r}")
    return replace(target, model=target.strength_sweep.turn(target.model, float(job.options["strength"])))


Search = Callable[[Judge, Tensor, Tensor, Tensor], AttackResult]
"""A judge, positions (B,), images (B, C, H, W), labels (B,) -> what came of them."""


def _search(job: Job, target: Target, compiler: Compiler | None) -> Search:
    if untouched(job):
        return lambda judge, index, x, y: AttackResult(x, *verdicts(judge, x, x, y, index, job.seed))
    attacker = _attacker(job, target)
    attack = attacker.make(target.model)
    return lambda judge, index, x, y: run_attack(
        attack,
        target.model,
        x,
        y,
        judge=judge,
        view=attacker.view,
        low_precision=attacker.low_precision,
        index=index,
        seed=job.seed,
        record_trajectories=max(0, RECORDED - int(index[0])) if shown(job) else 0,
        compiler=compiler,
    )


def _judged(job: Job, candidates: Callable[[Tensor], Tensor]) -> Search:
    """Judges the candidates of positions instead of a search."""

    def search(judge: Judge, index: Tensor, x: Tensor, y: Tensor) -> AttackResult:
        x_adv = candidates(index)
        return AttackResult(x_adv, *verdicts(judge, x_adv, x, y, index, job.seed))

    return search


def _attacker(job: Job, target: Target) -> AttackSpec:
    """The one that the job describes, or the target's or a built-in one of that name."""
    if "attack" in job.options:
        return attack_from_options(job.options)
    known = {**BUILT_IN, **target.attacks}
    if job.attack not in known:
        raise UnmaskError(f"there is no attack {job.attack!r} on it; attacks: {', '.join(known)}")
    return known[job.attack]


def _judge(job: Job, target: Target) -> Judge:
    threat = parse(job.threat.norm, job.threat.eps, job.threat.unit)
    return Judge(target.model, threat, target.draws, target.uses_torch_random)


def _each(
    positions: Tensor, data: Dataset, config: ExecutionConfig, judge: Judge, search: Search
) -> Iterator[tuple[Tensor, Tensor, Tensor, AttackResult]]:
    """Positions (on the CPU), images, labels, what came of them: a batch at a time, half where memory ends."""
    start, batch = 0, config.batch
    while start < len(positions):
        index = positions[start : start + batch]
        x, y = (part.to(config.device) for part in data.floats(index))
        spent = judge.passes.forwards
        try:
            found = search(judge, index, x, y)
        except (RuntimeError, MemoryError) as error:
            if len(index) == 1 or not out_of_memory(error):
                raise
            batch = len(index) // 2
        else:
            yield index, x, y, found
            start += len(index)
            continue
        judge.passes.forwards = spent  # what was begun in vain is done again
        if torch.cuda.is_available():
            torch.cuda.empty_cache()


def _examples(job: Job, index: Tensor, y: Tensor, scored: Verdict, selection: Verdict) -> list[Example]:
    if untouched(job):
        scored, selection = _unrefused(scored), _unrefused(selection)
    columns = {
        "index": index,
        "label": y,
        "predicted": scored.predicted[0],
        "robust": scored.robust_fraction,
        "robust_one_draw": scored.robust[0],
        "robust_all_draws": scored.robust.all(0),
        "selection_robust": selection.robust_fraction,
        "distance": scored.distance,
        "refused": scored.refused[0],
        "feasible": scored.feasible,
    }
    rows = zip(*(column.tolist() for column in columns.values()), strict=True)
    return [Example(**dict(zip(columns, row, strict=True))) for row in rows]


def _unrefused(verdict: Verdict) -> Verdict:
    """A detector that refuses an image defeats an attack, but does not serve who sent a clean one."""
    return replace(verdict, robust=verdict.robust & ~verdict.refused)

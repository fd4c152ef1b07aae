"""Attacking a few examples of a run again, since weak candidates pass every check of the stored data."""

from __future__ import annotations

import random
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, replace

import torch

from unmask.evaluation.execute import attacked
from unmask.evaluation.failures import in_one_line
from unmask.evaluation.order import kept
from unmask.evaluation.runner import LocalExecutor
from unmask.evaluation.verifying.beside import untouched
from unmask.evaluation.verifying.check import Check, job_name
from unmask.kinds import Role
from unmask.records import Example, GradientCounts, Record

__all__ = ["Sample", "attack_again"]


@dataclass(frozen=True)
class Sample:
    """Which examples to attack again: ``count`` of each attack, chosen by ``seed``.

    Args:
        skipped: attacks whose result depends on the speed of the machine.
    """

    count: int
    seed: int
    skipped: Collection[str] = ()

    def of(self, positions: Sequence[int]) -> list[int]:
        """Some of these positions, in order.

        >>> Sample(2, 0).of(range(5)), Sample(9, 0).of(range(3))
        ([3, 4], [0, 1, 2])
        """
        return sorted(random.Random(self.seed).sample(positions, min(self.count, len(positions))))


def attack_again(records: Sequence[Record], local: LocalExecutor, sample: Sample) -> Iterator[Check]:
    """Run each planned attack again, with the run's own seed, on some of its examples.

    An honest run gives the same results on the same hardware, since randomness is keyed by the seed and the example.
    Examples that an attack keeps from those before it are left out. A check fails if the new attack breaks an example
    in more draws than the run says, or if more examples have missing or not finite gradients than the run counted.
    """
    attacks: dict[str, list[Record]] = {}
    for record in records:
        if not untouched(record.job):
            attacks.setdefault(replace(record.job, start=0, stop=1).key, []).append(record)
    for parts in attacks.values():
        job = replace(parts[0].job, start=min(p.job.start for p in parts), stop=max(p.job.stop for p in parts))
        if job.attack in sample.skipped and job.role == Role.ADAPTIVE:
            continue
        others = kept(job, records)
        before = {e.index: e for part in parts for e in part.examples if e.index not in others}
        if not (index := sample.of(sorted(before))):
            continue
        data = local.dataset(job.data, job.stop)
        target = local.target(job.target, data)
        with in_one_line(f"{job.target} under {job.attack}"):
            again, gradients = attacked(job, target, data, torch.tensor(index), local.config, local.compiler)
        problem = _weaker(before, again) or _hidden([part.gradients for part in parts], gradients)
        name = f"{job_name(job)}, attacked again on {', '.join(map(str, index))}"
        yield Check(name, problem=problem, attacked=len(index))


def _weaker(before: dict[int, Example], again: Sequence[Example]) -> str | None:
    broken = [new.index for new in again if new.robust < before[new.index].robust]
    if not broken:
        return None
    return f"{len(broken)} of {len(again)} are broken that the run says are robust, first example {broken[0]}"


def _hidden(stored: Sequence[GradientCounts | None], again: GradientCounts | None) -> str | None:
    """Counts are sums over examples, so those of some cannot exceed those of all."""
    if again is None:
        return None
    for name in ("examples", "none", "not_finite"):
        most = sum(getattr(counts, name) for counts in stored if counts is not None)
        if getattr(again, name) > most:
            return f"{getattr(again, name)} of them count under gradients.{name}, of the whole run only {most}"
    return None

"""Running: jobs that are not in the store go to an executor, what comes back goes into the store."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from unmask.data import Dataset, load
from unmask.evaluation.chosen import BUILT_IN, chosen
from unmask.evaluation.perform import Outcome, perform
from unmask.evaluation.store import Store, pack
from unmask.evaluation.targets import Target, find_target, is_random
from unmask.records import Job, Record

__all__ = ["Executor", "Local", "Progress", "run"]

Progress = Callable[[Record, bool], None]
"""Called with each record; True where it was in the store already."""


class Executor(Protocol):
    """Does jobs, in any order, anywhere."""

    def map(self, jobs: Iterable[Job]) -> Iterator[Outcome]: ...


@dataclass
class Local:
    """Does jobs one after the other in this process; models and data are loaded once."""

    batch: int = 128
    device: str = "cpu"
    weights: Path | None = None
    targets: dict[str, Target] = field(default_factory=dict)
    data: dict[str, Dataset] = field(default_factory=dict)

    def map(self, jobs: Iterable[Job]) -> Iterator[Outcome]:
        jobs = list(jobs)
        for job in jobs:
            most = max(other.stop for other in jobs if other.data == job.data)
            yield perform(job, self.target(job), self.dataset(job.data, most), batch=self.batch, device=self.device)

    def dataset(self, name: str, n: int) -> Dataset:
        """The first ``n`` test examples."""
        if name not in self.data or len(self.data[name]) < n:
            self.data[name] = load(name, "test", n=n)
        return self.data[name]

    def target(self, job: Job) -> Target:
        """The target of a job, with the attack that its options describe."""
        if job.target not in self.targets:
            self.targets[job.target] = self._prepare(job)
        target = self.targets[job.target]
        attackers = {**BUILT_IN, **target.attackers}
        if "attack" in job.options:
            attackers[job.attack] = chosen(job.options)
        return Target(target.model, attackers, target.draws, target.foreign)

    def _prepare(self, job: Job) -> Target:
        target = find_target(job.target, weights=self.weights)
        if job.target.startswith("case:"):
            return target
        x, _ = self.dataset(job.data, job.stop).batch(job.start, min(job.stop, job.start + 8))
        random = is_random(target.model, x)
        return Target(target.model, target.attackers, 16 if random else 1, random)


def run(jobs: Sequence[Job], store: Store, executor: Executor, progress: Progress) -> None:
    """Do what is not done yet. A kill loses at most the job in hand; the same call goes on."""
    done = {record.job.key: record for record in store.records()}
    for job in jobs:
        if job.key in done:
            progress(done[job.key], True)
    for outcome in executor.map([job for job in jobs if job.key not in done]):
        progress(store.add(outcome.record, pack(outcome.tensors)), False)

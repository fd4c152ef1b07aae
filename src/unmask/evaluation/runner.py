"""Running: jobs that are not in the store go to an executor, what comes back goes into the store."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Protocol

import torch
from torch import Tensor

from unmask.data import Dataset, TooFewExamples, load
from unmask.errors import UnmaskError, first_line
from unmask.evaluation.execute import Outcome, Task, execute_job
from unmask.evaluation.execution_config import ExecutionConfig
from unmask.evaluation.failures import in_one_line
from unmask.evaluation.models.targets import Target, find_target
from unmask.evaluation.order import in_order, kept
from unmask.evaluation.store import Store, pack
from unmask.evaluation.verifying.fingerprint import fingerprint
from unmask.kinds import MAIN_ROLES
from unmask.models.compiling import Compiler
from unmask.records import Job, Record
from unmask.report.verdict.worst_case import accuracy_under_attack
from unmask.statistics import StopRule

__all__ = ["Executor", "LocalExecutor", "Progress", "due", "run"]

Progress = Callable[[Record, bool], None]
"""Called with each record; True where it was in the store already."""


class Executor(Protocol):
    """Does jobs, in any order, anywhere; UnmaskError, of one line, ends the run.

    ``task`` is called when a job is about to be done: what it loads must not be in memory for all jobs at once.
    """

    def map(self, jobs: Iterable[Job], task: Callable[[Job], Task] = Task) -> Iterator[Outcome]: ...


@dataclass
class LocalExecutor:
    """Does jobs one after the other in this process; models and data are loaded once.

    Raises UnmaskError for a device that this machine lacks.
    """

    config: ExecutionConfig = ExecutionConfig()
    compiler: Compiler | None = field(default=None, init=False)
    _targets: dict[str, Target] = field(default_factory=dict, init=False, repr=False)
    _data: dict[str, Dataset] = field(default_factory=dict, init=False, repr=False)

    def __post_init__(self) -> None:
        device = self.config.device
        try:
            torch.zeros(1, device=device).item()
        except (RuntimeError, AssertionError) as error:
            raise UnmaskError(f"device {device!r} is not usable ({first_line(error)})", "try --device cpu") from error
        if self.config.compile:
            self.compiler = Compiler()

    def map(self, jobs: Iterable[Job], task: Callable[[Job], Task] = Task) -> Iterator[Outcome]:
        return (self.execute(task(job)) for job in jobs)

    def execute(self, task: Task) -> Outcome:
        """One job; whatever goes wrong in the target's code is an UnmaskError that names job and error."""
        job = task.job
        data = self.dataset(job.data, job.stop)
        target = self.target(job.target, data)
        with in_one_line(f"{job.target} under {job.attack}"):
            return execute_job(job, target, data, self.config, self.compiler, task.broken)

    def dataset(self, name: str, n: int) -> Dataset:
        """At least the first ``n`` test examples, or all where there are fewer."""
        if name not in self._data or len(self._data[name]) < n:
            try:
                self._data[name] = load(name, "test", n=n, size=self.config.size)
            except TooFewExamples:
                self._data[name] = load(name, "test", size=self.config.size)
        return self._data[name]

    def target(self, name: str, data: Dataset) -> Target:
        """The target of that name, tried on the first examples of ``data``."""
        if name not in self._targets:
            with in_one_line(name, prefixed=False):
                self._targets[name] = find_target(name, data, self.config)
        return self._targets[name]

    def fingerprints(self, jobs: Iterable[Job]) -> dict[str, dict[str, Any]]:
        """Of each target of ``jobs``, with the examples up to the last one that they attack."""
        last: dict[tuple[str, str], int] = {}
        for job in jobs:
            last[job.target, job.data] = max(job.stop, last.get((job.target, job.data), 0))
        found = {}
        for (name, images), n in last.items():
            data = self.dataset(images, n)
            target = self.target(name, data)
            with in_one_line(name):
                found[name] = fingerprint(name, target.model, data, n)
        return found

    def use(self, name: str, target: Target, data: Dataset) -> None:
        """Let jobs on ``name`` find ``target``, and those on that data set ``data``."""
        self._targets[name] = target
        self._data[data.name] = data


def run(
    jobs: Sequence[Job], store: Store, executor: Executor, progress: Progress, rule: StopRule | None = None
) -> None:
    """Do what is due and not done yet. A kill loses at most the jobs in hand; the same call goes on."""
    done = {record.job.key: record for record in store.records()}
    for job in jobs:
        if job.key in done:
            progress(done[job.key], True)

    blocks = defaultdict[int, list[Record]](list)
    for record in done.values():
        blocks[record.job.start].append(record)

    for some in due(jobs, done, rule):
        for group in in_order(some):
            due_now = [job for job in group if job.key not in done]
            for outcome in executor.map(due_now, partial(_task, store, blocks)):
                record = store.add(outcome.record, pack(outcome.tensors))
                done[record.job.key] = record
                blocks[record.job.start].append(record)
                progress(record, False)


def _task(store: Store, blocks: Mapping[int, Sequence[Record]], job: Job) -> Task:
    """The job with the candidates that it keeps from the records of its block, by the block's first example."""
    found: dict[int, Tensor] = {}
    sources = kept(job, blocks[job.start]) if job.after else {}
    for record in {one.job.key: one for one in sources.values()}.values():
        x_adv = store.candidates(record)
        found |= {index: x_adv[index - record.job.start] for index, one in sources.items() if one is record}
    return Task(job, found)


def due(jobs: Sequence[Job], done: Mapping[str, Record], rule: StopRule | None) -> Iterator[list[Job]]:
    """The jobs that have to be done, some at a time; ``done``, by key, is looked at after each time.

    Without a ``rule`` all of them. With one, all attacks of a target on the first block of examples, then on the
    second, until what they leave meets the rule; then its controls and curves on the examples done.
    """
    if rule is None:
        yield [*jobs]
        return
    for target in dict.fromkeys(job.target for job in jobs):
        mine = [job for job in jobs if job.target == target]
        attacks = [job for job in mine if job.role in MAIN_ROLES]
        reached = 0
        for start in sorted({job.start for job in attacks}):
            block = [job for job in attacks if job.start == start]
            yield block
            reached = max(job.stop for job in block)
            found = accuracy_under_attack([done[job.key] for job in attacks if job.stop <= reached and job.key in done])
            if found and rule.met(found):
                break
        yield [job for job in mine if job.role not in MAIN_ROLES and job.stop <= reached]

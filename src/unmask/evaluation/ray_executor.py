"""Running on a Ray cluster: workers hold models and data and do job after job; the driver stores what comes back."""

from __future__ import annotations

import logging
import os
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field, replace
from typing import Any, Self

from unmask.errors import UnmaskError, first_line
from unmask.evaluation.execute import Outcome, Task
from unmask.evaluation.execution_config import ExecutionConfig
from unmask.evaluation.runner import LocalExecutor
from unmask.records import Job

__all__ = ["RayExecutor", "Worker"]

AHEAD = 2
"""Jobs that a worker has: one in hand, one that waits, so that it never waits for the driver."""

TRIES = 3
"""Workers that a job may take down before it is held to be the reason."""


@dataclass
class Worker:
    """Does jobs in a process of its own; whatever it needs is loaded with the first one."""

    config: ExecutionConfig
    ready: Callable[[LocalExecutor], object] | None
    _local: LocalExecutor | None = None

    def execute(self, task: Task) -> Outcome:
        """As :meth:`LocalExecutor.execute`."""
        if self._local is None:
            self._local = LocalExecutor(self.config)
            if self.ready:
                self.ready(self._local)
        return self._local.execute(task)

    def pid(self) -> int:
        """Of its process."""
        return os.getpid()


@dataclass
class RayExecutor:
    """An executor on a Ray cluster; within a ``with`` block its workers stay. Records are as of :class:`LocalExecutor`.

    At most two jobs a worker are under way, so that results wait for the driver and not the other way round. The jobs
    of a worker that dies are done by a new one.

    Args:
        config: of each worker; with ``gpus_per_job`` the device is "cuda".
        address: of a running cluster; None starts one on this machine.
        gpus_per_job: share of a GPU that a worker takes.
        workers: how many; None for as many as the cluster has room for.
        ready: called with each worker's executor before its first job.

    Raises UnmaskError, when used, where ray is not installed, the cluster cannot be reached or has no room, a
    job fails, or a job has killed three workers.
    """

    config: ExecutionConfig = ExecutionConfig()
    address: str | None = None
    gpus_per_job: float = 0.0
    workers: int | None = None
    ready: Callable[[LocalExecutor], object] | None = None
    pool: list[Any] = field(default_factory=list, init=False, repr=False)
    _ray: Any = field(default=None, init=False, repr=False)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *reason: object) -> None:
        for worker in self.pool:
            self._ray.kill(worker)
        self.pool.clear()

    def map(self, jobs: Iterable[Job], task: Callable[[Job], Task] = Task) -> Iterator[Outcome]:
        waiting = deque(jobs)
        if not waiting:
            return
        self._connect(len(waiting))
        deaths: Counter[str] = Counter()
        under_way: dict[Any, tuple[Job, Any]] = {}
        while waiting or under_way:
            load = Counter(id(worker) for _, worker in under_way.values())
            for worker in sorted(self.pool * AHEAD, key=lambda one: load[id(one)]):
                if waiting and load[id(worker)] < AHEAD:
                    job = waiting.popleft()
                    load[id(worker)] += 1
                    under_way[worker.execute.remote(task(job))] = job, worker
            (done, *_), _ = self._ray.wait([*under_way], num_returns=1)
            worker = under_way[done][1]
            try:
                outcome: Outcome = self._ray.get(done)
            except self._ray.exceptions.RayTaskError as error:
                cause = error.cause
                what = str(cause) if isinstance(cause, UnmaskError) else f"{type(cause).__name__}: {cause}"
                raise UnmaskError(" ".join(what.split())) from error
            except self._lost() as error:
                mine = [one for one, (_, other) in under_way.items() if other is worker]
                lost = [under_way.pop(one)[0] for one in mine]
                waiting.extendleft(reversed(lost))
                first = lost[0]  # the one in hand; what waited behind it had no part in this
                deaths[first.key] += 1
                if deaths[first.key] == TRIES:
                    raise UnmaskError(
                        f"{first.target} under {first.attack} has killed {TRIES} workers",
                        "give them more memory, or a smaller --batch-size",
                    ) from error
                self._ray.kill(worker)
                self.pool[self.pool.index(worker)] = self._hire()
                continue
            except self._ray.exceptions.RayError as error:
                raise UnmaskError(f"the cluster fails: {' '.join(str(error).split())}") from error
            del under_way[done]
            yield outcome

    def _lost(self) -> tuple[type[Exception], ...]:
        """What is raised where a worker, its machine, or the result on it is gone."""
        names = ("RayActorError", "WorkerCrashedError", "OutOfMemoryError", "NodeDiedError", "ObjectLostError")
        return tuple(getattr(self._ray.exceptions, name) for name in names)

    def _connect(self, max_workers: int) -> None:
        """Find the cluster, or start one, and fill the pool."""
        if self._ray is None:
            try:
                import ray
            except ImportError as error:
                raise UnmaskError("the executor ray is not installed", "pip install unmask[ray]") from error
            self._ray = ray
            if not ray.is_initialized():
                try:
                    ray.init(
                        address=self.address,
                        log_to_driver=False,
                        logging_level=logging.ERROR,
                        include_dashboard=False if self.address is None else None,
                    )
                except (ConnectionError, OSError, ValueError) as error:
                    first = first_line(error, type(error).__name__)
                    raise UnmaskError(f"no Ray cluster at {self.address or 'this machine'}: {first}") from error
        room = self._ray.cluster_resources()
        fit = int(room.get("GPU", 0) / self.gpus_per_job + 1e-9) if self.gpus_per_job else int(room.get("CPU", 0))
        if fit < 1:
            raise UnmaskError(f"the cluster has no room for a job of {self.gpus_per_job:g} GPUs: {_listed(room)}")
        while len(self.pool) < min(self.workers or fit, fit, max_workers):
            self.pool.append(self._hire())

    def _hire(self) -> Any:
        actor = self._ray.remote(num_cpus=1, num_gpus=self.gpus_per_job)(Worker)
        config = replace(self.config, device="cuda") if self.gpus_per_job else self.config
        return actor.remote(config, self.ready)


def _listed(room: dict[str, float]) -> str:
    return ", ".join(f"{room.get(kind, 0):g} {kind}s" for kind in ("CPU", "GPU"))

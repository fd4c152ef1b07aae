"""A Ray cluster gives the records of this process, whatever becomes of its workers."""

from __future__ import annotations

import logging
import os
import random
import signal
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.models import MEANS
from unmask.evaluation import plan as planning
from unmask.evaluation.execution_config import ExecutionConfig
from unmask.evaluation.ray_executor import RayExecutor
from unmask.evaluation.runner import LocalExecutor, run
from unmask.evaluation.store import Store

ray = pytest.importorskip("ray")
pytestmark = pytest.mark.filterwarnings("ignore")  # ray's own affairs
KILLS = int(os.environ.get("UNMASK_KILLS", "2"))  # each costs the start of a worker; 50 take minutes

# What a forward pass does that wants a gradient is put in its place; ``seldom`` is true once for each folder.
MODEL = (
    MEANS
    + """
import os, resource, signal, time
from pathlib import Path

STEPS = []


def seldom(folder):
    try:
        os.mkdir(folder)
    except FileExistsError:
        return False
    return True


def room():
    "Bytes of addresses that this process has."
    return int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()


class Model(Means):
    def forward(self, x):
        if x.requires_grad:
            STEPS.append(1)
            self.step(x)
        return super().forward(x)

    def step(self, x):
        {step}


def build():
    return Model().eval()
"""
)


@pytest.fixture(scope="module")
def cluster() -> Iterator[None]:
    ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False, logging_level=logging.ERROR)
    yield
    ray.shutdown()


def do(folder: Path, plan: Any, executor: Any, progress: Any = lambda record, stored: None) -> Path:
    with Store.open(folder, {}, {"cases": [plan.case_info]}, plan.jobs) as store:
        run(plan.jobs, store, executor, progress)
    return folder


def files(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in (folder / "examples").iterdir()}


def test_the_records_of_one_worker_and_of_two_one_of_which_is_killed(
    cluster: None, tmp_path: Path, plan: Any, results: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(planning, "SHARD", 6)
    asked = plan("noisy", 24, eot=2, steps=4)
    here = do(tmp_path / "local", asked, LocalExecutor())
    with RayExecutor(ExecutionConfig(5), workers=1) as one:
        assert results(do(tmp_path / "one", asked, one)) == results(here)
        assert len(one.pool) == 1
    with RayExecutor(workers=2) as two:
        killed: list[int] = []

        def kill(record: Any, stored: bool) -> None:
            if not killed:
                killed.append(ray.get(two.pool[0].pid.remote()))
                os.kill(killed[0], signal.SIGKILL)

        assert results(do(tmp_path / "two", asked, two, kill)) == results(here)
        assert killed
        assert killed[0] not in ray.get([worker.pid.remote() for worker in two.pool])
    assert files(tmp_path / "one") == files(tmp_path / "two") == files(here)


def undisturbed(tmp_path: Path, plan: Any, step: str, n: int) -> tuple[Any, Path]:
    """A plan on a model with that ``step``, and what is found in this process where the step does nothing."""
    path = tmp_path / "model.py"
    path.write_text(MODEL.format(step="pass"))
    asked = plan(f"{path}:build", n, steps=4)
    here = do(tmp_path / "local", asked, LocalExecutor())
    path.write_text(MODEL.format(step=step))
    return asked, here


def test_workers_killed_at_random_moments(
    cluster: None, tmp_path: Path, plan: Any, results: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(planning, "SHARD", 2)
    monkeypatch.setattr("unmask.evaluation.ray_executor.TRIES", KILLS + 1)  # no job is the reason
    pids, enough, killed = tmp_path / "pids", tmp_path / "enough", set[int]()
    pids.mkdir()
    # A job takes longer than workers live, so that the jobs last until all kills are done.
    pause = f"time.sleep(0.02 if os.path.exists({str(enough)!r}) else int.from_bytes(os.urandom(1)) / 600)"
    step = f"Path({str(pids)!r}, str(os.getpid())).touch(); {pause}"
    asked, here = undisturbed(tmp_path, plan, step, 4 * KILLS + 8)
    draw, over = random.Random(0), threading.Event()

    def kill() -> None:
        while len(killed) < KILLS and not over.is_set():
            time.sleep(draw.uniform(0, 1))
            if alive := [int(path.name) for path in pids.iterdir() if int(path.name) not in killed]:
                victim = draw.choice(alive)
                os.kill(victim, signal.SIGKILL)
                killed.add(victim)
        enough.touch()

    killer = threading.Thread(target=kill)
    killer.start()
    try:
        with RayExecutor(workers=2) as two:
            there = do(tmp_path / "ray", asked, two)
    finally:
        over.set()
        killer.join()
    assert len(killed) == KILLS
    assert results(there) == results(here)
    assert files(there) == files(here)


LIMIT = """if len(STEPS) > 1 and seldom({first!r}):  # the first is a trial before the attack
            resource.setrlimit(resource.RLIMIT_AS, (room() + (1 << 28), resource.RLIM_INFINITY))
            try:
                torch.empty(1 << 29)
            except RuntimeError:
                os.mkdir({first!r} + " ended")
                raise
        elif len(STEPS) > 12 and seldom({second!r}):
            os.kill(os.getpid(), signal.SIGKILL)  # as the kernel does where all memory is taken"""


def test_a_worker_out_of_memory(
    cluster: None, tmp_path: Path, plan: Any, results: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Once an allocation fails, and the batch is halved; once the worker is killed, and its jobs are done again."""
    monkeypatch.setattr(planning, "SHARD", 6)
    monkeypatch.setattr("unmask.evaluation.ray_executor.TRIES", 2)
    first, second = tmp_path / "first", tmp_path / "second"
    asked, here = undisturbed(tmp_path, plan, LIMIT.format(first=str(first), second=str(second)), 18)
    with RayExecutor(workers=1) as one:
        there = do(tmp_path / "ray", asked, one)
    assert (tmp_path / "first ended").is_dir()
    assert second.is_dir()
    assert results(there) == results(here)
    assert files(there) == files(here)


def test_what_goes_wrong_in_a_worker_is_one_line(
    cluster: None, tmp_path: Path, plan: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("unmask.evaluation.ray_executor.TRIES", 1)  # each worker takes seconds to start
    path = tmp_path / "broken.py"
    head = "import torch, os, signal\nfrom torch import nn\nclass M(nn.Module):\n    def forward(self, x):\n"
    tail = "        return x.flatten(1)[:, :10] * 0 + 2 * torch.eye(10)[0]\ndef build(): return M().eval()\n"
    path.write_text(head + tail)
    asked = plan(f"{path}:build", 20)
    attacked = "        if x.requires_grad and len(x.unique(dim=0)) < len(x)"  # in a batch that is filled up
    for body, message in [
        (f"{attacked}: raise LookupError('no\\nway')\n", "fails with LookupError at broken.py:5: no"),
        (f"{attacked}: os.kill(os.getpid(), signal.SIGKILL)\n", "has killed 1 workers: give them more"),
    ]:
        path.write_text(head + body + tail)
        with RayExecutor(workers=1) as one, pytest.raises(ValueError, match=message) as caught:
            do(tmp_path / message[:3], asked, one)
        assert "\n" not in str(caught.value)


def test_a_cluster_without_room_or_anywhere(cluster: None, tmp_path: Path, plan: Any) -> None:
    asked = plan("linear", 4)
    with (
        RayExecutor(gpus_per_job=1.0) as none,
        pytest.raises(ValueError, match="no room for a job of 1 GPUs: 2 CPUs, 0 GPUs"),
    ):
        do(tmp_path / "gpu", asked, none)


GREEDY = """if seldom({folder!r}):
            taken = [torch.ones(1 << 24) for _ in range(40) if not time.sleep(0.05)]  # 64 MiB each"""


@pytest.mark.skipif("UNMASK_KILLS" not in os.environ, reason="what else is at work on this machine may disturb it")
def test_a_worker_that_ray_kills_for_its_memory(
    tmp_path: Path, plan: Any, results: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ray kills before the system does, and says so by an error of its own, which is not that of a dead worker."""
    monkeypatch.setattr(planning, "SHARD", 6)
    asked, here = undisturbed(tmp_path, plan, GREEDY.format(folder=str(tmp_path / "greedy")), 18)
    lines = (line.split() for line in Path("/proc/meminfo").read_text().splitlines())
    kilobytes = {name: int(value) for name, value, *_ in lines}
    most = 1 - (kilobytes["MemAvailable:"] - (1 << 21)) / kilobytes["MemTotal:"]
    ray.shutdown()
    ray.init(
        num_cpus=1,
        include_dashboard=False,
        log_to_driver=False,
        logging_level=logging.ERROR,
        _system_config={"memory_usage_threshold": most, "memory_monitor_refresh_ms": 50},
    )
    raised: list[str] = []
    real = ray.get

    def get(one: Any) -> Any:
        try:
            return real(one)
        except Exception as error:
            raised.append(type(error).__name__)
            raise

    monkeypatch.setattr(ray, "get", get)
    try:
        with RayExecutor(workers=1) as one:
            there = do(tmp_path / "ray", asked, one)
    finally:
        ray.shutdown()
    assert raised == ["OutOfMemoryError"]
    assert results(there) == results(here)

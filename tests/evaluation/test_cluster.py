"""A Ray cluster gives the records of this process, whatever becomes of its workers."""

from __future__ import annotations

import logging
import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from unmask.evaluation import plan as planning
from unmask.evaluation.cluster import Ray
from unmask.evaluation.run import Local, run
from unmask.evaluation.store import Store

ray = pytest.importorskip("ray")
pytestmark = pytest.mark.filterwarnings("ignore")  # ray's own affairs


@pytest.fixture(scope="module")
def cluster() -> Iterator[None]:
    ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False, logging_level=logging.ERROR)
    yield
    ray.shutdown()


def do(folder: Path, plan: Any, executor: Any, progress: Any = lambda record, stored: None) -> Path:
    with Store.open(folder, {}, {"cases": [plan.about]}) as store:
        run(plan.jobs, store, executor, progress)
    return folder


def files(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in (folder / "examples").iterdir()}


def test_the_records_of_one_worker_and_of_two_one_of_which_is_killed(
    cluster: None, tmp_path: Path, plan: Any, results: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(planning, "BLOCK", 6)
    asked = plan("noisy", 24, eot=2, steps=4)
    here = do(tmp_path / "local", asked, Local())
    with Ray(batch=5, workers=1) as one:
        assert results(do(tmp_path / "one", asked, one)) == results(here)
        assert len(one.pool) == 1
    with Ray(workers=2) as two:
        killed: list[int] = []

        def kill(record: Any, stored: bool) -> None:
            if not killed:
                killed.append(ray.get(two.pool[0].pid.remote()))
                os.kill(killed[0], signal.SIGKILL)

        assert results(do(tmp_path / "two", asked, two, kill)) == results(here)
        assert killed
        assert killed[0] not in ray.get([worker.pid.remote() for worker in two.pool])
    assert files(tmp_path / "one") == files(tmp_path / "two") == files(here)


def test_what_goes_wrong_in_a_worker_is_one_line(
    cluster: None, tmp_path: Path, plan: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("unmask.evaluation.cluster.TRIES", 1)  # each worker takes seconds to start
    path = tmp_path / "broken.py"
    head = "import torch, os, signal\nfrom torch import nn\nclass M(nn.Module):\n    def forward(self, x):\n"
    tail = "        return x.flatten(1)[:, :10] * 0 + 2 * torch.eye(10)[0]\ndef build(): return M().eval()\n"
    path.write_text(head + tail)
    asked = plan(f"{path}:build", 20)
    for body, message in [
        ("        if x.requires_grad: raise LookupError('no\\nway')\n", "fails with LookupError at broken.py:5: no"),
        ("        if x.requires_grad: os.kill(os.getpid(), signal.SIGKILL)\n", "has killed 1 workers: give them more"),
    ]:
        path.write_text(head + body + tail)
        with Ray(workers=1) as one, pytest.raises(ValueError, match=message) as caught:
            do(tmp_path / message[:3], asked, one)
        assert "\n" not in str(caught.value)


def test_a_cluster_without_room_or_anywhere(cluster: None, tmp_path: Path, plan: Any) -> None:
    asked = plan("linear", 4)
    with Ray(gpus_per_job=1.0) as none, pytest.raises(ValueError, match="no room for a job of 1 GPUs: 2 CPUs, 0 GPUs"):
        do(tmp_path / "gpu", asked, none)

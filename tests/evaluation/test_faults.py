"""Kills, memory that ends, clocks that jump, models that change: what was computed stays, what is left is done once."""

from __future__ import annotations

import errno
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.commands import unmask
from tests.models import MEANS
from unmask.evaluation import plan as planning
from unmask.evaluation.execution_config import ExecutionConfig
from unmask.evaluation.models.targets import find_target
from unmask.evaluation.runner import LocalExecutor
from unmask.records import Job, ThreatSpec

KILLS = int(os.environ.get("UNMASK_KILLS", "6"))  # 50 take minutes
N = max(20, 2 * KILLS)
COMMAND = ["reproduce", "--case", "thermometer-digits", "--no-curves", "--n", str(N), "--out"]


@pytest.mark.skipif(sys.platform != "linux", reason="forks a process that has loaded torch")
def test_killed_at_random_moments(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, results: Any, start: Any, finish: Any
) -> None:
    monkeypatch.setattr(planning, "SHARD", 2)  # many jobs, so that many moments are different

    def at_work(process: Any, out: Path, beyond: int) -> bool:
        """Waits until there are more bytes of records, or an end."""
        path = out / "records.jsonl"
        while process.is_alive() and not (path.exists() and path.stat().st_size > beyond):
            time.sleep(0.001)
        return bool(process.is_alive())

    began, process = time.monotonic(), start(*COMMAND, str(tmp_path / "whole"))
    assert at_work(process, tmp_path / "whole", 0)
    loading = time.monotonic() - began
    process.join()
    working = time.monotonic() - began - loading
    assert process.exitcode == 0
    whole = results(tmp_path / "whole")
    assert len(whole) >= N
    draw, out = random.Random(0), tmp_path / "killed"
    lines, kills, within = b"", 0, 0
    while kills < KILLS:
        process = start(*COMMAND, str(out))
        if kills % 2 and at_work(process, out, len(lines)):
            time.sleep(draw.uniform(0, working / KILLS))
        else:
            time.sleep(draw.uniform(0, loading))
        process.kill()
        process.join()
        if process.exitcode == 0:
            break
        kills += 1
        now = (out / "records.jsonl").read_bytes() if (out / "records.jsonl").exists() else b""
        assert now.startswith(lines[: lines.rfind(b"\n") + 1])  # what was finished is still there
        within += len(now) > len(lines)
        lines = now
    assert kills == KILLS
    assert within > KILLS // 4  # the kills came while it worked
    assert finish(*COMMAND, str(out)) == 0
    assert results(out) == whole  # which also finds jobs that were done twice


@pytest.mark.skipif(sys.platform != "linux", reason="forks a process that has loaded torch")
def test_a_second_process_in_the_same_folder_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, start: Any, finish: Any
) -> None:
    monkeypatch.setattr(planning, "SHARD", 10)
    first = start(*COMMAND, str(tmp_path / "run"))
    while first.is_alive() and not (tmp_path / "run" / "records.jsonl").exists():
        time.sleep(0.01)
    os.kill(first.pid, signal.SIGSTOP)  # holds the folder for as long as it takes
    try:
        assert finish(*COMMAND, str(tmp_path / "run")) == 2
    finally:
        os.kill(first.pid, signal.SIGCONT)
    first.join()
    assert first.exitcode == 0


# Asks for more memory than any machine has where more than LIMIT images come at once; the allocator itself refuses.
GREEDY = (
    MEANS
    + """
LIMIT = {limit}


class Greedy(Means):
    def forward(self, x):
        if len(x) > LIMIT and x.requires_grad:
            torch.empty(1 << 55, dtype=torch.uint8, device=x.device)
        return super().forward(x)


def build():
    return Greedy().eval()
"""
)

DEVICES = ["cpu", pytest.param("cuda", marks=pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU"))]


@pytest.mark.parametrize("device", DEVICES)
def test_out_of_memory_halves_the_batch_and_nothing_else(
    tmp_path: Path, plan: Callable[..., Any], done: Callable[..., Any], results: Any, device: str
) -> None:
    path = tmp_path / "greedy.py"
    found = []
    for limit in (10**6, 20):  # 64 images do not fit, nor do 32; 16 do
        path.write_text(GREEDY.format(limit=limit))
        found.append(results(done(plan(f"{path}:build", 64), LocalExecutor(ExecutionConfig(64, device)))))
    assert found[0] == found[1]
    robust = [e["robust"] for r in found[0].values() if r["job"]["role"] != "clean" for e in r["examples"]]
    assert 0 < sum(robust) < 64


# Has so much room for itself and no more, and needs 8 MiB for each image: by torch, or by numpy, whose error differs.
LIMITED = """
import resource
from pathlib import Path

import numpy as np

pages = int(Path("/proc/self/statm").read_text().split()[0])
EACH = {{"torch": lambda n: torch.empty(n << 23, dtype=torch.uint8), "numpy": lambda n: np.empty(n << 23, np.uint8)}}


class Limited(Greedy):
    def forward(self, x):
        if x.requires_grad:
            try:
                EACH[{by!r}](len(x))
            except (RuntimeError, MemoryError):
                Path({ended!r}).touch()
                raise
        return super().forward(x)


def build():
    resource.setrlimit(resource.RLIMIT_AS, (pages * resource.getpagesize() + {room}, resource.RLIM_INFINITY))
    return Limited().eval()
"""


@pytest.mark.skipif(sys.platform != "linux", reason="forks a process that has loaded torch")
@pytest.mark.parametrize("by", ["torch", "numpy"])
def test_a_process_that_may_take_no_more_memory(tmp_path: Path, results: Any, finish: Any, by: str) -> None:
    path, ended = tmp_path / "model.py", tmp_path / "ended"
    asked = [f"{path}:build", "--data", "digits", "--eps", "0.1", "--steps", "4", "--n", "128"]
    found = []
    for room in (1 << 34, 3 << 28):  # 128 images take 1 GiB
        path.write_text(GREEDY.format(limit=1000) + LIMITED.format(by=by, ended=str(ended), room=room))
        assert ended.exists() is False
        assert finish("attack", *asked, "--out", str(tmp_path / str(room))) == 0
        found.append(results(tmp_path / str(room)))
    assert ended.exists()
    assert found[0] == found[1]


def test_an_image_that_does_not_fit_ends_the_run_in_one_line(
    tmp_path: Path, plan: Callable[..., Any], done: Any
) -> None:
    path = tmp_path / "greedy.py"
    path.write_text(GREEDY.format(limit=0))
    with pytest.raises(ValueError, match=r"greedy\.py:build under apgd fails with .*allocate memory") as caught:
        done(plan(f"{path}:build", 20), LocalExecutor())
    assert "\n" not in str(caught.value)


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[tuple[Path, Callable[[int], None]]]:
    """A small disk, which whoever may mount one can make larger, to so many KiB."""
    place = tmp_path / "disk"
    place.mkdir()
    mount = ["mount", "-t", "tmpfs", "tmpfs", str(place), "-o"]
    if subprocess.run([*mount, "size=4k"], capture_output=True, check=False).returncode:
        pytest.skip("may not mount a disk")

    def grow(size: int) -> None:
        subprocess.run([*mount, f"remount,size={size}k"], check=True)

    try:
        yield place, grow
    finally:
        subprocess.run(["umount", str(place)], check=True)


@pytest.mark.skipif(sys.platform != "linux", reason="mounts a disk of memory")
def test_a_disk_that_is_full(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, results: Any, finish: Any, disk: tuple[Path, Callable[[int], None]]
) -> None:
    """It is full at every stage of a run, one after the other, and grows until the run is whole."""
    monkeypatch.setattr(planning, "SHARD", 5)
    assert finish(*COMMAND, str(tmp_path / "whole")) == 0
    place, grow = disk
    size, full = 4, 0
    while code := finish(*COMMAND, str(place / "run")):
        assert code == 2
        assert "No space left" in (tmp_path / "said").read_text()
        full, size = full + 1, size * 2
        grow(size)
    assert full >= 4
    assert results(place / "run") == results(tmp_path / "whole")


def test_a_full_disk_under_the_records(tmp_path: Path, plan: Any, done: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """The disk is full when a line is written; the half of it that fits is no record."""
    from unmask.evaluation.runner import run
    from unmask.evaluation.store import Store
    from unmask.run_files import read_lines

    asked, real = plan("linear", 9), os.fsync

    def carry_on() -> None:
        with Store.open(tmp_path / "run", {}, {}, asked.jobs) as store:
            run(asked.jobs, store, LocalExecutor(), lambda record, stored: None)

    def full(handle: int) -> None:
        name = os.readlink(f"/proc/self/fd/{handle}")
        if name.endswith("records.jsonl"):
            os.truncate(name, os.path.getsize(name) // 2)
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        real(handle)

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space left"):
        carry_on()
    assert read_lines(tmp_path / "run") == []
    monkeypatch.setattr(os, "fsync", real)
    carry_on()
    assert len(read_lines(tmp_path / "run")) == len(asked.jobs)


def attack(path: Path, out: Path) -> int:
    arguments = ["attack", f"{path}:build", "--data", "digits", "--eps", "0.1", "--steps", "2", "--n", "5"]
    return unmask(*arguments, "--out", str(out))


@pytest.mark.parametrize(
    ("edit", "reason"),
    [
        (lambda text: text + "\n# a word more\n", "the model's code changed"),
        (lambda text: text.replace("2 * mean", "3 * mean"), "the model's weights and the model's code changed"),
    ],
)
def test_a_model_that_changed_is_refused_with_the_reason(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any, edit: Callable[[str], str], reason: str
) -> None:
    path, out = tmp_path / "model.py", tmp_path / "run"
    text = GREEDY.format(limit=1000)
    path.write_text(text)
    assert attack(path, out) == 0
    before = (out / "records.jsonl").read_bytes()
    path.write_text(edit(text))
    capsys.readouterr()
    assert attack(path, out) == 2
    said = capsys.readouterr().err
    assert f"was started before {reason}" in said
    assert said.count("\n") == 1
    assert (out / "records.jsonl").read_bytes() == before
    path.write_text(text)
    assert attack(path, out) == 0


def test_clocks_that_jump(plan: Any, done: Any, results: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = plan("linear", 9)
    still = done(asked)
    draw = random.Random(0)
    monkeypatch.setattr(time, "time", lambda: draw.uniform(-1e9, 1e10))
    jumping = done(asked)
    assert results(jumping) == results(still)
    from unmask.evaluation.store import Store

    with Store.open(jumping, {"weights": None}, {}, asked.jobs) as store:
        assert all(0 <= record.seconds < 60 for record in store.records())


def test_the_same_factory_is_the_same_model(tmp_path: Path) -> None:
    path = tmp_path / "model.py"
    path.write_text(GREEDY.format(limit=1000))
    local = LocalExecutor()
    data = local.dataset("digits", 5)
    name = f"{path}:build"
    first, second = (LocalExecutor() for _ in range(2))
    for one in (first, second):
        one.use(name, find_target(name, data), data)
    jobs = [Job(name, "digits", "apgd", ThreatSpec("linf", 0.1), 0, 0, 5)]
    assert first.fingerprints(jobs) == second.fingerprints(jobs)

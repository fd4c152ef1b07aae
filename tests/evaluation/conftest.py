"""A model in a file of its own, as users have, and runs of it."""

from __future__ import annotations

import json
import multiprocessing
import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from tests.models import MEANS
from unmask.cli import main
from unmask.evaluation.plan import Plan, plan_attack
from unmask.evaluation.runner import LocalExecutor, run
from unmask.evaluation.store import Store
from unmask.threats import Linf

MODELS = (
    MEANS
    + """

class Linear(Means):
    def __init__(self, before):
        super().__init__()
        self.before, self.part = before, nn.Identity()

    def forward(self, x):
        return super().forward(self.part(self.before(x)))


class Noise(nn.Module):
    def forward(self, x):
        return F.dropout(x + 0.1 * torch.rand_like(x), 0.1, training=True)


class Round(nn.Module):
    def forward(self, x):
        return (x * 4).round() / 4


def linear():
    return Linear(nn.Identity()).eval()


def noisy():
    return Linear(Noise()).eval()


def rounded():
    return Linear(Round()).eval()
"""
)


@pytest.fixture(scope="session")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file with the factories ``linear``, ``noisy`` (draws by torch's own functions) and ``rounded``."""
    path = tmp_path_factory.mktemp("models") / "models.py"
    path.write_text(MODELS)
    return path


def forked(arguments: list[str], said: Path, before: Callable[[], None]) -> None:
    """The command line; what it says on standard error goes into the file ``said``, the rest nowhere."""
    sys.argv = ["unmask", *arguments]
    torch.set_num_threads(1)
    for stream, path in ((1, os.devnull), (2, said)):
        os.dup2(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC), stream)
    sys.stdout, sys.stderr = (os.fdopen(stream, "w", buffering=1) for stream in (1, 2))  # pytest has put others there
    signal.signal(signal.SIGINT, signal.default_int_handler)  # shells make what they put aside deaf to it
    before()
    main()


Starts = Callable[..., Any]


@pytest.fixture
def start(tmp_path: Path) -> Starts:
    """Starts the command line in a process of its own, which was forked so that it need not import anything again."""

    def start(*arguments: str, before: Callable[[], None] = lambda: None) -> Any:
        context = multiprocessing.get_context("fork")
        process = context.Process(target=forked, args=([*arguments], tmp_path / "said", before))
        process.start()
        return process

    return start


@pytest.fixture
def finish(start: Starts) -> Callable[..., int]:
    """Waits for such a process; its exit code."""

    def finish(*arguments: str, before: Callable[[], None] = lambda: None) -> int:
        process = start(*arguments, before=before)
        process.join()
        return int(process.exitcode)

    return finish


Plans = Callable[..., Plan]


@pytest.fixture
def plan(models: Path) -> Plans:
    """The jobs of a short attack on the first ``n`` digits; a factory of ``models``, or any other target."""

    def plan(factory: str, n: int, **options: Any) -> Plan:
        name = factory if ":" in factory else f"{models}:{factory}"
        local = LocalExecutor()
        data = local.dataset("digits", n)
        settings = {"attack": "apgd", "steps": 8, "restarts": 1, **options}
        return plan_attack(name, local.target(name, data), data, Linf(0.1), n, 0, settings)

    return plan


Runs = Callable[..., Path]


@pytest.fixture
def done(tmp_path: Path) -> Runs:
    """Does a plan in a new folder."""
    count = 0

    def done(plan: Plan, local: LocalExecutor | None = None) -> Path:
        nonlocal count
        count += 1
        folder = tmp_path / f"run{count}"
        local = local or LocalExecutor()
        about, settled = {"cases": [plan.case_info]}, local.fingerprints(plan.jobs)
        with Store.open(folder, {"weights": None}, about, plan.jobs, settled) as store:
            run(plan.jobs, store, local, lambda record, stored: None)
        return folder

    return done


VARYING = ("seconds", "digest")
"""How long a job took, and the digest of its line, which follows from that."""

Results = Callable[[Path], dict[str, dict[str, Any]]]


@pytest.fixture
def results() -> Results:
    """All that a run recorded but how long it took, by job; the hash of each file of examples is in it."""

    def results(folder: Path) -> dict[str, dict[str, Any]]:
        records = [json.loads(line) for line in (folder / "records.jsonl").read_text().splitlines()]
        found = {r["key"]: {name: value for name, value in r.items() if name not in VARYING} for r in records}
        assert len(found) == len(records), "a job was done twice"
        return found

    return results


Candidates = Callable[[Path, str], Tensor]


@pytest.fixture
def candidates(results: Results) -> Candidates:
    """The adversarial examples of an attack, in the order of the data set."""

    def candidates(folder: Path, attack: str) -> Tensor:
        mine = [r for r in results(folder).values() if r["job"]["attack"] == attack]
        mine.sort(key=lambda r: int(r["job"]["start"]))
        return torch.cat([load_file(folder / r["file"])["x_adv"] for r in mine])

    return candidates

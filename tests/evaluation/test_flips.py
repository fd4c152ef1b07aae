"""One flipped bit anywhere in what a run kept, and verification fails."""

from __future__ import annotations

import os
import random
from pathlib import Path
from typing import Any, cast

import pytest

from unmask.evaluation.environment import environment
from unmask.evaluation.plan import Plan
from unmask.evaluation.runner import LocalExecutor, run
from unmask.evaluation.store import Store
from unmask.evaluation.verifying.verify import verify
from unmask.report import write

FLIPS = int(os.environ.get("UNMASK_FLIPS", "15"))  # in each file; thousands take minutes


@pytest.fixture
def asked(plan: Any) -> Plan:
    return cast(Plan, plan("linear", 3, steps=2))


@pytest.fixture
def finished(tmp_path: Path, asked: Plan) -> tuple[Path, LocalExecutor]:
    local, folder = LocalExecutor(), tmp_path / "run"
    about = {"command": "attack", "n": 3, "seed": 0, "suite": None, "cases": [asked.case_info], **environment()}
    question = {"command": "attack", "n": 3, "seed": 0, "weights": None}
    with Store.open(folder, question, about, asked.jobs, local.fingerprints(asked.jobs)) as store:
        run(asked.jobs, store, local, lambda record, stored: None)
    write(folder)
    return folder, local


def fails(folder: Path, local: LocalExecutor, asked: Plan) -> bool:
    try:
        return any(check.problem for check in verify(folder, local, [asked]))
    except ValueError as error:
        return bool(str(error))


def test_any_flipped_bit_fails(finished: tuple[Path, LocalExecutor], asked: Plan) -> None:
    folder, local = finished
    assert not fails(folder, local, asked)
    draw = random.Random(0)
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    assert len(files) == 7  # run.json, records.jsonl, two of examples, three reports
    for path in files:
        good = path.read_bytes()
        last = len(good) - 1
        for place in {0, last, *(draw.randrange(len(good)) for _ in range(FLIPS))}:
            bad = bytearray(good)
            bad[place] ^= 1 << draw.randrange(8)
            path.write_bytes(bad)
            assert fails(folder, local, asked), f"bit of byte {place} of {path.name}: {good[place]} became {bad[place]}"
        path.write_bytes(good)
    assert not fails(folder, local, asked)


def test_a_record_that_was_cut_out_is_missed(finished: tuple[Path, LocalExecutor], asked: Plan) -> None:
    folder, local = finished
    path = folder / "records.jsonl"
    path.write_text(path.read_text().splitlines()[0] + "\n")
    assert fails(folder, local, asked)


def test_other_weights_are_noticed(finished: tuple[Path, LocalExecutor], asked: Plan) -> None:
    folder, local = finished
    (target,) = local._targets.values()
    target.model.get_parameter("read.bias").data[9] += 1e-6
    changed = [
        c.problem for c in verify(folder, local, [asked]) if c.record.startswith("the fingerprint of ") and c.problem
    ]
    assert changed == ["the model's weights changed since the run began"]

"""One flipped bit anywhere in what a run kept, and verification fails."""

from __future__ import annotations

import os
import random
from pathlib import Path
from typing import Any

import pytest

from unmask.evaluation.environment import environment
from unmask.evaluation.run import Local, run
from unmask.evaluation.store import Store
from unmask.evaluation.verify import verify
from unmask.report import write

FLIPS = int(os.environ.get("UNMASK_FLIPS", "15"))  # in each file; thousands take minutes


@pytest.fixture
def finished(tmp_path: Path, plan: Any) -> tuple[Path, Local]:
    asked, local, folder = plan("linear", 3, steps=2), Local(), tmp_path / "run"
    about = {"command": "attack", "n": 3, "seed": 0, "suite": None, "cases": [asked.about], **environment()}
    settled = local.fingerprints({asked.jobs[0].target: ("digits", 3)})
    with Store.open(folder, {"weights": None}, about, settled) as store:
        run(asked.jobs, store, local, lambda record, stored: None)
    write(folder)
    return folder, local


def fails(folder: Path, local: Local) -> bool:
    try:
        return any(check.problem for check in verify(folder, local))
    except ValueError as error:
        return bool(str(error))


def test_any_flipped_bit_fails(finished: tuple[Path, Local]) -> None:
    folder, local = finished
    assert not fails(folder, local)
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
            assert fails(folder, local), f"bit of byte {place} of {path.name}: {good[place]} became {bad[place]}"
        path.write_bytes(good)
    assert not fails(folder, local)


def test_a_record_that_was_cut_out_is_missed(finished: tuple[Path, Local]) -> None:
    folder, local = finished
    path = folder / "records.jsonl"
    path.write_text(path.read_text().splitlines()[0] + "\n")
    assert fails(folder, local)


def test_other_weights_are_noticed(finished: tuple[Path, Local]) -> None:
    folder, local = finished
    (target,) = local._targets.values()
    target.model.get_parameter("read.bias").data[9] += 1e-6
    assert [c.problem for c in verify(folder, local)][1] == "the model's weights changed since the run began"

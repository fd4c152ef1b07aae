"""What is stored survives whatever happens to the process, the disk or the files."""

from __future__ import annotations

import errno
import json
import os
from pathlib import Path
from typing import Any

import pytest

from unmask.evaluation.store import Store
from unmask.records import Example, Job, Record, ThreatSpec
from unmask.run_files import read_lines, read_run

ASKED = {"n": 4, "weights": None}


def record(start: int) -> Record:
    job = Job("case:some", "digits", "apgd", ThreatSpec("linf", 0.1), 0, start, start + 1)
    return Record(job, (Example(start, 1, 2, 0.0, False, False, 0.0, 0.1),), 1, 10, 5, 3, 0.5)


JOBS = [record(start).job for start in range(3)]


def fill(folder: Path, *starts: int) -> list[Record]:
    with Store.open(folder, ASKED, {}, JOBS) as store:
        return [store.add(record(start), b"tensors %d" % start) for start in starts]


def complaint(call: Any) -> str:
    with pytest.raises(ValueError) as caught:  # noqa: PT011 - the message is looked at
        call()
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_records_come_back_as_they_were_stored(tmp_path: Path) -> None:
    stored = fill(tmp_path, 0, 1)
    with Store.open(tmp_path, ASKED, {}, JOBS) as store:
        assert store.records() == stored
    assert (tmp_path / str(stored[1].file)).read_bytes() == b"tensors 1"


@pytest.mark.parametrize("kept", [1, 40, -1])
def test_a_torn_last_line_is_dropped_and_the_next_one_is_whole(tmp_path: Path, kept: int) -> None:
    (first,) = fill(tmp_path, 0)
    line = record(1).to_json().encode() + b"\n"
    with (tmp_path / "records.jsonl").open("ab") as lines:
        lines.write(line[:kept])
    assert len(read_lines(tmp_path)) == 1
    (second,) = fill(tmp_path, 1)
    with Store.open(tmp_path, ASKED, {}, JOBS) as store:
        assert store.records() == [first, second]


def test_a_damaged_line_is_named(tmp_path: Path) -> None:
    fill(tmp_path, 0, 1)
    path = tmp_path / "records.jsonl"
    first, second = path.read_text().splitlines()
    path.write_text(f"{first}\n{second[:-5]}\n{first}\n")
    with Store.open(tmp_path, ASKED, {}, JOBS) as store:
        message = complaint(store.records)
    assert message.startswith(f"{path}, line 2: not a record")
    assert message.endswith("delete the line to run that job again")


def test_another_question_is_refused_and_the_folder_left_alone(tmp_path: Path) -> None:
    fill(tmp_path, 0)
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}

    def ask() -> None:
        with Store.open(tmp_path, {**ASKED, "n": 5}, {}, JOBS):
            pass

    assert complaint(ask) == f"{tmp_path} holds another run (n 4, now 5): choose another --out"
    assert before == {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}


@pytest.mark.parametrize(
    "content", ["", "{", "[]", '"run"', '{"schema": "unmask.run/9"}', '{"schema": "unmask.run/4"}']
)
def test_a_damaged_run_json_is_named(tmp_path: Path, content: str) -> None:
    fill(tmp_path, 0)
    (tmp_path / "run.json").write_text(content)
    assert f"{tmp_path / 'run.json'} is damaged" in complaint(lambda: fill(tmp_path, 1))
    assert len(read_lines(tmp_path)) == 1


def test_a_folder_that_holds_no_run(tmp_path: Path) -> None:
    assert "holds no run" in complaint(lambda: read_run(tmp_path))
    file = tmp_path / "file"
    file.touch()
    assert "holds no run" in complaint(lambda: read_run(file))
    assert complaint(lambda: fill(file, 0)) == f"{file} is no folder: choose another --out"
    assert complaint(lambda: fill(file / "below", 0)) == f"{file / 'below'} is no folder: choose another --out"


def test_one_process_at_a_time(tmp_path: Path) -> None:
    with Store.open(tmp_path, ASKED, {}, JOBS):
        assert "another process uses" in complaint(lambda: fill(tmp_path, 0))
    fill(tmp_path, 0)


@pytest.mark.parametrize("failing", range(1, 4))
def test_a_full_disk_loses_nothing_that_was_stored(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, failing: int
) -> None:
    """The file of examples, its folder, and the line are each brought to the disk by a call that may fail."""
    (first,) = fill(tmp_path, 0)
    real, calls = os.fsync, 0

    def fsync(handle: int) -> None:
        nonlocal calls
        calls += 1
        if calls == failing:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        real(handle)

    monkeypatch.setattr(os, "fsync", fsync)
    with pytest.raises(OSError, match="No space left"):
        fill(tmp_path, 1)
    monkeypatch.setattr(os, "fsync", real)
    assert json.loads(read_lines(tmp_path)[0])["key"] == first.job.key
    if failing < 3:
        (second,) = fill(tmp_path, 1)
    with Store.open(tmp_path, ASKED, {}, JOBS) as store:
        assert [r.job.start for r in store.records()] == [0, 1]
        assert {path.name for path in (tmp_path / "examples").iterdir()} == {
            f"{r.job.key}.safetensors" for r in store.records()
        }
    if failing < 3:
        assert (tmp_path / str(second.file)).read_bytes() == b"tensors 1"

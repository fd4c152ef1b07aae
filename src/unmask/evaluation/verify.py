"""Checking a run again: its files byte by byte, its model, every stored adversarial example, every figure."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load as unpack

from unmask.evaluation.failures import in_one_line
from unmask.evaluation.fingerprint import changed, fingerprint
from unmask.evaluation.perform import judged
from unmask.evaluation.run import Local
from unmask.evaluation.store import read_lines, read_run
from unmask.records import Record
from unmask.report import texts
from unmask.types import InvalidModelOutput

__all__ = ["Check", "verify"]


@dataclass(frozen=True)
class Check:
    """What came of one check; ``problem`` is None where all agrees."""

    record: str  # what to call what was looked at
    examples: int  # that were judged again
    problem: str | None = None


def verify(folder: Path, local: Local) -> Iterator[Check]:
    """Hold every file of a run against what it must be, and re-judge each record from its stored examples.

    What fails: a record whose line or file of examples is damaged, missing or changed, whose images do not have the
    shape of its data set, or of which any verdict, prediction or distance (float64) is not the one that was
    recorded; a last line that is torn; a run.json without its digest; a model or images that are no longer those of the
    run; a report whose accuracies and intervals are not those that follow from the records, to the byte.
    Raises ValueError where run.json is damaged, there are no records, and where the model or the data of the
    run cannot be had.
    """
    run = read_run(folder)
    lines = read_lines(folder)
    if not lines:
        raise ValueError(f"{folder} holds no records: there is nothing to verify")
    yield Check("run.json", 0, None if run["check"] else "it has no digest: an earlier version wrote it")
    yield from _rests_on(run, local)
    whole = True
    for number, line in enumerate(lines, start=1):
        try:
            record = Record.from_json(line)
            if record.to_json() != line:
                raise ValueError("it has no digest, or was written anew")
        except ValueError as error:
            whole = False
            yield Check(f"line {number} of records.jsonl", 0, str(error))
            continue
        job = record.job
        name = f"{job.key} ({job.target} {job.attack} {job.start}-{job.stop})"
        yield Check(name, len(record.examples), _problem(folder, record, local))
    if not (folder / "records.jsonl").read_bytes().endswith(b"\n"):
        yield Check("the end of records.jsonl", 0, "its last line is torn: give the command of the run again")
    if whole:
        yield from _reports(folder)


def _rests_on(run: Mapping[str, Any], local: Local) -> Iterator[Check]:
    for name, before in run.get("fingerprints", {}).items():
        data = local.dataset(before["data"], before["n"])
        target = local.target(name, data)
        with in_one_line(name):
            now = fingerprint(name, target.model, data, before["n"])
        what = changed(before, now)
        yield Check(f"what {name} is", 0, f"{what} changed since the run began" if what else None)


def _reports(folder: Path) -> Iterator[Check]:
    """Those that are there say what the records say."""
    names = [name for name in ("report.json", "report.md", "report.html") if (folder / name).exists()]
    if not names:
        return
    try:
        again = texts(folder)
    except ValueError as error:
        yield Check("the report", 0, str(error))
        return
    for name in names:
        same = (folder / name).read_bytes() == again[name].encode()
        yield Check(name, 0, None if same else "it is not what the records give: `unmask report` writes it anew")


def _problem(folder: Path, record: Record, local: Local) -> str | None:
    path = folder / f"examples/{record.job.key}.safetensors"
    if record.file != f"examples/{path.name}" or not path.is_file():
        return "its examples are missing"
    raw = path.read_bytes()
    if hashlib.sha256(raw).hexdigest() != record.sha256:
        return "its examples were changed"
    try:
        x_adv = unpack(raw)["x_adv"]
    except (SafetensorError, KeyError):
        return "its examples cannot be read"
    job = record.job
    data = local.dataset(job.data, job.stop)
    target = local.target(job.target, data)
    count = job.stop - job.start
    if x_adv.shape != (count, *data.images.shape[1:]):
        return f"its examples have shape {tuple(x_adv.shape)}, not that of {count} images of {job.data}"
    if x_adv.dtype != torch.float32:
        return f"its examples are {x_adv.dtype}, not torch.float32"
    if len(record.examples) != count or record.draws != target.draws:
        return f"it tells of {len(record.examples)} examples and {record.draws} draws, not {count} and {target.draws}"
    with in_one_line(f"{job.target} under {job.attack}"):
        try:
            again = judged(job, target, data, x_adv, local.batch, local.device)
        except InvalidModelOutput as error:
            return str(error)
    wrong = [old.index for old, new in zip(record.examples, again, strict=True) if old != new]
    return f"{len(wrong)} of {count} verdicts differ, first at example {wrong[0]}" if wrong else None

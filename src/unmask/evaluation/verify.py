"""Checking a run again: every stored adversarial example, on the original model."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from safetensors import SafetensorError
from safetensors.torch import load as unpack

from unmask.evaluation.perform import judged
from unmask.evaluation.run import Local
from unmask.evaluation.store import read_lines
from unmask.judging import BadAnswer
from unmask.records import Record

__all__ = ["Check", "verify"]


@dataclass(frozen=True)
class Check:
    """What came of re-judging one record; ``problem`` is None where all agrees."""

    record: str  # what to call it
    examples: int
    problem: str | None = None


def verify(folder: Path, local: Local) -> Iterator[Check]:
    """Re-judge each record of a run from its stored examples, with the randomness it was judged with.

    A record fails where its line or its file is damaged, missing or changed, the images are not those of
    its data set in shape, or any verdict, prediction or distance is not the one that was recorded. Raises
    ValueError where there are no records, and where the model or the data of the run cannot be had.
    """
    lines = read_lines(folder)
    if not lines:
        raise ValueError(f"{folder} holds no records: there is nothing to verify")
    for number, line in enumerate(lines, start=1):
        try:
            record = Record.from_json(line)
        except ValueError as error:
            yield Check(f"line {number} of records.jsonl", 0, str(error))
            continue
        job = record.job
        name = f"{job.key} ({job.target} {job.attack} {job.start}-{job.stop})"
        yield Check(name, len(record.examples), _problem(folder, record, local))


def _problem(folder: Path, record: Record, local: Local) -> str | None:
    path = folder / (record.file or "no file")
    if not path.is_file():
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
    if len(record.examples) != count or record.draws != target.draws:
        return f"it tells of {len(record.examples)} examples and {record.draws} draws, not {count} and {target.draws}"
    try:
        again = judged(job, target, data, x_adv, local.batch, local.device)
    except BadAnswer as error:
        return str(error)
    wrong = [old.index for old, new in zip(record.examples, again, strict=True) if old != new]
    return f"{len(wrong)} of {count} verdicts differ, first at example {wrong[0]}" if wrong else None

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
from unmask.evaluation.store import Store
from unmask.records import Record

__all__ = ["Check", "verify"]


@dataclass(frozen=True)
class Check:
    """What came of re-judging one record; ``problem`` is None where all agrees."""

    record: Record
    problem: str | None


def verify(folder: Path, local: Local) -> Iterator[Check]:
    """Re-judge each record of a run from its stored examples, with the randomness it was judged with.

    A record fails where its file is missing or changed, an image differs from the data set's shape, or
    any verdict, prediction or distance is not the one that was recorded.
    """
    store = Store(folder)
    for record in store.records():
        yield Check(record, _problem(folder, record, local))


def _problem(folder: Path, record: Record, local: Local) -> str | None:
    path = folder / (record.file or "")
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
    again = judged(job, local.target(job), local.dataset(job.data, job.stop), x_adv, local.batch, local.device)
    wrong = [old.index for old, new in zip(record.examples, again, strict=True) if old != new]
    return f"{len(wrong)} verdicts differ, first at example {wrong[0]}" if wrong else None

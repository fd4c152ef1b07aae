"""Judging the stored examples of one record again."""

from __future__ import annotations

import hashlib
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load as unpack
from torch import Tensor

from unmask.data import Dataset
from unmask.evaluation.execute import TRAJECTORY_PREFIX, rejudge
from unmask.evaluation.failures import in_one_line
from unmask.evaluation.models.targets import Target
from unmask.evaluation.pictures.landscape import SLICE_PREFIX, misfit
from unmask.evaluation.runner import LocalExecutor
from unmask.evaluation.verifying.beside import SHOWN, beside, untouched
from unmask.records import Job, Record
from unmask.report.differences import listed
from unmask.types import InvalidModelOutput

__all__ = ["recheck"]

_CLOSE = 1e-3
"""By how much the results of an image probe may differ on other hardware."""


def recheck(folder: Path, record: Record, local: LocalExecutor) -> str | None:
    """What is wrong with a record or its file of examples; None for nothing.

    What fails: a file that is missing, changed or unreadable; candidates of another shape or type than the images, or
    outside ball and box; positions, labels or clean images that are not those of the data set; clean verdicts on
    anything but its images; any verdict, prediction or distance (float64) that is not the one recorded; slices of the
    loss that do not go through these images.
    """
    tensors = _tensors(folder, record)
    if isinstance(tensors, str):
        return tensors
    data = local.dataset(record.job.data, record.job.stop)
    target = local.target(record.job.target, data)
    return (
        _misfit(record, tensors, data, target)
        or _other_verdicts(record, tensors, data, target, local)
        or _others_beside(record.job, tensors, data, target, local.config.device)
        or misfit(record.job, tensors, target, data, local.config.device)
    )


def _tensors(folder: Path, record: Record) -> dict[str, Tensor] | str:
    """Those of a record's file, or what is wrong with it."""
    path = folder / f"examples/{record.job.key}.safetensors"
    if record.file != f"examples/{path.name}" or not path.is_file():
        return "its examples are missing"
    raw = path.read_bytes()
    if hashlib.sha256(raw).hexdigest() != record.sha256:
        return "its examples were changed"
    try:
        tensors = unpack(raw)
    except SafetensorError:
        return "its examples cannot be read"
    return tensors if "x_adv" in tensors else "its examples cannot be read"


def _misfit(record: Record, tensors: dict[str, Tensor], data: Dataset, target: Target) -> str | None:
    job, x_adv = record.job, tensors["x_adv"]
    count = job.stop - job.start
    if x_adv.shape != (count, *data.images.shape[1:]):
        return f"its examples have shape {tuple(x_adv.shape)}, not that of {count} images of {job.data}"
    if x_adv.dtype != torch.float32:
        return f"its examples are {x_adv.dtype}, not torch.float32"
    if len(record.examples) != count or record.draws != target.draws:
        return f"it has {len(record.examples)} examples and {record.draws} draws, not {count} and {target.draws}"
    if untouched(job) and not torch.equal(x_adv, data.batch(job.start, job.stop)[0]):
        return "its clean verdicts are on other images than those of the data set"
    return None


def _other_verdicts(
    record: Record, tensors: dict[str, Tensor], data: Dataset, target: Target, local: LocalExecutor
) -> str | None:
    job = record.job
    with in_one_line(f"{job.target} under {job.attack}"):
        try:
            again = rejudge(job, target, data, tensors["x_adv"], local.config)
        except InvalidModelOutput as error:
            return str(error)
    wrong = [old.index for old, new in zip(record.examples, again, strict=True) if old != new]
    if wrong:
        return f"{len(wrong)} of {len(again)} verdicts differ, first at example {wrong[0]}"
    outside = [new.index for new in again if not new.feasible]
    if outside:
        return f"{len(outside)} of {len(again)} candidates are outside ball or box, first that of example {outside[0]}"
    return None


def _others_beside(job: Job, tensors: dict[str, Tensor], data: Dataset, target: Target, device: str) -> str | None:
    expected = beside(job, target, data, tensors["x_adv"].to(device))
    pictures = (TRAJECTORY_PREFIX, SLICE_PREFIX)
    kept = {name: tensor for name, tensor in tensors.items() if name != "x_adv" and not name.startswith(pictures)}
    wrong = [name for name in {**expected, **kept} if not _same(name, kept.get(name), expected.get(name))]
    return listed("not what belongs to these examples", wrong) or None


def _same(name: str, one: Tensor | None, other: Tensor | None) -> bool:
    if one is None or other is None or one.shape != other.shape or one.dtype != other.dtype:
        return False
    return torch.equal(one, other) or (name in SHOWN and torch.allclose(one, other, _CLOSE, _CLOSE))

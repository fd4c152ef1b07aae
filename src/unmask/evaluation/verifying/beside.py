"""What a file of examples holds beside the candidates of an attack."""

from __future__ import annotations

import torch
from torch import Tensor

from unmask.data import Dataset
from unmask.evaluation.models.targets import Target
from unmask.kinds import Role
from unmask.randomness import make_keys, use_keys
from unmask.records import Job

__all__ = ["SHOWN", "beside", "shown", "untouched"]

PICTURES = 8
"""Clean images kept beside the adversarial ones, for the report."""

MEASURED = 32
"""Images of a job that the image probe of its target measures."""

SHOWN = ("seen", "measured")
"""Names of the tensors that a target's image probe gives."""


def beside(job: Job, target: Target, data: Dataset, x_adv: Tensor) -> dict[str, Tensor]:
    """What is stored beside candidates: positions, labels, the first clean images, the results of the image probe."""
    return {
        "index": torch.arange(job.start, job.stop),
        "label": data.labels[job.start : job.stop],
        "clean": data.batch(job.start, min(job.start + PICTURES, job.stop))[0],
        **_looked(job, target, x_adv),
    }


def untouched(job: Job) -> bool:
    """Whether images are judged as they are."""
    return Role.CLEAN in (job.role, job.options.get("base"))


@torch.no_grad()
def _looked(job: Job, target: Target, x: Tensor) -> dict[str, Tensor]:
    """The results of the image probe for the first images of a job: what the classifier sees, and their measure."""
    if target.image_probe is None or not (shown(job) or job.role == Role.CLEAN):
        return {}
    with use_keys(make_keys(job.seed, torch.arange(job.start, job.start + len(x[:PICTURES])), "pictures")):
        seen = target.model.get_submodule(target.image_probe.part)(x[:PICTURES])
    if target.image_probe.measure is None:
        return {"seen": seen.cpu()}
    with use_keys(make_keys(job.seed, torch.arange(job.start, job.start + len(x[:MEASURED])), "measure")):
        measured = target.image_probe.measure(target.model, x[:MEASURED])
    return {"seen": seen.cpu(), "measured": measured.float().cpu()}


def shown(job: Job) -> bool:
    """Whether a report shows images of it."""
    return job.role in (Role.PLAIN, Role.ADAPTIVE)

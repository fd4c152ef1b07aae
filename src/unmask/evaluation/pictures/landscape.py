"""A slice of the loss around an image, through its adversarial image; and the loss that the model's gradient predicts.

A masked gradient can be seen there: the loss rises along the attack while the gradient predicts that it stays as it is.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Mapping
from itertools import pairwise

import torch
from torch import Tensor

from unmask.data import Dataset
from unmask.evaluation.models.targets import Target
from unmask.gradients.autograd import autograd
from unmask.gradients.spsa import gaussian, rademacher
from unmask.kinds import Role
from unmask.losses import margin
from unmask.models.black_box_models import BlackBoxModel
from unmask.models.model_wrappers import BATCH_MULTIPLE, batch_invariant
from unmask.randomness import make_keys, use_keys
from unmask.records import Job
from unmask.types import Output

__all__ = ["ALONG", "BESIDE", "SLICE_PREFIX", "landscape_tensors", "misfit", "shows_landscape"]

SLICE_PREFIX = "slice_"
"""What the names of the tensors of such slices begin with."""

ALONG = tuple(k / 10 for k in range(-5, 16))
"""Steps along the attack: 0 is the image, 1 its adversarial image."""

BESIDE = tuple(k / 7 for k in range(-7, 8))
"""Steps in a random direction; 1 is as far as the adversarial image is."""

_SECONDS = 60.0
"""What the slices of a job may take: a model that takes 0.05 s for an image has three, one that takes 0.15 s has one,
a slower one has none."""

_GRADIENTS = 3 * -(-(len(ALONG) - 1) // BATCH_MULTIPLE)
"""About what gradients cost, in forward passes of a block."""

_CLOSE = 2e-3
"""By how much a margin that was stored in half precision may differ, as a share of the largest of its slice."""


def shows_landscape(job: Job, target: Target) -> bool:
    """Whether slices are kept: of the adaptive attack of an audit on a model that is neither random nor a black box."""
    audit = job.role == Role.ADAPTIVE and job.attack == "adaptive" and "budget" in job.options
    return audit and target.draws == 1 and not isinstance(target.model, BlackBoxModel)


def landscape_tensors(
    target: Target, rows: Iterable[int], index: Tensor, x: Tensor, y: Tensor, x_adv: Tensor, job: Job
) -> Iterator[dict[str, Tensor]]:
    """For some examples of a batch the margin of the model at ``x + a d1 + b d2``, cut to the box.

    d1 leads to the adversarial image; d2 is random, and as long in the threat's norm: signs for Linf, else normal
    numbers. Names: ``slice_index`` (1,) the example's position in the data set; ``slice_loss`` (1, b, a) the margin as
    a share of ``slice_scale`` (1,), in half precision; ``slice_slope`` (1, a - 1) the derivative of the margin along d1
    in the middle between neighbouring a, at b = 0, by the model's own gradient; NaN where it has none. No pass is
    counted. Examples that the attack has not moved have no slice, and slow models have fewer or none.

    Args:
        target: the model that was attacked.
        rows: of the batch.
        index: positions (B,) of the batch, and its images (B, C, H, W), classes (B,) and adversarial images.
        job: the attack.
    """
    left = _SECONDS
    for row in rows:
        clean, along, label = x[row], x_adv[row] - x[row], y[row]
        if not along.any():
            continue
        began, margins = time.monotonic(), list[Tensor]()
        blocks = _points(clean, along, _beside(along, job, index[row]), x_adv[row]).split(BATCH_MULTIPLE)
        for block in blocks:
            margins.append(_margins(target, block, label))
            if len(margins) == 1 and (time.monotonic() - began) * (len(blocks) + _GRADIENTS) > left:
                return
        loss = torch.cat(margins).view(len(BESIDE), len(ALONG))
        scale = loss.abs().amax().clamp_min(1e-30)
        middle = clean + _column(clean, [(one + two) / 2 for one, two in pairwise(ALONG)]) * along
        found = {"index": index[row], "scale": scale, "loss": (loss / scale).half()}
        found["slope"] = _slopes(target, middle, along, label)
        yield {SLICE_PREFIX + name: value.cpu()[None] for name, value in found.items()}
        left -= time.monotonic() - began


def misfit(job: Job, tensors: Mapping[str, Tensor], target: Target, data: Dataset, device: str) -> str | None:
    """What is wrong with the slices among the tensors of a job; None for nothing.

    They must have the form of :func:`landscape_tensors`, and the margins of the stored images where they show them.
    What lies between them is not computed again.
    """
    kept = {name.removeprefix(SLICE_PREFIX): t for name, t in tensors.items() if name.startswith(SLICE_PREFIX)}
    if not kept:
        return None
    count = sum(kept["index"].shape[:1]) if "index" in kept else 0
    forms = {
        "index": ((count,), torch.int64),
        "scale": ((count,), torch.float32),
        "loss": ((count, len(BESIDE), len(ALONG)), torch.float16),
        "slope": ((count, len(ALONG) - 1), torch.float32),
    }
    if not shows_landscape(job, target) or forms != {name: (tuple(t.shape), t.dtype) for name, t in kept.items()}:
        return "its slices of the loss have another form than those of an audit"
    for place, (index, scale) in enumerate(zip(kept["index"], kept["scale"], strict=True)):
        if not job.start <= index < job.stop:
            return f"its slices show example {int(index)}, which it does not attack"
        clean, label = (part.to(device) for part in data.floats(index[None]))
        images = torch.cat((clean, tensors["x_adv"][index - job.start][None].to(device)))
        shown = kept["loss"][place, BESIDE.index(0), [ALONG.index(0), ALONG.index(1)]].float() * scale
        if not (shown - _margins(target, images, label[0]).cpu()).abs().le(_CLOSE * scale).all():
            return f"the slice of the loss around example {int(index)} does not go through its images"
    return None


def _column(like: Tensor, values: Iterable[float]) -> Tensor:
    return like.new_tensor([*values]).view(-1, *[1] * like.ndim)


def _points(clean: Tensor, along: Tensor, beside: Tensor, x_adv: Tensor) -> Tensor:
    """(b * a, C, H, W) in the box; the image and the adversarial image are there without rounding."""
    a, b = _column(clean, ALONG), _column(clean, BESIDE)
    points = clean + a * along + (b * beside)[:, None]
    points[BESIDE.index(0), [ALONG.index(0), ALONG.index(1)]] = torch.stack((clean, x_adv))
    return points.flatten(0, 1).clamp(0, 1)


def _beside(along: Tensor, job: Job, index: Tensor) -> Tensor:
    with use_keys(make_keys(job.seed, index[None], "slice")):
        draw = (rademacher if job.threat.norm == "linf" else gaussian)((1, *along.shape), along)[0]
    power = {"linf": torch.inf, "l2": 2, "l1": 1}[job.threat.norm]
    share: Tensor = torch.linalg.vector_norm(along, power) / torch.linalg.vector_norm(draw, power)
    return draw * share


def _objective(target: Target, points: Tensor, label: Tensor) -> Tensor:
    answer: Output = batch_invariant(target.model)(points)
    return margin(answer, label.expand(len(points))).float()


@torch.no_grad()
def _margins(target: Target, points: Tensor, label: Tensor) -> Tensor:
    return _objective(target, points, label)


def _slopes(target: Target, points: Tensor, along: Tensor, label: Tensor) -> Tensor:
    """The derivative (K,) along a line, which ends where it leaves the box."""

    def objective(z: Tensor, rows: Tensor | None = None) -> Tensor:
        return _objective(target, z.clamp(0, 1), label)

    try:
        slopes = [autograd(objective, block)[1].mul_(along).flatten(1).sum(1) for block in points.split(BATCH_MULTIPLE)]
    except Exception:  # of the author's code, which may not be made for gradients
        return points.new_full((len(points),), torch.nan)
    return torch.cat(slopes)

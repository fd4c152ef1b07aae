"""The images that an audit looks at before it attacks: those that the model gets right."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from unmask.auditing.request import AuditRequest
from unmask.data import Dataset
from unmask.diagnosis.lint import made_for
from unmask.errors import UnmaskError
from unmask.evaluation.models.targets import Target
from unmask.models.model_wrappers import batch_invariant
from unmask.randomness import Keys, make_keys, use_keys
from unmask.types import Output

__all__ = ["LOOKED", "PILOT_IMAGES", "PROBED", "Images", "correctly_classified", "probe_size", "standing"]

LOOKED = 256
"""Images that are looked at."""

PILOT_IMAGES = 32
"""Images on which views and grids are tried, at most."""

PROBED = 16
"""Images on which a model is taken apart, at most."""

_RANGED = 16
"""Images on which other ranges are tried where the model gets none right."""

_NUMBERS, _LEAST = 1 << 19, 4
"""In the images of which all that a model makes is kept at once, about; images that this takes at least."""

_KEPT = 1 << 26
"""Numbers that a pass of the probe may keep, about: of models that make more, fewer images are looked at."""


@dataclass(frozen=True)
class Images:
    """Images that a model gets right."""

    x: Tensor  # (B, C, H, W)
    y: Tensor  # (B,) their classes
    index: Tensor  # (B,) their positions in the data

    def __len__(self) -> int:
        return len(self.x)

    def first(self, most: int) -> Images:
        """The first ``most`` of them; fewer of large ones: see :func:`probe_size`."""
        some = slice(probe_size(most, self.x))
        return Images(self.x[some], self.y[some], self.index[some])

    def within_memory(self, kept: int) -> Images:
        """As many of the first as a probe that keeps ``kept`` numbers of each has memory for, but two at least."""
        some = slice(max(2, _KEPT // max(1, kept)))
        return Images(self.x[some], self.y[some], self.index[some])

    def split(self, count: int) -> list[Images]:
        """The first ``count`` of them, and the others, where there are others."""
        parts = (slice(count), slice(count, None))
        found = (Images(self.x[some], self.y[some], self.index[some]) for some in parts)
        return [one for one in found if len(one)]

    def keys(self, seed: int, purpose: str) -> Keys:
        return make_keys(seed, self.index, purpose)


def probe_size(max_images: int, x: Tensor) -> int:
    """How many of the images (B, C, H, W) to look at closely: fewer of large ones.

    >>> small, large = torch.rand(32, 3, 32, 32), torch.rand(32, 3, 224, 224)
    >>> probe_size(16, small), probe_size(16, large), probe_size(32, large)
    (16, 4, 8)
    """
    return min(max_images, max(_LEAST, _NUMBERS // x[0].numel()) * max_images // 16)


def correctly_classified(request: AuditRequest) -> Images:
    """Of the first images those that the model gets right. Raises UnmaskError where there are none."""
    data, count = request.data, min(request.count, LOOKED)
    found = standing(request.target, data, count, request.seed, request.device)
    if not len(found):
        x, y = (part.to(request.device)[:_RANGED] for part in data.floats(range(count)))
        keys = request.keys(torch.arange(len(x)), "range")
        with torch.no_grad():
            ranges = made_for(request.target.model, x, y, keys)
            why = next((f"{one.where}: give {one.remedy}" for one in ranges), "check that the data set is its own")
        raise UnmaskError(f"the model gets none of the first {count} images right: {why}")
    return found


def standing(target: Target, data: Dataset, n: int, seed: int, device: str) -> Images:
    """As :func:`correctly_classified`, of the first ``n`` images; none where the model gets none of them right."""
    index = torch.arange(n)
    x, y = (part.to(device) for part in data.floats(index))
    with torch.no_grad(), use_keys(make_keys(seed, index, "right")):
        answers = [
            _accepted(batch_invariant(target.model, uses_torch_random=target.uses_torch_random)(part))
            for part in x.split(64)
        ]
    rows = (torch.cat(answers) == y).nonzero().squeeze(1)
    return Images(x[rows], y[rows], index[rows.cpu()])


def _accepted(answer: Output) -> Tensor:
    """The class of each image (B,); -1 where it is refused."""
    classes = answer.logits.argmax(1)
    return classes if answer.reject is None else classes.masked_fill(answer.reject > 0, -1)

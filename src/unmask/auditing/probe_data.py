"""The images that an audit looks at before it attacks, and what it sees at first sight."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

import torch
from torch import Tensor

from unmask.data import Dataset
from unmask.diagnosis.lint import lint, made_for
from unmask.evaluation.targets import Target
from unmask.model_wrappers import batch_invariant
from unmask.randomness import make_keys, use_keys
from unmask.types import Output

__all__ = ["LOOKED", "TRIED", "correctly_classified", "lint_model", "probe_size", "standing"]

LOOKED = 256
"""Images that are looked at."""

TRIED = 32
"""Images on which views and grids are tried, at most."""

_LINTED = 16
"""Images that a model is checked on, by itself and in batches."""

_NUMBERS, _LEAST = 1 << 19, 4
"""In the images of which all that a model makes is kept at once, about; images that this takes at least."""


def probe_size(most: int, x: Tensor) -> int:
    """How many of the images (B, C, H, W) to look at closely: fewer of large ones.

    >>> small, large = torch.rand(32, 3, 32, 32), torch.rand(32, 3, 224, 224)
    >>> probe_size(16, small), probe_size(16, large), probe_size(32, large)
    (16, 4, 8)
    """
    return min(most, max(_LEAST, _NUMBERS // x[0].numel()) * most // 16)


def lint_model(target: Target, data: Dataset, seed: int, device: str) -> list[dict[str, Any]]:
    """What was done to make the model ready, and what else is wrong with it, as plain data."""
    index = torch.arange(min(len(data), _LINTED))
    x, y = (part.to(device) for part in data.floats(index))
    found = [*target.setup_findings, *lint(target.model, x, y, make_keys(seed, index, "lint"))]
    return [asdict(finding) for finding in found]


def correctly_classified(
    target: Target, data: Dataset, n: int, seed: int, device: str
) -> tuple[Tensor, Tensor, Tensor]:
    """Of the first images those (B, C, H, W) that the model gets right, their classes (B,), their positions (B,).

    Raises ValueError where there are none.
    """
    found = standing(target, data, min(n, LOOKED), seed, device)
    if not len(found[0]):
        x, y = (part.to(device) for part in data.floats(range(min(n, LOOKED))))
        index = torch.arange(len(x))
        with torch.no_grad():
            ranges = made_for(target.model, x[:_LINTED], y[:_LINTED], make_keys(seed, index[:_LINTED], "range"))
            why = next((f"{one.where}: give {one.remedy}" for one in ranges), "check that the data set is its own")
        raise ValueError(f"the model gets none of the first {len(x)} images right: {why}")
    return found


def standing(target: Target, data: Dataset, n: int, seed: int, device: str) -> tuple[Tensor, Tensor, Tensor]:
    """As :func:`correctly_classified`, of the first ``n`` images; nothing where the model gets none of them right."""
    index = torch.arange(n)
    x, y = (part.to(device) for part in data.floats(index))
    with torch.no_grad(), use_keys(make_keys(seed, index, "right")):
        answers = [
            _accepted(batch_invariant(target.model, uses_torch_random=target.uses_torch_random)(part))
            for part in x.split(64)
        ]
    rows = (torch.cat(answers) == y).nonzero().squeeze(1)
    return x[rows], y[rows], index[rows.cpu()]


def _accepted(answer: Output) -> Tensor:
    """The class of each image (B,); -1 where it is refused."""
    classes = answer.logits.argmax(1)
    return classes if answer.reject is None else classes.masked_fill(answer.reject > 0, -1)

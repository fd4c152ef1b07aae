"""What a model answers to a few images, before anything is computed: whether it can be judged, and whether it draws."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from unmask.randomness import drawing, stream
from unmask.types import as_output
from unmask.victims import steady

__all__ = ["DRAWS", "check_model", "is_random"]

DRAWS = 16
"""Draws per verdict of a random model that is no case."""


def check_model(model: nn.Module, x: Tensor, labels: Tensor, *, strict: bool = True) -> None:
    """Ask a model about a few images; ValueError with one line where no accuracy could be trusted.

    Looks for: images (B, C, H, W) out of [0, 1], a failing forward pass, logits of a wrong shape, NaN or Inf,
    ``labels`` (N,) that the model has no class for; and, only if ``strict`` (an audit finds its way around them),
    for training mode, and probabilities instead of logits. Log-probabilities are logits like others.

    >>> check_model(nn.Flatten().eval(), torch.rand(4, 1, 2, 2), torch.tensor([0, 4]))
    Traceback (most recent call last):
    ValueError: labels go from 0 to 4, but the model has 4 classes: check that the data set is the model's
    """
    if not (x.isfinite().all() and x.min() >= 0 and x.max() <= 1):
        raise ValueError(f"images lie in [{x.min():.3g}, {x.max():.3g}]: scale them to [0, 1], normalise in the model")
    training = [name or "all of it" for name, part in model.named_modules() if part.training]
    if training and strict:
        raise ValueError(f"the model is in training mode ({training[0]}): call model.eval() in the factory")
    try:
        with torch.no_grad():
            logits = as_output(model(x)).logits
    except Exception as error:
        first = next(iter(str(error).strip().splitlines()), type(error).__name__)
        raise ValueError(
            f"the model fails on images of shape {tuple(x.shape)}: {first}; check that the data set is the model's"
        ) from error
    if not isinstance(logits, Tensor) or logits.ndim != 2 or len(logits) != len(x):
        shape = tuple(logits.shape) if isinstance(logits, Tensor) else "no logits"
        raise ValueError(
            f"the model answers {shape} to {len(x)} images: return logits of shape (batch, classes), "
            "or a mapping or object that has them as `logits`"
        )
    if not logits.isfinite().all():
        kind = "NaN" if logits.isnan().any() else "Inf"
        raise ValueError(f"the model gives {kind} logits on clean images: return finite logits before any softmax")
    if int(labels.max()) >= logits.shape[1]:
        raise ValueError(
            f"labels go from {int(labels.min())} to {int(labels.max())}, but the model has {logits.shape[1]} classes: "
            "check that the data set is the model's"
        )
    if not strict:
        return
    total = logits.double().sum(1)
    if logits.min() >= 0 and logits.max() <= 1 and (total - 1).abs().max() < 1e-4:
        raise ValueError("the model returns probabilities: return the logits before the softmax")


def is_random(model: nn.Module, x: Tensor) -> bool:
    """Whether the model's answers to the same images differ between draws of its randomness.

    >>> is_random(nn.Flatten(), torch.ones(2, 1, 1, 3)), is_random(nn.Dropout().train(), torch.ones(2, 3))
    (False, True)
    """

    def answer(draw: int) -> Tensor:
        with torch.no_grad(), drawing(stream(draw, range(len(x)), "is it random")):
            return steady(model, foreign=True)(x).logits

    first = answer(0)
    return any(not torch.equal(first, answer(draw)) for draw in range(1, DRAWS))  # a coin for all may come up heads

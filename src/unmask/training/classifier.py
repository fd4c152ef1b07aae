"""Training of classifiers: on clean images, or on images that an attack perturbs."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from unmask.randomness import drawing, stream
from unmask.training.checkpoints import Checkpoints
from unmask.types import Victim, as_output
from unmask.victims import bfloat16, multiplies_bfloat16

__all__ = ["ClassifierRecipe", "Perturb", "train_classifier"]

Perturb = Callable[[Victim, Tensor, Tensor, float, Tensor], Tensor]
"""(model, x, y, progress in [0, 1], numbers of the examples (B,)) -> images to train on."""


@dataclass(frozen=True)
class ClassifierRecipe:
    """How a classifier is trained: Adam, a warm-up and linear decay of the rate, shuffled batches.

    Args:
        epochs: passes over the training set.
        batch: images per step.
        rate: highest learning rate.
        perturb: what is done to a batch first (None: nothing); adversarial training (Madry et al.,
            ICLR 2018) where it is an attack.
        shift: images are moved by up to this many pixels in each direction, the border repeated.
        low_precision: bfloat16 autocast, where the hardware multiplies it.
    """

    epochs: int
    batch: int = 128
    rate: float = 2e-3
    perturb: Perturb | None = None
    shift: int = 0
    low_precision: bool = True


def train_classifier(
    model: nn.Module,
    images: Callable[[Tensor], tuple[Tensor, Tensor]],
    size: int,
    recipe: ClassifierRecipe,
    checkpoints: Checkpoints,
    *,
    seed: int = 0,
    device: str = "cpu",
) -> Iterator[dict[str, Any]]:
    """Train ``model`` in place, epoch by epoch; yields a log line after each.

    Args:
        images: numbers (B,) of training examples -> images (B, C, H, W) in [0, 1] and labels (B,).
        size: how many training examples there are.
        checkpoints: where the state is kept; an interrupted run continues from its last epoch, with
            the numbers that it would have had.
    """
    model.to(device).to(memory_format=torch.channels_last).train()  # type: ignore[call-overload]
    optimizer = torch.optim.Adam(model.parameters(), lr=recipe.rate)
    steps = size // recipe.batch
    done, state = 0, checkpoints.load()
    if state is not None:
        model.load_state_dict(state["model"])
        optimizer.load_state_dict(state["optimizer"])
        done = state["epoch"]
    victim: Victim = bfloat16(model) if recipe.low_precision and multiplies_bfloat16(torch.device(device)) else model
    for epoch in range(done, recipe.epochs):
        started, losses, right = time.monotonic(), 0.0, 0
        order = torch.randperm(size, generator=torch.Generator().manual_seed(seed * 1000 + epoch))
        shifts = torch.Generator().manual_seed(seed * 1000 + epoch)
        for step in range(steps):
            index = order[step * recipe.batch : (step + 1) * recipe.batch]
            progress = (epoch + step / steps) / recipe.epochs
            optimizer.param_groups[0]["lr"] = recipe.rate * min(1.0, 20 * progress, 2 * (1 - progress))
            x, y = (t.to(device) for t in images(index))
            keys = stream(seed, index, "train").fold(epoch)
            x = _shifted(x, recipe.shift, shifts)
            with drawing(keys):
                if recipe.perturb is not None:
                    x = recipe.perturb(victim, x, y, progress, index)
                logits = as_output(victim(x)).logits
            loss = F.cross_entropy(logits, y)
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            optimizer.step()
            losses += loss.item()
            right += int((logits.argmax(1) == y).sum())
        log = {
            "epoch": epoch + 1,
            "of": recipe.epochs,
            "loss": losses / steps,
            "accuracy": right / (steps * recipe.batch),
            "seconds": time.monotonic() - started,
        }
        checkpoints.save({"model": model.state_dict(), "optimizer": optimizer.state_dict(), "epoch": epoch + 1}, log)
        yield log
    model.eval()


def _shifted(x: Tensor, most: int, generator: torch.Generator) -> Tensor:
    """The batch moved by one random offset, which varies from batch to batch."""
    if not most:
        return x
    height, width = x.shape[-2:]
    top, left = torch.randint(0, 2 * most + 1, (2,), generator=generator).tolist()
    return F.pad(x, (most,) * 4, mode="replicate")[..., top : top + height, left : left + width]

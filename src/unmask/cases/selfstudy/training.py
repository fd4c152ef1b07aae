"""How the self-study course's networks are trained: by losses that change in the course of the training."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from unmask.cases.common import cifar10_recipe
from unmask.data import load
from unmask.defenses.preprocessed import Preprocessed
from unmask.nets import residual_net
from unmask.training.checkpoints import Checkpoints
from unmask.training.classifier import ClassifierRecipe
from unmask.training.epochs import train_epochs
from unmask.weights import load_weights, shipped

__all__ = ["CITATION", "ProgressTraining", "behind_transform", "recipe", "small_net"]

CITATION = "self-study course in evaluating adversarial robustness, Google Research, 2021"

ProgressLoss = Callable[[Any, Tensor, Tensor, float], tuple[Tensor, Tensor]]
"""(the defense, images (B, C, H, W), labels (B,), progress in [0, 1]) -> what is minimised, and scores (B, K)."""

_SHOWN = 2000


def small_net(channels: int = 3, classes: int = 10, width: int = 48) -> nn.Sequential:
    """Space to depth, then a residual network of widths w and 2 w: (B, channels, H, W) -> (B, classes).

    >>> import torch
    >>> small_net()(torch.rand(2, 3, 32, 32)).shape
    torch.Size([2, 10])
    """
    net = residual_net(4 * channels, (width, 2 * width), whitening=0, classes=classes, strided=True)
    return nn.Sequential(nn.PixelUnshuffle(2), *net)


def recipe(epochs: int = 4) -> ClassifierRecipe:
    """The steps in which a small network is trained."""
    return cifar10_recipe(epochs)


@dataclass(frozen=True)
class ProgressTraining:
    """Minimise a loss on CIFAR-10's training half.

    Args:
        recipe: the steps.
        loss: what is minimised.
        start: name of the case whose weights the defense's ``classifier`` starts from; None for random ones.
        finish: called with the trained defense and the first 2000 training images (N, C, H, W), of which the defense
            keeps something with its weights.
    """

    recipe: ClassifierRecipe
    loss: ProgressLoss
    start: str | None = None
    finish: Callable[[Any, Tensor], None] | None = None

    def __call__(self, model: nn.Module, folder: Path, *, seed: int, device: str) -> Iterator[dict[str, Any]]:
        data = load("cifar10", "train")
        if self.start is not None:
            load_weights(model.get_submodule("classifier"), shipped(self.start))

        def objective(x: Tensor, y: Tensor, progress: float, index: Tensor) -> tuple[Tensor, dict[str, float]]:
            loss, scores = self.loss(model, x, y, progress)
            return loss, {"loss": loss.item(), "accuracy": float((scores.argmax(1) == y).float().mean())}

        settings = {"seed": seed, "recipe": repr(self.recipe), "loss": self.loss.__name__, "start": self.start}
        yield from train_epochs(
            model,
            data.floats,
            len(data),
            self.recipe,
            objective,
            Checkpoints(folder, settings),
            seed=seed,
            device=device,
        )
        if self.finish is not None:
            self.finish(model, data.batch(0, _SHOWN)[0].to(device))


def behind_transform(model: Preprocessed, x: Tensor, y: Tensor, progress: float) -> tuple[Tensor, Tensor]:
    """The cross entropy of transformed images, and their logits (B, K)."""
    with torch.autocast(x.device.type, enabled=False):
        seen = model.transform(x).contiguous(memory_format=torch.channels_last)
    logits = model.classifier(seen).float()
    return F.cross_entropy(logits, y), logits

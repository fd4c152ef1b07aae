"""What the networks of the self-study course have in common, and their training."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from unmask.cases.common import cifar10_recipe
from unmask.defenses.preprocessed import Preprocessed
from unmask.nets import residual_net
from unmask.training.classifier import ClassifierRecipe

__all__ = ["CITATION", "behind_transform", "recipe", "small_net"]

CITATION = "self-study course in evaluating adversarial robustness, Google Research, 2021"


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


def behind_transform(model: Preprocessed, x: Tensor, y: Tensor, progress: float) -> tuple[Tensor, Tensor]:
    """The cross entropy of transformed images, and their logits (B, K)."""
    with torch.autocast(x.device.type, enabled=False):
        seen = model.transform(x).contiguous(memory_format=torch.channels_last)
    logits = model.classifier(seen).float()
    return F.cross_entropy(logits, y), logits

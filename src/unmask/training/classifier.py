"""Training of classifiers: on clean images, or on images that an attack perturbs."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from unmask.models.model_wrappers import fold_batchnorm
from unmask.nets.residual import Whitening
from unmask.training.checkpoints import Checkpoints
from unmask.training.epochs import Adam, Nesterov, train_epochs
from unmask.types import as_output

__all__ = ["Adam", "ClassifierLoss", "ClassifierRecipe", "Nesterov", "Perturb", "train_classifier"]

Perturb = Callable[[nn.Module, Tensor, Tensor, float, Tensor], Tensor]
"""(copy of the model in evaluation mode, x, y, progress in [0, 1], examples' numbers (B,)) -> images to train on."""

ClassifierLoss = Callable[[Any, Tensor, Tensor, float], tuple[Tensor, Tensor]]
"""(the model, images (B, C, H, W), labels (B,), progress in [0, 1]) -> what is minimised, and scores (B, K)."""


@dataclass(frozen=True)
class ClassifierRecipe:
    """How a classifier is trained: shuffled batches, a warm-up of the rate and its linear decay.

    Args:
        epochs: passes over the training set.
        batch: images per step.
        rate: highest learning rate.
        perturb: what is done to a batch first (None: nothing); adversarial training (Madry et al.,
            ICLR 2018) where it is an attack.
        clean: weight of the loss on images that are not perturbed, against 1 - ``clean`` on those that are.
        pull: weight of the mean squared distance between the logits of an image and of its perturbed twin.
        optimizer: ``Adam()`` or ``Nesterov(momentum, decay)``.
        smoothing: share of the label that is spread over all classes.
        shift: images are moved by up to this many pixels in each direction, the border repeated.
        mirror: every second image is mirrored, in turns.
        low_precision: bfloat16 autocast, where the hardware multiplies it.
    """

    epochs: int
    batch: int = 128
    rate: float = 2e-3
    perturb: Perturb | None = None
    clean: float = 0.0
    pull: float = 0.0
    optimizer: Adam | Nesterov = Adam()
    smoothing: float = 0.0
    shift: int = 0
    mirror: bool = False
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
    loss: ClassifierLoss | None = None,
) -> Iterator[dict[str, Any]]:
    """Train ``model`` in place, epoch by epoch; yields a log line after each. Arguments as of :func:`train_epochs`.

    With a ``loss``, that is minimised, and of the recipe the steps alone are used: no layer is fitted to the images.
    """

    def objective(x: Tensor, y: Tensor, progress: float, index: Tensor) -> tuple[Tensor, dict[str, float]]:
        value, scores = loss(model, x, y, progress) if loss else _loss(model, x, y, recipe, progress, index)
        return value, {"loss": value.item(), "accuracy": float((scores.argmax(1) == y).float().mean())}

    first = None if loss else lambda x: _whiten(model, x)
    yield from train_epochs(model, images, size, recipe, objective, checkpoints, seed=seed, device=device, first=first)


def _loss(
    model: nn.Module, x: Tensor, y: Tensor, recipe: ClassifierRecipe, progress: float, index: Tensor
) -> tuple[Tensor, Tensor]:
    """What is minimised, and the logits (B, K) that the training accuracy is counted on."""
    perturbed = x
    if recipe.perturb is not None:
        model.eval()
        perturbed = recipe.perturb(fold_batchnorm(model), x, y, progress, index)
        model.train()
    if recipe.perturb is None or not (recipe.clean or recipe.pull):
        logits = as_output(model(perturbed)).logits
        return _cross_entropy(logits, y, recipe), logits
    pristine, logits = as_output(model(torch.cat((x, perturbed)))).logits.chunk(2)
    losses = [_cross_entropy(z, y, recipe) for z in (pristine, logits)]
    distance = (pristine.float() - logits.float()).square().sum(1).mean()
    return recipe.clean * losses[0] + (1 - recipe.clean) * losses[1] + recipe.pull * distance, logits


def _cross_entropy(logits: Tensor, y: Tensor, recipe: ClassifierRecipe) -> Tensor:
    return F.cross_entropy(logits.float(), y, label_smoothing=recipe.smoothing)


@torch.no_grad()
def _whiten(model: nn.Module, x: Tensor) -> None:
    """Fit the whitening layers of a model to what reaches them of images ``x``."""
    layers = [layer for layer in model.modules() if isinstance(layer, Whitening)]
    hooks = [layer.register_forward_pre_hook(lambda layer, args: layer.fit(args[0])) for layer in layers]
    if layers:
        model.eval()(x)
        model.train()
    for hook in hooks:
        hook.remove()

"""Training of classifiers: on clean images, or on images that an attack perturbs."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from unmask.nets.residual import Whitening
from unmask.randomness import drawing, stream
from unmask.training.augmentation import mirrored, shifted
from unmask.training.checkpoints import Checkpoints
from unmask.types import as_output
from unmask.victims import multiplies_bfloat16

__all__ = ["Adam", "ClassifierRecipe", "Nesterov", "Perturb", "train_classifier"]

Perturb = Callable[[nn.Module, Tensor, Tensor, float, Tensor], Tensor]
"""(model in evaluation mode, x, y, progress in [0, 1], numbers of the examples (B,)) -> images to train on."""


@dataclass(frozen=True)
class Adam:
    """Kingma & Ba, ICLR 2015."""

    def __call__(self, model: nn.Module) -> torch.optim.Optimizer:
        return torch.optim.Adam(_trained(model))


@dataclass(frozen=True)
class Nesterov:
    """Stochastic gradient descent with Nesterov momentum and weight decay: for nets with batch norm."""

    momentum: float = 0.9
    decay: float = 5e-4

    def __call__(self, model: nn.Module) -> torch.optim.Optimizer:
        return torch.optim.SGD(_trained(model), momentum=self.momentum, weight_decay=self.decay, nesterov=True)


def _trained(model: nn.Module) -> list[nn.Parameter]:
    return [parameter for parameter in model.parameters() if parameter.requires_grad]


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
) -> Iterator[dict[str, Any]]:
    """Train ``model`` in place, epoch by epoch; yields a log line after each.

    Args:
        images: numbers (B,) of training examples -> images (B, C, H, W) in [0, 1] and labels (B,).
        size: how many training examples there are.
        checkpoints: where the state is kept; an interrupted run continues from its last epoch, with
            the numbers that it would have had.
    """
    model.to(device).to(memory_format=torch.channels_last).train()  # type: ignore[call-overload]
    optimizer = recipe.optimizer(model)
    steps = size // recipe.batch
    done, state = 0, checkpoints.load()
    if state is not None:
        model.load_state_dict(state["model"])
        optimizer.load_state_dict(state["optimizer"])
        done = state["epoch"]
    else:
        _whiten(model, images(torch.arange(min(size, 2000)))[0].to(device))
    narrow = recipe.low_precision and multiplies_bfloat16(torch.device(device))
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
            x = shifted(mirrored(x, index, epoch) if recipe.mirror else x, recipe.shift, shifts)
            with drawing(keys), torch.autocast(torch.device(device).type, torch.bfloat16, enabled=narrow):
                loss, logits = _loss(model, x, y, recipe, progress, index)
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


def _loss(
    model: nn.Module, x: Tensor, y: Tensor, recipe: ClassifierRecipe, progress: float, index: Tensor
) -> tuple[Tensor, Tensor]:
    """What is minimised, and the logits (B, K) that the training accuracy is counted on."""
    x = x.contiguous(memory_format=torch.channels_last)
    perturbed = x
    if recipe.perturb is not None:
        model.eval()
        perturbed = recipe.perturb(model, x, y, progress, index)
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

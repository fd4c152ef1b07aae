"""The loop that all training by epochs has in common."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from unmask.models.model_wrappers import multiplies_bfloat16
from unmask.randomness import make_keys, use_keys
from unmask.training.augmentation import mirrored, shifted
from unmask.training.checkpoints import Checkpoints

__all__ = ["Adam", "Nesterov", "Objective", "Schedule", "train_epochs"]

Objective = Callable[[Tensor, Tensor, float, Tensor], tuple[Tensor, dict[str, float]]]
"""(x, y, progress in [0, 1], numbers of the examples (B,)) -> what is minimised, and what is logged, by name."""


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


class Schedule(Protocol):
    """What the recipes of all models have: see :class:`unmask.training.classifier.ClassifierRecipe`."""

    @property
    def epochs(self) -> int: ...
    @property
    def batch(self) -> int: ...
    @property
    def rate(self) -> float: ...
    @property
    def optimizer(self) -> Adam | Nesterov: ...
    @property
    def shift(self) -> int: ...
    @property
    def mirror(self) -> bool: ...
    @property
    def low_precision(self) -> bool: ...


def train_epochs(
    model: nn.Module,
    images: Callable[[Tensor], tuple[Tensor, Tensor]],
    size: int,
    schedule: Schedule,
    objective: Objective,
    checkpoints: Checkpoints,
    *,
    seed: int = 0,
    device: str = "cpu",
    first: Callable[[Tensor], None] | None = None,
) -> Iterator[dict[str, Any]]:
    """Train ``model`` in place by shuffled batches, a warm-up of the rate and its linear decay; a log line an epoch.

    Args:
        images: numbers (B,) of training examples -> images (B, C, H, W) in [0, 1] and labels (B,).
        size: how many training examples there are.
        checkpoints: where the state is kept; an interrupted run continues from its last epoch, with
            the numbers that it would have had.
        first: called with up to 2000 images before the first step.
    """
    model.to(device).to(memory_format=torch.channels_last).train()  # type: ignore[call-overload]
    optimizer = schedule.optimizer(model)
    steps = size // schedule.batch
    done, state = 0, checkpoints.load()
    if state is not None:
        model.load_state_dict(state["model"])
        optimizer.load_state_dict(state["optimizer"])
        done = state["epoch"]
    elif first is not None:
        first(images(torch.arange(min(size, 2000)))[0].to(device))
    narrow = schedule.low_precision and multiplies_bfloat16(torch.device(device))
    for epoch in range(done, schedule.epochs):
        started, sums = time.monotonic(), Counter[str]()
        order = torch.randperm(size, generator=torch.Generator().manual_seed(seed * 1000 + epoch))
        shifts = torch.Generator().manual_seed(seed * 1000 + epoch)
        for step in range(steps):
            index = order[step * schedule.batch : (step + 1) * schedule.batch]
            progress = (epoch + step / steps) / schedule.epochs
            optimizer.param_groups[0]["lr"] = schedule.rate * min(1.0, 20 * progress, 2 * (1 - progress))
            x, y = (t.to(device) for t in images(index))
            keys = make_keys(seed, index, "train").fold_in(epoch)
            x = shifted(mirrored(x, index, epoch) if schedule.mirror else x, schedule.shift, shifts)
            x = x.contiguous(memory_format=torch.channels_last)
            with use_keys(keys), torch.autocast(torch.device(device).type, torch.bfloat16, enabled=narrow):
                loss, measured = objective(x, y, progress, index)
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            optimizer.step()
            sums.update(measured)
        means = {name: total / steps for name, total in sums.items()}
        log = {"epoch": epoch + 1, "of": schedule.epochs, **means, "seconds": time.monotonic() - started}
        checkpoints.save({"model": model.state_dict(), "optimizer": optimizer.state_dict(), "epoch": epoch + 1}, log)
        yield log
    model.eval()

"""Training of denoising diffusion: a network learns to tell the noise in noisy images."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

from unmask.randomness import normal, uniform
from unmask.training.checkpoints import Checkpoints
from unmask.training.epochs import Adam, train_epochs

__all__ = ["DiffusionRecipe", "train_diffusion"]


@dataclass(frozen=True)
class DiffusionRecipe:
    """How a denoiser is trained; see :class:`unmask.training.classifier.ClassifierRecipe` for the arguments.

    The rate falls to 0 at the end, which serves instead of a running mean of the weights.
    """

    epochs: int
    batch: int = 128
    rate: float = 1e-3
    optimizer: Adam = Adam()
    shift: int = 0
    mirror: bool = True
    low_precision: bool = True


def train_diffusion(
    denoiser: nn.Module,
    kept: Tensor,
    images: Callable[[Tensor], tuple[Tensor, Tensor]],
    size: int,
    recipe: DiffusionRecipe,
    checkpoints: Checkpoints,
    *,
    seed: int = 0,
    device: str = "cpu",
) -> Iterator[dict[str, Any]]:
    """Train ``denoiser`` in place by the simple loss of Ho et al. (NeurIPS 2020); yields a log line an epoch.

    What is minimised is the mean squared error of the noise that ``denoiser(noisy, time)`` tells in images in [-1, 1].

    Args:
        kept: (T + 1,) the share of the image's variance that is left at each time; times 1 to T are equally frequent.

    The others are those of :func:`unmask.training.epochs.train_epochs`.
    """
    kept = kept.to(device)

    def objective(x: Tensor, y: Tensor, progress: float, index: Tensor) -> tuple[Tensor, dict[str, float]]:
        time = 1 + (uniform((len(x),), like=x) * (len(kept) - 1)).long()
        noise, share = normal(x.shape, like=x), kept[time].view(-1, 1, 1, 1).to(x.dtype)
        noisy = share.sqrt() * (2 * x - 1) + (1 - share).sqrt() * noise
        loss = (denoiser(noisy, time).float() - noise).square().mean()
        return loss, {"loss": loss.item()}

    yield from train_epochs(denoiser, images, size, recipe, objective, checkpoints, seed=seed, device=device)

"""Training of densities of images by maximum likelihood."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from unmask.nets.pixel_cnn import PixelCNN
from unmask.training.checkpoints import Checkpoints
from unmask.training.epochs import Adam, train_epochs

__all__ = ["DensityRecipe", "levels", "train_density"]


@dataclass(frozen=True)
class DensityRecipe:
    """How a density is trained; see :class:`unmask.training.classifier.ClassifierRecipe` for the arguments."""

    epochs: int
    batch: int = 32
    rate: float = 2e-3
    optimizer: Adam = Adam()
    shift: int = 0
    mirror: bool = True
    low_precision: bool = True


def train_density(
    density: PixelCNN,
    images: Callable[[Tensor], tuple[Tensor, Tensor]],
    size: int,
    recipe: DensityRecipe,
    checkpoints: Checkpoints,
    *,
    seed: int = 0,
    device: str = "cpu",
) -> Iterator[dict[str, Any]]:
    """Train ``density`` in place, in single precision; yields a log line an epoch. Arguments as of ``train_epochs``."""

    def objective(x: Tensor, y: Tensor, progress: float, index: Tensor) -> tuple[Tensor, dict[str, float]]:
        bits = density.bits_per_dim(levels(x)).mean()
        return bits, {"bits_per_dim": bits.item()}

    yield from train_epochs(density.float(), images, size, recipe, objective, checkpoints, seed=seed, device=device)


def levels(x: Tensor) -> Tensor:
    """Images in [0, 1] as integers 0 to 255."""
    return (255 * x).round().long()

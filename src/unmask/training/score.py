"""Training by denoising score matching: a network learns the score of noisy images, for several levels of noise."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from unmask.randomness import normal, uniform
from unmask.training.checkpoints import Checkpoints
from unmask.training.diffusion import DiffusionRecipe
from unmask.training.epochs import train_epochs

__all__ = ["geometric_levels", "score_loss", "train_score"]


def geometric_levels(high: float, low: float, count: int) -> tuple[float, ...]:
    """``count`` standard deviations from ``high`` to ``low``, each the same factor below the last.

    >>> geometric_levels(0.4, 0.1, 3)
    (0.4, 0.2, 0.1)
    """
    factor = (low / high) ** (1 / max(count - 1, 1))
    return tuple(round(high * factor**i, 10) for i in range(count))


def score_loss(network: nn.Module, x: Tensor, sigma: Tensor) -> Tensor:
    """The loss of denoising score matching (Vincent, 2011) of images (B, C, H, W) with noise of deviations (B,).

    The score of noisy images is ``network(noisy) / sigma``; the squared error of each level is weighted by its
    variance (Song & Ermon, NeurIPS 2019) and is a mean over elements. Thus a network that gives 0 has the loss 1.

    >>> torch.manual_seed(0).initial_seed()
    0
    >>> nothing = lambda noisy: torch.zeros_like(noisy)
    >>> round(float(score_loss(nothing, torch.rand(100, 1, 10, 10), torch.full((100,), 0.1))), 1)
    1.0
    """
    noise = normal(x.shape, like=x)
    noisy = x + sigma.view(-1, 1, 1, 1) * noise
    loss: Tensor = (network(noisy).float() + noise).square().mean()
    return loss


def train_score(
    network: nn.Module,
    sigmas: Sequence[float],
    images: Callable[[Tensor], tuple[Tensor, Tensor]],
    size: int,
    recipe: DiffusionRecipe,
    checkpoints: Checkpoints,
    *,
    seed: int = 0,
    device: str = "cpu",
) -> Iterator[dict[str, Any]]:
    """Train ``network`` in place by :func:`score_loss`; yields a log line an epoch.

    Args:
        network: images with noise (B, C, H, W) -> the score times the standard deviation of the noise, which the
            network is not told (Song & Ermon, NeurIPS 2020: "NCSNv2").
        sigmas: the levels of noise, which are equally frequent.

    The others are those of :func:`unmask.training.epochs.train_epochs`.
    """
    levels = torch.tensor(sigmas, device=device)

    def objective(x: Tensor, y: Tensor, progress: float, index: Tensor) -> tuple[Tensor, dict[str, float]]:
        level = (uniform((len(x),), like=x) * len(levels)).long()
        loss = score_loss(network, x, levels[level].to(x.dtype))
        return loss, {"loss": loss.item()}

    yield from train_epochs(network, images, size, recipe, objective, checkpoints, seed=seed, device=device)

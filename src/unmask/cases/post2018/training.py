"""The loss of an ensemble's members, and the training of what purifies images."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch.nn.functional as F
from torch import Tensor, nn

from unmask.data import load
from unmask.training.checkpoints import Checkpoints
from unmask.training.diffusion import DiffusionRecipe, train_diffusion
from unmask.training.score import train_score

__all__ = ["DiffusionTraining", "ScoreTraining", "each_member"]


@dataclass(frozen=True)
class DiffusionTraining:
    """Train the denoiser of a DiffPure for the times up to ``until``: no later one is needed."""

    data: str
    recipe: DiffusionRecipe
    until: int

    def __call__(self, model: nn.Module, folder: Path, *, seed: int, device: str) -> Iterator[dict[str, Any]]:
        data = load(self.data, "train")
        purify: Any = model.get_submodule("purify")
        settings = {"data": self.data, "seed": seed, "recipe": repr(self.recipe), "until": self.until}
        yield from train_diffusion(
            purify.denoiser,
            purify.kept[: self.until + 1],
            data.floats,
            len(data),
            self.recipe,
            Checkpoints(folder, settings),
            seed=seed,
            device=device,
        )


@dataclass(frozen=True)
class ScoreTraining:
    """Train the score network of a purification for noise of the standard deviations ``sigmas``."""

    data: str
    recipe: DiffusionRecipe
    sigmas: tuple[float, ...]

    def __call__(self, model: nn.Module, folder: Path, *, seed: int, device: str) -> Iterator[dict[str, Any]]:
        data = load(self.data, "train")
        settings = {"data": self.data, "seed": seed, "recipe": repr(self.recipe), "sigmas": list(self.sigmas)}
        yield from train_score(
            model.get_submodule("purify.score"),
            self.sigmas,
            data.floats,
            len(data),
            self.recipe,
            Checkpoints(folder, settings),
            seed=seed,
            device=device,
        )


def each_member(model: Any, x: Tensor, y: Tensor, progress: float) -> tuple[Tensor, Tensor]:
    """The sum of the members' own cross entropies; ``model.logits`` gives (B, members, K)."""
    logits = model.logits(x).float()
    return sum(F.cross_entropy(z, y) for z in logits.unbind(1)), logits.mean(1)  # type: ignore[return-value]

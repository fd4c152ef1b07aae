from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from unmask.defenses.post2018.inputs.score_purification import Adaptive, ScorePurify
from unmask.training.checkpoints import Checkpoints
from unmask.training.diffusion import DiffusionRecipe
from unmask.training.score import geometric_levels, score_loss, train_score

MEAN, SPREAD, SIGMA = 0.5, 0.05, 0.1
"""Of normal images, and of the noise in them."""

SLOPE = -SIGMA / (SPREAD**2 + SIGMA**2)
"""Of sigma times the score of the noisy images, which is linear."""

IMAGES = MEAN + SPREAD * torch.randn(4000, 1, 4, 4, generator=torch.Generator().manual_seed(3))


def linear(slope: float) -> nn.Conv2d:
    network = nn.Conv2d(1, 1, 1)
    nn.init.constant_(network.weight, slope)
    nn.init.constant_(network.bias, -slope * MEAN)  # type: ignore[arg-type]
    return network


def loss(slope: float) -> float:
    torch.manual_seed(0)
    with torch.no_grad():
        return float(score_loss(linear(slope), IMAGES, torch.full((len(IMAGES),), SIGMA)))


def trained(folder: Path) -> tuple[nn.Conv2d, float]:
    """A linear network trained on the normal images, and its last loss."""
    network = linear(0.0)

    def draw(index: Tensor) -> tuple[Tensor, Tensor]:
        return IMAGES[index], torch.zeros(len(index), dtype=torch.long)

    recipe = DiffusionRecipe(epochs=4, batch=50, rate=0.3, low_precision=False)
    logs = list(train_score(network, (SIGMA,), draw, len(IMAGES), recipe, Checkpoints(folder, {})))
    return network, logs[-1]["loss"]


def test_levels_are_a_factor_apart() -> None:
    levels = geometric_levels(0.4, 0.02, 10)
    assert (len(levels), levels[0], levels[-1]) == (10, 0.4, 0.02)
    factors = torch.tensor(levels)[1:] / torch.tensor(levels)[:-1]
    assert torch.allclose(factors, torch.full((9,), 0.05 ** (1 / 9)))
    assert geometric_levels(0.3, 0.1, 1) == (0.3,)


def test_the_score_of_normal_images_has_the_least_loss() -> None:
    assert loss(SLOPE) == pytest.approx(SPREAD**2 / (SPREAD**2 + SIGMA**2), rel=0.03)
    assert loss(SLOPE) < min(loss(0.8 * SLOPE), loss(1.25 * SLOPE))


def test_training_finds_the_score_of_normal_images(tmp_path: Path) -> None:
    network, last = trained(tmp_path)
    assert network.weight.item() == pytest.approx(SLOPE, rel=0.03)
    assert network.bias.item() == pytest.approx(-SLOPE * MEAN, rel=0.03)  # type: ignore[union-attr]
    assert last == pytest.approx(SPREAD**2 / (SPREAD**2 + SIGMA**2), rel=0.05)


def test_a_trained_score_purifies_by_the_known_factor(tmp_path: Path) -> None:
    network, _ = trained(tmp_path)
    purify = ScorePurify(network, 3, start=0.0, size=Adaptive(share=0.2))
    with torch.no_grad():
        assert torch.allclose(purify(IMAGES), MEAN + 0.8**3 * (IMAGES - MEAN), atol=0.005)

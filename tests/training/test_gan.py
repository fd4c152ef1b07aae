from __future__ import annotations

from itertools import islice
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from unmask.training.checkpoints import Checkpoints
from unmask.training.gan import GanRecipe, train_gan

SIZE = 64
IMAGES = 0.8 + 0.1 * torch.rand(SIZE, 1, 2, 2, generator=torch.Generator().manual_seed(0))


def images(index: Tensor) -> tuple[Tensor, Tensor]:
    return IMAGES[index], torch.zeros(len(index), dtype=torch.long)


def nets(seed: int) -> tuple[nn.Module, nn.Module]:
    torch.manual_seed(seed)
    generator = nn.Sequential(nn.Linear(3, 8), nn.ReLU(), nn.Linear(8, 4), nn.Sigmoid(), nn.Unflatten(1, (1, 2, 2)))
    critic = nn.Sequential(nn.Flatten(), nn.Linear(4, 16), nn.LeakyReLU(0.2), nn.Linear(16, 1))
    return generator, critic


def train(
    parts: tuple[nn.Module, nn.Module], folder: Path, recipe: GanRecipe, reports: int = 999
) -> list[dict[str, Any]]:
    checkpoints = Checkpoints(folder, {"recipe": repr(recipe)})
    return list(islice(train_gan(*parts, 3, images, SIZE, recipe, checkpoints, seed=5), reports))


def equal(a: nn.Module, b: nn.Module) -> bool:
    return all(torch.equal(p, q) for p, q in zip(a.state_dict().values(), b.state_dict().values(), strict=True))


def test_an_interrupted_training_goes_on_as_if_nothing_had_happened(tmp_path: Path) -> None:
    recipe = GanRecipe(iterations=11, critic=2, batch=8, rate=0.01, report=4)
    whole, parts = nets(0), nets(0)
    expected = train(whole, tmp_path / "whole", recipe)
    logs = train(parts, tmp_path / "parts", recipe, reports=1)
    torch.rand(17)
    parts = nets(1)
    logs += train(parts, tmp_path / "parts", recipe)
    assert [log["iteration"] for log in logs] == [4, 8, 11]
    assert [log["distance"] for log in logs] == [log["distance"] for log in expected]
    assert equal(whole[0], parts[0])
    assert equal(whole[1], parts[1])
    again = nets(2)
    assert train(again, tmp_path / "parts", recipe) == []
    assert equal(whole[0], again[0])


def test_the_generator_learns_where_the_images_are(tmp_path: Path) -> None:
    generator, critic = nets(0)
    z = torch.randn(200, 3, generator=torch.Generator().manual_seed(1))
    before = generator(z).mean().item()
    recipe = GanRecipe(iterations=150, critic=3, batch=32, rate=0.01, report=25, average=0.9)
    logs = train((generator, critic), tmp_path, recipe)
    assert before < 0.7
    assert generator(z).mean().item() == pytest.approx(IMAGES.mean().item(), abs=0.04)
    assert abs(logs[-1]["distance"]) < 0.5 * max(log["distance"] for log in logs)


@pytest.mark.parametrize("average", [0.0, 0.5])
def test_what_is_kept_is_the_running_mean(tmp_path: Path, average: float) -> None:
    """The mean begins at the first update's weights and then forgets by ``average``."""
    steps = []
    for iterations in (1, 2):
        recipe = GanRecipe(iterations, critic=1, batch=8, rate=0.01, report=1, average=0.0)
        last = nets(0)
        train(last, tmp_path / f"last {iterations}", recipe)
        steps.append(last[0].state_dict())
    kept = nets(0)
    train(kept, tmp_path / "kept", GanRecipe(2, critic=1, batch=8, rate=0.01, report=1, average=average))
    for name, value in kept[0].state_dict().items():
        assert torch.allclose(value, average * steps[0][name] + (1 - average) * steps[1][name], atol=1e-7)


def test_other_settings_in_the_same_folder_are_refused(tmp_path: Path) -> None:
    train(nets(0), tmp_path, GanRecipe(1, batch=8))
    with pytest.raises(ValueError, match="other settings"):
        train(nets(0), tmp_path, GanRecipe(2, batch=8))

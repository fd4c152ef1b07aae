from __future__ import annotations

import json
from itertools import islice
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from unmask.randomness import uniform
from unmask.training.checkpoints import Checkpoints
from unmask.training.classifier import ClassifierRecipe, train_classifier
from unmask.types import Victim

SIZE = 96
IMAGES = torch.rand(SIZE, 1, 4, 4, generator=torch.Generator().manual_seed(0))
LABELS = (IMAGES[:, 0, :, :2].sum((1, 2)) > IMAGES[:, 0, :, 2:].sum((1, 2))).long()


def images(index: Tensor) -> tuple[Tensor, Tensor]:
    return IMAGES[index], LABELS[index]


def net(seed: int) -> nn.Module:
    torch.manual_seed(seed)
    return nn.Sequential(nn.Conv2d(1, 4, 3, padding=1), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Linear(64, 2))


def noisy(model: Victim, x: Tensor, y: Tensor, progress: float, index: Tensor) -> Tensor:
    return x + 0.1 * progress * uniform(x.shape, x)


RECIPE = ClassifierRecipe(epochs=4, batch=16, rate=0.02, perturb=noisy, shift=1, low_precision=False)


def train(model: nn.Module, folder: Path, recipe: ClassifierRecipe = RECIPE, epochs: int = 99) -> list[dict[str, Any]]:
    """Train for some of the epochs, as if interrupted after them."""
    checkpoints = Checkpoints(folder, {"recipe": repr(recipe)})
    return list(islice(train_classifier(model, images, SIZE, recipe, checkpoints, seed=3), epochs))


def equal(a: nn.Module, b: nn.Module) -> bool:
    return all(torch.equal(p, q) for p, q in zip(a.state_dict().values(), b.state_dict().values(), strict=True))


def test_an_interrupted_training_goes_on_as_if_nothing_had_happened(tmp_path: Path) -> None:
    whole, parts = net(0), net(0)
    expected = train(whole, tmp_path / "whole")
    logs = train(parts, tmp_path / "parts", epochs=1)
    assert not equal(whole, parts)
    torch.rand(17)  # the global generator plays no part
    parts = net(1)  # nor do the weights that a new process begins with
    logs += train(parts, tmp_path / "parts", epochs=2)
    parts = net(2)
    logs += train(parts, tmp_path / "parts")
    assert equal(whole, parts)
    assert [{**log, "seconds": 0} for log in logs] == [{**log, "seconds": 0} for log in expected]
    again = net(3)
    assert train(again, tmp_path / "parts") == []  # finished: only read
    assert equal(whole, again)
    assert not again.training
    lines = (tmp_path / "parts" / "log.jsonl").read_text().splitlines()
    assert [json.loads(line) for line in lines] == logs


def test_the_loss_falls_and_the_classes_are_learnt(tmp_path: Path) -> None:
    recipe = ClassifierRecipe(epochs=20, batch=16, rate=0.02, low_precision=False)
    model = net(0)
    logs = train(model, tmp_path, recipe)
    assert [log["epoch"] for log in logs] == list(range(1, 21))
    assert logs[-1]["loss"] < 0.3 * logs[0]["loss"]
    assert logs[-1]["accuracy"] > 0.95
    assert (model(IMAGES).argmax(1) == LABELS).double().mean() > 0.95


def test_bfloat16_trains_as_well(tmp_path: Path) -> None:
    model = net(0)
    train(model, tmp_path, ClassifierRecipe(epochs=20, batch=16, rate=0.02))
    assert all(p.dtype == torch.float32 for p in model.parameters())
    assert (model(IMAGES).argmax(1) == LABELS).double().mean() > 0.95


def test_a_batch_is_perturbed_before_it_is_learnt(tmp_path: Path) -> None:
    seen: list[tuple[float, Tensor, Tensor]] = []

    def swap(model: Victim, x: Tensor, y: Tensor, progress: float, index: Tensor) -> Tensor:
        seen.append((progress, index, y))
        assert torch.equal(x, IMAGES[index])
        return x.flip(3)  # exchanges the halves that tell the classes apart

    model = net(0)
    train(model, tmp_path, ClassifierRecipe(epochs=15, batch=16, rate=0.02, perturb=swap, low_precision=False))
    assert (model(IMAGES).argmax(1) == LABELS).double().mean() < 0.2
    assert [progress for progress, *_ in seen] == pytest.approx([i / 90 for i in range(90)])
    epochs = torch.stack([index for _, index, _ in seen]).view(15, SIZE)
    assert torch.equal(epochs.sort(1).values, torch.arange(SIZE).expand(15, -1))  # each image once an epoch
    assert len(epochs.unique(dim=0)) == 15
    assert all(torch.equal(y, LABELS[index]) for _, index, y in seen)


def test_other_settings_in_the_same_folder_are_refused(tmp_path: Path) -> None:
    settings = {"rate": 0.1, "betas": (0.5, 0.9)}
    Checkpoints(tmp_path, settings)
    Checkpoints(tmp_path, settings)
    with pytest.raises(ValueError, match="another folder") as error:
        Checkpoints(tmp_path, {**settings, "rate": 0.2})
    assert str(error.value) == (
        f"{tmp_path} holds a training run with other settings: choose another folder or remove it"
    )
    Checkpoints(tmp_path, settings)  # the refusal has changed nothing

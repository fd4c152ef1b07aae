"""A student is taught what its teacher says of bare images, from images behind a transformation."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from unmask.cases import recipes
from unmask.cases.recipes import StudentTraining
from unmask.defenses.preprocessed import Preprocessed
from unmask.training.classifier import ClassifierRecipe
from unmask.weights import save_weights

IMAGES = torch.rand(64, 1, 4, 4, generator=torch.Generator().manual_seed(0))
RECIPE = ClassifierRecipe(epochs=60, batch=16, rate=0.05, low_precision=False)


def net() -> nn.Module:
    return nn.Sequential(nn.Flatten(), nn.Linear(16, 3))


class Flipped(nn.Module):
    """A transformation that a linear student can undo and that no other weights fit."""

    def forward(self, x: Tensor) -> Tensor:
        return 1 - x.flip(3)


@pytest.fixture
def teacher(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> nn.Module:
    """Its weights ship, its data are few, and their labels say nothing."""
    torch.manual_seed(1)
    model = net().eval()
    model[1].weight.data *= 8  # type: ignore[index]
    path = tmp_path / "teacher.safetensors"
    save_weights(model, path)

    class Few(SimpleNamespace):
        def __len__(self) -> int:
            return len(IMAGES)

    few = Few(floats=lambda index: (IMAGES[index], torch.zeros(len(index), dtype=torch.long)))
    monkeypatch.setattr(recipes, "load", lambda name, split: {("few", "train"): few}[name, split])
    monkeypatch.setattr(recipes, "shipped", lambda name: {"teacher": path}[name])
    return model


def train(folder: Path, epochs: int = 60) -> tuple[Preprocessed, list[dict[str, Any]]]:
    torch.manual_seed(2)
    model = Preprocessed(Flipped(), net())
    training = StudentTraining("few", "teacher", net, RECIPE)
    steps = training(model, folder, seed=0, device="cpu")
    return model, [log for log, _ in zip(steps, range(epochs), strict=False)]


def test_what_the_teacher_says_of_bare_images_is_learned_behind_the_transformation(
    teacher: nn.Module, tmp_path: Path
) -> None:
    model, logs = train(tmp_path)
    with torch.no_grad():
        said, wanted = model.eval()(IMAGES), teacher(IMAGES)
    divergence = F.kl_div(said.log_softmax(1), wanted.softmax(1), reduction="batchmean")
    assert len(logs) == RECIPE.epochs
    assert logs[-1]["loss"] < 0.05 * logs[0]["loss"]
    assert divergence < 0.05
    assert wanted.argmax(1).unique().numel() > 1  # not what the labels say
    assert (said.argmax(1) == wanted.argmax(1)).float().mean() >= 0.9


def test_the_loss_is_the_divergence_at_the_temperature_times_its_square(teacher: nn.Module, tmp_path: Path) -> None:
    torch.manual_seed(2)
    model = Preprocessed(Flipped(), net())
    training = StudentTraining("few", "teacher", net, ClassifierRecipe(1, 64, 0.0, low_precision=False), 2.0)
    (log,) = training(model, tmp_path, seed=0, device="cpu")
    with torch.no_grad():
        p, q = (teacher(IMAGES) / 2).softmax(1), (model(IMAGES) / 2).softmax(1)
    assert log["loss"] == pytest.approx(4 * float((p * (p / q).log()).sum(1).mean()), rel=1e-2)


def test_the_teacher_and_an_interruption_change_nothing(teacher: nn.Module, tmp_path: Path) -> None:
    before = {name: t.clone() for name, t in teacher.state_dict().items()}
    whole, _ = train(tmp_path / "whole")
    train(tmp_path / "parts", epochs=2)
    parts, _ = train(tmp_path / "parts")
    for name, t in whole.state_dict().items():
        assert torch.equal(t, parts.state_dict()[name])
    assert all(torch.equal(t, before[name]) for name, t in teacher.state_dict().items())

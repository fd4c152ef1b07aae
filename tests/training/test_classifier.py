from __future__ import annotations

import copy
import json
from collections.abc import Callable
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from unmask.nets.residual import Whitening
from unmask.randomness import uniform
from unmask.training import epochs
from unmask.training.checkpoints import Checkpoints
from unmask.training.classifier import ClassifierRecipe, Nesterov, train_classifier
from unmask.types import Model

SIZE = 96
IMAGES = torch.rand(SIZE, 1, 4, 4, generator=torch.Generator().manual_seed(0))
LABELS = (IMAGES[:, 0, :, :2].sum((1, 2)) > IMAGES[:, 0, :, 2:].sum((1, 2))).long()


def images(index: Tensor) -> tuple[Tensor, Tensor]:
    return IMAGES[index], LABELS[index]


def net(seed: int) -> nn.Module:
    torch.manual_seed(seed)
    return nn.Sequential(nn.Conv2d(1, 4, 3, padding=1), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Linear(64, 2))


def noisy(model: Model, x: Tensor, y: Tensor, progress: float, index: Tensor) -> Tensor:
    return x + 0.1 * progress * uniform(x.shape, x)


RECIPE = ClassifierRecipe(epochs=4, batch=16, rate=0.02, perturb=noisy, shift=1, low_precision=False)


def train(model: nn.Module, folder: Path, recipe: ClassifierRecipe = RECIPE, epochs: int = 99) -> list[dict[str, Any]]:
    """Train for some of the epochs, as if interrupted after them."""
    checkpoints = Checkpoints(folder, {"recipe": repr(recipe)})
    return list(islice(train_classifier(model, images, SIZE, recipe, checkpoints, seed=3), epochs))


def white(seed: int) -> nn.Sequential:
    torch.manual_seed(seed)
    return nn.Sequential(Whitening(1, 3), nn.BatchNorm2d(6), nn.ReLU(), nn.Flatten(), nn.Linear(54, 2))


EVERYTHING = replace(RECIPE, clean=0.3, pull=0.1, optimizer=Nesterov(), smoothing=0.1, mirror=True)


def equal(a: nn.Module, b: nn.Module) -> bool:
    return all(torch.equal(p, q) for p, q in zip(a.state_dict().values(), b.state_dict().values(), strict=True))


@pytest.mark.parametrize(("build", "recipe"), [(net, RECIPE), (white, EVERYTHING)])
def test_an_interrupted_training_goes_on_as_if_nothing_had_happened(
    build: Callable[[int], nn.Module], recipe: ClassifierRecipe, tmp_path: Path
) -> None:
    whole, parts = build(0), build(0)
    expected = train(whole, tmp_path / "whole", recipe)
    logs = train(parts, tmp_path / "parts", recipe, epochs=1)
    assert not equal(whole, parts)
    torch.rand(17)  # the global generator plays no part
    parts = build(1)  # nor do the weights that a new process begins with
    logs += train(parts, tmp_path / "parts", recipe, epochs=2)
    parts = build(2)
    logs += train(parts, tmp_path / "parts", recipe)
    assert equal(whole, parts)
    assert [{**log, "seconds": 0} for log in logs] == [{**log, "seconds": 0} for log in expected]
    again = build(3)
    assert train(again, tmp_path / "parts", recipe) == []  # finished: only read
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


def test_bfloat16_gives_about_the_same_losses(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(epochs, "multiplies_bfloat16", lambda device: True)
    expected = train(net(0), tmp_path / "wide", EVERYTHING)
    logs = train(net(0), tmp_path / "narrow", replace(EVERYTHING, low_precision=True))
    assert [log["loss"] for log in logs] == pytest.approx([log["loss"] for log in expected], rel=0.02)
    assert [log["loss"] for log in logs] != [log["loss"] for log in expected]


def test_a_batch_is_perturbed_before_it_is_learnt(tmp_path: Path) -> None:
    seen: list[tuple[float, Tensor, Tensor]] = []

    def swap(model: Model, x: Tensor, y: Tensor, progress: float, index: Tensor) -> Tensor:
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


def mirror_image(model: nn.Module, x: Tensor, y: Tensor, progress: float, index: Tensor) -> Tensor:
    assert not any(part.training for part in model.modules())
    return x.flip(3)


def first_log(model: nn.Module, folder: Path, recipe: ClassifierRecipe) -> dict[str, Any]:
    """Of an epoch that is a single step, so that its loss is that of the weights the model begins with."""
    (log,) = train(model, folder, replace(recipe, batch=SIZE, low_precision=False), epochs=1)
    return log


@pytest.mark.parametrize("smoothing", [0.0, 0.2])
def test_smoothing_spreads_a_share_of_the_label(smoothing: float, tmp_path: Path) -> None:
    logs = net(0)(IMAGES).log_softmax(1)
    right = logs[torch.arange(SIZE), LABELS]
    expected = -((1 - smoothing) * right + smoothing * logs.mean(1)).mean()
    log = first_log(net(0), tmp_path, ClassifierRecipe(epochs=2, smoothing=smoothing))
    assert log["loss"] == pytest.approx(expected.item(), rel=1e-5)


@pytest.mark.parametrize(("clean", "pull"), [(0.0, 0.0), (0.3, 0.0), (0.0, 0.2), (0.5, 0.1)])
def test_the_loss_weighs_an_image_and_its_perturbed_twin(clean: float, pull: float, tmp_path: Path) -> None:
    """Batch norm sees both together, or the perturbed ones alone where nothing else counts."""
    recipe = ClassifierRecipe(epochs=2, perturb=mirror_image, clean=clean, pull=pull)
    log = first_log(net(0), tmp_path, recipe)
    both = torch.cat((IMAGES, IMAGES.flip(3))) if clean or pull else IMAGES.flip(3)
    z = net(0)(both)
    before, after = z[:SIZE], z[-SIZE:]
    expected = (
        clean * F.cross_entropy(before, LABELS)
        + (1 - clean) * F.cross_entropy(after, LABELS)
        + pull * ((before - after) ** 2).sum() / SIZE
    )
    assert log["loss"] == pytest.approx(expected.item(), rel=1e-5)
    assert log["accuracy"] == pytest.approx((after.argmax(1) == LABELS).double().mean().item())


def test_the_model_trains_again_after_the_perturbation(tmp_path: Path) -> None:
    model = net(0)
    modes: list[bool] = []
    model.register_forward_pre_hook(lambda part, _: modes.append(part.training))
    train(model, tmp_path, ClassifierRecipe(epochs=1, batch=16, perturb=mirror_image))
    assert modes == [True] * 6


def test_each_image_is_seen_both_ways_in_two_epochs(tmp_path: Path) -> None:
    ways = torch.zeros(4, SIZE, dtype=torch.bool)

    def look(model: nn.Module, x: Tensor, y: Tensor, progress: float, index: Tensor) -> Tensor:
        turned = (x == IMAGES[index].flip(3)).flatten(1).all(1)
        assert (turned | (x == IMAGES[index]).flatten(1).all(1)).all()
        ways[int(4 * progress + 1e-9), index] = turned
        return x

    train(net(0), tmp_path, ClassifierRecipe(epochs=4, batch=16, perturb=look, mirror=True))
    assert torch.equal(ways[1:], ~ways[:-1])
    assert 0 < int(ways[0].sum()) < SIZE


def test_nesterov_takes_the_steps_of_the_formula(tmp_path: Path) -> None:
    model = nn.Sequential(nn.Flatten(), nn.Linear(16, 2))
    begin = copy.deepcopy(model)
    batches: list[Tensor] = []

    def noted(index: Tensor) -> tuple[Tensor, Tensor]:
        batches.append(index)
        return images(index)

    recipe = ClassifierRecipe(epochs=2, batch=24, rate=0.3, optimizer=Nesterov(0.8, 0.05), low_precision=False)
    list(train_classifier(model, noted, SIZE, recipe, Checkpoints(tmp_path, {}), seed=3))
    steps = [index for index in batches if len(index) == 24]
    assert len(steps) == 8
    velocity = [torch.zeros_like(p) for p in begin.parameters()]
    for step, index in enumerate(steps):
        rate = 0.3 * min(1.0, 20 * step / 8, 2 * (1 - step / 8))
        loss = F.cross_entropy(begin(IMAGES[index]), LABELS[index])
        gradients = torch.autograd.grad(loss, list(begin.parameters()))
        with torch.no_grad():
            for p, g, v in zip(begin.parameters(), gradients, velocity, strict=True):
                v.mul_(0.8).add_(g + 0.05 * p)
                p.sub_(rate * (g + 0.05 * p + 0.8 * v))
    for p, q in zip(model.parameters(), begin.parameters(), strict=True):
        assert torch.allclose(p, q, rtol=1e-4, atol=1e-6)


def test_whitening_is_fitted_once_and_stays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fitted: list[Tensor] = []
    fit = Whitening.fit

    def count(layer: Whitening, x: Tensor) -> None:
        fitted.append(x)
        fit(layer, x)

    monkeypatch.setattr(Whitening, "fit", count)
    model, expected = white(0), Whitening(1, 3)
    train(model, tmp_path, EVERYTHING, epochs=2)
    train(model := white(1), tmp_path, EVERYTHING)
    assert len(fitted) == 1
    fit(expected, IMAGES)
    assert torch.equal(model.get_parameter("0.weight"), expected.weight)  # neither trained nor decayed
    assert model.get_parameter("0.bias").abs().max() > 0


def test_whitening_is_fitted_to_what_reaches_it(tmp_path: Path) -> None:
    """In evaluation mode, and the second of two layers to what the first one gives once it is fitted."""
    torch.manual_seed(0)
    norm = nn.BatchNorm2d(4)
    model = nn.Sequential(nn.Dropout(), Whitening(1, 2), norm, Whitening(4, 3), nn.Flatten(), nn.Linear(24, 2))
    first, second = Whitening(1, 2), Whitening(4, 3)
    first.fit(IMAGES)
    second.fit(norm.eval()(first(IMAGES)))
    train(model, tmp_path, ClassifierRecipe(epochs=0))
    assert torch.allclose(model.get_parameter("1.weight"), first.weight)
    assert torch.allclose(model.get_parameter("3.weight"), second.weight, rtol=1e-4, atol=1e-4)
    assert torch.equal(model.get_buffer("2.running_mean"), torch.zeros(4))

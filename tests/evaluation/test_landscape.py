"""Slices of the loss, on models whose loss and gradient are known in closed form."""

from __future__ import annotations

import time
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from unmask.attacks.aliases import pgd
from unmask.attacks.combined.with_view import WithView
from unmask.cases import AttackSpec
from unmask.data import load
from unmask.evaluation.execute import execute_job
from unmask.evaluation.execution_config import ExecutionConfig
from unmask.evaluation.models.targets import Target
from unmask.evaluation.pictures import landscape
from unmask.evaluation.pictures.landscape import ALONG, BESIDE, landscape_tensors, misfit
from unmask.gradients.straight_through import straight_through
from unmask.kinds import Role
from unmask.losses import margin
from unmask.models.black_box_models import BlackBoxModel
from unmask.records import Job, ThreatSpec
from unmask.types import Output

DATA = load("digits", n=40)
A, B = torch.tensor(ALONG), torch.tensor(BESIDE)


class Means(nn.Module):
    """Distance to the mean image of each class: linear logits. ``levels`` of grey are told apart; 0 for all."""

    def __init__(self, levels: int = 0) -> None:
        super().__init__()
        x, y = load("digits", "train").batch()
        mean = torch.stack([x[y == k].mean(0).flatten() for k in range(10)])
        self.read = nn.Linear(64, 10).requires_grad_(False)
        self.read.weight.copy_(2 * mean)
        self.read.bias.copy_(-(mean**2).sum(1))
        self.levels = levels
        self.eval()

    def forward(self, x: Tensor) -> Tensor:
        x = (x * self.levels).round() / self.levels if self.levels else x
        answer: Tensor = self.read(x.flatten(1))
        return answer


class NeverMeant(Means):
    def forward(self, x: Tensor) -> Tensor:
        return super().forward(torch.from_numpy(x.numpy()))


def job(**fields: Any) -> Job:
    asked = Job("means", "digits", "adaptive", ThreatSpec("linf", 0.15), 0, 0, 40, Role.ADAPTIVE, {"budget": "quick"})
    return replace(asked, **fields)


def target(model: nn.Module, **fields: Any) -> Target:
    attack = AttackSpec("", lambda _: WithView(straight_through, pgd(10, margin)), low_precision=False)
    return Target(model, {"adaptive": attack, "other": attack}, **fields)


def slices(one: Target, asked: Job | None = None, batch: int = 128) -> dict[str, Tensor]:
    tensors = execute_job(asked or job(), one, DATA, ExecutionConfig(batch)).tensors
    return {name.removeprefix("slice_"): t for name, t in tensors.items() if name.startswith("slice_")}


@pytest.mark.parametrize(("norm", "length"), [("linf", 0.05), ("l2", 0.3), ("l1", 1.2)])
def test_the_slice_of_a_linear_model_is_a_plane(norm: str, length: float) -> None:
    """Two classes, and images that no step brings to an edge of the box."""
    weight = torch.linspace(-1, 1, 36)
    model = nn.Sequential(nn.Flatten(), nn.Linear(36, 2))
    model[1].weight.data, model[1].bias.data = torch.stack((-weight, weight)), torch.zeros(2)
    x = torch.full((2, 1, 6, 6), 0.5) + torch.linspace(0, 0.02, 36).view(1, 1, 6, 6)
    direction = torch.ones(36) if norm == "linf" else torch.linspace(1, 0.2, 36)
    change = (direction * weight.sign()).view(1, 1, 6, 6)
    power = {"linf": torch.inf, "l2": 2, "l1": 1}[norm]
    change *= length / torch.linalg.vector_norm(change, power)
    y, index = torch.tensor([0, 1]), torch.tensor([3, 4])
    asked = job(threat=ThreatSpec(norm, length))
    first, second = landscape_tensors(Target(model), [0, 1], index, x, y, x + change, asked)
    assert (first["slice_index"].item(), second["slice_index"].item()) == (3, 4)
    rise = float(2 * (weight * change.flatten()).sum())
    start = float(2 * (weight * x[0].flatten()).sum())
    for found, sign in ((first, 1), (second, -1)):
        loss = found["slice_loss"][0].float() * found["slice_scale"]
        slack = 2e-3 * float(found["slice_scale"])
        torch.testing.assert_close(loss[len(BESIDE) // 2], sign * (start + rise * A), atol=slack, rtol=0)
        torch.testing.assert_close(found["slice_slope"][0], torch.full((len(ALONG) - 1,), sign * rise))
        beside = (loss[-1] - loss[0]) / 2  # the same wherever along the attack
        torch.testing.assert_close(beside, beside.mean().expand(len(ALONG)), atol=2 * slack, rtol=0)
        plane = loss[len(BESIDE) // 2] + B[:, None] * beside.mean()
        torch.testing.assert_close(loss, plane, atol=2 * slack, rtol=0)
        dual = {"linf": 1, "l2": 2, "l1": torch.inf}[norm]
        most = float(torch.linalg.vector_norm(2 * weight, dual)) * length
        assert 0 < abs(float(beside.mean())) <= most, "a direction of the same length"


def test_a_correct_gradient_predicts_the_loss_and_a_masked_one_does_not() -> None:
    for model, masked in ((Means(), False), (Means(levels=8), True)):
        found = slices(target(model))
        assert len(found["index"]) == 3
        line = (found["loss"].float() * found["scale"].view(-1, 1, 1))[:, len(BESIDE) // 2]
        predicted = torch.cumsum(found["slope"] * 0.1, 1)
        rise = line[:, 1:] - line[:, :1]
        assert (rise[:, ALONG.index(1) - 1] > 0.5).all()
        if masked:
            assert (predicted == 0).all()
        else:  # but for kinks where another class comes next, or a pixel reaches the edge
            torch.testing.assert_close(predicted, rise, atol=0.1, rtol=0.1)


def test_a_model_without_a_gradient_has_a_slice_all_the_same() -> None:
    found = slices(target(NeverMeant()), job(attack="noise"))
    assert found == {}
    x, y = DATA.batch(0, 1)
    (one,) = landscape_tensors(Target(NeverMeant()), [0], torch.tensor([0]), x, y, (x + 0.1).clamp(0, 1), job())
    assert one["slice_slope"].isnan().all()
    assert one["slice_loss"].isfinite().all()


def test_points_outside_the_box_are_cut_to_it() -> None:
    seen = []

    class Watched(Means):
        def forward(self, x: Tensor) -> Tensor:
            seen.append((float(x.min()), float(x.max())))
            return super().forward(x)

    x, y = DATA.batch(0, 1)
    assert list(landscape_tensors(Target(Watched()), [0], torch.tensor([0]), x, y, (x + 0.4).clamp(0, 1), job()))
    assert min(low for low, _ in seen) >= 0
    assert max(high for _, high in seen) <= 1


def test_only_the_adaptive_attack_of_an_audit_has_slices() -> None:
    assert slices(target(Means()))["index"].tolist() == [0, 1, 2]
    for other in (
        job(attack="other"),
        job(options={}),
        job(role=Role.CONTROL),
        job(role=Role.PLAIN),
        job(start=20),
    ):
        assert slices(target(Means()), other) == {}
    assert slices(target(Means(), draws=4)) == {}
    model = Means()
    box = BlackBoxModel(lambda x: model(torch.from_numpy(x)).numpy())
    attack = AttackSpec("", lambda _: pgd(2, margin), low_precision=False)
    assert slices(Target(box, {"adaptive": attack})) == {}
    assert slices(target(model), job(threat=ThreatSpec("linf", 0.0))) == {}, "nothing has moved"


def test_slow_models_have_fewer_slices_or_none(monkeypatch: pytest.MonkeyPatch) -> None:
    """On a clock of its own a pass takes a second, so that one slice takes 22 passes."""
    clock = [0.0]

    class Slow(Means):
        def forward(self, x: Tensor) -> Tensor:
            clock[0] += 1.0
            return super().forward(x)

    x, y = DATA.batch(0, 3)
    moved = (x + 0.1).clamp(0, 1)
    monkeypatch.setattr(time, "monotonic", lambda: clock[0])
    for seconds, count in ((1000.0, 3), (50.0, 2), (30.0, 1), (20.0, 0)):
        monkeypatch.setattr(landscape, "_SECONDS", seconds)
        found = landscape_tensors(Target(Slow()), range(3), torch.arange(3), x, y, moved, job())
        assert len([*found]) == count


def test_slices_are_small_and_the_same_for_every_batch_size() -> None:
    whole, parts = slices(target(Means())), slices(target(Means()), batch=2)
    assert whole.keys() == parts.keys() == {"index", "loss", "scale", "slope"}
    for name, tensor in whole.items():
        assert torch.equal(tensor, parts[name]), name
    assert sum(tensor.nbytes for tensor in whole.values()) < 2500


def test_no_pass_for_a_slice_is_counted() -> None:
    first, second = (execute_job(asked, target(Means()), DATA).record for asked in (job(), job(options={})))
    assert (first.forwards, first.backwards) == (second.forwards, second.backwards)


def loss_at(place: int) -> Any:
    def edit(tensors: dict[str, Tensor]) -> None:
        tensors["slice_loss"][1, len(BESIDE) // 2, ALONG.index(place)] += 0.02

    return edit


@pytest.mark.parametrize(
    ("edit", "problem"),
    [
        (lambda tensors: None, None),
        (loss_at(0), "the slice of the loss around example 1 does not go through its images"),
        (loss_at(1), "the slice of the loss around example 1 does not go through its images"),
        (lambda tensors: tensors["slice_scale"].mul_(torch.nan), "example 0 does not go through"),
        (lambda tensors: tensors["slice_index"].add_(40), "show example 40, which it does not attack"),
        (lambda tensors: tensors.pop("slice_slope"), "another form"),
        (lambda tensors: tensors.update(slice_more=torch.zeros(1)), "another form"),
        (lambda tensors: tensors.update(slice_index=torch.tensor(3)), "another form"),
        (lambda tensors: tensors.update(slice_loss=tensors["slice_loss"].float()), "another form"),
    ],
)
def test_what_can_be_checked_of_a_slice_is_checked(edit: Any, problem: str | None) -> None:
    tensors = execute_job(job(), target(Means()), DATA).tensors
    edit(tensors)
    found = misfit(job(), tensors, target(Means()), DATA, "cpu")
    assert (found is None) == (problem is None)
    assert problem is None or problem in str(found)


def test_other_jobs_have_none() -> None:
    tensors = execute_job(job(), target(Means()), DATA).tensors
    for other in (job(role=Role.CONTROL), job(attack="other")):
        assert "another form" in str(misfit(other, tensors, target(Means()), DATA, "cpu"))
    bare = {name: tensor for name, tensor in tensors.items() if not name.startswith("slice_")}
    assert misfit(job(), bare, target(Means()), DATA, "cpu") is None, "as of a model that is slow"


def test_a_refusal_is_no_success_of_the_attack() -> None:
    """A detector that refuses bright images: the loss is that of the trajectories, which counts it."""

    class Detector(Means):
        def forward(self, x: Tensor) -> Any:
            return Output(super().forward(x), x.flatten(1).sum(1) - 20)

    x, y = DATA.batch(0, 1)
    moved = (x + 0.3).clamp(0, 1)
    (one,) = landscape_tensors(Target(Detector()), [0], torch.tensor([0]), x, y, moved, job())
    line = (one["slice_loss"][0].float() * one["slice_scale"])[len(BESIDE) // 2]
    expected = margin(Detector()(torch.cat((x, moved))), y.expand(2))
    np.testing.assert_allclose(line[[ALONG.index(0), ALONG.index(1)]], expected, rtol=2e-3, atol=2e-2)

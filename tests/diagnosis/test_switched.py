"""A threshold that noise does not reach and an attack does."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from unmask.diagnosis.probe import faults_behind_refusals, probe_gradients
from unmask.randomness import make_keys
from unmask.types import Output


class Threshold(nn.Module):
    """Two classes and a third, which wins at one stroke where the mean of an image is large."""

    def forward(self, x: Tensor) -> Tensor:
        mean = x.flatten(1).mean(1)
        third = torch.where(mean > 0.7, 5.0 + 0 * mean, -5.0 + 0 * mean)
        return torch.stack((0.6 - mean, mean - 0.6, third), 1)


class Smooth(nn.Module):
    """The same without a threshold."""

    def forward(self, x: Tensor) -> Tensor:
        mean = x.flatten(1).mean(1)
        return torch.stack((0.6 - mean, mean - 0.6, 20 * torch.relu(mean - 0.7) - 5), 1)


X = torch.full((16, 1, 8, 8), 0.5)
KEYS = make_keys(0, range(16), "switched")


def test_it_is_seen_around_what_an_attack_has_moved() -> None:
    model = Threshold()
    assert not probe_gradients(model, X, torch.zeros(16, dtype=torch.int64), 0.05, KEYS).faults
    moved = X + torch.linspace(0.19, 0.21, 16).view(-1, 1, 1, 1)
    found = faults_behind_refusals(model, moved, 0.05, KEYS)
    assert {(fault.event.name, fault.missing) for fault in found} == {("gt", True)}


def test_a_kink_is_none() -> None:
    assert faults_behind_refusals(Smooth(), X + torch.linspace(0.19, 0.21, 16).view(-1, 1, 1, 1), 0.05, KEYS) == []


class Refuses(nn.Module):
    """Two classes, and a refusal in numpy where the mean of an image is large."""

    def forward(self, x: Tensor) -> Output:
        mean = x.flatten(1).mean(1)
        refused = mean.detach().numpy() > 0.7
        return Output(torch.stack((0.6 - mean, mean - 0.6), 1), torch.from_numpy(refused))


def test_a_refusal_that_numpy_computes_ends_where_it_leaves_torch() -> None:
    moved = X + torch.linspace(0.19, 0.21, 16).view(-1, 1, 1, 1)
    (fault,) = faults_behind_refusals(Refuses(), moved, 0.05, KEYS)
    assert fault.missing
    assert "mean.detach().numpy() > 0.7" in fault.event.code
    assert faults_behind_refusals(Refuses(), X, 0.05, KEYS) == [], "nothing is refused here"

"""Attacks of other libraries, through ``attackable``, where those libraries are installed."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from unmask.adapters import attackable
from unmask.cases import find_case
from unmask.data import load
from unmask.gradients.straight_through import straight_through

EPS = 0.15

Search = Callable[[nn.Module, Tensor, Tensor], Tensor]


class Rounded(nn.Module):
    """Rounds to eight levels, inline, and hides the logits' scale: no gradient leads to its input."""

    def __init__(self) -> None:
        super().__init__()
        self.net = find_case("plain-digits").load()

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.net(torch.round(x * 7) / 7)
        return logits


def by_torchattacks(model: nn.Module, x: Tensor, y: Tensor) -> Tensor:
    torchattacks = pytest.importorskip("torchattacks")
    auto = torchattacks.AutoAttack(model, norm="Linf", eps=EPS, seed=0)
    auto._autoattack.attacks = [a for a in auto._autoattack.attacks if type(a).__name__ != "Square"]  # by gradients
    found: Tensor = auto(x, y)
    return found


def by_foolbox(model: nn.Module, x: Tensor, y: Tensor) -> Tensor:
    foolbox = pytest.importorskip("foolbox")
    bounded = foolbox.PyTorchModel(model, bounds=(0, 1), device="cpu")
    attack = foolbox.attacks.LinfPGD(steps=20, rel_stepsize=1 / 8, random_start=False)
    found: Tensor = attack(bounded, x, y, epsilons=EPS)[1]
    return found


def by_art(model: nn.Module, x: Tensor, y: Tensor) -> Tensor:
    evasion, estimators = (
        pytest.importorskip("art.attacks.evasion"),
        pytest.importorskip("art.estimators.classification"),
    )
    classifier = estimators.PyTorchClassifier(
        model, nn.CrossEntropyLoss(), x.shape[1:], 10, clip_values=(0.0, 1.0), device_type="cpu"
    )
    attack = evasion.ProjectedGradientDescent(classifier, eps=EPS, eps_step=EPS / 8, max_iter=20, verbose=False)
    return torch.from_numpy(attack.generate(x.numpy(), y.numpy()).astype(np.float32))


@pytest.mark.parametrize("search", [by_torchattacks, by_foolbox, by_art])
def test_an_attack_of_another_library_breaks_what_it_cannot_break_alone(search: Search) -> None:
    model = Rounded().eval()
    x, y = load("digits", "test", n=32).batch()

    def left(target: nn.Module) -> float:
        x_adv = search(target, x, y).detach()
        x_adv = x + (x_adv - x).clamp(-EPS, EPS)
        return float((model(x_adv.clamp(0, 1)).argmax(1) == y).double().mean())

    assert left(attackable(model)) > 0.75
    assert left(attackable(model, straight_through)) < 0.1

"""What an attack finds for an example depends on nothing but the example: not on how many others it came with."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from unmask.attacks.aliases import cw, fgsm, mifgsm, pgd
from unmask.attacks.auto_pgd.apgd import APGD
from unmask.attacks.black_box.random_search import RandomSearch
from unmask.attacks.black_box.square import Square
from unmask.attacks.combined.ensemble import Ensemble
from unmask.attacks.gradient_attack import GradientAttack
from unmask.attacks.optimizers import Adam
from unmask.attacks.problem import Attack
from unmask.gradients.eot import EOT
from unmask.gradients.spsa import SPSA
from unmask.losses import margin, targeted_margin
from unmask.randomness import normal
from unmask.threats import L1, L2, Linf, Threat


def _random(attack: Attack) -> Attack:
    return lambda problem: attack(replace(problem, random=True))


ATTACKS: dict[str, tuple[Attack, Threat]] = {
    "fgsm": (fgsm(), Linf(0.05)),
    "pgd": (pgd(5, restarts=2), L2(0.5)),
    "mifgsm": (mifgsm(5), Linf(0.05)),
    "cw": (cw(6, restarts=2), L2(0.5)),
    "adam": (GradientAttack(6, margin, Adam(0.02)), L1(3.0)),
    "eot": (pgd(4, estimator=EOT(3)), Linf(0.05)),
    "eot-random": (_random(pgd(6, margin, EOT(3), restarts=2)), Linf(0.05)),
    "apgd-random": (_random(APGD(6, margin, EOT(3))), Linf(0.05)),
    "spsa": (pgd(3, estimator=SPSA(4)), Linf(0.05)),
    "apgd": (APGD(12, restarts=2), Linf(0.05)),
    "apgd-l1": (APGD(12, margin), L1(1.0)),
    "apgd-targeted": (APGD(6, targeted_margin, targets=2), L2(0.5)),
    "square": (Square(25), Linf(0.05)),
    "square-l2": (Square(25), L2(0.5)),
    "random": (RandomSearch(20, batch=100), L1(3.0)),
    "ensemble": (Ensemble((fgsm(), APGD(5), Square(10))), Linf(0.05)),
}


class Noisy(nn.Module):
    """A small convolutional net that adds noise of its own to each image."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.net = nn.Sequential(
            nn.Conv2d(1, 6, 3, padding=1),
            nn.Tanh(),
            nn.Conv2d(6, 6, 3, stride=2),
            nn.Tanh(),
            nn.Flatten(),
            nn.Linear(54, 4),
        )

    def forward(self, x: Tensor) -> Tensor:
        z: Tensor = self.net(4 * (x + 0.02 * normal(x.shape, x)))
        return 5 * z


@pytest.mark.parametrize("name", ATTACKS)
def test_split_batches_give_the_same_bits(trial: Callable[..., Any], name: str) -> None:
    attack, threat = ATTACKS[name]
    model = Noisy().requires_grad_(False)
    x = torch.rand(64, 1, 8, 8, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        y = model.net(4 * x).argmax(1)

    def run(size: int, count: int) -> tuple[Tensor, list[int]]:
        found, fallen = [], []
        for index in torch.arange(count).split(size):
            t = trial(model, x[index], y[index], threat, index=index)
            found.append(attack(t.problem))
            fallen += [int(index[row]) for row in t.seen_broken()]
        return torch.cat(found), sorted(fallen)

    whole, fallen = run(64, 64)
    assert 0 < len(fallen) < 64
    for size, count in ((7, 21), (1, 5)):
        parts, also = run(size, count)
        assert torch.equal(parts, whole[:count])
        assert also == [row for row in fallen if row < count]

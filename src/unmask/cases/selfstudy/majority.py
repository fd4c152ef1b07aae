"""An ensemble that votes and refuses: a majority of three; broken by the members' logits."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from unmask.attacks.auto_pgd.apgd import APGD
from unmask.attacks.combined.ensemble import Ensemble
from unmask.cases.case import AttackSpec, Case
from unmask.cases.common import CIFAR10, apgd_ce, own_gradient
from unmask.cases.recipes import ClassifierTraining
from unmask.cases.selfstudy.training import CITATION, recipe, small_net
from unmask.defenses.selfstudy.majority import MajorityVote
from unmask.gradients.bpda import bypass
from unmask.kinds import Obfuscation
from unmask.losses import targeted_margin
from unmask.randomness import normal

__all__ = ["CASES", "each_with_noise"]

_NOISE = 0.1


def each_with_noise(model: MajorityVote, x: Tensor, y: Tensor, progress: float) -> tuple[Tensor, Tensor]:
    """The members' own cross entropies, member i behind Gaussian noise of 0.1 i; and their mean logits (B, K)."""
    seen = [x + i * _NOISE * normal(x.shape, like=x) if i else x for i in range(len(model.members))]
    logits = [member(noisy).float() for member, noisy in zip(model.members, seen, strict=True)]
    return torch.stack([F.cross_entropy(z, y) for z in logits]).sum(), torch.stack(logits).mean(0)


def _agreement(logits: Tensor) -> Tensor:
    """The median of three members' log probabilities, in which a class of two members leads, and some of their mean."""
    each = logits.log_softmax(2)
    return each.median(1).values + 0.3 * each.mean(1)


_SHARED: dict[str, Any] = {"data": "cifar10", "threat": CIFAR10, "citation": CITATION}

CASES = (
    Case(
        name="selfstudy-majority-cifar10",
        defense="majority of three networks",
        obfuscation=(Obfuscation.SHATTERED, Obfuscation.DETECTOR),
        build=lambda: MajorityVote([small_net(width=32) for _ in range(3)]),
        attacks={
            "plain": own_gradient(),
            "agreement": AttackSpec(
                "the members' median and mean log probabilities in place of the vote, alone: APGD on cross entropy and "
                "on the targeted margin with 9 targets",
                lambda _: Ensemble((apgd_ce(), APGD(100, targeted_margin, targets=9))),
                view=bypass("decide", _agreement),
            ),
        },
        train=ClassifierTraining("cifar10", recipe(), each_with_noise),
        note="accuracy counts a correct class, or a refusal under attack; a refused clean image counts as wrong",
        **_SHARED,
    ),
)

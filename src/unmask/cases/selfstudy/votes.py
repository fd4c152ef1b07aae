"""Ensembles that vote and refuse: a majority of three, and a yes of exactly one; broken by the members' logits."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from unmask.attacks.aliases import pgd
from unmask.attacks.auto_pgd.apgd import APGD
from unmask.attacks.combined.ensemble import Ensemble
from unmask.cases.case import AttackSpec, Case
from unmask.cases.common import CIFAR10, apgd_ce, own_gradient
from unmask.cases.selfstudy.training import CITATION, ProgressTraining, recipe, small_net
from unmask.defenses.selfstudy.binary import BinaryEnsemble
from unmask.defenses.selfstudy.majority import MajorityVote
from unmask.gradients.bpda import bypass
from unmask.kinds import Obfuscation
from unmask.losses import margin, targeted_margin
from unmask.randomness import normal
from unmask.types import Output

__all__ = ["CASES", "each_class", "each_with_noise", "joint_margins"]

_NOISE = 0.1


def each_with_noise(model: MajorityVote, x: Tensor, y: Tensor, progress: float) -> tuple[Tensor, Tensor]:
    """The members' own cross entropies, member i behind Gaussian noise of 0.1 i; and their mean logits (B, K)."""
    seen = [x + i * _NOISE * normal(x.shape, like=x) if i else x for i in range(len(model.members))]
    logits = [member(noisy).float() for member, noisy in zip(model.members, seen, strict=True)]
    return torch.stack([F.cross_entropy(z, y) for z in logits]).sum(), torch.stack(logits).mean(0)


def each_class(model: BinaryEnsemble, x: Tensor, y: Tensor, progress: float) -> tuple[Tensor, Tensor]:
    """The members' own cross entropies on whether an image shows their class; and by how much (B, K) they say yes."""
    logits = model.logits(x).float()
    shown = F.one_hot(y, logits.shape[1])
    loss = F.cross_entropy(logits.flatten(0, 1), shown.flatten()) * logits.shape[1]
    return loss, joint_margins(logits).logits


def joint_margins(logits: Tensor) -> Output:
    """Of logits (B, K, 2): by how much each class says yes, and by how much an image is refused, neither saturated.

    It is accepted here where one class says yes by more than 0.2 and all others say no; the defense accepts a little
    more than that.
    """
    yes = logits[..., 1] - logits[..., 0]
    first, second = yes.topk(2, 1).values.unbind(1)
    return Output(yes, torch.maximum(0.2 - first, second))


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
        train=ProgressTraining(recipe(), each_with_noise),
        note="accuracy counts a correct class, or a refusal under attack; a refused clean image counts as wrong",
        **_SHARED,
    ),
    Case(
        name="selfstudy-mergebinary-cifar10",
        defense="ensemble of binary classifiers",
        obfuscation=(Obfuscation.VANISHING, Obfuscation.DETECTOR),
        build=lambda: BinaryEnsemble([small_net(classes=2, width=16) for _ in range(10)]),
        attacks={
            "plain": own_gradient(),
            "logits": AttackSpec(
                "the logits of the members, and of the refusal, without sigmoid, alone: PGD on the margin, APGD on the "
                "targeted margin with 4 targets",
                lambda _: Ensemble((pgd(100, margin), APGD(100, targeted_margin, targets=4))),
                view=bypass("merge", joint_margins),  # type: ignore[arg-type]  # a refusal, too
            ),
        },
        train=ProgressTraining(recipe(3), each_class),
        note="accuracy counts a correct class, or a refusal under attack; a refused clean image counts as wrong",
        **_SHARED,
    ),
)

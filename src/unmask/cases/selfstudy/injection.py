"""Injected backdoors: a detector without a gradient; broken by its conditions as margins."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from unmask.attacks.aliases import pgd
from unmask.attacks.auto_pgd.apgd import APGD
from unmask.attacks.combined.ensemble import Ensemble
from unmask.cases.case import AttackSpec, Case
from unmask.cases.common import CIFAR10, own_gradient
from unmask.cases.recipes import ClassifierTraining
from unmask.cases.selfstudy.training import CITATION, recipe, small_net
from unmask.defenses.selfstudy.backdoors import Backdoored, Thresholds
from unmask.gradients.bpda import bypass
from unmask.kinds import Obfuscation
from unmask.losses import margin, targeted_margin
from unmask.randomness import uniform

__all__ = ["CASES", "with_backdoored_twins"]

_HIDDEN = 96
_OWN = 0.9  # refuses 3 % of training images, and 99 % of those with a backdoor; the course's 0.6 would 66 %, and all


def with_backdoored_twins(model: Backdoored, x: Tensor, y: Tensor, progress: float) -> tuple[Tensor, Tensor]:
    """The cross entropy of images, and of their twins with a random backdoor, whose size falls from 0.05 to 0.02."""
    size = 0.02 + 0.03 * max(1 - 1.1 * progress, 0.0)
    injected = (uniform((len(x), 1), like=x).squeeze(1) * len(model.patterns)).long()
    logits = model.classifier(torch.cat((x, model.with_backdoors(x, injected, size)))).float()
    return 2 * F.cross_entropy(logits, torch.cat((y, injected))), logits[: len(x)]


def _with_margins(model: nn.Module) -> nn.Module:
    inspect: Any = model.get_submodule("inspect")
    weights = torch.tensor([1.0, 1.0, 0.1])

    def refused(evidence: Tensor) -> Tensor:
        worst: Tensor = (inspect.margins(evidence) * weights.to(evidence)).amax(1)
        return worst

    return bypass("inspect", refused)(model)


CASES = (
    Case(
        name="selfstudy-injection-cifar10",
        defense="injected backdoors",
        obfuscation=(Obfuscation.DETECTOR,),
        data="cifar10",
        threat=CIFAR10,
        citation=CITATION,
        build=lambda: Backdoored(small_net(), _HIDDEN, thresholds=Thresholds(own=_OWN)),
        attacks={
            "plain": own_gradient(),
            "margins": AttackSpec(
                "the margin of each condition of the refusal in place of a bit: PGD on the joint margin, APGD on the "
                "joint targeted margin with 3 targets",
                lambda _: Ensemble((pgd(200, margin), APGD(100, targeted_margin, targets=3))),
                view=_with_margins,
            ),
        },
        train=ClassifierTraining(
            "cifar10",
            recipe(3),
            with_backdoored_twins,
            start="selfstudy-labelsmooth-cifar10",
            finish=Backdoored.remember,
        ),
        note="accuracy counts a correct class, or a refusal under attack; a refused clean image counts as wrong",
    ),
)

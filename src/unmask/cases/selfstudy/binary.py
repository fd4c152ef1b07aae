"""An ensemble of binary classifiers that accepts one yes alone; broken by the members' logits."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

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
from unmask.defenses.selfstudy.binary import BinaryEnsemble
from unmask.gradients.bpda import bypass
from unmask.kinds import Obfuscation
from unmask.losses import margin, targeted_margin
from unmask.nets import residual_net
from unmask.training.classifier import ClassifierRecipe
from unmask.types import Output
from unmask.weights import load_weights, shipped

__all__ = ["CASES", "BinaryTraining", "each_class", "joint_margins"]

_WIDTH = 24
_SURE = 0.3  # nine differences of -0.3 and one of 0.3 are accepted, with a softmax of 0.727


def each_class(model: BinaryEnsemble, x: Tensor, y: Tensor, progress: float) -> tuple[Tensor, Tensor]:
    """The members' own cross entropies on whether an image shows their class; and by how much (B, K) they say yes."""
    model.body.eval()  # is not trained, nor are its statistics
    logits = model.logits(x).float()
    shown = F.one_hot(y, logits.shape[1])
    loss = F.cross_entropy(logits.flatten(0, 1), shown.flatten()) * logits.shape[1]
    return loss, logits[..., 1] - logits[..., 0]


@dataclass(frozen=True)
class BinaryTraining:
    """Train the members on what the first half of ``selfstudy-labelsmooth-cifar10`` makes of images."""

    recipe: ClassifierRecipe

    def __call__(self, model: nn.Module, folder: Path, *, seed: int, device: str) -> Iterator[dict[str, Any]]:
        whole = small_net()
        load_weights(whole, shipped("selfstudy-labelsmooth-cifar10"))
        body = model.get_submodule("body").requires_grad_(False)
        body.load_state_dict(_first_half(whole).state_dict())
        yield from ClassifierTraining("cifar10", self.recipe, each_class)(model, folder, seed=seed, device=device)


def _first_half(net: nn.Sequential) -> nn.Sequential:
    """Space to depth, the stem and the first stage: (B, 3, 32, 32) -> (B, 48, 8, 8)."""
    return nn.Sequential(*list(net)[:3])


def _build() -> BinaryEnsemble:
    members = [residual_net(48, (_WIDTH,), whitening=0, classes=2, strided=True) for _ in range(10)]
    return BinaryEnsemble(members, _first_half(small_net()))


def joint_margins(logits: Tensor) -> Output:
    """Of logits (B, K, 2): by how much each class says yes, and by how much an image is refused, neither saturated.

    It is accepted here where one class says yes by 0.3 or more and all others say no by as much: then the ensemble of
    ten accepts it.
    """
    yes = logits[..., 1] - logits[..., 0]
    first, second = yes.topk(2, 1).values.unbind(1)
    return Output(yes, torch.maximum(-first, second) + _SURE)


CASES = (
    Case(
        name="selfstudy-mergebinary-cifar10",
        defense="ensemble of binary classifiers",
        obfuscation=(Obfuscation.VANISHING, Obfuscation.DETECTOR),
        data="cifar10",
        threat=CIFAR10,
        citation=CITATION,
        build=_build,
        attacks={
            "plain": own_gradient(),
            "logits": AttackSpec(
                "the logits of the members, and of the refusal, without sigmoid, alone: PGD on the joint margin, APGD "
                "on the joint targeted margin with 9 targets",
                lambda _: Ensemble((pgd(100, margin), APGD(100, targeted_margin, targets=9))),
                view=bypass("merge", cast(Any, joint_margins)),
            ),
        },
        train=BinaryTraining(recipe(4)),
        note="accuracy counts a correct class, or a refusal under attack; a refused clean image counts as wrong",
    ),
)

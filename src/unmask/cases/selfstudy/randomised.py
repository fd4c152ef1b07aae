"""Random neurons and random images: each pass has a gradient of its own; averaged gradients (EOT) break them."""

from __future__ import annotations

import copy
from dataclasses import replace
from typing import Any

from torch import nn

from unmask.attacks.aliases import pgd
from unmask.attacks.combined.ensemble import Ensemble
from unmask.cases.case import AttackSpec, Case
from unmask.cases.common import CIFAR10, own_gradient
from unmask.cases.selfstudy.training import CITATION
from unmask.defenses.preprocessed import Preprocessed
from unmask.defenses.selfstudy.activations import RandomNeurons
from unmask.defenses.selfstudy.augmentation import StrongAugmentation
from unmask.gradients.bpda import bypass, find_part
from unmask.gradients.eot import EOT
from unmask.kinds import Obfuscation
from unmask.losses import margin, with_confidence
from unmask.nets import residual_net

__all__ = ["CASES"]

_SURE = with_confidence(margin, 2.0)


def _undisturbed(model: nn.Module) -> nn.Module:
    """One pass without dropping, which is the mean of what each layer does."""
    one: Any = copy.deepcopy(find_part(model, ""))
    one.passes = 1
    return bypass("prune")(one)


_SHARED: dict[str, Any] = {"data": "cifar10", "threat": CIFAR10, "citation": CITATION}

CASES = (
    Case(
        name="selfstudy-randomneuron-cifar10",
        defense="random neurons",
        obfuscation=(Obfuscation.STOCHASTIC,),
        build=lambda: RandomNeurons(residual_net()),
        attacks={
            "plain": own_gradient(10),
            "undisturbed": AttackSpec(
                "the network without dropping, alone: PGD on the margin, to its last step",
                lambda _: replace(pgd(30, margin, rel_step_size=0.25), early_stop=False),
                view=_undisturbed,
            ),
        },
        train=None,
        base_case="plain-cifar10",
        draws=5,
        n_controls=16,
        note="the undefended residual network of plain-cifar10",
        **_SHARED,
    ),
    Case(
        name="selfstudy-transform-cifar10",
        defense="random transformations",
        obfuscation=(Obfuscation.STOCHASTIC,),
        build=lambda: Preprocessed(StrongAugmentation(), residual_net()),
        attacks={
            "plain": own_gradient(20),
            "eot": AttackSpec(
                "EOT over 8 draws: PGD on the margin, in long and in short steps",
                lambda _: Ensemble(
                    (pgd(20, _SURE, EOT(8), rel_step_size=0.25), pgd(40, _SURE, EOT(8), rel_step_size=0.1))
                ),
            ),
        },
        train=None,
        base_case="plain-cifar10",
        draws=5,
        n_controls=16,
        note="the network of plain-cifar10, trained with moved and mirrored images, not with these colours",
        **_SHARED,
    ),
)

"""Test-time training: what fools the network as it is stored fools it after a step on the image, too."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from unmask.attacks.combined.ensemble import Ensemble
from unmask.cases.case import AttackSpec, Case
from unmask.cases.common import DIGITS, apgd_ce, apgd_dlr, own_gradient
from unmask.cases.recipes import ClassifierTraining
from unmask.defenses.post2018.test_time.test_time_training import TestTimeTraining, rotations, with_group_norm
from unmask.gradients.bpda import ModelView
from unmask.kinds import Obfuscation
from unmask.nets import residual_net
from unmask.training.classifier import ClassifierRecipe

__all__ = ["CASES", "class_and_rotation"]


def class_and_rotation(model: Any, x: Tensor, y: Tensor, progress: float) -> tuple[Tensor, Tensor]:
    """The sum of the cross entropies of class and turn, one turn an image, and the logits (B, K) of the classes."""
    logits = model.static(x).float()
    turns = torch.arange(len(x), device=x.device) % 4  # batches are shuffled
    turned = rotations(x).unflatten(0, (4, len(x)))[turns, torch.arange(len(x), device=x.device)]
    found = model.rotation(model.encoder(turned)).float()
    return F.cross_entropy(logits, y) + F.cross_entropy(found, turns), logits


def _build() -> nn.Module:
    """Stem and first stage are shared; the second stage and what follows are each task's own."""
    classes, turns = (residual_net(1, (16, 32), whitening=0, classes=count, strided=True) for count in (10, 4))
    encoder, head, rotation = (with_group_norm(part) for part in (classes[:2], classes[2:], turns[2:]))
    return TestTimeTraining(encoder, head, rotation)


def _static(model: nn.Module) -> nn.Module:
    return ModelView(model, lambda whole, x: whole.static(x))  # type: ignore[operator]


CASES = (
    Case(
        name="test-time-training-digits",
        defense="test-time training",
        obfuscation=(Obfuscation.NONE,),
        data="digits",
        threat=DIGITS,
        citation="Sun et al., ICML 2020",
        build=_build,
        attacks={
            "plain": own_gradient(),
            "static": AttackSpec(
                "the network as it is stored, alone: APGD on cross entropy and DLR",
                lambda _: Ensemble((apgd_ce(), apgd_dlr())),
                view=_static,
            ),
        },
        train=ClassifierTraining("digits", ClassifierRecipe(epochs=60, batch=64), class_and_rotation),
        note="its authors claim robustness to shifts of the data, not to attacks; one step on an image's four turns",
    ),
)

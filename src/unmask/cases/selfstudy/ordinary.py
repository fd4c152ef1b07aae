"""Ordinary networks: another activation, another training, another scale of the logits, or nothing at all."""

from __future__ import annotations

from typing import Any

import torch.nn.functional as F
from torch import Tensor, nn

from unmask.attacks.auto_pgd.apgd import APGD
from unmask.attacks.combined.ensemble import Ensemble
from unmask.cases.case import AttackSpec, Case
from unmask.cases.common import CIFAR10, apgd_ce, apgd_dlr, cifar10_recipe, light_net, own_gradient
from unmask.cases.recipes import ClassifierTraining
from unmask.cases.selfstudy.training import CITATION, recipe, small_net
from unmask.defenses.preprocessed import Preprocessed
from unmask.defenses.selfstudy.activations import HighTemperature, JumpNet, smooth_jump
from unmask.gradients.bpda import bpda
from unmask.kinds import Obfuscation
from unmask.losses import margin, targeted_dlr
from unmask.nets import residual_net

__all__ = ["CASES", "growing_jump"]

_JUMP, _FULL = 5.0, 0.5  # its size, and the share of the training after which it has that


def growing_jump(model: JumpNet, x: Tensor, y: Tensor, progress: float) -> tuple[Tensor, Tensor]:
    """The cross entropy, with a jump that grows from 0 to 5 in the first half of the training; and the logits."""
    model.jump.size = _JUMP * min(1.0, progress / _FULL)
    logits = model(x).float()
    return F.cross_entropy(logits, y), logits


_APGD = AttackSpec("APGD on cross entropy and DLR", lambda _: Ensemble((apgd_ce(restarts=2), apgd_dlr())))

_SHARED: dict[str, Any] = {"data": "cifar10", "threat": CIFAR10, "citation": CITATION}

CASES = (
    Case(
        name="selfstudy-jump-cifar10",
        defense="jump activation",
        obfuscation=(Obfuscation.SHATTERED,),
        build=lambda: JumpNet(small_net(), _JUMP),
        attacks={
            "plain": own_gradient(),
            "bpda": AttackSpec(
                "BPDA, a sigmoid in place of each step in the backward pass; APGD on cross entropy and DLR",
                lambda _: Ensemble((apgd_ce(restarts=2), apgd_dlr(restarts=2))),
                view=bpda("jump", smooth_jump(0.5, _JUMP)),
            ),
        },
        train=ClassifierTraining("cifar10", recipe(4), growing_jump, start="selfstudy-labelsmooth-cifar10"),
        **_SHARED,
    ),
    Case(
        name="selfstudy-temperature-cifar10",
        defense="high softmax temperature in training",
        obfuscation=(Obfuscation.VANISHING,),
        build=lambda: HighTemperature(residual_net()),
        attacks={
            "plain": own_gradient(),
            "dlr": AttackSpec(
                "losses without a softmax: APGD on DLR and on the margin",
                lambda _: Ensemble((apgd_dlr(restarts=2), APGD(100, margin))),
            ),
        },
        train=None,
        base_case="plain-cifar10",
        note="the network of plain-cifar10; its logits are multiplied by the last temperature, 1.15^100",
        **_SHARED,
    ),
    Case(
        name="selfstudy-labelsmooth-cifar10",
        defense="label smoothing",
        obfuscation=(Obfuscation.NONE,),
        build=small_net,
        attacks={"plain": own_gradient(), "apgd": _APGD},
        train=ClassifierTraining("cifar10", cifar10_recipe(6, smoothing=5 / 9)),
        note="the right class has a target of 0.5, each other one of 0.056",
        **_SHARED,
    ),
    Case(
        name="selfstudy-baseline-cifar10",
        defense="none",
        obfuscation=(Obfuscation.NONE,),
        build=lambda: Preprocessed(nn.Identity(), residual_net()),
        attacks={"plain": own_gradient(), "apgd": _APGD},
        train=None,
        base_case="plain-cifar10",
        note="the network of plain-cifar10",
        **_SHARED,
    ),
    Case(
        name="selfstudy-advtrain-cifar10",
        defense="adversarial training",
        obfuscation=(Obfuscation.NONE,),
        build=lambda: Preprocessed(nn.Identity(), light_net()),
        attacks={
            "plain": own_gradient(),
            "ensemble": AttackSpec(
                "APGD on cross entropy, APGD on DLR with 3 targets",
                lambda _: Ensemble((apgd_ce(), APGD(100, targeted_dlr, targets=3))),
            ),
        },
        train=None,
        base_case="madry-cifar10",
        note="the network of madry-cifar10: 7 steps in Linf, where the course takes one step in L2",
        **_SHARED,
    ),
)

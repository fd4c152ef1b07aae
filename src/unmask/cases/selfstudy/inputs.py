"""Inputs as bits, and blurred inputs: the first broken by BPDA through a ramp, the second by its own gradient."""

from __future__ import annotations

from typing import Any

from unmask.attacks.combined.ensemble import Ensemble
from unmask.cases.case import AttackSpec, Case
from unmask.cases.common import CIFAR10, apgd_ce, apgd_dlr, own_gradient
from unmask.cases.recipes import ClassifierTraining
from unmask.cases.selfstudy.training import CITATION, behind_transform, recipe, small_net
from unmask.defenses.preprocessed import Preprocessed
from unmask.defenses.selfstudy.inputs import Blur, Discretize, sloped
from unmask.gradients.bpda import bpda
from unmask.kinds import Obfuscation

__all__ = ["CASES"]

_LEVELS = 20

_SHARED: dict[str, Any] = {"data": "cifar10", "threat": CIFAR10, "citation": CITATION}

CASES = (
    Case(
        name="selfstudy-discretize-cifar10",
        defense="discretization",
        obfuscation=(Obfuscation.SHATTERED,),
        build=lambda: Preprocessed(Discretize(_LEVELS), small_net(3 * _LEVELS)),
        attacks={
            "plain": own_gradient(),
            "bpda": AttackSpec(
                "BPDA through a ramp over the code's steps; APGD on cross entropy and DLR",
                lambda _: Ensemble((apgd_ce(restarts=2), apgd_dlr(restarts=2))),
                view=bpda("transform", sloped(_LEVELS)),
            ),
        },
        train=ClassifierTraining("cifar10", recipe()),
        **_SHARED,
    ),
    Case(
        name="selfstudy-blur-cifar10",
        defense="blur",
        obfuscation=(Obfuscation.NONE,),
        build=lambda: Preprocessed(Blur(), small_net()),
        attacks={
            "plain": own_gradient(),
            "apgd": AttackSpec("APGD on cross entropy and DLR", lambda _: Ensemble((apgd_ce(restarts=2), apgd_dlr()))),
        },
        train=ClassifierTraining("cifar10", recipe(2), behind_transform, start="selfstudy-labelsmooth-cifar10"),
        note="no control: the blur is linear, so that its gradient is correct, and masked only where it is computed "
        "outside of torch",
        **_SHARED,
    ),
)

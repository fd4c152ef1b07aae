"""Thermometer encoding: zero gradients, broken by BPDA through a ramp."""

from __future__ import annotations

from unmask.attacks.auto_pgd.apgd import APGD
from unmask.attacks.combined.ensemble import Ensemble
from unmask.cases.case import AttackSpec, Case
from unmask.cases.common import CIFAR10, DIGITS, MNIST, apgd_ce, apgd_dlr, cifar10_recipe, light_net, own_gradient
from unmask.cases.iclr2018.logit_space import LogitSpace
from unmask.cases.literature import ALONE, earlier_run, robust_ml, table_of_2018
from unmask.cases.recipes import ClassifierTraining
from unmask.defenses.thermometer import Thermometer, ramp
from unmask.gradients.bpda import bpda
from unmask.kinds import Obfuscation
from unmask.losses import targeted_dlr
from unmask.nets import conv_net, residual_net
from unmask.training.classifier import ClassifierRecipe

__all__ = ["CASES"]

_CITATION = "Buckman et al., ICLR 2018"
_LEVELS = 16


def _attackers(also: str, *more: APGD) -> dict[str, AttackSpec]:
    return {
        "plain": own_gradient(),
        "bpda": AttackSpec(
            f"BPDA through a ramp over the code's steps; APGD on cross entropy{also}",
            lambda _: Ensemble((apgd_ce(restarts=2), apgd_dlr(restarts=2), *more)),
            view=bpda("encode", ramp(_LEVELS, width=4.0)),
        ),
    }


_ATTACKERS = _attackers(" and DLR")
_MORE = _attackers(", on DLR, and on DLR with 9 targets", APGD(100, targeted_dlr, targets=9))

CASES = (
    Case(
        name="thermometer-digits",
        defense="thermometer encoding",
        obfuscation=(Obfuscation.SHATTERED,),
        data="digits",
        threat=DIGITS,
        citation=_CITATION,
        build=lambda: Thermometer(conv_net(_LEVELS, 8, (16, 32), 64), _LEVELS),
        attacks=_ATTACKERS,
        train=ClassifierTraining("digits", ClassifierRecipe(epochs=60, batch=64, shift=1)),
    ),
    Case(
        name="thermometer-mnist",
        defense="thermometer encoding",
        obfuscation=(Obfuscation.SHATTERED,),
        data="mnist",
        threat=MNIST,
        citation=_CITATION,
        build=lambda: Thermometer(conv_net(_LEVELS, 28, (16, 32), 64), _LEVELS),
        attacks=_ATTACKERS,
        train=ClassifierTraining("mnist", ClassifierRecipe(epochs=5, shift=2)),
        note="trained on clean images; the authors' claims for MNIST are for adversarially trained networks",
    ),
    Case(
        name="thermometer-cifar10",
        defense="thermometer encoding",
        obfuscation=(Obfuscation.SHATTERED,),
        data="cifar10",
        threat=CIFAR10,
        citation=_CITATION,
        build=lambda: Thermometer(residual_net(3 * _LEVELS, whitening=24), _LEVELS),
        attacks=_MORE,
        train=ClassifierTraining("cifar10", cifar10_recipe(14, smoothing=0.1)),
        published=table_of_2018(0.0, ALONE),
        replicated=earlier_run(0.02),
        note="trained on clean images",
    ),
    Case(
        name="thermometer-adv-cifar10",
        defense="thermometer encoding, adversarially trained",
        obfuscation=(Obfuscation.SHATTERED,),
        data="cifar10",
        threat=CIFAR10,
        citation=_CITATION,
        build=lambda: Thermometer(light_net(3 * _LEVELS), _LEVELS),
        attacks=_MORE,
        train=ClassifierTraining("cifar10", cifar10_recipe(10, LogitSpace(CIFAR10, _LEVELS))),
        claimed=robust_ml(0.79),
        published=robust_ml(0.30, "left by Athalye, Carlini & Wagner"),
        note="trained with LS-PGA, 7 steps; the network of madry-cifar10 behind the encoding",
    ),
)
